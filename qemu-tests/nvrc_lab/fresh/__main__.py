# SPDX-License-Identifier: Apache-2.0
"""`./dev fresh`: run a command of the checkout on a machine that nobody has worked on. Standard library only.

A minimal Debian or Ubuntu with Python and git (base.py), a clone of HEAD in it, entered in namespaces of its own
(cell.py). What was installed by hand on this machine is not there, so a step of installation that is missing shows.
What the command leaves in out/test and out/dev is kept; everything else goes with the root, also after Ctrl-C, and
after a kill with the next run.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from nvrc_lab.fresh import base
from nvrc_lab.fresh.carried import MARK, carry, environment
from nvrc_lab.fresh.cell import cell_argv
from nvrc_lab.fresh.sources import SUITES
from nvrc_lab.ground.errors import LabError

DEFAULT_COMMAND = ("./dev", "test")
INSIDE = "checkout"
KEPT = ("out/test", "out/dev")
PATIENCE_S = 5.0
_WORK = "work-"
CHECKOUT = Path(__file__).resolve().parents[3]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dev fresh",
        description="Run a command of the checkout, as committed, in a minimal Debian or Ubuntu of its own.",
        epilog="examples: ./dev fresh; ./dev fresh ./dev boot; ./dev fresh --suite trixie ./dev test --tier unit")
    parser.add_argument("--suite", choices=tuple(SUITES), help=f"which one (default: {base.DEFAULT_SUITE})")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND",
                        help=f"with its words (default: {' '.join(DEFAULT_COMMAND)})")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if command and command[0].startswith("-"):
        parser.error(f"{command[0]} is not an option of this command; options of COMMAND come behind it")
    signal.signal(signal.SIGTERM, _raise_interrupt)
    signal.signal(signal.SIGHUP, _raise_interrupt)
    try:
        return run(args.suite, command or list(DEFAULT_COMMAND))
    except LabError as failed:
        print(f"fresh: {failed}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nfresh: interrupted", file=sys.stderr)
        return 130


def _raise_interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def run(suite: str | None, command: Sequence[str], mark: Path = Path("/", MARK)) -> int:
    if mark.is_file():
        _run_plainly(suite, mark.read_text(encoding="ascii").strip(), command)
    if os.geteuid() != 0:
        raise LabError("a root of another system needs root", "run: sudo ./dev fresh")
    suite = suite or base.DEFAULT_SUITE
    folder = CHECKOUT / "out" / "fresh"
    env = environment(os.environ)
    started = time.monotonic()
    with work_folder(folder) as work:
        with _locked(folder):
            packed = base.find_base(base.read_recipe(suite), folder, work=work, environment=env)
        root = work / "root"
        base.unpack_base(packed, root)
        _furnish(root, suite)
        print(f"fresh: {SUITES[suite].name} {suite} with {clone(CHECKOUT, root / INSIDE)} entered after "
              f"{time.monotonic() - started:.1f} s: {' '.join(command)}", flush=True)
        try:
            status = enter(root, command, env)
        finally:
            keep_reports(root / INSIDE, folder / suite)
    if sys.stderr.isatty():  # in a log the last line stays the command's own
        print(f"fresh: status {status} after {time.monotonic() - started:.0f} s; what was reported is in "
              f"{(folder / suite).relative_to(CHECKOUT)}", file=sys.stderr, flush=True)
    return status


def _run_plainly(wanted: str | None, found: str, command: Sequence[str]) -> NoReturn:
    """Inside a fresh root there is none to make; another suite cannot be had from here."""
    if wanted not in (None, found):
        raise LabError(f"this is a fresh {found} already", f"leave it before you ask for {wanted}")
    print(f"fresh: this is a fresh {found} already: {' '.join(command)}", flush=True)
    os.chdir(CHECKOUT)
    try:
        os.execvp(command[0], list(command))
    except OSError as failed:
        raise LabError(f"cannot run {command[0]!r}: {failed.strerror}", "name a command of the checkout") from failed


@contextlib.contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """A folder for one run, locked for as long as the run lives: so what a killed run left can be told and removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        for left in folder.glob(f"{_WORK}*"):
            if (held := _try_lock(left)) is not None:
                shutil.rmtree(left)
                os.close(held)
        work = Path(tempfile.mkdtemp(prefix=_WORK, dir=folder))
        work.chmod(0o755)  # apt's own account reads in it
        held = _try_lock(work)
    try:
        yield work
    finally:
        shutil.rmtree(work)
        if held is not None:
            os.close(held)


def _try_lock(path: Path) -> int | None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w", encoding="ascii") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("fresh: waiting for another ./dev fresh that makes a root", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _furnish(root: Path, suite: str) -> None:
    carry(Path("/"), root, os.environ)
    (root / MARK).write_text(f"{suite}\n", encoding="ascii")


def clone(checkout: Path, target: Path) -> str:
    """HEAD as it is committed, in no way tied to the repository it comes from."""
    _git("clone", "--quiet", "--no-hardlinks", str(checkout), str(target))
    head = _git("-C", str(checkout), "rev-parse", "HEAD").strip()
    _git("-C", str(target), "-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", head)
    changed = _git("-C", str(checkout), "status", "--porcelain").splitlines()
    return head[:12] + (f" (without {len(changed)} changes that are not committed)" if changed else "")


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise LabError("git is not installed", "install the package git") from missing
    if done.returncode != 0:
        raise LabError(f"git {words[0]} failed: {done.stderr.strip()}",
                       "run it in a git checkout; a fresh root takes its HEAD")
    return done.stdout


def enter(root: Path, command: Sequence[str], env: Mapping[str, str], *, cwd: str = f"/{INSIDE}",
          patience_s: float = PATIENCE_S) -> int:
    """The command's exit status. Nothing of it is left when this returns, however it returns."""
    child = subprocess.Popen(cell_argv(str(root), command, cwd=cwd), env=dict(env))
    try:
        return child.wait()
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            child.wait(patience_s)  # a terminal's Ctrl-C has reached the command too
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            child.wait(patience_s)
        raise
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def keep_reports(checkout: Path, target: Path) -> None:
    """What the command reported, in the place of what the one before did."""
    for name in KEPT:
        if (checkout / name).is_dir():
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(checkout / name, target / name, symlinks=True, ignore_dangling_symlinks=True)


if __name__ == "__main__":
    sys.exit(main())
