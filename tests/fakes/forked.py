# SPDX-License-Identifier: Apache-2.0
"""A command as a process that begins with all that this one has loaded: a fork takes hundredths of a second, an interpreter
and its imports tenths. It has a folder, an environment, and files for its streams of its own; not the start of an interpreter.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run_forked(main: Callable[[Sequence[str]], int], words: Sequence[str], folder: Path, env: Mapping[str, str]) -> Ended:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if not (child := os.fork()):
            _be(main, words, folder, env, (out, err))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return Ended(status, *(_read(stream) for stream in (out, err)))


def _be(main: Callable[[Sequence[str]], int], words: Sequence[str], folder: Path, env: Mapping[str, str],
        streams: tuple[BinaryIO, BinaryIO]) -> None:
    status: object = 70
    try:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(env)
        for number, stream in enumerate(streams, 1):
            os.dup2(stream.fileno(), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8") for number in (1, 2))
        status = main(words)
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 70)


def _read(stream: BinaryIO) -> str:
    stream.seek(0)
    return stream.read().decode()
