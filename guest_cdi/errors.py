# SPDX-License-Identifier: Apache-2.0
"""The package's codes and exception, for those who use it as a library."""

from guest_cdi.lean.errors import BY_CODE, CODES, CdiError

__all__ = ("BY_CODE", "CODES", "CdiError")
