# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from guest_cdi.hooks import ldconf
from guest_cdi.hooks.root import Root

DEBIAN = "/lib/x86_64-linux-gnu\n/usr/lib/x86_64-linux-gnu\n/lib\n/usr/lib\n"
OTHER = "/lib\n/usr/lib\n/lib64\n/usr/lib64\n/libx32\n/usr/libx32\n"


@pytest.mark.parametrize(("machine", "is_debian_like", "expected"), [
    ("x86_64", True, tuple(DEBIAN.split())),
    ("x86_64", False, tuple(OTHER.split())),
    ("aarch64", True, ("/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib", "/usr/lib")),
    ("aarch64", False, ("/lib", "/usr/lib", "/lib64", "/usr/lib64")),
    ("riscv64", True, ("/lib", "/usr/lib")),
    ("riscv64", False, ("/lib", "/usr/lib")),
])
def test_system_directories(machine: str, is_debian_like: bool, expected: tuple[str, ...]) -> None:
    assert ldconf.system_directories(machine, is_debian_like=is_debian_like) == expected


def test_parse_conf() -> None:
    text = "# comment\n\n/a  # why\n include conf.d/*.conf /x/y\nhwcap 0 nosegneg\n  /b\ninclude\n"
    assert ldconf.parse_conf(text) == (["/a", "/b"], ["conf.d/*.conf", "/x/y"])


def container(tmp_path: Path, files: dict[str, str]) -> Path:
    tree = tmp_path / "c"
    tree.mkdir()
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content)
    return tree


def written(tree: Path) -> dict[str, str]:
    """The files below /etc/ld.so.conf.d by the part of the name that is not random."""
    found = sorted((tree / "etc/ld.so.conf.d").iterdir())
    assert all((path.stat().st_mode & 0o777) == 0o644 for path in found)
    return {path.name[:8]: path.read_text() for path in found}


def configure(tree: Path, *folders: str, machine: str = "x86_64") -> list[str]:
    with Root(str(tree)) as root:
        return ldconf.configure(root, folders, machine)


def test_an_empty_container_gets_everything(tmp_path: Path) -> None:
    tree = container(tmp_path, {})
    configure(tree, "/opt/nv", "/opt/nv/vdpau", "/opt/nv")
    assert (tree / "etc/ld.so.conf").read_text() == "include /etc/ld.so.conf.d/*.conf\n"
    assert written(tree) == {"00-nvcr-": "/opt/nv\n/opt/nv/vdpau\n", "zz-nvcr-": OTHER}
    assert not list((tree / "etc").glob("ld-musl*"))


def test_a_debian_container_keeps_its_configuration(tmp_path: Path) -> None:
    tree = container(tmp_path, {"etc/debian_version": "12", "etc/ld.so.conf": "/own\n"})
    configure(tree, "/usr/lib/x86_64-linux-gnu", "/own")
    assert (tree / "etc/ld.so.conf").read_text() == "/own\n"
    assert written(tree) == {"zz-nvcr-": DEBIAN}


def test_folders_that_includes_cover_are_left_out(tmp_path: Path) -> None:
    tree = container(tmp_path, {
        "etc/ld.so.conf": "include ld.so.conf.d/*.conf\ninclude /gone/*.conf /gone/x /etc/ld.so.conf\n",
        "etc/ld.so.conf.d/a.conf": "/opt/a\ninclude /else/b.conf\n", "etc/ld.so.conf.d/a.bak": "/opt/c\n",
        "else/b.conf": "/opt/b\n",
    })
    with Root(str(tree)) as root:
        assert ldconf.configured_directories(root) == {"/opt/a", "/opt/b"}
    configure(tree, "/opt/a", "/opt/b", "/opt/c")
    assert written(tree)["00-nvcr-"] == "/opt/c\n"


