# SPDX-License-Identifier: Apache-2.0
"""NCCL's own reading of the files that a guest has for it: the same machine as without them, and the one that the host has.

NVRC_NCCL names a program made of NCCL's topology code (nccl_reads.cc here; docs/conformance.md says how to build it).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random

import pytest

from nvrc.hardware.links import Place, ancestor
from nvrc.hardware.nccl import write_topology
from nvrc.hardware.nccl_given import fill_in, read_given
from nvrc.hardware.topology import PciFunction
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.image import build_image
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.runner import open_lab, run_scenario
from nvrc_lab.scenario.hardware import place_gpus
from nvrc_lab.scenario.scenario import find_scenario, read_scenario
from nvrc_lab.scenario.tree import place_nics
from nvrc_lab.scenario.values import Gpu, Hardware, Nic, Tree
from nvrc_lab.watch.places import FILE, read_functions

PROGRAM = os.environ.get("NVRC_NCCL", "")
pytestmark = pytest.mark.skipif(
    not PROGRAM, reason="no reader of NCCL given: name one with NVRC_NCCL; docs/conformance.md says what it is")

SPEED, WIDTH = "32.0 GT/s PCIe", "16"
# What NCCL has one word for: it knows no host bridges, only memory nodes.
WORDS = {"NODE": "PHB"}


@dataclass(frozen=True)
class Reading:
    """`below`: the element above each bus id; `paths`: NCCL's word for each pair."""

    below: Mapping[str, str]
    paths: Mapping[tuple[str, str], str]


@dataclass(frozen=True)
class Machine:
    functions: tuple[PciFunction, ...]
    places: Mapping[str, Place]

    @property
    def gpus(self) -> list[str]:
        return [one.bdf for one in self.functions if one.is_gpu]

    @property
    def nics(self) -> list[str]:
        return [one.bdf for one in self.functions if one.is_nic]

    def rows(self) -> Iterator[str]:
        """Every function and bridge as sysfs has it."""
        seen = set[str]()
        for one in self.functions:
            place = self.places[one.bdf]
            way = [place.root, *place.bridges]
            for length in range(2, len(way) + 1):
                if (path := "/".join(way[:length])) not in seen:
                    seen.add(path)
                    yield f"bridge|/sys/devices/{path}|{place.numa}|{SPEED}|{WIDTH}"
            yield f"{'gpu' if one.is_gpu else 'nic'}|/sys/devices/{'/'.join((*way, one.bdf))}|{place.numa}|{SPEED}|{WIDTH}"


def read(machine: Machine, file: Path | None) -> Reading:
    return read_rows(list(machine.rows()), file)


