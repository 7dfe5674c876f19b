# SPDX-License-Identifier: Apache-2.0
"""The PCI scan and the machine table, against real directories and against a reader that fails like a kernel."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvrc.hardware.topology import COLUMNS, PRODUCTS, TABLE, VPD_LIMIT, PciFunction, Topology, classify, decide, scan
from nvrc.machine.linux_system import LinuxSystem
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.mode import Mode
from nvrc.vocabulary.paths import PCI_DEVICES

GPU, SWITCH, NIC = ("10de", "2330", "030200"), ("10de", "22a3", "068000"), ("15b3", "1021", "020700")
AUDIO, OTHER_DISPLAY, BRIDGE = ("10de", "22bc", "040300"), ("1234", "1111", "030000"), ("1b36", "000c", "060400")


def add_function(root: Path, bdf: str, ids: tuple[str, str, str], vpd: bytes | None = None) -> None:
    folder = root / PCI_DEVICES.lstrip("/") / bdf
    folder.mkdir(parents=True)
    for name, value in zip(("vendor", "device", "class"), ids, strict=True):
        (folder / name).write_text(f"0x{value}\n")
    if vpd is not None:
        (folder / "vpd").write_bytes(vpd)


def machine(gpus: int = 0, switches: int = 0, nics: int = 0) -> Topology:
    def row(bus: int, count: int, ids: tuple[str, str, str], *, manages: bool = False) -> tuple[PciFunction, ...]:
        vendor, device, pci_class = (int(value, 16) for value in ids)
        return tuple(PciFunction(bdf=f"0000:{bus + i:02x}:00.0", vendor=vendor, device=device, pci_class=pci_class,
                                 manages_switches=manages) for i in range(count))

    return classify(row(0x40, gpus, GPU) + row(0x80, switches, SWITCH) + row(0xA0, nics, NIC, manages=True))


class FailingReader:
    """A bus held in memory. A value that is an exception is raised; a list gives one answer per read."""

    def __init__(self, files: dict[str, bytes | OSError | list[bytes | OSError]]) -> None:
        self.files = files
        self.reads: list[tuple[str, int]] = []

    def list_dir(self, path: str) -> tuple[str, ...]:
        assert path == PCI_DEVICES
        if isinstance(failure := self.files.get(""), OSError):
            raise failure
        return tuple(dict.fromkeys(name.split("/")[0] for name in self.files))

    def read(self, path: str, limit: int = 1 << 20) -> bytes:
        name = path.removeprefix(PCI_DEVICES + "/")
        self.reads.append((name, limit))
        answer = self.files.get(name, FileNotFoundError(errno.ENOENT, "No such file or directory"))
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer[:limit]


def nic_with_vpd(*answers: bytes | OSError) -> FailingReader:
    return FailingReader({"0000:01:00.0/vendor": b"0x15b3\n", "0000:01:00.0/device": b"0x1021\n",
                          "0000:01:00.0/class": b"0x020700\n", "0000:01:00.0/vpd": list(answers)})


def failure(call: object, *arguments: object) -> NvrcError:
    assert callable(call)
    with pytest.raises(NvrcError) as caught:
        call(*arguments)
    return caught.value


@pytest.mark.parametrize(("counts", "mode"), [
    pytest.param({}, Mode.CPU, id="nothing"),
    pytest.param({"gpus": 1}, Mode.GPU, id="one-gpu"),
    pytest.param({"gpus": 7}, Mode.GPU, id="seven-gpus"),
    pytest.param({"gpus": 8}, Mode.GPU, id="eight-gpus-no-switch"),
    pytest.param({"gpus": 9}, Mode.GPU, id="nine-gpus"),
    pytest.param({"gpus": 8, "switches": 4}, Mode.GPU_NVL4, id="nvl4"),
    pytest.param({"switches": 4}, Mode.SERVICE_NVL4, id="nvl4-service"),
    pytest.param({"gpus": 8, "nics": 4}, Mode.GPU_NVL5, id="nvl5"),
    pytest.param({"nics": 4}, Mode.SERVICE_NVL5, id="nvl5-service"),
])
def test_supported_machines(counts: dict[str, int], mode: Mode) -> None:
    assert decide(machine(**counts)) is mode


@pytest.mark.parametrize(("counts", "nearest"), [
    pytest.param({"gpus": 7, "switches": 4}, "gpu-nvl4 (1 GPU missing); gpu (4 NVSwitches too many)",
                 id="one-gpu-missing"),
    pytest.param({"gpus": 9, "switches": 4}, "gpu-nvl4 (1 GPU too many); gpu (4 NVSwitches too many)", id="nine-gpus"),
    pytest.param({"gpus": 8, "switches": 3}, "gpu-nvl4 (1 NVSwitch missing); gpu (3 NVSwitches too many)",
                 id="one-switch-missing"),
    pytest.param({"gpus": 1, "switches": 4}, "servicevm-nvl4 (1 GPU too many); gpu (4 NVSwitches too many)",
                 id="one-gpu-of-eight"),
    pytest.param({"gpus": 4, "nics": 4},
                 "gpu (4 management NICs too many); gpu-nvl5 (4 GPUs missing)", id="half-an-nvl5"),
    pytest.param({"gpus": 8, "nics": 3}, "gpu-nvl5 (1 management NIC missing); gpu (3 management NICs too many)",
                 id="one-nic-missing"),
    pytest.param({"switches": 2}, "cpu (2 NVSwitches too many); servicevm-nvl4 (2 NVSwitches missing)",
                 id="two-switches"),
    pytest.param({"gpus": 8, "switches": 4, "nics": 4},
                 "gpu-nvl4 (4 management NICs too many); gpu-nvl5 (4 NVSwitches too many)", id="both-generations"),
])
def test_any_other_machine_is_refused(counts: dict[str, int], nearest: str) -> None:
    error = failure(decide, machine(**counts))
    assert error.code == "E_TOPOLOGY"
    assert f"nearest: {nearest}; seen: " in error.what


def test_no_machine_fits_two_rows_and_every_row_is_reachable() -> None:
    reached = set()
    for switches, gpus, nics in product(range(6), range(10), range(6)):
        fitting = [row for row in TABLE if switches in row.nvswitches and gpus in row.gpus
                   and nics in row.management_nics]
        assert len(fitting) <= 1, (switches, gpus, nics, fitting)
        if fitting:
            assert decide(machine(gpus, switches, nics)) is fitting[0].mode
            reached.add(fitting[0].mode)
        else:
            assert failure(decide, machine(gpus, switches, nics)).code == "E_TOPOLOGY"
    assert reached == set(Mode)
    assert len(COLUMNS) == 3


def test_refusal_lists_what_was_seen(tmp_path: Path) -> None:
    add_function(tmp_path, "0000:41:00.0", GPU)
    add_function(tmp_path, "0000:42:00.0", GPU)
    add_function(tmp_path, "0000:41:00.1", AUDIO)
    add_function(tmp_path, "0000:c1:00.0", SWITCH)
    add_function(tmp_path, "0000:d1:00.0", NIC, b"\x82\x05\x00SW_MNG")
    add_function(tmp_path, "0000:00:01.0", OTHER_DISPLAY)
    error = failure(decide, classify(scan(LinuxSystem(str(tmp_path)))))
    assert error.what == (
        "1 NVSwitch, 2 GPUs, 1 management NIC: no supported machine; "
        "nearest: gpu (1 NVSwitch too many, 1 management NIC too many); "
        "cpu (1 NVSwitch too many, 2 GPUs too many, 1 management NIC too many); "
        "seen: 10de:22a3 class 068000 (H100/H200 NVSwitch) at 0000:c1:00.0, "
        "10de:2330 class 030200 (H100 SXM5) at 0000:41:00.0 0000:42:00.0, "
        "15b3:1021 class 020700 (SW_MNG) at 0000:d1:00.0, 10de:22bc class 040300 at 0000:41:00.1, "
        "1 function of other vendors")


def test_scan_of_a_mixed_bus(tmp_path: Path) -> None:
    add_function(tmp_path, "10000:e1:00.7", ("10de", "20b0", "030000"))
    add_function(tmp_path, "0000:41:00.0", GPU)
    add_function(tmp_path, "0000:41:00.1", AUDIO)
    add_function(tmp_path, "0000:00:01.0", OTHER_DISPLAY)
    add_function(tmp_path, "0000:00:02.0", BRIDGE, b"SW_MNG")  # another vendor's VPD says nothing and is not read
    add_function(tmp_path, "0000:51:00.0", NIC, b"\x82\x21\x00ConnectX-7")
    add_function(tmp_path, "0000:52:00.0", NIC)
    add_function(tmp_path, "0000:53:00.0", NIC, b"\0" * 70 + b"V1\x06SW_MNG\x79")
    found = scan(LinuxSystem(str(tmp_path)))
    assert [f.bdf for f in found] == sorted(f.bdf for f in found)
    topology = classify(found)
    assert [f.bdf for f in topology.gpus] == ["0000:41:00.0", "10000:e1:00.7"]
    assert [f.bdf for f in topology.management_nics] == ["0000:53:00.0"]
    assert [f.bdf for f in topology.others] == ["0000:00:01.0", "0000:00:02.0", "0000:41:00.1", "0000:51:00.0",
                                                "0000:52:00.0"]
    assert topology.counts == (0, 2, 1)


@pytest.mark.parametrize("bdf", ["0000:00:1f.7", "12345678:ff:00.0"])
def test_addresses_of_the_shortest_and_the_longest_domain(bdf: str) -> None:
    reader = FailingReader({f"{bdf}/vendor": b"0x8086\n", f"{bdf}/device": b"0x1237\n", f"{bdf}/class": b"0x060000\n"})
    assert [function.bdf for function in scan(reader)] == [bdf]


def test_what_is_read_of_a_function_is_bounded() -> None:
    """An attribute is a line; VPD has 32 KiB by PCI's own addressing, so twice that is all there can be."""
    reader = nic_with_vpd(b"x")
    scan(reader)
    assert dict(reader.reads) == {"0000:01:00.0/vendor": 64, "0000:01:00.0/device": 64, "0000:01:00.0/class": 64,
                                  "0000:01:00.0/vpd": 65536}


