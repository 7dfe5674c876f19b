# SPDX-License-Identifier: Apache-2.0
"""`guest-cdi` and `python -m guest_cdi`: dispatch only. Called as nvidia-cdi-hook, the program is the hooks."""

from __future__ import annotations

import os
import sys

from guest_cdi.hooks.main import hook_arguments, run_and_exit
from guest_cdi.lean.light import Sequence

USAGE = """usage: guest-cdi COMMAND [OPTION...]

  generate    write the CDI document for the NVIDIA GPUs of this machine
  validate    check documents, ours or others'
  inject      apply devices to an OCI bundle
  hook        run a createContainer hook

examples:
  guest-cdi generate --output=/var/run/cdi/nvidia.yaml
  guest-cdi validate /var/run/cdi/nvidia.yaml
  guest-cdi inject --bundle DIR nvidia.com/gpu=0

"guest-cdi COMMAND --help" has the options of each. Exit status: 0 done, 1 a finding or failure, 2 a wrong command line.
"""

COMMANDS = ("generate", "validate", "inject", "hook")


def main(argv: Sequence[str] | None = None) -> int:
    """Without `argv` it is the whole process, and a hook then ends the process here and does not return."""
    words = list(sys.argv if argv is None else argv)
    called = hook_arguments(words)
    try:
        if called is not None and argv is None:
            run_and_exit(called)
        status = run("hook", called) if called is not None else dispatch(words)
    except SystemExit as stop:  # the parser has said why, or printed help
        if argv is not None:
            raise
        status = stop.code if isinstance(stop.code, int) else 2
    except BrokenPipeError as err:
        print(f"guest-cdi: error: standard output took no more: {err.strerror}", file=sys.stderr)
        status = 1
    except Exception as err:
        print(f"guest-cdi: error: {describe_internal(err)}", file=sys.stderr)
        status = 1
    return status if argv is not None else flush_output(status)


def flush_output(status: int) -> int:
    """What was printed is not said before somebody took it; the interpreter would find out after the exit status."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as err:
        if not status:
            print(f"guest-cdi: error: standard output took no more: {err.strerror}", file=sys.stderr)
        # What is left must not be tried again on the way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
        return 1
    return status


def describe_internal(err: Exception) -> str:
    """An exception that no part of the program expected, as one line with the place that raised it."""
    from guest_cdi.lean.errors import CdiError

    trace = err.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else "unknown place"
    return str(CdiError("E_CDI_INTERNAL", f"{type(err).__name__} at {place}: {err}"))


def dispatch(words: list[str]) -> int:
    if words[1:2] in (["--help"], ["-h"]):
        print(USAGE, end="")
        return 0
    if words[1:2] == ["--version"]:
        from guest_cdi import __version__

        print(f"guest-cdi {__version__}")
        return 0
    return run(words[1] if len(words) > 1 else "", words[2:])


def run(command: str, arguments: Sequence[str]) -> int:
    """Each command is imported only when it is asked for: a hook must start in milliseconds."""
    match command:
        case "generate":
            from guest_cdi import cli

            return cli.main(arguments)
        case "validate":
            from guest_cdi import validate

            return validate.main(arguments)
        case "inject":
            from guest_cdi import inject

            return inject.main(arguments)
        case "hook":
            from guest_cdi.hooks import main as hooks

            return hooks.main(list(arguments), sys.stdin.buffer)
    print(_refusal(command), end="", file=sys.stderr)
    return 2


def _refusal(command: str) -> str:
    """The command that was probably meant, else all of them."""
    from difflib import get_close_matches

    near = get_close_matches(command, COMMANDS, n=1)
    return f"guest-cdi: error: no command {command[:40]!a}, did you mean {near[0]}?\n" if near else USAGE


if __name__ == "__main__":
    sys.exit(main())
