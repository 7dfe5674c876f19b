# SPDX-License-Identifier: Apache-2.0
"""The only door to other programs: argv list, explicit environment, no standard input, a deadline, output captured.

Does not know any program by name. A failure carries the command in a form that can be pasted and the last lines it
printed. Ctrl-C ends the child's whole session before it is passed on, so that nothing keeps running behind the prompt.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from nvrc_build.ground.errors import BuildError

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
_TAIL_LINES = 15


def clean_env(extra: Mapping[str, str] | None = None, *, network: bool = False) -> dict[str, str]:
    env = dict(CLEAN_ENV)
    if network:
        env.update({name: os.environ[name] for name in _PASSED_ON if name in os.environ})
    env.update(extra or {})
    return env


def find(program: str, package: str) -> str:
    found = shutil.which(program, path=CLEAN_ENV["PATH"])
    if found is None:
        raise BuildError(f"program {program!r} is not installed", f"install the package {package}")
    return found


def run(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None,
        timeout_s: float = 600, what: str = "") -> str:
    """Run to its end and return standard output; anything but exit 0 raises."""
    command = [str(word) for word in argv]
    with subprocess.Popen(command, env=dict(env) if env is not None else clean_env(), cwd=cwd,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, errors="replace", start_new_session=True, umask=0o022) as child:
        try:
            out, err = child.communicate(timeout=timeout_s)
        except BaseException as reason:
            _end_session(child)
            if isinstance(reason, subprocess.TimeoutExpired):
                raise BuildError(f"{what or command[0]} did not end within {timeout_s:g} s",
                                 f"run: {shlex.join(command)}") from reason
            raise
    if child.returncode != 0:
        tail = tuple(line.strip() for line in (out + err).splitlines() if line.strip())[-_TAIL_LINES:]
        raise BuildError(f"{what or command[0]} failed with status {child.returncode}",
                         f"run: {shlex.join(command)}", findings=tail)
    return out


def _end_session(child: subprocess.Popen[str]) -> None:
    try:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait(timeout=5)
    except ProcessLookupError:
        return
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