def test_a_strange_entry_is_quoted_up_to_a_line() -> None:
    name = "x" * 100
    assert failure(scan, FailingReader({f"{name}/vendor": b""})).what == (
        f"{PCI_DEVICES}: entry '{'x' * 40}' is not a PCI address")


def test_a_strange_id_is_quoted_up_to_a_line() -> None:
    error = failure(scan, FailingReader({"0000:01:00.0/vendor": b"y" * 60}))
    assert error.what == f"0000:01:00.0: vendor reads '{'y' * 16}', expected 0x and 4 hex digits"


@pytest.mark.long
def test_a_bus_has_as_many_gpus_as_it_has_addresses() -> None:
    gpu = PciFunction(bdf="0000:01:00.0", vendor=0x10DE, device=0x2330, pci_class=0x030200)
    assert decide(Topology(gpus=(gpu,) * 0xFFFF)) is Mode.GPU
    assert failure(decide, Topology(gpus=(gpu,) * 0x10000)).code == "E_TOPOLOGY"


def test_no_pci_directory_is_a_machine_without_devices(tmp_path: Path) -> None:
    assert scan(LinuxSystem(str(tmp_path))) == ()
    assert decide(classify(())) is Mode.CPU


def test_bus_directory_that_cannot_be_listed(tmp_path: Path) -> None:
    error = failure(scan, FailingReader({"": PermissionError(errno.EACCES, "Permission denied")}))
    assert (error.code, error.what) == ("E_PCI_READ", f"{PCI_DEVICES}: Permission denied")


