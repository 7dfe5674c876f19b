# SPDX-License-Identifier: Apache-2.0
"""nvidia-ctk's environment variables for `cdi generate`: each stands for a flag that the command line does not have.

An empty one counts as not set. Lists are joined by commas there, as in the flags.
"""

from __future__ import annotations

from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import Mapping, Sequence

_PREFIX = "NVIDIA_CTK_CDI_GENERATE_"
# Variable: the flag and its other names.
VARIABLES: Mapping[str, tuple[str, ...]] = {
    "NVIDIA_CTK_CDI_OUTPUT_FILE_PATH": ("--output",),
    f"{_PREFIX}OUTPUT_FORMAT": ("--format",),
    f"{_PREFIX}MODE": ("--mode", "--discovery-mode"),
    "NVIDIA_CTK_DRIVER_ROOT": ("--driver-root",),
    "NVIDIA_CTK_DEV_ROOT": ("--dev-root",),
    "NVIDIA_CTK_CDI_HOOK_PATH": ("--nvidia-cdi-hook-path", "--nvidia-ctk-path"),
    f"{_PREFIX}LDCONFIG_PATH": ("--ldconfig-path",),
    f"{_PREFIX}DEVICE_NAME_STRATEGIES": ("--device-name-strategy",),
    f"{_PREFIX}DEVICE_IDS": ("--device-id", "--device-ids", "--device", "--devices"),
    f"{_PREFIX}VENDOR": ("--vendor", "--cdi-vendor"),
    f"{_PREFIX}CLASS": ("--class", "--cdi-class"),
    f"{_PREFIX}LIBRARY_SEARCH_PATHS": ("--library-search-path",),
    f"{_PREFIX}CONFIG_SEARCH_PATHS": ("--config-search-path",),
    f"{_PREFIX}DISABLED_HOOKS": ("--disable-hook", "--disable-hooks"),
    f"{_PREFIX}ENABLED_HOOKS": ("--enable-hook", "--enable-hooks"),
    f"{_PREFIX}FEATURE_FLAGS": ("--feature-flag", "--feature-flags"),
    f"{_PREFIX}NO_ALL_DEVICE": ("--no-all-device",),
}
# Of the flags without a value; the words of Go's strconv.ParseBool.
_SWITCHES = ("--no-all-device",)
_BOOLEANS = {**dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
             **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False)}


def add_variables(argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The command line with a flag for each variable that is set and whose flag is missing, before the others."""
    given = {str(word).partition("=")[0] for word in argv}
    more = [_as_flag(name, flags[0], value) for name, flags in VARIABLES.items()
            if (value := environment.get(name, "")) and not given.intersection(flags)]
    return [*filter(None, more), *argv]


def _as_flag(name: str, flag: str, value: str) -> str:
    if flag not in _SWITCHES:
        return f"{flag}={value}"
    if value not in _BOOLEANS:
        raise CdiError("E_CDI_USAGE", f"{name}={value!a}: not a truth value; write true or false")
    return flag if _BOOLEANS[value] else ""
