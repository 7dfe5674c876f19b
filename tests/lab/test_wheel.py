# SPDX-License-Identifier: Apache-2.0
"""The wheel, in an environment that has what it depends on and no extra: four commands, run outside of any checkout.

No network: the wheel is built by the setuptools of .venv, and its dependencies are those of .venv, one link each.
"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.bytecode import uncounted
from nvrc_build.job import CARRIED, default_out, find_checkout
from nvrc_lab.ground.places import Places, checkout

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("nvrc", "guest-cdi", "nvrc-image", "nvrc-lab")


@dataclass(frozen=True)
class Installed:
    folder: Path
    site: Path

    def run(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return subprocess.run([self.folder / "venv/bin" / command, *words], cwd=work, capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.folder)})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the files that git knows: what lies about in the work tree is in no wheel."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                           capture_output=True, text=True).stdout.split("\0")
    for name in names:
        if name and not name.startswith("tests/") and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(target), str(source))
    (found,) = target.glob("*.whl")
    return found


def pip(python: str | Path, *words: str) -> None:
    argv = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check", "--python", str(python), *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**uncounted(), "PIP_NO_INDEX": "1"})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    pip(folder / "venv/bin/python", "install", "--no-deps", str(wheel))
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    for name in needed(wheel):
        for path in importlib.metadata.files(name) or ():
            top = path.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(Path(str(path.locate())).parents[len(path.parts) - 1] / top)
    return Installed(folder, site)


def needed(wheel: Path) -> list[str]:
    """Distributions that the wheel asks for without an extra."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    return [found[1] for found in re.finditer(r"^Requires-Dist: ([\w.-]+)(?!.*extra ==).*$", text, re.MULTILINE)]


def test_what_a_wheel_carries_is_what_a_checkout_has(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        carried = {name.removeprefix("nvrc_tree/") for name in archive.namelist() if name.startswith("nvrc_tree/")}
        beside = {name for name in archive.namelist() if name.startswith(("nvrc_build/products/frozen/", "nvrc_build/products/recipes/"))}
    tracked = subprocess.run(["git", "ls-files", "rootfs", "qemu-tests", "build/locks/wheels.txt"], cwd=ROOT, check=True,
                             capture_output=True, text=True).stdout.split()
    assert carried == {name for name in tracked if not name.startswith("qemu-tests/nvrc_lab/")}
    assert {"nvrc_build/products/frozen/entry.py", "nvrc_build/products/frozen/nvrc.spec", "nvrc_build/products/recipes/sign.mk"} <= beside


SHARED = {"man/man1": "man/*.1", "bash-completion/completions": "completion/*.bash", "zsh/site-functions": "completion/_*",
          "fish/vendor_completions.d": "completion/*.fish"}


@pytest.mark.parametrize(("folder", "pages"), SHARED.items(), ids=SHARED)
def test_manual_pages_and_completion_are_installed_where_programs_look(installed: Installed, folder: str, pages: str) -> None:
    found = {path.name: path.read_text() for path in (installed.folder / "venv/share" / folder).iterdir()}
    assert found == {path.name: path.read_text() for path in (ROOT / "docs").glob(pages)}
    assert len(found) == len(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_man_finds_the_page_beside_the_command(installed: Installed, command: str) -> None:
    if shutil.which("man") is None:
        pytest.skip("man is not on this machine")
    done = subprocess.run(["man", "-w", command], capture_output=True, text=True, check=False,
                          env={"PATH": f"{installed.folder / 'venv/bin'}:/usr/bin:/bin", "HOME": str(installed.folder)})
    assert done.stdout.strip() == str(installed.folder / f"venv/share/man/man1/{command}.1"), done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_the_installed_completion_completes(installed: Installed, command: str) -> None:
    file = installed.folder / f"venv/share/bash-completion/completions/{command}.bash"
    ask = f'source {file}; COMP_WORDS=({command} ""); COMP_CWORD=1; {"_" + command.replace("-", "_")}; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "--norc", "-c", ask], capture_output=True, text=True, check=True)
    assert {"nvrc": "doctor", "guest-cdi": "generate", "nvrc-image": "build", "nvrc-lab": "boot"}[command] in done.stdout.split()


DOES = {
    **{f"{command}-help": ((command, "--help"), 0, f"usage: {command}") for command in COMMANDS},
    "version": (("nvrc", "version"), 0, "NVRC version=0.1.0 sha256="),
    "plan": (("nvrc", "plan", "--cmdline", "nvrc.mode=cpu"), 0, "filesystems"),
    "params": (("nvrc", "params", "list"), 0, "nvrc.mode"),
    "generate-help": (("guest-cdi", "generate", "--help"), 0, "--output"),
    "check": (("nvrc-image", "check"), 0, "lab: "),
    "list": (("nvrc-lab", "list"), 0, "gpu-8"),
    "explain": (("nvrc-lab", "explain", "gpu-1"), 0, "gpu-1"),
    "a-build-without-its-extra": (("nvrc-image", "build", "lab"), 2,
                                  "cyclonedx, license_expression, packageurl, spdx_tools; run: pip install 'nvrc[build]'"),
    "no-image-yet": (("nvrc-image", "inspect", "lab"), 2, "there is no image 'lab'"),
}


@pytest.mark.parametrize(("words", "status", "expected"), DOES.values(), ids=DOES)
def test_commands_of_an_installed_wheel(installed: Installed, words: tuple[str, ...], status: int, expected: str) -> None:
    done = installed.run(*words)
    assert (done.returncode, expected in done.stdout + done.stderr) == (status, True), done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_document_is_validated(installed: Installed) -> None:
    document = installed.folder / "gpu.yaml"
    document.write_text("cdiVersion: 0.6.0\nkind: nvidia.com/gpu\ndevices:\n- name: '0'\n  containerEdits:\n    env: [A=b]\n")
    done = installed.run("guest-cdi", "validate", str(document))
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_written_where_it_is_installed(installed: Installed) -> None:
    def files() -> set[Path]:
        return {path for path in installed.site.rglob("*") if "__pycache__" not in path.parts}

    before = files()
    for words in (("nvrc-image", "build", "lab"), ("nvrc-image", "check"), ("nvrc-lab", "list")):
        installed.run(*words)
    assert files() == before


def test_an_install_without_its_data_says_so_in_a_line(installed: Installed) -> None:
    moved = (installed.site / "nvrc_tree").rename(installed.folder / "nvrc_tree")
    try:
        for words in (("nvrc-image", "check"), ("nvrc-lab", "list")):
            done = installed.run(*words)
            assert done.returncode != 0
            assert len(done.stderr.splitlines()) == 1, done.stderr
            assert "nvrc_tree" in done.stderr
    finally:
        moved.rename(installed.site / "nvrc_tree")


def test_a_checkout_reads_and_writes_in_itself(tmp_path: Path) -> None:
    assert find_checkout() == ROOT
    assert default_out() == ROOT / "out"
    assert checkout() == Places(root=ROOT)
    assert default_out(CARRIED) == Path.cwd() / "out"
    assert find_checkout(tmp_path / "site/nvrc_build") == tmp_path / "site/nvrc_tree"
    found = checkout(tmp_path / "site/nvrc_lab")
    assert (found.root, found.cache) == (tmp_path / "site/nvrc_tree", Path.cwd() / "out/cache")
