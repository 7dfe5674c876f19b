# SPDX-License-Identifier: Apache-2.0
"""A hook's process from its command line to its exit status.

main() is the whole of "guest-cdi hook" and of the program when it is called nvidia-cdi-hook. It runs with this
machine's rights over a file tree that an attacker made; docs/guest-cdi-hooks.md says what is relied on.
"""

from __future__ import annotations

import os
import sys

from guest_cdi.lean.hookwords import HOOK_PROGRAM
from guest_cdi.lean.light import TYPE_CHECKING, BinaryIO, NoReturn, Sequence

if TYPE_CHECKING:
    from guest_cdi.hooks.arguments import Call
    from guest_cdi.hooks.root import Root

DEBUG_VARIABLES = ("NVIDIA_CTK_DEBUG", "NVIDIA_CDI_DEBUG")
HELP_WORDS = frozenset(("-h", "--help", "help"))
TRUE_WORDS = ("1", "t", "T", "true", "TRUE", "True")


def hook_arguments(argv: Sequence[str]) -> list[str] | None:
    """The arguments of main() when the program was called as a hook, else None.

    nvidia-cdi-hook NAME ... and nvidia-ctk hook NAME ... are the two ways in which CDI documents call it; any other
    name of the program is that of guest-cdi.
    """
    program = os.path.basename(argv[0]) if argv else ""
    words = list(argv[1:])
    if program == HOOK_PROGRAM:
        return words
    return words[1:] if words[:1] == ["hook"] else None


def run_and_exit(argv: Sequence[str]) -> NoReturn:
    """main() for a process that is nothing else: taking the interpreter down in order is a seventh of a hook's time."""
    status = main(list(argv), sys.stdin.buffer)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or 1
    os._exit(status)


def main(argv: list[str], stdin: BinaryIO) -> int:
    """Run the hooks that argv names; 0 done, 1 a hook failed, 2 the command line is wrong."""
    debug = any(os.environ.get(name) in TRUE_WORDS for name in DEBUG_VARIABLES)
    # The runtime may have handed down the container's own variables: nothing below may see them.
    os.environ.clear()
    os.umask(0o022)

    from guest_cdi.hooks import arguments, state
    from guest_cdi.hooks.root import Root
    from guest_cdi.lean.errors import CdiError

    words, debug = _global_flags(argv, debug)
    if HELP_WORDS.intersection(words[:2]):
        sys.stdout.write(arguments.usage())
        return 0
    try:
        calls = arguments.parse_calls(words)
        with Root(state.container_root(calls[0].state_file, stdin)) as root:
            # Like hooks of their own, later ones run although an earlier one failed.
            return max([_run(call, root, debug=debug) for call in calls])
    except CdiError as err:
        _say(f"guest-cdi hook: {err}")
        return 2 if err.code == "E_CDI_USAGE" else 1


def _run(call: Call, root: Root, *, debug: bool) -> int:
    from guest_cdi.hooks.refusals import explain
    from guest_cdi.lean.errors import CdiError

    try:
        done = call.action(root)
    except (CdiError, OSError) as err:
        _say(f"guest-cdi hook {call.name}: {err if isinstance(err, CdiError) else explain(err)}")
        return 1
    if debug:
        for line in done:
            _say(f"guest-cdi hook {call.name}: {line}")
    return 0


def _global_flags(argv: Sequence[str], debug: bool) -> tuple[list[str], bool]:
    words = list(argv)
    while words and words[0] in ("--debug", "-d", "--quiet"):
        debug = words.pop(0) != "--quiet"
    return words, debug


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