@pytest.mark.parametrize("name", ["vendor", "device", "class"])
@pytest.mark.parametrize("content", [
    b"", b"\n", b"10de\n", b"0x10d\n", b"0x10de0\n", b"0x1_de\n", b"0x+0de\n", b"0x10DE\n", b"0x10de\n\n", b" 0x10de\n",
    b"0x\xff\xfe00\n", b"0x10de\0", b"0x" + b"0" * 100, "0x１０de\n".encode(),
], ids=repr)
def test_malformed_ids_are_errors(name: str, content: bytes) -> None:
    files: dict[str, bytes | OSError | list[bytes | OSError]] = {
        "0000:01:00.0/vendor": b"0x8086\n", "0000:01:00.0/device": b"0x1237\n", "0000:01:00.0/class": b"0x060000\n"}
    files[f"0000:01:00.0/{name}"] = content
    error = failure(scan, FailingReader(files))
    assert error.code == "E_PCI_READ"
    assert error.what.startswith(f"0000:01:00.0: {name} reads ")
    assert error.what.isascii()


@pytest.mark.parametrize("bdf", [
    "", "41:00.0", "0000:41:00.8", "0000:41:0.0", "0000:4g:00.0", "0000:41:00", "0000:41:00.0 ", "../../etc",
    "000000000:41:00.0", "000:41:00.0", "0000:41-00.0", "0000:41:00:0", "0000:41:0g.0", "0000:41:00.0\n", "0000-41-00.0", "\udcff",
], ids=repr)
def test_entries_that_are_no_address_are_errors(bdf: str) -> None:
    error = failure(scan, FailingReader({f"{bdf}/vendor": b"0x10de\n"}))
    assert error.code == "E_PCI_READ"
    assert "is not a PCI address" in error.what


