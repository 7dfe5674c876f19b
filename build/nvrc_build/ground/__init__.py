# SPDX-License-Identifier: Apache-2.0
"""What every room of the factory stands on: its exception, the door to programs, the cache, what a person sees."""
