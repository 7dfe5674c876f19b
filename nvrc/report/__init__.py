# SPDX-License-Identifier: Apache-2.0
"""What a boot and a life are told as: report, status, pictures, and the plan before either."""
