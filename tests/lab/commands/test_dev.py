# SPDX-License-Identifier: Apache-2.0
"""./dev without a network or apt: its words, its package logic with programs of its own on PATH, its lock and stamps."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from fakes.sources import ROOT, nodes_of
from nvrc_lab.commands.lock import LOCKS


def load_dev() -> ModuleType:
    loader = SourceFileLoader("dev_script", str(ROOT / "dev"))
    spec = importlib.util.spec_from_loader("dev_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["dev_script"] = module
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dev() -> Iterator[ModuleType]:
    writes = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    yield load_dev()
    sys.dont_write_bytecode = writes
    del sys.modules["dev_script"]


def run_dev(*words: str, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "dev"), *words], capture_output=True, text=True, check=False,
                          env={"PATH": path, "HOME": "/nonexistent"}, stdin=subprocess.DEVNULL)


# Words

WORDS = {
    "an agent as make passes it": ("boot", ["AGENT=/a b"], ["--agent", "/a b"]),
    "an option stays an option": ("boot", ["--agent", "/a", "--json"], ["--agent", "/a", "--json"]),
    "an empty variable is none": ("boot", ["AGENT=", "CMDLINE="], []),
    "a command line with equal signs": ("boot", ["CMDLINE=a=b c=d"], ["--cmdline", "a=b c=d"]),
    "the value of an option is no variable": ("boot", ["--cmdline", "AGENT=x"], ["--cmdline", "AGENT=x"]),
    "a kernel parameter is no variable": ("boot", ["--cmdline", "nvrc.log=debug"], ["--cmdline", "nvrc.log=debug"]),
    "a profile is a word": ("image", ["PROFILE=lab"], ["lab"]),
    "a profile and more": ("image", ["lab", "--json"], ["lab", "--json"]),
    "a tier": ("test", ["TIER=unit"], ["--tier", "unit"]),
}


@pytest.mark.parametrize(("name", "words", "expected"), WORDS.values(), ids=WORDS)
def test_words_become_the_commands_own(dev: ModuleType, name: str, words: list[str], expected: list[str]) -> None:
    assert dev.translate(name, dev.COMMANDS[name], words) == expected


def test_a_variable_of_another_command_is_refused(dev: ModuleType) -> None:
    with pytest.raises(dev.DevError, match="lint has no variable AGENT; it has: none"):
        dev.translate("lint", dev.COMMANDS["lint"], ["AGENT=/a"])


def test_the_makefile_has_the_same_commands_and_variables(dev: ModuleType) -> None:
    text = (ROOT / "Makefile").read_text()
    lists = {name: set(words.split()) for name, words in re.findall(r"^(\w+) := (.*)$", text, re.MULTILINE)}
    assert lists["COMMANDS"] == set(dev.COMMANDS)
    assert lists["VARIABLES"] == {name for command in dev.COMMANDS.values() for name in command.variables}


def test_usage_names_every_command(dev: ModuleType) -> None:
    assert [name for name in dev.COMMANDS if f"\n  {name} " not in dev.USAGE] == []


@pytest.mark.long
def test_wrong_use_is_status_2_with_a_hint() -> None:
    done = run_dev("boat")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "dev: no command 'boat'; did you mean 'boot'?")
    assert run_dev().returncode == 2
    assert run_dev("--help").returncode == 0


# Packages of the system


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder to put programs in, and nothing else on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def put(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


ASK = """
import importlib.util, sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
loader = SourceFileLoader("dev_script", sys.argv[1])
dev = importlib.util.module_from_spec(importlib.util.spec_from_loader("dev_script", loader))
sys.modules["dev_script"] = dev
loader.exec_module(dev)
dev.ROOT, dev.LOCK_WAIT_S, dev.LOCK_LOOK_S = Path(sys.argv[2]), 1, 0.1
try:
    names = dev.missing_packages([dev.Package("tool", "tool-program"), dev.Package("data", sys.argv[2] + "/data")])
    print(*names)
    dev.install_packages(names)
except dev.DevError as err:
    print("DevError:", err)
"""


def ask(programs: Path) -> list[str]:
    """What the package logic finds and does on a machine that has only these programs, with logs beside them."""
    argv = [sys.executable, "-B", "-c", ASK, str(ROOT / "dev"), str(programs.parent)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL,
                          env={"PATH": str(programs), "HOME": "/nonexistent"})
    return done.stdout.splitlines()


@pytest.mark.long
def test_what_is_there_however_it_came_is_not_installed(programs: Path, tmp_path: Path) -> None:
    put(programs, "tool-program", "exit 0")
    (tmp_path / "data").touch()
    put(programs, "dpkg-query", "echo asked >&2; exit 1")
    assert ask(programs) == [""]


@pytest.mark.long
def test_what_dpkg_knows_is_not_installed(programs: Path) -> None:
    put(programs, "dpkg-query", "echo installed")
    assert ask(programs) == [""]


@pytest.mark.long
def test_without_dpkg_the_names_are_told(programs: Path) -> None:
    (said,) = ask(programs)
    assert said.startswith("DevError: missing: tool data (Debian's names; there is no dpkg here); install their like")


@pytest.mark.skipif(os.geteuid() == 0, reason="root needs no sudo")
def test_without_root_and_sudo_the_remedy_is_told(programs: Path) -> None:
    put(programs, "dpkg-query", "exit 1")
    assert ask(programs)[-1] == ("DevError: missing packages: tool data, and neither root nor sudo is at hand; "
                                 "run as root: apt-get update && apt-get install tool data")


APT = """
test "$1" = -oDPkg::Lock::Timeout=1 || exit 99
shift
case "$1" in
  update) touch {lists}; exit 0;;
  install) test -e {lists} || exit 100; echo "$@" > {installed}; exit {status};;