@pytest.mark.parametrize(("cause", "hint"), [
    pytest.param(OSError(errno.EIO, "Input/output error"), "config space or VPD", id="io-error"),
    pytest.param(FileNotFoundError(errno.ENOENT, "No such file or directory"), "vanished", id="gone-from-sysfs"),
    pytest.param(OSError(errno.ENODEV, "No such device"), "vanished", id="gone-while-open"),
    pytest.param(OSError("odd"), "config space or VPD", id="no-errno"),
])
def test_unreadable_ids_are_errors(cause: OSError, hint: str) -> None:
    error = failure(scan, FailingReader({"0000:01:00.0/vendor": cause}))
    assert (error.code, error.what) == ("E_PCI_READ", f"0000:01:00.0: vendor: {cause.strerror or 'odd'}")
    assert hint in error.hint


def test_vpd_is_read_once_more_after_a_failure() -> None:
    reader = nic_with_vpd(OSError(errno.EIO, "Input/output error"), b"..SW_MNG..")
    assert scan(reader)[0].manages_switches


@pytest.mark.parametrize(("answers", "why"), [
    pytest.param((OSError(errno.EIO, "EIO"), OSError(errno.ETIMEDOUT, "timed out"), b"SW_MNG"), "timed out", id="fails-twice"),
    pytest.param((OSError(errno.ENODEV, "No such device"),) * 2, "No such device", id="blank-storage"),
    pytest.param((b"", b""), "reads empty", id="never-answers"),
])
def test_a_vpd_that_does_not_answer_is_kept_in_mind(answers: tuple[bytes | OSError, ...], why: str) -> None:
    topology = classify(scan(nic_with_vpd(*answers)))
    assert (topology.management_nics, [nic.vpd_error for nic in topology.nics]) == ((), [f"0000:01:00.0: vpd: {why}"])
    assert decide(topology) is Mode.CPU


@pytest.mark.parametrize(("gpus", "managers", "silent", "mode"), [
    pytest.param(1, 0, 2, Mode.GPU, id="two-silent-nics-make-no-board"),
    pytest.param(8, 0, 3, Mode.GPU, id="three-do-not-either"),
    pytest.param(8, 0, 4, None, id="four-would"),
    pytest.param(8, 3, 1, None, id="the-fourth-of-a-board"),
    pytest.param(8, 4, 1, Mode.GPU_NVL5, id="a-fifth-is-an-ordinary-one"),
    pytest.param(0, 0, 4, None, id="a-service-vm-or-four-nics"),
    pytest.param(0, 2, 3, None, id="some-of-them-may-be"),
])
def test_a_silent_function_is_refused_only_where_it_could_make_another_machine(gpus: int, managers: int, silent: int,
                                                                               mode: Mode | None) -> None:
    known = machine(gpus=gpus, nics=managers)
    nics = tuple(PciFunction(bdf=f"0000:c{i}:00.0", vendor=0x15B3, device=0x1021, pci_class=0x020000, vpd_error=f"silent {i}")
                 for i in range(silent))
    topology = replace(known, others=nics)
    if mode is not None:
        assert decide(topology) is mode
        return
    error = failure(decide, topology)
    assert (error.code, error.what) == ("E_PCI_READ", "silent 0")


@pytest.mark.parametrize(("vendor", "pci_class", "vpd", "expected"), [
    (0x15B3, 0x020000, b"", True), (0x15B3, 0x020700, b"", True), (0x15B3, 0x020700, b"SW_MNG", False),
    (0x15B3, 0x080100, b"", False), (0x15B3, 0x010802, b"", False), (0x8086, 0x020000, b"", False), (0x10DE, 0x030200, b"", False),
])
def test_nics_are_network_functions_of_one_vendor(vendor: int, pci_class: int, vpd: bytes, expected: bool) -> None:
    function = PciFunction(bdf="0000:01:00.0", vendor=vendor, device=0x1021, pci_class=pci_class, manages_switches=vpd == b"SW_MNG")
    assert function.is_nic is expected
    assert classify((function,)).nics == ((function,) if expected else ())


def test_missing_vpd_is_an_ordinary_nic() -> None:
    assert not scan(nic_with_vpd(FileNotFoundError(errno.ENOENT, "No such file or directory")))[0].manages_switches


def test_vpd_is_bounded() -> None:
    reader = nic_with_vpd(b"\0" * VPD_LIMIT + b"SW_MNG")
    assert not scan(reader)[0].manages_switches
    assert ("0000:01:00.0/vpd", VPD_LIMIT) in reader.reads


