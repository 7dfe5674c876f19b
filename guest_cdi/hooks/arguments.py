# SPDX-License-Identifier: Apache-2.0
"""The table of hooks with their options, and the parser made from it.

Accepted are the reference's spellings: "--flag value", "--flag=value", and the same with one dash. A value is taken
as it is, not split at commas; what only begins like an option's name is an error. argparse would cost a third of a
hook's time.
"""

from __future__ import annotations

from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.hookwords import RUN, split_calls
from guest_cdi.lean.light import TYPE_CHECKING, Callable, NamedTuple, Sequence

if TYPE_CHECKING:
    from guest_cdi.hooks.action import Action, Values


class Option(NamedTuple):
    name: str
    value: str
    help: str
    repeated: bool = False
    default: tuple[str, ...] = ()


class Hook(NamedTuple):
    name: str
    prepare: Callable[[Values], Action]
    help: str
    options: tuple[Option, ...] = ()


class Call(NamedTuple):
    """One hook to run: its action is ready, every argument of it has been checked."""

    name: str
    action: Action
    state_file: str


# Each module is imported when its hook is called: this time is paid at every start of a container.
def _symlinks(values: Values) -> Action:
    from guest_cdi.hooks import symlinks

    return symlinks.prepare(values)


def _compat(values: Values) -> Action:
    from guest_cdi.hooks import compat

    return compat.prepare(values)


def _ldcache(values: Values) -> Action:
    from guest_cdi.hooks import ldcache

    return ldcache.prepare(values)


def _params(values: Values) -> Action:
    from guest_cdi.hooks import params

    return params.prepare(values)


def _profile(values: Values) -> Action:
    from guest_cdi.hooks import profile

    return profile.prepare(values)


def _chmod(values: Values) -> Action:
    from guest_cdi.hooks import chmod

    return chmod.prepare(values)


STATE = Option("container-spec", "FILE", "file with the OCI state; '-' or nothing: standard input")

HOOKS: tuple[Hook, ...] = (
    Hook("create-symlinks", _symlinks, "make symbolic links in the container", (
        Option("link", "TARGET::LINK", "what the link says, and where it is made", repeated=True),)),
    Hook("enable-cuda-compat", _compat, "prefer the container's CUDA compat libraries if they are newer", (
        Option("host-driver-version", "VERSION", "version of the driver in this machine"),
        Option("host-cuda-version", "VERSION", "CUDA version that this driver supports"),
        Option("cuda-compat-container-root", "DIR", "where they are", default=("/usr/local/cuda/compat",)))),
    Hook("update-ldcache", _ldcache, "run this machine's ldconfig, confined to the container", (
        Option("ldconfig-path", "FILE", "ldconfig of this machine, or FILE.real", default=("/sbin/ldconfig",)),
        Option("folder", "DIR", "directory in the container that the cache must cover", repeated=True))),
    Hook("disable-device-node-modification", _params, "keep the driver's libraries from making device nodes"),
    Hook("update-application-profile", _profile, "restrict EGL and Vulkan to the container's GPUs"),
    Hook("chmod", _chmod, "set the mode of files and directories in the container", (
        Option("mode", "OCTAL", "permission bits"),
        Option("path", "PATH", "what gets the mode; a missing one is passed over", repeated=True))),
)

BY_NAME = {hook.name: hook for hook in HOOKS}


def parse_calls(argv: Sequence[str]) -> tuple[Call, ...]:
    """NAME OPTIONS..., or run NAME OPTIONS... -- NAME OPTIONS... for several hooks in one start."""
    if argv[:1] != [RUN]:
        return (_parse_call(argv),)
    calls: list[Call] = []
    mistakes: list[str] = []
    for part in split_calls(argv):
        try:
            calls.append(_parse_call(part))
        except CdiError as err:
            mistakes.append(err.what)
    if len({call.state_file for call in calls}) > 1:
        mistakes.append(f"{RUN}: --{STATE.name} must be the same for all hooks")
    if mistakes:
        raise usage_error("; ".join(mistakes))
    return tuple(calls)


def usage_error(what: str) -> CdiError:
    return CdiError("E_CDI_USAGE", what, "run 'guest-cdi hook --help' for names, options and examples")


def _parse_call(argv: Sequence[str]) -> Call:
    if not argv:
        raise usage_error("no hook is named")
    hook = BY_NAME.get(argv[0])
    if hook is None:
        raise usage_error(f"unknown hook {argv[0]!r}; known are {', '.join(BY_NAME)}")
    values = _parse_options(hook, argv[1:])
    state_file = values.get(STATE.name, ("",))[0]
    return Call(hook.name, hook.prepare(values), "" if state_file == "-" else state_file)


def _parse_options(hook: Hook, words: Sequence[str]) -> Values:
    options = {option.name: option for option in (*hook.options, STATE)}
    values: dict[str, tuple[str, ...]] = {}
    pending = list(words)
    while pending:
        word = pending.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        option = options.get(name)
        if option is None or not 1 <= len(word) - len(word.lstrip("-")) <= 2:
            raise usage_error(f"{hook.name}: unknown argument {word!r}")
        if not equals:
            if not pending:
                raise usage_error(f"{hook.name}: --{name} needs a value, {option.value}")
            value = pending.pop(0)
        if name in values and not option.repeated:
            raise usage_error(f"{hook.name}: --{name} is given twice")
        values[name] = (*values.get(name, ()), value)
    defaults = {option.name: option.default for option in hook.options}
    return {**defaults, **values}


def usage() -> str:
    lines = [
        "usage: guest-cdi hook NAME [OPTION...]",
        f"       guest-cdi hook {RUN} NAME [OPTION...] -- NAME [OPTION...] ...",
        "The OCI state is read from standard input.",
        "A program name of nvidia-cdi-hook stands for 'guest-cdi hook'.",
        "",
    ]
    for hook in HOOKS:
        lines.append(f"  {hook.name}: {hook.help}")
        lines.extend(f"      --{option.name} {option.value}  {option.help}" for option in hook.options)
    lines += [
        f"  every hook: --{STATE.name} {STATE.value}  {STATE.help}",
        "",
        "examples:",
        "  guest-cdi hook create-symlinks --link libcuda.so.1::/usr/lib/x86_64-linux-gnu/libcuda.so < state.json",
        "  guest-cdi hook run disable-device-node-modification -- update-ldcache --folder /usr/lib64 < state.json",
        "",
    ]
    return "\n".join(lines)