def read_rows(rows: Sequence[str], file: Path | None) -> Reading:
    done = subprocess.run([PROGRAM, str(file or "-")], input="\n".join(rows) + "\n", capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0, f"NCCL refused it: {done.stderr}"
    words = [line.split() for line in done.stdout.splitlines()]
    return Reading({row[1]: row[2] for row in words if row[0] == "below"},
                   {(row[1], row[2]): row[3] for row in words if row[0] == "path"})


def refusal(machine: Machine, text: str, folder: Path) -> str:
    (folder / "given.xml").write_text(text, encoding="utf-8")
    done = subprocess.run([PROGRAM, str(folder / "given.xml")], input="\n".join(machine.rows()) + "\n", capture_output=True,
                          text=True, timeout=60, check=False)
    return done.stderr.strip() if done.returncode == 1 else f"status {done.returncode}"


def make(ways: Sequence[tuple[str, tuple[str, ...], int]]) -> Machine:
    """Of kind, buses from the root bus down to the function, and memory node."""
    functions = [PciFunction(bdf=way[-1], vendor=0x10DE, device=0x2330, pci_class=0x030200) if kind == "gpu" else
                 PciFunction(bdf=way[-1], vendor=0x15B3, device=0x1021, pci_class=0x020000) for kind, way, _ in ways]
    places = {way[-1]: Place(way[-1], way[0], way[1:-1], numa, SPEED, WIDTH, SPEED, WIDTH, has_acs=False, has_ats=False)
              for _, way, numa in ways}
    ordered = sorted(functions, key=lambda one: (not one.is_gpu, one.bdf))
    return Machine(tuple(ordered), {one.bdf: places[one.bdf] for one in ordered})


def of_the_lab(tree: Tree, gpus: int, nics: int, numa: int) -> Machine:
    """As the lab's machine of these has its bus."""
    hardware = Hardware(gpus=(Gpu(product="H100", count=gpus),), nics=(Nic(count=nics),) if nics else (), tree=tree, numa=numa)
    sites = [("gpu", gpu.site) for gpu in place_gpus(hardware)] + [("nic", nic.site) for nic in place_nics(hardware)]
    return make([(kind, (f"pci{(site.bridges[0] if site.bridges else site.bdf)[:7]}",
                         *(row.split("/")[0] for row in site.bridges), site.bdf),
                  -1 if site.numa is None else site.numa) for kind, site in sites])


def check(machine: Machine, found: Reading) -> None:
    """Every pair as `nvrc topology` has it."""
    for one in machine.gpus:
        for other in (*machine.gpus, *machine.nics):
            if one != other:
                word = ancestor(machine.places[one], machine.places[other])
                assert found.paths[one, other] == WORDS.get(word, word), f"{one} {other}"


MACHINES = [pytest.param(of_the_lab(tree, gpus, nics, numa), id=f"{tree.value}-{gpus}-gpus-{nics}-nics-{numa}-nodes")
            for tree, (gpus, nics), numa in product(Tree, ((1, 0), (1, 1), (2, 5), (4, 4), (8, 8)), (1, 2))]
ODD = [
    pytest.param(make([("nic", ("pci0000:00", "0000:00:02.0", "0000:01:00.0"), 0), ("gpu", ("pci0000:00", "0000:00:03.0", "0000:02:00.0"), 0),
                       ("nic", ("pci0000:00", "0000:00:04.0", "0000:03:00.0"), 0), ("gpu", ("pci0000:00", "0000:00:05.0", "0000:04:00.0"), 0)]),
                 id="nics-between-gpus"),
    pytest.param(make([("gpu", ("pci0000:e0", "0000:e0:00.0", "0000:e1:00.0"), 1), ("gpu", ("pci0000:20", "0000:20:00.0", "0000:21:00.0"), 0),
                       ("nic", ("pci0000:c0", "0000:c0:01.0", "0000:c5:00.0"), 1), ("nic", ("pci10001:00", "10001:00:00.0", "10001:01:00.0"), 0)]),
                 id="domains-and-nodes-against-the-bus-order"),
    pytest.param(make([("gpu", ("pci0000:00", "0000:00:01.0", "0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "0000:04:00.0", "0000:05:00.0"), -1),
                       ("nic", ("pci0000:00", "0000:00:01.0", "0000:01:00.0", "0000:02:01.0", "0000:06:00.0"), -1),
                       ("nic", ("pci0000:00", "0000:00:01.0", "0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "0000:04:01.0", "0000:07:00.1"), -1),
                       ("gpu", ("pci0000:00", "0000:08:00.0"), -1)]), id="a-switch-behind-a-switch-and-none"),
]


@pytest.mark.parametrize("machine", [*MACHINES, *ODD])
def test_our_file_is_the_machine_that_nccl_finds_without_it(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "own.xml").write_bytes(write_topology(machine.functions, machine.places))
    with_file, without = read(machine, tmp_path / "own.xml"), read(machine, None)
    assert with_file == without
    check(machine, with_file)


@pytest.mark.qemu
@pytest.mark.parametrize("name", ["nics-switches", "nics-nested", "nics-ports", "nics-numa", "nics-between"])
def test_a_booted_machines_file_is_the_machine_that_nccl_finds_in_its_sysfs(name: str, tmp_path: Path) -> None:
    scenario = read_scenario(find_scenario(name, checkout().scenarios))
    lab = open_lab(checkout(), find_qemu(), build_image(), [scenario])
    went = run_scenario(lab, scenario, tmp_path / "console")
    assert went.ok, went.problems
    assert went.told is not None
    assert went.told.report is not None
    devices = [place.bdf for place in went.told.report.places]
    rows = list[str]()
    for one in read_functions(went.told).values():
        kind = "bridge" if one.code.startswith("0604") else "gpu" if one.code.startswith("03") else "nic"
        if kind == "bridge" or one.bdf in devices:
            rows.append(f"{kind}|/sys/devices/{'/'.join(one.way)}|{one.numa}|{one.most[0]}|{one.most[1]}")
    head = f"text {FILE}: "
    (tmp_path / "own.xml").write_text("".join(f"{line.removeprefix(head)}\n" for line in went.told.agent if line.startswith(head)))
    found, without = read_rows(rows, tmp_path / "own.xml"), read_rows(rows, None)
    assert found == without
    for pair in went.told.report.pairs:
        assert found.paths[pair.one, pair.other] == WORDS.get(pair.ancestor, pair.ancestor)


HOST = """<?xml version="1.0" encoding="UTF-8"?>
<!--host=h1-->
<system version="1">
\t<cpu numaid="0" affinity="ff"
\t     arch="x86_64" vendor="AuthenticAMD" familyid="25" modelid="17">
\t\t<pci busid="ffff:01:00.0" class="0x060400" link_speed="32.0 GT/s PCIe" link_width="16">
\t\t\t<pci busid="gpu:0" class="0x03"><gpu dev="5" sm="90" rank="5" gdr="1"><nvlink target="0000:99:00.0" count="18" tclass="0x03"/></gpu></pci>
\t\t\t<pci busid="nic:0" class="0x02"><nic><net name="mlx5_7" dev="3" speed="1" port="1"/></nic></pci>
\t\t</pci>
\t\t<pci busid="ffff:02:00.0" class="0x060400">
\t\t\t<pci busid="gpu:1" class="0x030200"/>
\t\t</pci>
\t</cpu>
\t<cpu numaid="1"><pci busid="nic:1" class="0x020000"/></cpu>
</system>
"""


def test_a_file_of_the_host_is_the_host_to_nccl(tmp_path: Path) -> None:
    machine = of_the_lab(Tree.PORTS, 2, 2, 1)
    present = {one.bdf: one.pci_class for one in machine.functions}
    (tmp_path / "pod.xml").write_bytes(fill_in(HOST.encode(), "pod", machine.gpus, machine.nics, present))
    found = read(machine, tmp_path / "pod.xml")
    (one, other), (near, far) = machine.gpus, machine.nics
    assert found.below == {"ffff:01:00.0": "0", "ffff:02:00.0": "0", one: "ffff:01:00.0", near: "ffff:01:00.0", other: "ffff:02:00.0", far: "1"}
    assert found.paths == {(one, other): "PHB", (other, one): "PHB", (one, near): "PIX", (other, near): "PHB", (one, far): "SYS",
                           (other, far): "SYS"}


def changed(seed: int) -> str:
    """The host's file with a few of its pieces left out, doubled or moved."""
    random = Random(seed)
    pieces = re.findall(r"<[^>]*>|[^<]+", HOST)
    for _ in range(random.randint(1, 3)):
        at, to = random.randrange(len(pieces)), random.randrange(len(pieces))
        match random.randrange(4):
            case 0:
                del pieces[at]
            case 1:
                pieces.insert(to, pieces[at])
            case 2:
                pieces[at], pieces[to] = pieces[to], pieces[at]
            case _:
                words = pieces[at].split(" ")
                del words[random.randrange(len(words))]
                pieces[at] = " ".join(words)
    return "".join(pieces)


def test_what_our_reader_takes_nccl_takes(tmp_path: Path) -> None:
    """And every GPU and NIC is in it, with a path to each other."""
    machine, taken = of_the_lab(Tree.PORTS, 2, 2, 1), 0
    present = {one.bdf: one.pci_class for one in machine.functions}
    for seed in range(400):
        text, mistakes = read_given(changed(seed).encode(), machine.gpus, machine.nics, present)
        if mistakes:
            continue
        taken += 1
        (tmp_path / "taken.xml").write_bytes(text)
        found = read(machine, tmp_path / "taken.xml")
        assert len(found.paths) == 2 + 4, f"seed {seed}"
        assert "DIS" not in found.paths.values(), f"seed {seed}"
    assert taken > 40, "most are not the point"


@pytest.mark.parametrize(("text", "complaint"), [
    pytest.param(HOST, "expected >, got '?'", id="declaration"),
    pytest.param(HOST.partition("\n")[2], "Unexpected value with name !--host", id="comment"),
    pytest.param(HOST.partition("-->\n")[2], "expecting '<', got '\t'", id="tab"),
    pytest.param(HOST.partition("-->\n")[2].replace("\t", " "), "expected >, got '\n'", id="attributes-on-two-lines"),
])
def test_nccl_would_stumble_over_the_same_file_as_it_was_given(text: str, complaint: str, tmp_path: Path) -> None:
    """So it is written anew, and not only checked."""
    assert complaint in refusal(of_the_lab(Tree.PORTS, 2, 2, 1), text, tmp_path)
