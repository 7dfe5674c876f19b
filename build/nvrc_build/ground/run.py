# SPDX-License-Identifier: Apache-2.0
"""The only door to other programs: argv list, explicit environment, no standard input, a deadline, output captured.

Does not know any program by name. What one prints has a limit, too: some print a line for each block of a file. A
failure carries the command in a form that can be pasted and the last lines it printed. Ctrl-C ends the child's whole
session before it is passed on, so that nothing keeps running behind the prompt.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from nvrc_build.ground.errors import BuildError, WrongCallError

# Locale, time zone and hash seed are inputs of a build; what the caller's shell exports is not.
CLEAN_ENV: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "HOME": "/nonexistent",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")
_TAIL_LINES, _TAIL_BYTES = 15, 1 << 16
_MOST_OUTPUT, _CHUNK = 64 << 20, 1 << 16
_LOOK_S = 0.1
# As it is told of a program, and by the sandbox of one inside.
_TOO_LARGE = (-signal.SIGXFSZ, 128 + signal.SIGXFSZ)


def clean_env(extra: Mapping[str, str] | None = None, *, network: bool = False) -> dict[str, str]:
    env = dict(CLEAN_ENV)
    if network:
        env.update({name: os.environ[name] for name in _PASSED_ON if name in os.environ})
    env.update(extra or {})
    return env


def agent_env() -> dict[str, str]:
    """Where an agent with keys listens; the one thing of the caller's shell that signing needs."""
    return {name: os.environ[name] for name in ("SSH_AUTH_SOCK",) if name in os.environ}


def find(program: str, package: str) -> str:
    found = shutil.which(program, path=CLEAN_ENV["PATH"])
    if found is None:
        raise WrongCallError(f"program {program!r} is not installed", f"install the package {package}")
    return found


def _do_nothing() -> None:
    pass


def run(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None,
        timeout_s: float = 600, what: str = "", watch: Callable[[], None] = _do_nothing, most_errors: int = -1) -> str:
    """Run to its end and return standard output; anything but exit 0 raises.

    `watch` is called again and again meanwhile, and what it raises ends the program. `most_errors`: of a program that
    ends with 0 whatever has failed, how many lines on standard error are none of a failure.
    """
    command = [str(word) for word in argv]
    child = None
    try:
        with _interrupt_held_back():
            child = subprocess.Popen(command, env=dict(env) if env is not None else clean_env(), cwd=cwd,
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     start_new_session=True, umask=0o022)
        out, err = _listen(child, what or command[0], timeout_s, watch)
    except BaseException as reason:
        if child is not None:
            with child:
                _end_session(child)
        if isinstance(reason, subprocess.TimeoutExpired):
            raise BuildError(f"{what or command[0]} did not end within {timeout_s:g} s",
                             f"run: {shlex.join(command)}") from reason
        raise
    if child.returncode in _TOO_LARGE:
        raise BuildError(f"{what or command[0]} was to write a file larger than any that an image may have",
                         "give a file that is as large as it says")
    if child.returncode != 0 or 0 <= most_errors < len(err.splitlines()):
        tail = tuple(line.strip() for line in (out + err).splitlines() if line.strip())[-_TAIL_LINES:]
        raise BuildError(f"{what or command[0]} failed with status {child.returncode}",
                         f"run: {shlex.join(command)}", findings=tail)
    return out


def _listen(child: subprocess.Popen[bytes], what: str, timeout_s: float, watch: Callable[[], None]) -> tuple[str, str]:
    """Both of its streams until they end, and it with them."""
    deadline = time.monotonic() + timeout_s
    heard = {stream: bytearray() for stream in (child.stdout, child.stderr) if stream is not None}
    with selectors.DefaultSelector() as streams:
        for stream, data in heard.items():
            streams.register(stream, selectors.EVENT_READ, data)
        while streams.get_map() or not _has_ended(child):
            _hear(streams)
            if sum(map(len, heard.values())) > _MOST_OUTPUT:
                raise BuildError(f"{what} prints more than {_MOST_OUTPUT >> 20} MiB",
                                 "give it files that are not damaged", findings=tuple(map(_last_line, heard.values())))
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(child.args, timeout_s)
            watch()
    for stream in heard:
        stream.close()
    out, err = (data.decode(errors="replace") for data in heard.values())
    return out, err


def _hear(streams: selectors.BaseSelector) -> None:
    for key, _ in streams.select(_LOOK_S) if streams.get_map() else ():
        chunk = os.read(key.fd, _CHUNK)
        key.data.extend(chunk)
        if not chunk:
            streams.unregister(key.fileobj)


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_LOOK_S)
    return child.returncode is not None


def _last_line(printed: bytes | bytearray) -> str:
    return printed[-_TAIL_BYTES:].decode(errors="replace").strip().rpartition("\n")[2]


def save(argv: Sequence[str | Path], target: Path, most_bytes: int, *, what: str, timeout_s: float = 600) -> None:
    """What it prints as a file, which may be larger than anybody said: no more than so many bytes of it."""
    limit = [find("prlimit", "util-linux"), f"--fsize={most_bytes}", "--"]
    command = [*limit, *(str(word) for word in argv)]
    with target.open("wb") as out, open(os.memfd_create("errors"), "w+b") as errors:
        child = subprocess.Popen(command, env=clean_env(), stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
                                 start_new_session=True, umask=0o022)
        try:
            status = child.wait(timeout=timeout_s)
        except BaseException as reason:
            _end_session(child)
            if isinstance(reason, subprocess.TimeoutExpired):
                raise BuildError(f"{what} did not end within {timeout_s:g} s",
                                 f"run: {shlex.join(command)}") from reason
            raise
        errors.seek(0)
        tail = tuple(errors.read(_TAIL_BYTES).decode(errors="replace").splitlines())[-_TAIL_LINES:]
    if target.stat().st_size >= most_bytes:
        raise BuildError(f"{what} gives more than {most_bytes / 1e9:.1f} GB", "give a file that is as large as it says")
    if status != 0:
        raise BuildError(f"{what} failed with status {status}", f"run: {shlex.join(command)}", findings=tail)


@contextlib.contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Ctrl-C while a program is being started is raised when it is in hand: nobody could end what has no name yet."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python raises it in the main thread alone
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt


def _end_session(child: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """All of it, not the first program alone: what dpkg-deb has started writes on for a moment after it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        if _is_over(child, patience_s=5):
            return


def _is_over(child: subprocess.Popen[str] | subprocess.Popen[bytes], patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if child.poll() is not None:
            try:
                os.killpg(child.pid, 0)
            except ProcessLookupError:
                return True
        time.sleep(0.01)
    return False