esac
"""
POLICY = "for name in tool data; do test -e {lists} && echo '  Candidate: 1.0' || echo '  Candidate: (none)'; done"


def fake_apt(programs: Path, folder: Path, status: int = 0) -> Path:
    """An apt whose lists are the file `lists`, reached through sudo and env as on a real machine."""
    lists, installed = folder / "lists", folder / "installed"
    put(programs, "dpkg-query", "exit 1")
    put(programs, "apt-get", APT.format(lists=lists, installed=installed, status=status).replace("touch", "/bin/touch"))
    put(programs, "apt-cache", "shift; " + POLICY.format(lists=lists))
    put(programs, "env", 'shift 2; exec "$@"')
    put(programs, "sudo", 'test "$1" = -n && shift; test "$1" = true && exit 0; exec "$@"')
    return installed


@pytest.mark.long
def test_package_lists_are_read_only_when_there_are_none(programs: Path, tmp_path: Path) -> None:
    installed = fake_apt(programs, tmp_path)
    first = [re.sub(r"[0-9.]+ s", "N s", line) for line in ask(programs)]
    assert first == ["tool data", "dev: missing packages: tool data", "dev: apt-get update ...",
                     "dev: apt-get update: done in N s", "dev: apt-get install ...", "dev: apt-get install: done in N s"]
    assert installed.read_text().split()[-2:] == ["tool", "data"]
    assert "update" not in " ".join(ask(programs))


LOCKED = """
if test "$2" = update && ! test -e {tried}; then
    /bin/touch {tried}; echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)" >&2; exit 100
fi
"""


@pytest.mark.long
def test_another_package_manager_is_waited_for(programs: Path, tmp_path: Path) -> None:
    installed = fake_apt(programs, tmp_path)
    first = (programs / "apt-get").read_text()
    put(programs, "apt-get", LOCKED.format(tried=tmp_path / "tried") + first)
    said = ask(programs)
    assert said.count("dev: waiting for another package manager") == 1
    assert installed.read_text().split()[-2:] == ["tool", "data"]


@pytest.mark.long
def test_a_package_manager_that_never_ends_is_not_waited_for_without_end(programs: Path, tmp_path: Path) -> None:
    fake_apt(programs, tmp_path)
    put(programs, "apt-get", 'echo "E: Could not get lock" >&2; exit 100')
    said = ask(programs)
    assert said.count("dev: waiting for another package manager") == 9
    assert said[-1].startswith("DevError: could not install tool data")


@pytest.mark.long
def test_an_apt_that_fails_ends_with_the_remedy(programs: Path, tmp_path: Path) -> None:
    fake_apt(programs, tmp_path, status=100)
    assert re.match(r"DevError: could not install tool data \(log: .*apt-get-install.log\); run as root: apt-get update "
                    r"&& apt-get install tool data", ask(programs)[-1])


# Programs that no package of ours is named for: those of every Debian, those beside another, and those that may be missing.
OF_EVERY_DEBIAN = {"bash", "cat", "chroot", "dash", "dpkg-deb", "ldconfig", "ldd", "nice", "prlimit", "readlink", "rm", "setpriv",
                   "tar", "unshare", "apt-cache", "apt-config", "apt-get", "dpkg-query"}
BESIDE = {"dumpe2fs": "e2fsprogs", "umount": "mount", "readelf": "gcc", "strip": "gcc", "objcopy": "gcc", "cc": "gcc"}
MAY_BE_MISSING = {"man", "go", "sudo", "nvidia-ctk"}
# Most files have no such call, and need not be parsed.
MAY_START = re.compile(r"""\b(which|find)\s*\(\s*["'(#rRuU]|\b(run|Popen|check_output)\s*\(\s*[\[(#]""")


def programs_started(nodes: Iterable[ast.AST]) -> set[str]:
    """Names that a module hands to which, find, run or Popen as they stand there."""
    found = set()
    for node in nodes:
        if not (isinstance(node, ast.Call) and node.args):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        first = node.args[0]
        if name in ("run", "Popen", "check_output") and isinstance(first, ast.List) and first.elts:
            first = first.elts[0]
        elif name != "which" and not (name == "find" and len(node.args) == 2):
            continue
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and "/" not in first.value:
            found.add(first.value)
    return found


def test_programs_started_are_seen() -> None:
    text = 'which("a")\nsubprocess.run(["b", x])\nrun(["c"], what="")\nfind("d", "p")\ntext.find("no")\nrun(["/sbin/e"])'
    assert programs_started(ast.walk(ast.parse(text))) == {"a", "b", "c", "d"}


@pytest.mark.long
def test_every_program_that_is_started_comes_with_a_package(dev: ModuleType) -> None:
    """On a machine that nobody worked on nothing is there by chance: 19 tests once failed for want of mkfs.erofs."""
    files = [path for folder in ("tests", "build/nvrc_build", "qemu-tests") for path in (ROOT / folder).rglob("*.py")
             if path.name not in ("test_dev.py", "test_running_programs.py") and "bench" not in path.parts]
    packages = {package.name for package in dev.TESTS}
    known = {package.evidence for package in dev.TESTS} | OF_EVERY_DEBIAN | MAY_BE_MISSING | {
        program for program, package in BESIDE.items() if package in packages}
    started = {name: str(path.relative_to(ROOT)) for path in files
               if MAY_START.search(path.read_text(encoding="utf-8")) for name in programs_started(nodes_of(path))}
    assert len(started) > 10
    assert {name: place for name, place in started.items() if name not in known} == {}


# The virtual environment


def requirements(text: str) -> dict[str, tuple[str, int]]:
    """Version and number of hashes by name; everything else in the text is a mistake."""
    found: dict[str, tuple[str, int]] = {}
    for entry in re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text)).split("\n"):
        if not entry.strip():
            continue
        head = re.match(r"([a-z0-9.-]+)==(\S+)((?: +--hash=sha256:[0-9a-f]{64})+) *$", entry)
        assert head is not None, f"not a pinned, hashed requirement: {entry[:80]}"
        found[head[1]] = (head[2], head[3].count("--hash"))
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def locked(dev: ModuleType) -> dict[str, tuple[str, int]]:
    return requirements((ROOT / dev.LOCK).read_text())


