# SPDX-License-Identifier: Apache-2.0
"""dm-verity by ioctl: the table, the two openings, what is read back, and what is left after a failure."""

from __future__ import annotations

import stat
from errno import EBUSY, EINVAL, ENOENT, EROFS
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.device_mapper import EROFS as FILE_SYSTEM
from fakes.device_mapper import ExtensionGuest, extension_guest, params
from fakes.examples import times
from nvrc.extensions import dm
from nvrc.extensions.disks import Pair, Partition
from nvrc.extensions.verity import make_table, open_verity
from nvrc.machine.system import Node
from nvrc.params.extension import Extension
from nvrc.params.values import Corruption
from nvrc.vocabulary.errors import NvrcError

HASH = "ab" * 32
PAIR = Pair(Extension("gpu", params(HASH)), Partition("252:1", 1 << 20), Partition("252:2", 1 << 20))
PLAIN = f"1600 verity 1 252:1 252:2 4096 4096 200 0 sha256 {HASH} 5a"
NAME = "extension-gpu"


@pytest.fixture
def guest(tmp_path: Path) -> ExtensionGuest:
    guest = extension_guest(str(tmp_path))
    guest.images[HASH] = FILE_SYSTEM
    return guest


def refusal(guest: ExtensionGuest, corruption: Corruption = Corruption.PANIC) -> NvrcError:
    with pytest.raises(NvrcError) as caught:
        open_verity(guest, PAIR, corruption)
    assert caught.value.code == "E_VERITY"
    assert caught.value.what.startswith('extension "gpu": ')
    return caught.value


@pytest.mark.parametrize(("corruption", "tables"), [
    (Corruption.IO_ERROR, [PLAIN]),
    (Corruption.PANIC, [PLAIN, f"{PLAIN} 1 panic_on_corruption"]),
    (Corruption.RESTART, [PLAIN, f"{PLAIN} 1 restart_on_corruption"]),
])
def test_it_is_opened_with_io_errors_first_and_then_with_the_policy(guest: ExtensionGuest, corruption: Corruption,
                                                                    tables: list[str]) -> None:
    assert open_verity(guest, PAIR, corruption) == FILE_SYSTEM
    assert guest.mapper.tables == tables
    assert guest.nodes[f"/dev/mapper/{NAME}"] == Node(stat.S_IFBLK | 0o600, 253, 0)
    steps = [f"{call} {NAME}" for _ in tables for call in ("load", "resume", "status")]
    assert guest.mapper.calls == [f"create {NAME}", *steps]


def test_a_salt_may_be_absent() -> None:
    bare = PAIR._replace(extension=Extension("gpu", params(HASH)._replace(salt="-")))
    assert make_table(bare, Corruption.IO_ERROR).params.endswith(f"sha256 {HASH} -")


def test_data_that_do_not_verify_end_with_a_code_before_any_panic_is_armed(guest: ExtensionGuest) -> None:
    guest.images.clear()
    err = refusal(guest)
    assert "the data do not verify against root hash abababababababab..." in err.what
    assert guest.mapper.tables == [PLAIN]
    assert guest.mapper.devices == {}


def test_an_empty_device_is_refused(guest: ExtensionGuest) -> None:
    guest.images[HASH] = b""
    assert "is empty" in refusal(guest).what


@pytest.mark.parametrize("shown", [
    lambda table: table.replace(HASH, "cd" * 32),
    lambda table: table.replace("252:2", "252:3"),
    lambda table: table.replace("1600 ", "8 "),
    lambda table: table.replace(" verity ", " linear "),
    lambda table: f"{table} 1 ignore_corruption",
    lambda table: table.replace("sha256", "\xff"),
], ids=["root-hash", "partition", "length", "target", "policy", "bytes"])
def test_a_table_that_reads_back_differently_is_refused(guest: ExtensionGuest, shown: object) -> None:
    guest.mapper.shown = shown  # type: ignore[assignment]
    assert 'the active table is "' in refusal(guest).what
    assert guest.mapper.devices == {}


@pytest.mark.parametrize("changed", [
    {"status_flags": 1 << 5}, {"status_flags": 1 << 0}, {"status_flags": 1 << 0 | 1 << 5 | 1 << 8}, {"targets": 0},
    {"targets": 2}, {"start": 0}, {"start": 1 << 30},
], ids=str)
def test_an_answer_that_is_no_table_is_refused(guest: ExtensionGuest, changed: dict[str, int]) -> None:
    for name, value in changed.items():
        setattr(guest.mapper, name, value)
    refusal(guest)
    assert guest.mapper.devices == {}


@pytest.mark.parametrize(("call", "left"), [("load", 0), ("resume", 0), ("status", 0), ("remove", 1)])
def test_a_refused_call_is_told_with_the_kernels_words_and_leaves_nothing(guest: ExtensionGuest, call: str,
                                                                          left: int) -> None:
    guest.mapper.fail[call] = OSError(EINVAL, "Invalid argument")
    guest.kernel_log = [b"3,1,2,-;device-mapper: table: 253:0: verity: Invalid data block size\n"]
    if call == "remove":
        guest.images.clear()
        assert "do not verify" in refusal(guest).what
    else:
        assert refusal(guest).what.endswith('dm-verity was refused: Invalid argument; the kernel says "device-mapper: '
                                            'table: 253:0: verity: Invalid data block size"')
    assert len(guest.mapper.devices) == left


