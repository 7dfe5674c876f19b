# SPDX-License-Identifier: Apache-2.0
"""A copy of the checkout in which one module is another, and what its tests say to that.

Every job has a copy of its own, so that the checkout is never changed and programs that a test starts run the mutant as
well. Forks of a session that has collected its tests are asked first (forks.py), which takes a tenth of the time; a
mutant counts as not noticed only when a pytest of its own has not noticed it. One that the tests never end on counts as
noticed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from nvrc_lab.ground.errors import LabError

PATIENCE_S = 20.0  # beside what the tests need unharmed, times three: a busy machine is no endless loop
LONGEST_S = 600.0
MEMORY = "/dev/shm"  # tests write small files by the hundred, for which a slow disk takes 20 times as long
FORKS = Path(__file__).with_name("forks.py")
PYTEST = ("-x", "-q", "--tb=short", "-p", "no:xdist", "--hypothesis-profile=thorough", "-m")
# What needs a VM takes too long to be asked a hundred times. What needs root is asked by rows that say so.
TIERS = {False: "not namespace and not qemu and not gpu", True: "not qemu and not gpu"}
APART = ("unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


class Seen(Enum):
    KILLED = "killed"
    SURVIVED = "survived"
    ENDLESS = "endless"


class Copy:
    """State: the collected session of the module that is asked about, in namespaces or not; the number of writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        # Not in the temporary folder of all pytest runs: each would first remove what others have left there.
        self._temporary = Path(tempfile.mkdtemp(prefix="mutate-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self._session: subprocess.Popen[bytes] | None = None
        self.limit_s = LONGEST_S
        self.spare_s, self.memory_bytes = 10, 4 << 30
        self._writes = 0
        self._apart = False

    @classmethod
    def of(cls, checkout: Path, root: Path) -> Copy:
        shutil.rmtree(root, ignore_errors=True)
        argv = ["git", "-C", str(checkout), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
            source = checkout / name
            if source.is_symlink() or source.is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, root / name, follow_symlinks=False)
        return cls(root)

    def put(self, module: str, source: str) -> None:
        path = self.root / module
        path.write_text(source, encoding="utf-8")
        # Compiled modules are kept. Two sources of one length, written within a second, would pass for the same.
        self._writes += 1
        os.utime(path, (self._writes, self._writes))

    def begin(self, module: str, tests: Sequence[str], *, apart: bool = False) -> None:
        """The tests must pass on what is there: one that fails anyway notices nothing."""
        if apart and os.geteuid() != 0:
            raise LabError(f"the tests of {module} make namespaces, which takes root", "run the command again as root")
        self._apart = apart
        argv = [*self._program(), "-P", str(FORKS), str(self.root), module, "apart" if apart else "here",
                *self._words(tests)]
        self._session = subprocess.Popen(argv, cwd=self.root, env=self._environment(), stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE)
        started = time.monotonic()
        if self._noticed_by_fork((self.root / module).read_text(encoding="utf-8"), LONGEST_S) is not False:
            raise LabError(f"the tests fail without any change: {' '.join(tests)}\n{self.ask(tests)[1]}",
                           "repair the tests first")
        self.limit_s = 3 * (time.monotonic() - started) + PATIENCE_S

    def notices(self, module: str, source: str, tests: Sequence[str]) -> bool:
        original = (self.root / module).read_text(encoding="utf-8")
        self.put(module, source)
        try:
            return self._noticed_by_fork(source, self.limit_s) or self.ask(tests, self.limit_s)[0] is not Seen.SURVIVED
        finally:
            self.put(module, original)

    def _noticed_by_fork(self, source: str, limit_s: float) -> bool | None:
        assert self._session and self._session.stdin and self._session.stdout
        try:
            question = {"source": source, "limit_s": limit_s, "spare_s": self.spare_s, "bytes": self.memory_bytes}
            self._session.stdin.write(json.dumps(question).encode() + b"\n")
            self._session.stdin.flush()
        except BrokenPipeError:
            return None  # nothing could be collected
        noticed: bool | None = json.loads(self._session.stdout.readline() or b"null")
        return noticed

    def ask(self, tests: Sequence[str], limit_s: float = LONGEST_S) -> tuple[Seen, str]:
        argv = [*self._program(), "-m", "pytest", *self._words(tests)]
        child = subprocess.Popen(argv, cwd=self.root, env=self._environment(), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            output, _ = child.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            return Seen.ENDLESS, ""
        seen = Seen.SURVIVED if child.returncode == 0 else Seen.KILLED
        return seen, output.decode(errors="replace")[-2000:]

    def close(self) -> None:
        self.end_session()
        for folder in (self._temporary, self.root):
            shutil.rmtree(folder, ignore_errors=True)

    def end_session(self) -> None:
        if self._session is not None:
            self._session.communicate()
            self._session = None

    def _program(self) -> list[str]:
        return [*(APART if self._apart else ()), sys.executable]

    def _words(self, tests: Sequence[str]) -> list[str]:
        return [*PYTEST, TIERS[self._apart], f"--basetemp={self._temporary}/pytest", *tests]

    def _environment(self) -> dict[str, str]:
        # Coverage, where these are tests of a run that is counted, counts files of the checkout.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS_")}
        return {**kept, "PYTHONPATH": f"{self.root}:{self.root}/build:{self.root}/qemu-tests",
                "HYPOTHESIS_DATABASE_FILE": str(self.root / "out" / "examples")}