@pytest.mark.parametrize(("name", "extras"), LOCKS.items(), ids=LOCKS)
def test_a_lock_holds_every_pin_of_its_extras(name: str, extras: Sequence[str]) -> None:
    held = requirements((ROOT / "build" / "locks" / name).read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = [re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", pin) for extra in extras
            for pin in project["optional-dependencies"][extra]]
    assert None not in pins
    assert {canonical(pin[1]): pin[2] for pin in pins if pin} == {
        canonical(pin[1]): held[canonical(pin[1])][0] for pin in pins if pin}
    assert [name for name in project["dependencies"] if canonical(name) not in held] == []


def test_every_extra_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {extra for extras in LOCKS.values() for extra in extras} == set(project["optional-dependencies"])


def test_the_lock_serves_every_supported_python(locked: dict[str, tuple[str, int]]) -> None:
    # One wheel for each version of Python at least: what is compiled has a hash for every interpreter and platform.
    compiled = {"coverage", "mypy", "psutil", "pyyaml", "rpds-py", "librt"}
    assert {name: locked[name][1] for name in compiled if locked[name][1] < 4} == {}


def test_stamps_change_with_what_they_stand_for(dev: ModuleType, tmp_path: Path) -> None:
    assert dev.digest(b"a", b"b") != dev.digest(b"ab", b"")
    assert dev.stamp(tmp_path, "locked") == ""
    (tmp_path / "dev-locked").write_text("x")
    assert dev.stamp(tmp_path, "locked") == "x"


@pytest.mark.parametrize(("text", "version"), [
    ("home = /usr/bin\nversion = 3.11.2\n", "3.11.2"), ("version_info = 3\n", ""), ("", "")])
def test_the_environments_python_is_read(dev: ModuleType, tmp_path: Path, text: str, version: str) -> None:
    (tmp_path / "pyvenv.cfg").write_text(text)
    assert dev.venv_version(tmp_path) == version


def test_no_environment_has_no_python(dev: ModuleType, tmp_path: Path) -> None:
    assert dev.venv_version(tmp_path / "none") == ""


@pytest.mark.long
def test_the_interpreter_itself_is_found(dev: ModuleType) -> None:
    asked = [dev.base_python(), "-c", "import sys; print(sys.prefix == sys.base_prefix, *sys.version_info[:2])"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    assert answer == ["True", str(sys.version_info[0]), str(sys.version_info[1])]


def test_dev_needs_nothing_but_the_standard_library() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", str(ROOT / "dev"), "--help"], capture_output=True, check=True)
    assert done.stdout.startswith(b"usage: ./dev COMMAND")


def test_progress_counts_packages(dev: ModuleType, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("Collecting a==1\n  Downloading a\nCollecting b==2\n")
    assert dev.progress(log, 40) == "2/40, "
    assert dev.progress(log, 1) == "1/1, "
    assert dev.progress(log, 0) == ""