def test_the_kernels_last_words_are_quoted_as_far_as_a_line_goes(guest: ExtensionGuest) -> None:
    guest.mapper.fail["load"] = OSError(EINVAL, "Invalid argument")
    guest.kernel_log = [b"3,1,2,-;device-mapper: table: an older one\n", b"3,2,2,-;device-mapper: table: " + b"x" * 500 + b"\n"]
    assert refusal(guest).what.endswith(f'; the kernel says "device-mapper: table: {"x" * 138}"')


def test_a_strange_table_is_quoted_as_far_as_a_line_goes(guest: ExtensionGuest) -> None:
    guest.mapper.shown = lambda _table: f"8 linear {'y' * 900}"
    assert refusal(guest).what.startswith(f'extension "gpu": the active table is "8 linear {"y" * 400}", not "1600 verity 1 ')


def test_a_kernel_without_device_mapper_is_told(guest: ExtensionGuest) -> None:
    guest.devices.clear()
    err = refusal(guest)
    assert "/dev/mapper/control does not work: No such file or directory" in err.what
    assert "CONFIG_BLK_DEV_DM" in err.hint


def test_a_device_of_that_name_is_never_taken_over(guest: ExtensionGuest) -> None:
    dm.create(guest, NAME)
    assert "cannot be created: Device or resource busy" in refusal(guest).what
    assert NAME in guest.mapper.devices


@pytest.mark.parametrize("there", [Node(stat.S_IFREG | 0o600, 0, 0), Node(stat.S_IFBLK | 0o600, 253, 7)])
def test_a_foreign_file_under_the_name_is_refused(guest: ExtensionGuest, there: Node) -> None:
    guest.nodes[f"/dev/mapper/{NAME}"] = there
    assert "cannot make /dev/mapper/extension-gpu: File exists" in refusal(guest).what


def test_a_dev_that_cannot_be_written_is_told(guest: ExtensionGuest) -> None:
    guest.fail["mkdir /dev/mapper"] = OSError(EROFS, "Read-only file system")
    assert "Read-only file system" in refusal(guest).what


@pytest.mark.parametrize("found", [
    pytest.param(None, id="none"), pytest.param(Node(stat.S_IFCHR | 0o600, 253, 0), id="no-block-device"),
    pytest.param(Node(stat.S_IFBLK | 0o600, 253, 1), id="another-device"),
    pytest.param(Node(stat.S_IFBLK | 0o600, 252, 0), id="another-driver"),
])
def test_a_node_that_is_not_what_was_made_is_refused(guest: ExtensionGuest, found: Node | None) -> None:
    class Lying(ExtensionGuest):
        def find_node(self, path: str) -> Node | None:
            return found

    lying = Lying(guest.root)
    lying.mapper, lying.images, lying.devices = guest.mapper, guest.images, guest.devices
    assert "is not the block device 253:0" in refusal(lying).what


def test_requests_have_the_kernels_numbers() -> None:
    assert [hex(dm.request(number)) for number in (dm.DM_DEV_CREATE, dm.DM_TABLE_STATUS)] == ["0xc138fd03", "0xc138fd0c"]
    assert dm.HEADER.size == 312


def test_a_target_that_does_not_begin_at_the_beginning_is_refused(guest: ExtensionGuest) -> None:
    class Shifted:
        def ioctl(self, path: str, request: int, data: bytes) -> bytes:
            out = bytearray(guest.mapper(request, data))
            if request & 0xFF == dm.DM_TABLE_STATUS:
                out[dm.HEADER.size] = 8
            return bytes(out)

    dm.create(guest, NAME)
    dm.load_table(guest, NAME, make_table(PAIR, Corruption.IO_ERROR))
    dm.activate(guest, NAME)
    with pytest.raises(dm.DmError, match="begins at sector 8"):
        dm.read_table(Shifted(), NAME)
    assert dm.read_table(guest, NAME) == make_table(PAIR, Corruption.IO_ERROR)


@pytest.mark.long
@given(st.binary(min_size=312, max_size=500))
@settings(max_examples=times(5))
def test_any_reply_is_a_table_or_an_error(reply: bytes) -> None:
    class Hostile:
        def ioctl(self, path: str, request: int, data: bytes) -> bytes:
            return reply

    try:
        dm.read_table(Hostile(), NAME)
    except OSError:
        pass


def test_errno_of_a_missing_control_is_not_mistaken(guest: ExtensionGuest) -> None:
    guest.mapper.fail["create"] = OSError(ENOENT, "No such file or directory")
    assert "does not work" in refusal(guest).what
    guest.mapper.fail["create"] = OSError(EBUSY, "Device or resource busy")
    assert "cannot be created" in refusal(guest).what
