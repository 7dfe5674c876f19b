# SPDX-License-Identifier: Apache-2.0
"""What comes from outside: packages, wheels, given files; pinned, fetched, verified, unpacked."""
