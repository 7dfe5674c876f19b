# SPDX-License-Identifier: Apache-2.0
"""modules.dep, modules.builtin, modules.softdep and modprobe.d as depmod and people write them, and as nobody should."""

from __future__ import annotations

import time
from errno import EACCES, EIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.examples import times
from fakes.modules import RELEASE, TREE, module_guest
from fakes.system import FakeSystem
from nvrc.hardware.modprobe_config import read_config
from nvrc.hardware.module_tree import Softdep, read_softdeps, read_tree, releases
from nvrc.vocabulary.errors import NvrcError

DEP = """\
kernel/drivers/md/dm-mod.ko:
kernel/drivers/md/dm-verity.ko.xz: kernel/lib/reed_solomon.ko.zst kernel/drivers/md/dm-mod.ko
kernel/lib/reed_solomon.ko.zst:
/lib/modules/x/old-style.ko.gz:
"""


@pytest.mark.long
def test_a_module_of_many_lines_takes_no_square_of_time() -> None:
    started = time.process_time()
    assert len(read_softdeps(["softdep a pre: b post: c"] * 60_000)["a"].post) == 60_000
    assert time.process_time() - started < 4


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return module_guest(str(tmp_path))


def test_a_tree_has_names_in_the_kernels_spelling(system: FakeSystem) -> None:
    system.put(f"/ext{TREE}/modules.dep", DEP)
    system.put(f"/ext{TREE}/modules.builtin", "kernel/fs/erofs/erofs.ko\nkernel/drivers/block/virtio-blk.ko\n")
    system.put(f"/ext{TREE}/modules.softdep", "# Soft dependencies\nsoftdep dm-verity pre: sha256 post: dm-log\n")
    tree = read_tree(system, "/ext", RELEASE)
    assert tree.files == {
        "dm_mod": f"/ext{TREE}/kernel/drivers/md/dm-mod.ko",
        "dm_verity": f"/ext{TREE}/kernel/drivers/md/dm-verity.ko.xz",
        "reed_solomon": f"/ext{TREE}/kernel/lib/reed_solomon.ko.zst",
        "old_style": "/ext/lib/modules/x/old-style.ko.gz",
    }
    assert tree.needs["dm_verity"] == ("reed_solomon", "dm_mod")
    assert tree.builtin == {"erofs", "virtio_blk"}
    assert tree.softdeps == {"dm_verity": Softdep(("sha256",), ("dm_log",))}
    assert releases(system, "/ext") == (RELEASE,)


def test_no_tree_is_an_empty_one(system: FakeSystem) -> None:
    tree = read_tree(system, "", RELEASE)
    assert (tree.files, tree.builtin) == ({}, frozenset())
    assert releases(system, "") == ()


@pytest.mark.parametrize("line", ["kernel/x.ko kernel/y.ko", "kernel/x.o:", "kernel/.ko:", "../../x.ko:", "a.ko.lzma:"])
def test_an_index_that_is_none_is_refused_by_name(system: FakeSystem, line: str) -> None:
    system.put(f"{TREE}/modules.dep", f"{line}\n")
    with pytest.raises(NvrcError, match=rf"{TREE}/modules.dep: ") as caught:
        read_tree(system, "", RELEASE)
    assert caught.value.code == "E_MODULE_TREE"


def test_an_index_that_cannot_be_read_is_an_error_not_an_empty_one(system: FakeSystem) -> None:
    system.fail[f"read {TREE}/modules.builtin"] = OSError(EIO, "Input/output error")
    with pytest.raises(NvrcError, match=r"modules\.builtin: Input/output error"):
        read_tree(system, "", RELEASE)


@given(st.binary(max_size=300))
@settings(max_examples=times(4))
def test_any_bytes_are_an_index_or_an_error_with_a_code(data: bytes) -> None:
    class Reader:
        def read(self, path: str, limit: int = 0) -> bytes:
            return data

        def list_dir(self, path: str) -> tuple[str, ...]:
            return ()

        def exists(self, path: str, *, executable: bool = False) -> bool:
            return True

    try:
        read_tree(Reader(), "", RELEASE)
    except NvrcError as err:
        assert err.code == "E_MODULE_TREE"


@pytest.mark.parametrize(("lines", "found"), [
    (["softdep a pre: b c"], {"a": Softdep(("b", "c"))}),
    (["softdep a-b post: c-d pre: e"], {"a_b": Softdep(("e",), ("c_d",))}),
    (["softdep a pre: b", "softdep a post: c pre: d"], {"a": Softdep(("b", "d"), ("c",))}),
    (["softdep a b c"], {"a": Softdep()}),
    (["softdep a"], {"a": Softdep()}),
    (["softdep", "options a b"], {}),
])
def test_softdeps(lines: list[str], found: dict[str, Softdep]) -> None:
    assert read_softdeps(lines) == found


# modprobe.d

def test_a_configuration_from_several_folders(system: FakeSystem) -> None:
    system.put("/etc/modprobe.d/0000-nvidia.conf", "options nvidia NVreg_DeviceFileMode=0660\n")
    system.put("/etc/modprobe.d/50-x.conf", "# comment\n\noptions nvidia-uvm a=1 \\\n  b=2\nblacklist nouveau\n"
               "softdep nvidia pre: ecc\nalias char-major-195-* nvidia\nremove nvidia /bin/true\n")
    system.put("/lib/modprobe.d/50-x.conf", "options nvidia hidden=1\n")
    system.put("/lib/modprobe.d/10-y.conf", "options\tnvidia NVreg_A=1\ninstall nouveau /bin/false\n")
    system.put("/etc/modprobe.d/README", "options nvidia readme=1\n")
    config = read_config(system, (("nvidia", "NVreg_B=2"),))
    assert config.options_of("nvidia") == ("NVreg_DeviceFileMode=0660", "NVreg_A=1", "NVreg_B=2")
    assert config.options_of("nvidia_uvm")[0].split() == ["a=1", "b=2"]
    assert config.softdeps["nvidia"] == Softdep(("ecc",))
    assert config.installs == {"nouveau": "/lib/modprobe.d/10-y.conf:2: install nouveau /bin/false"}
    assert config.remarks == ()


@pytest.mark.parametrize("line", ["optoins nvidia a=1", "options nvidia", "options", "include /etc/x", "install"])
def test_a_line_that_nobody_understands_is_remarked_upon(system: FakeSystem, line: str) -> None:
    system.put("/etc/modprobe.d/a.conf", f"softdep x pre: y\n{line}\n")
    assert read_config(system).remarks == (f"/etc/modprobe.d/a.conf:2: {line!a} is not understood and changes nothing",)


def test_a_line_that_goes_on_at_the_end_of_the_file_counts(system: FakeSystem) -> None:
    system.put("/etc/modprobe.d/a.conf", "options nvidia a=1 \\")
    assert read_config(system).options_of("nvidia") == ("a=1",)


def test_what_cannot_be_read_is_an_error(system: FakeSystem) -> None:
    system.put("/etc/modprobe.d/a.conf", "")
    system.fail["read /etc/modprobe.d/a.conf"] = OSError(EIO, "Input/output error")
    with pytest.raises(NvrcError, match=r"a\.conf: Input/output error"):
        read_config(system)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    class Closed(FakeSystem):
        def list_dir(self, path: str) -> tuple[str, ...]:
            raise PermissionError(EACCES, "Permission denied")

    with pytest.raises(NvrcError, match="Permission denied"):
        read_config(Closed(str(tmp_path)))
    assert releases(Closed(str(tmp_path)), "") == ()