def test_a_vpd_that_takes_the_kernel_for_ever_ends_the_boot_in_words() -> None:
    reader, let_go = nic_with_vpd(b"x"), threading.Event()
    reader.files |= {name.replace("01:", "02:"): answer for name, answer in reader.files.items()}
    read = reader.read

    def read_slowly(path: str, limit: int = 1 << 20) -> bytes:
        assert not path.endswith("02:00.0/vpd") or let_go.wait(10)
        return read(path, limit)

    reader.read = read_slowly  # type: ignore[method-assign]
    try:
        error = failure(scan, reader, 0.05)
    finally:
        let_go.set()
    assert (error.code, error.what) == ("E_PCI_READ", "0000:02:00.0: vpd: not read within 0.05 s, with those before it")


def test_vpd_of_other_vendors_is_not_read() -> None:
    reader = FailingReader({"0000:01:00.0/vendor": b"0x10de\n", "0000:01:00.0/device": b"0x2330\n",
                            "0000:01:00.0/class": b"0x030200\n", "0000:01:00.0/vpd": OSError(errno.EIO, "EIO")})
    assert scan(reader)[0].is_gpu
    assert not [name for name, _ in reader.reads if name.endswith("vpd")]


def test_unreadable_vpd_on_a_real_file_system(tmp_path: Path) -> None:
    add_function(tmp_path, "0000:01:00.0", NIC)
    os.mkdir(tmp_path / PCI_DEVICES.lstrip("/") / "0000:01:00.0" / "vpd")
    assert scan(LinuxSystem(str(tmp_path)))[0].vpd_error == "0000:01:00.0: vpd: Is a directory"


@given(st.dictionaries(
    st.sampled_from(["0000:01:00.0", "0000:01:00.1", "ffff:ff:1f.7", "x", "."]),
    st.fixed_dictionaries({}, optional={
        name: st.one_of(st.binary(max_size=80), st.sampled_from([
            b"0x10de\n", b"0x15b3\n", b"0x2330\n", b"0x030200\n", b"0x068000\n", b"SW_MNG"]),
            st.sampled_from([OSError(errno.EIO, "EIO"), FileNotFoundError(errno.ENOENT, "ENOENT"), OSError("?")]))
        for name in ("vendor", "device", "class", "vpd")}), max_size=4))
def test_hostile_bus_gives_facts_or_a_declared_error(bus: dict[str, dict[str, bytes | OSError]]) -> None:
    files: dict[str, bytes | OSError | list[bytes | OSError]] = {
        f"{bdf}/{name}": [value, value] if name == "vpd" else value
        for bdf, attributes in bus.items() for name, value in attributes.items()}
    try:
        found = scan(FailingReader(files))
        decide(classify(found))
    except NvrcError as error:
        assert error.code in ("E_PCI_READ", "E_TOPOLOGY")
    else:
        assert {f.bdf for f in found} == {bdf for bdf, attributes in bus.items() if attributes}


@given(st.lists(st.builds(
    PciFunction, bdf=st.just("0000:01:00.0"), vendor=st.sampled_from([0x10DE, 0x15B3, 0x1234]),
    device=st.integers(0, 0xFFFF), pci_class=st.integers(0, 0xFFFFFF), manages_switches=st.just(False))))
def test_every_function_is_in_exactly_one_group(functions: list[PciFunction]) -> None:
    topology = classify(tuple(functions))
    groups = topology.gpus + topology.nvswitches + topology.management_nics + topology.others
    assert len(groups) == len(functions)
    assert all(groups.count(f) == functions.count(f) for f in functions)
    assert all(f.pci_class >> 16 == 3 and f.vendor == 0x10DE for f in topology.gpus)


def test_products_match_by_exact_id_only() -> None:
    names = {device: name for device, name in PRODUCTS.items() if "H200" in name}
    assert names == {0x22A3: "H100/H200 NVSwitch", 0x2335: "H200 SXM", 0x233B: "H200 NVL", 0x2342: "GH200"}
    unknown = PciFunction(bdf="0000:01:00.0", vendor=0x10DE, device=0x2336, pci_class=0x030200)
    assert unknown.identity == "10de:2336 class 030200"


@pytest.mark.parametrize(("mode", "has_gpus", "service", "nvlink"), [
    (Mode.CPU, False, False, None), (Mode.GPU, True, False, None), (Mode.GPU_NVL4, True, False, 4),
    (Mode.GPU_NVL5, True, False, 5), (Mode.SERVICE_NVL4, False, True, 4), (Mode.SERVICE_NVL5, False, True, 5),
])
def test_modes_answer_questions(mode: Mode, has_gpus: bool, service: bool, nvlink: int | None) -> None:
    assert (mode.has_gpus, mode.is_service_vm, mode.nvlink) == (has_gpus, service, nvlink)