def test_links_in_the_configuration_stay_inside(tmp_path: Path) -> None:
    tree = container(tmp_path, {"outside/x.conf": "/inner\n"})
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/x.conf").write_text("/outer\n")
    (tree / "etc").mkdir()
    (tree / "etc/ld.so.conf").write_text("include /etc/d/*.conf\n")
    (tree / "etc/d").symlink_to("../../outside")
    with Root(str(tree)) as root:
        assert ldconf.configured_directories(root) == {"/inner"}


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_would_block_ldconfig_is_an_error(tmp_path: Path, kind: str) -> None:
    tree = container(tmp_path, {"etc/ld.so.conf": "include /etc/x.conf\n"})
    os.mkfifo(tree / "etc/x.conf") if kind == "fifo" else (tree / "etc/x.conf").mkdir()
    with pytest.raises(OSError, match=r"not a regular file: '/etc/x\.conf'"):
        configure(tree)


def test_includes_are_bounded(tmp_path: Path) -> None:
    many = {f"d/{number}.conf": "" for number in range(ldconf.CONF_FILES_LIMIT)}
    tree = container(tmp_path, {"etc/ld.so.conf": "include /d/*\n", **many})
    with pytest.raises(OSError, match="more than 1024 files"):
        configure(tree)


@pytest.mark.long
@pytest.mark.parametrize(("files", "said"), [
    pytest.param({f"d/{number}.conf": "/x\n" * 2500 for number in range(40)}, "is larger than 262144 bytes", id="bytes in sum"),
    pytest.param({"d/a.conf": "".join(f"include /{number}/*.conf\n" for number in range(2000))}, "more than 1024 files",
                 id="patterns"),
    pytest.param({"d/a.conf": "".join(f"include /many/{number}*\n" for number in range(90)),
                  **{f"many/x{number}": "" for number in range(800)}}, "more than", id="names in sum"),
    pytest.param({"d/a.conf": "x" * (1 << 18)}, "is larger than 262144 bytes", id="one line"),
])
def test_a_configuration_is_bounded_as_a_whole(tmp_path: Path, files: dict[str, str], said: str) -> None:
    tree = container(tmp_path, {"etc/ld.so.conf": "include /d/*\n", **files})
    tracemalloc.start()
    with Root(str(tree)) as root, pytest.raises(OSError, match=said):
        ldconf.configured_directories(root)
    assert tracemalloc.get_traced_memory()[1] < 40 << 20
    tracemalloc.stop()


def test_includes_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    tree = container(tmp_path, {"etc/ld.so.conf": "include /d/*\n/a\n", "d/x": "include /etc/ld.so.conf /d/x /d/*\n/b\n"})
    with Root(str(tree)) as root:
        assert ldconf.configured_directories(root) == {"/a", "/b"}


MUSL_NEW = "/opt/nv\n" + OTHER + "/usr/local/lib\n"


@pytest.mark.parametrize(("existing", "expected"), [
    (None, MUSL_NEW),
    ("", "/opt/nv\n" + OTHER),
    ("/lib:/usr/lib\n/mine", "/lib:/usr/lib\n/mine\n/opt/nv\n/lib64\n/usr/lib64\n/libx32\n/usr/libx32\n"),
    ("/opt/nv\n" + OTHER, "/opt/nv\n" + OTHER),
    ("/opt/nv\n" + OTHER.rstrip(), "/opt/nv\n" + OTHER.rstrip()),
], ids=["new", "empty", "extended", "complete", "complete-without-newline"])
def test_musl_path_file(tmp_path: Path, existing: str | None, expected: str) -> None:
    files = {"etc/alpine-release": "3.20"}
    if existing is not None:
        files["etc/ld-musl-x86_64.path"] = existing
    tree = container(tmp_path, files)
    configure(tree, "/opt/nv")
    assert (tree / "etc/ld-musl-x86_64.path").read_text() == expected
    configure(tree, "/opt/nv")
    assert (tree / "etc/ld-musl-x86_64.path").read_text() == expected


def test_a_hostile_musl_path_file_is_refused(tmp_path: Path) -> None:
    tree = container(tmp_path, {"etc/alpine-release": "3.20"})
    (tmp_path / "victim").write_text("guest")
    (tree / "etc/ld-musl-x86_64.path").symlink_to(tmp_path / "victim")
    with pytest.raises(FileExistsError):
        configure(tree, "/opt/nv")
    assert (tmp_path / "victim").read_text() == "guest"
