# SPDX-License-Identifier: Apache-2.0
"""Words of a hook's command line that a CDI document and the hook program must agree on."""

HOOK_PROGRAM = "nvidia-cdi-hook"
# Several hooks in one start, parted by the separator: our own, the reference has no such hook.
RUN = "run"
SEPARATOR = "--"
