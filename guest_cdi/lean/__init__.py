# SPDX-License-Identifier: Apache-2.0
"""The ground floor of everything that runs in the guest: small stand-ins for slow modules of the standard library."""
