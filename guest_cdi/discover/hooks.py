# SPDX-License-Identifier: Apache-2.0
"""Writes the hooks of a document: which program, which arguments, and which hooks are wanted at all."""

from __future__ import annotations

import sys

from guest_cdi.lean.hookwords import RUN, SEPARATOR
from guest_cdi.lean.light import Enum, Iterable, dataclass
from guest_cdi.spec import Hook

CREATE_SYMLINKS = "create-symlinks"
ENABLE_CUDA_COMPAT = "enable-cuda-compat"
UPDATE_LDCACHE = "update-ldcache"
DISABLE_NODE_MODIFICATION = "disable-device-node-modification"
UPDATE_APPLICATION_PROFILE = "update-application-profile"
CHMOD = "chmod"
ALL = "all"

NAMES = (CREATE_SYMLINKS, ENABLE_CUDA_COMPAT, UPDATE_LDCACHE, DISABLE_NODE_MODIFICATION, UPDATE_APPLICATION_PROFILE,
         CHMOD)

# A workaround for a crun that is long repaired.
OFF_BY_DEFAULT = frozenset({CHMOD})
ENVIRONMENT = ("NVIDIA_CTK_DEBUG=false",)
# kata-agent gives a hook ten seconds unless it says more, and lets the container start without what the hook was to do.
COMBINED_TIMEOUT_S = 60


class HookStyle(Enum):
    """Whether a container starts the hook program once for each hook, or once for all that every device shares."""

    AUTO = "auto"               # combined if the hook program is the one that is running, frozen
    SEPARATE = "separate"
    COMBINED = "combined"


def running_program() -> str:
    """The frozen program that is running; empty for sources, of which no hook program can be made by a link."""
    return sys.executable if getattr(sys, "frozen", False) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookProgram:
    path: str
    is_combined: bool = False
    ldconfig_path: str = ""
    disabled: frozenset[str] = frozenset()
    enabled: frozenset[str] = frozenset()       # wins over `disabled`

    def write(self, name: str, arguments: Iterable[str] = ()) -> tuple[Hook, ...]:
        """The hook `name`, or nothing where it is not wanted."""
        if not self.wants(name):
            return ()
        return (self._hook((name, *arguments)),)

    def link(self, links: Iterable[str]) -> tuple[Hook, ...]:
        """The create-symlinks hook for `target::link` pairs; none without a pair, even where it is enabled by name."""
        arguments = repeat("--link", links)
        return self.write(CREATE_SYMLINKS, arguments) if arguments else ()

    def combine(self, hooks: tuple[Hook, ...]) -> tuple[Hook, ...]:
        """The same hooks in the same order, in one start where that is wanted and saves one."""
        if not self.is_combined or len(hooks) <= 1:
            return hooks
        skipped = len(self._fixed())
        words = [word for hook in hooks for word in (SEPARATOR, *hook.args[skipped:])]
        return (self._hook((RUN, *words[1:]), COMBINED_TIMEOUT_S),)

    def _hook(self, arguments: tuple[str, ...], timeout_s: int | None = None) -> Hook:
        return Hook(hook_name="createContainer", path=self.path, args=(*self._fixed(), *arguments), env=ENVIRONMENT,
                    timeout=timeout_s)

    def _fixed(self) -> tuple[str, ...]:
        """nvidia-ctk is the older home of the hooks; there they are below one subcommand."""
        program = self.path.rpartition("/")[2]
        return (program, "hook") if program == "nvidia-ctk" else (program,)

    def wants(self, name: str) -> bool:
        return name in self.enabled or not (name in self.disabled or name in OFF_BY_DEFAULT or ALL in self.disabled)


def repeat(flag: str, values: Iterable[str]) -> tuple[str, ...]:
    return tuple(word for value in values for word in (flag, value))
