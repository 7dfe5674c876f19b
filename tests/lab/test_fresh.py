# SPDX-License-Identifier: Apache-2.0
"""`./dev fresh` without a root of its own: sources of apt, what is carried, folders of killed runs, the clone, its words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nvrc_lab.fresh import __main__ as fresh
from nvrc_lab.fresh import base, sources
from nvrc_lab.fresh.carried import MARK, carry, environment
from nvrc_lab.fresh.cell import cell_argv
from nvrc_lab.ground.errors import LabError

ROOT = Path(__file__).resolve().parents[2]
STANZAS = """\
# what the installer wrote
Types: deb
# a comment inside
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main contrib
"""
OURS = {
    "deb822": (STANZAS, True, """\
Types: deb
URIs: http://mirror.test/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.test/debian-security
Suites: trixie-security
Components: main contrib
"""),
    "one-line": ("deb http://mirror.test/debian bookworm main\n", False, "deb http://mirror.test/debian trixie main\n"),
    "one-line-options": ("deb [arch=amd64] http://mirror.test/debian-security bookworm-security main # yes\n", False,
                         "deb [arch=amd64] http://mirror.test/debian-security trixie-security main # yes\n"),
    "a-mirror-named-as-the-suite": ("deb http://bookworm.test/bookworm bookworm main\n", False,
                                    "deb http://bookworm.test/bookworm trixie main\n"),
}
OTHERS = {
    "a-vendor": ("Types: deb\nURIs: http://vendor.test/x\nSuites: bookworm\nComponents: stable\n", True),
    "a-vendor-with-main": ("Types: deb\nURIs: http://vendor.test/x\nSuites: bookworm\nComponents: main\nSigned-By: /v.gpg\n", True),
    "a-vendor-in-one-line": ("deb [signed-by=/usr/share/keyrings/v.gpg] http://vendor.test/x bookworm main\n", False),
    "another-suite": ("deb http://mirror.test/debian bookworm-backports main\n", False),
    "sources": ("deb-src http://mirror.test/debian bookworm main\n", False),
    "switched-off": ("Enabled: no\nTypes: deb\nURIs: http://mirror.test/debian\nSuites: bookworm\nComponents: main\n", True),
    "a-comment": ("# deb http://mirror.test/debian bookworm main\n", False),
    "nothing": ("", True),
}


@pytest.mark.parametrize(("text", "deb822", "expected"), OURS.values(), ids=OURS)
def test_sources_of_the_distribution_for_another_suite(text: str, deb822: bool, expected: str) -> None:
    assert sources.translate(text, "bookworm", "trixie", deb822=deb822) == expected


@pytest.mark.parametrize(("text", "deb822"), OTHERS.values(), ids=OTHERS)
def test_what_is_not_the_distributions_own_is_left_out(text: str, deb822: bool) -> None:
    assert sources.translate(text, "bookworm", "trixie", deb822=deb822) == ""


@pytest.mark.parametrize(("release", "expected"), [
    ('ID=debian\nVERSION_CODENAME=bookworm\n', "bookworm"), ('VERSION_CODENAME="trixie"\nID="debian"\n', "trixie"),
    ("ID=ubuntu\nVERSION_CODENAME=noble\n", ""), ("ID=debian\n", ""), ("", "")])
def test_only_a_debian_has_sources_for_a_debian(release: str, expected: str) -> None:
    assert sources.read_codename(release, sources.DEBIAN) == expected


UBUNTU_STANZAS = """\
Types: deb
URIs: http://mirror.test/ubuntu
Suites: jammy jammy-updates jammy-backports
Components: main universe restricted multiverse
Signed-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg
"""


def test_an_ubuntu_has_sources_for_an_ubuntu() -> None:
    assert sources.read_codename('ID=ubuntu\nVERSION_CODENAME=jammy\n', sources.UBUNTU) == "jammy"
    assert sources.read_codename('ID=debian\nVERSION_CODENAME=trixie\n', sources.UBUNTU) == ""
    assert sources.translate(UBUNTU_STANZAS, "jammy", "noble", deb822=True) == UBUNTU_STANZAS.replace("jammy", "noble")
    # one that splits its archive into a line for each component
    line = "deb http://mirror.test/ubuntu jammy universe\n"
    assert sources.translate(line, "jammy", "noble", deb822=False) == line.replace("jammy", "noble")
    assert sources.translate(line.replace("universe", "contrib"), "jammy", "noble", deb822=False) == ""
    assert sources.translate(STANZAS.split("\n\n", maxsplit=1)[0], "bookworm", "noble", deb822=True) == ""  # by its key


def machine(folder: Path, release: str = "ID=debian\nVERSION_CODENAME=bookworm\n") -> Path:
    files = {"etc/os-release": release, "etc/apt/sources.list": "", "etc/apt/sources.list.d/debian.sources": STANZAS,
             "etc/apt/sources.list.d/vendor.list": "deb http://vendor.test/x stable main\n",
             "etc/apt/sources.list.d/old.list.disabled": "deb http://mirror.test/debian bookworm main\n"}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_files_of_sources_are_taken_by_name(tmp_path: Path) -> None:
    assert list(sources.collect(machine(tmp_path), "trixie")) == ["debian.sources"]
    assert sources.collect(machine(tmp_path, "ID=ubuntu\nVERSION_CODENAME=noble\n"), "trixie") == {}
    assert sources.collect(tmp_path / "none", "trixie") == {}


def test_of_apts_settings_those_about_the_way_are_taken() -> None:
    dump = ('APT::Architecture "amd64";\nAcquire::http::Proxy "http://proxy.test:3128";\nAcquire::Check-Valid-Until "false";\n'
            'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\nAcquire::Languages:: "en";\n'
            'DPkg::Post-Invoke:: "rm -rf /";\nAcquire::Retries "3";\nAcquire::https::CaInfo "/ca.pem";\n')
    assert sources.pick_settings(dump).splitlines() == [
        'Acquire::http::Proxy "http://proxy.test:3128";', 'Acquire::Check-Valid-Until "false";', 'Acquire::Retries "3";',
        'Acquire::https::CaInfo "/ca.pem";']


def test_a_base_is_known_by_all_it_was_made_from(tmp_path: Path) -> None:
    one = base.Recipe(suite="bookworm", sources={"a": "x"}, settings="")
    others = [base.Recipe(suite="trixie", sources={"a": "x"}, settings=""),
              base.Recipe(suite="bookworm", sources={"a": "y"}, settings=""),
              base.Recipe(suite="bookworm", sources={"a": "x"}, settings="y"),
              base.Recipe(suite="bookworm", sources={"a": "x"}, settings="", included=("ubuntu-keyring",))]
    assert len({one.key, *(other.key for other in others)}) == 5
    assert base.read_recipe("trixie", machine(tmp_path)).key == base.read_recipe("trixie", machine(tmp_path)).key


def test_a_base_is_made_anew_after_a_week(tmp_path: Path) -> None:
    made = tmp_path / "bookworm.tar"
    made.touch()
    born = made.stat().st_mtime
    assert [base.is_young(made, born + age) for age in (1.0, base.MOST_AGE_S - 1, base.MOST_AGE_S + 1)] == [True, True, False]
    assert not base.is_young(tmp_path / "none.tar", born)


def test_a_base_that_is_there_is_taken(tmp_path: Path) -> None:
    recipe = base.Recipe(suite="bookworm", sources={}, settings="")
    made = tmp_path / f"bookworm-{recipe.key}.tar"
    made.touch()
    assert base.find_base(recipe, tmp_path, work=tmp_path, environment={}) == made


def test_a_base_that_is_damaged_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(LabError, match=r"b.tar cannot be unpacked \(tar: .*\): remove it, free space, and repeat the command"):
        base.unpack_base(tmp_path / "b.tar", tmp_path / "root")


def test_no_command_line_names_a_mirror(tmp_path: Path) -> None:
    recipe = base.Recipe(suite="bookworm", sources={"debian.sources": STANZAS}, settings="")
    argv = base.bootstrap_argv("mmdebstrap", recipe, tmp_path / "b.tar", "--variant=minbase")
    assert not [word for word in argv if "://" in word or "mirror.test" in word]
    assert argv[-3:] == ["bookworm", str(tmp_path / "b.tar"), str(tmp_path / "debian.sources")]
    assert (tmp_path / "debian.sources").read_text() == STANZAS


def test_the_environment_holds_the_way_to_the_network_alone() -> None:
    given = {"HTTPS_PROXY": "p", "no_proxy": "n", "PIP_INDEX_URL": "i", "CI": "true", "TERM": "xterm", "SECRET": "s",
             "PYTHONPATH": "x", "PIP_FIND_LINKS": "/opt/wheels", "PIP_CERT": "/ca.pem", "HOME": "/somewhere", "PATH": "/opt/bin", "NVRC_KATA_AGENT": "/a"}
    passed = environment(given)
    assert {name: passed.pop(name) for name in ("HOME", "LANG", "USER")} == {"HOME": "/root", "LANG": "C.UTF-8", "USER": "root"}
    assert "/usr/sbin" in passed.pop("PATH")
    assert passed == {"HTTPS_PROXY": "p", "no_proxy": "n", "PIP_INDEX_URL": "i", "CI": "true", "TERM": "xterm", "PIP_CERT": "/ca.pem"}
    assert environment({})["TERM"] == "dumb"


def test_what_leads_to_the_index_is_carried(tmp_path: Path) -> None:
    there, root = tmp_path / "machine", tmp_path / "root"
    for name in ("run/resolv.conf", "etc/pip.conf", "home/me/.config/pip/pip.conf", "opt/ca.pem", "etc/shadow"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_text(name)
    (there / "home/me/.config/pip/pip.conf").chmod(0o600)
    (there / "etc/resolv.conf").symlink_to("../run/resolv.conf")
    (root / "etc").mkdir(parents=True)
    (root / "etc/resolv.conf").symlink_to("/nowhere")
    carry(there, root, {"HOME": "/home/me", "PIP_CERT": "/opt/ca.pem", "SSL_CERT_FILE": "/gone.pem"})
    found = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    assert found == {"etc/resolv.conf": "run/resolv.conf", "etc/pip.conf": "etc/pip.conf", "opt/ca.pem": "opt/ca.pem",
                     "root/.config/pip/pip.conf": "home/me/.config/pip/pip.conf"}
    assert (root / "root/.config/pip/pip.conf").stat().st_mode & 0o777 == 0o600


def test_a_folder_goes_with_its_run_and_with_the_next_after_a_kill(tmp_path: Path) -> None:
    left = tmp_path / "work-left"
    (left / "root/etc").mkdir(parents=True)
    with fresh.work_folder(tmp_path) as first:
        assert not left.exists()
        with fresh.work_folder(tmp_path) as second:
            assert first.is_dir()  # a run that lives keeps its own
            assert second != first
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e", *words], check=True,
                          capture_output=True, text=True).stdout.strip()


@pytest.mark.long
def test_the_clone_is_head_as_committed(tmp_path: Path) -> None:
    there = tmp_path / "checkout"
    there.mkdir()
    git(there, "init", "--quiet")
    for text in ("one", "two"):
        (there / "file").write_text(text)
        git(there, "add", "file")
        git(there, "commit", "--quiet", "-m", text)
    git(there, "checkout", "--quiet", "HEAD~1")  # as a build machine does
    assert fresh.clone(there, tmp_path / "clone") == git(there, "rev-parse", "HEAD")[:12]
    (there / "file").write_text("three")
    assert fresh.clone(there, tmp_path / "again").endswith(" (without 1 changes that are not committed)")
    assert (tmp_path / "clone/file").read_text() == (tmp_path / "again/file").read_text() == "one"


def test_no_checkout_is_a_finding(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"git clone failed: .*run it in a git checkout; a fresh root takes its HEAD"):
        fresh.clone(tmp_path / "none", tmp_path / "clone")


def test_reports_are_kept_until_there_are_newer_ones(tmp_path: Path) -> None:
    (tmp_path / "first/out/test").mkdir(parents=True)
    (tmp_path / "first/out/test/unit.xml").write_text("1")
    (tmp_path / "second/out/dev").mkdir(parents=True)
    for name in ("first", "second", "none"):
        fresh.keep_reports(tmp_path / name, tmp_path / "kept")
    assert (tmp_path / "kept/out/test/unit.xml").read_text() == "1"
    assert (tmp_path / "kept/out/dev").is_dir()


@pytest.mark.long
def test_a_fresh_root_makes_none_but_runs_the_command(tmp_path: Path) -> None:
    (tmp_path / "mark").write_text("bookworm\n")
    code = (f"from pathlib import Path\nfrom nvrc_lab.fresh.__main__ import run\n"
            f"run(None, ['echo', 'ran'], mark=Path({str(tmp_path / 'mark')!r}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["fresh: this is a fresh bookworm already: echo ran", "ran"]
    with pytest.raises(LabError, match="this is a fresh bookworm already: leave it before you ask for trixie"):
        fresh.run("trixie", ["true"], mark=tmp_path / "mark")


def test_the_mark_is_inside_the_root() -> None:
    assert not MARK.startswith("/")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may")
def test_without_root_the_remedy_is_told(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"a root of another system needs root: run: sudo \./dev fresh"):
        fresh.run(None, ["true"], mark=tmp_path / "none")


def run_fresh(*words: str) -> subprocess.CompletedProcess[str]:
    """As ./dev starts it: without any package that is not Python's own."""
    return subprocess.run([sys.executable, "-S", "-m", "nvrc_lab.fresh", *words], capture_output=True, text=True, check=False,
                          env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "qemu-tests")}, stdin=subprocess.DEVNULL)


@pytest.mark.long
@pytest.mark.parametrize(("words", "status", "expected"), [
    pytest.param(("--help",), 0, "default: bookworm", id="help"),
    pytest.param(("--suite", "sid"), 2, "invalid choice: 'sid'", id="a-suite-nobody-knows"),
    pytest.param(("--suite", "trixie", "--", "--tier"), 2, "--tier is not an option of this command", id="an-option-of-another"),
])
def test_wrong_words_and_help(words: tuple[str, ...], status: int, expected: str) -> None:
    done = run_fresh(*words)
    assert (done.returncode, expected in done.stdout + done.stderr) == (status, True), done.stderr


def test_an_order_says_which_process_it_belongs_to() -> None:
    order = json.loads(cell_argv("/root", ["a", "b"], cwd="/")[-1])
    assert order == {"root": "/root", "argv": ["a", "b"], "cwd": "/", "parent": os.getpid()}
