# SPDX-License-Identifier: Apache-2.0
"""Steps places and links on the stand-in library: counts, pairs, missing links, and the file that containers get."""

from __future__ import annotations

import os

import pytest
import yaml

from fakes.gpu_guest import GpuGuest, MakeGuest, bus_id
from nvrc.engine.facts import Facts, replace
from nvrc.report.links import PairRecord, record_pairs, record_places
from nvrc.steps import cdi, fabric_check, links, places
from nvrc.vocabulary.paths import TOPOLOGY_FILE, TOPOLOGY_FILES

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]

WHOLE = "fabric=completed fabric-clique=1 nvlinks=18"
NCCL = "/var/run/nvidia-topologyd/virtualTopology.xml"


def placed(guest: GpuGuest) -> GpuGuest:
    """Its GPUs on the bus, each on a root port of its own."""
    for number in range(guest.gpus):
        way = f"/sys/devices/pci0000:00/0000:00:{number + 2:02x}.0/{bus_id(number)}"
        listed = guest.system.real_path(f"/sys/bus/pci/devices/{bus_id(number)}")
        os.renames(listed, guest.system.real_path(way))
        guest.system.put(f"{way}/numa_node", "0\n")
        os.makedirs(os.path.dirname(listed), exist_ok=True)
        os.symlink(guest.system.real_path(way), listed)
    return guest


def linked(guest: GpuGuest) -> Facts:
    found = places.run(guest.system, fabric_check.run(guest.system, placed(guest).boot(1)))
    guest.facts = links.run(guest.system, found)
    return guest.facts


def test_gpus_on_switches(gpu_guest: MakeGuest) -> None:
    facts = linked(gpu_guest(keys=WHOLE))
    assert record_pairs(facts) == (PairRecord(one=bus_id(0), other=bus_id(1), ancestor="PHB", nvlinks=18, read="ok", write="ok"),)
    assert [(one.bdf, one.nvlinks, one.required, one.numa) for one in record_places(facts)] == [
        (bus_id(number), 18, 18, 0) for number in range(2)]
    assert places.tell(facts) == "2 GPUs, 0 NICs, NCCL by the bus of the guest"
    assert links.tell(facts) == "2 GPUs, 18 NVLinks each"
    assert [one for one in facts.warnings if one.code] == []


def test_links_that_the_board_must_have(gpu_guest: MakeGuest) -> None:
    facts = linked(gpu_guest(gpus=1, keys="fabric=completed fabric-clique=1 nvlinks=16"))
    assert [(one.code, one.gpu) for one in facts.warnings if one.code] == [("E_NVLINK_COUNT", bus_id(0))]
    assert "16 of 18 NVLinks are active" in facts.warnings[-1].what


def test_without_places_there_are_no_links_to_tell_of(gpu_guest: MakeGuest) -> None:
    """The step before may fail, and the boot goes on."""
    guest = gpu_guest(keys=WHOLE)
    facts = links.run(guest.system, fabric_check.run(guest.system, placed(guest).boot(1)))
    assert record_places(facts) == record_pairs(facts) == ()


def test_gpus_without_nvlink(gpu_guest: MakeGuest) -> None:
    facts = linked(gpu_guest(keys="p2p=3"))
    assert [(pair.nvlinks, pair.read) for pair in record_pairs(facts)] == [(0, "not across I/O hubs")]
    assert [(one.nvlinks, one.required) for one in record_places(facts)] == [(0, 0), (0, 0)]


class Liar:
    """A worker that answers whatever it is asked with the same words."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def ask(self, _name: str, _deadline_s: float, **_given: object) -> object:
        return self.answer


def test_pairs_with_gpus_that_nobody_counted_are_none(gpu_guest: MakeGuest) -> None:
    guest = placed(gpu_guest(keys=WHOLE))
    facts = places.run(guest.system, guest.boot(1))
    answer = {"links": [[0, 17, 17, []], [0, 18, 18, []]], "pairs": [[0, 1, 0, 0, 0], [0, 7, 0, 0, 0]]}
    found = links.run(guest.system, replace(facts, worker=Liar(answer))).links  # type: ignore[arg-type]
    assert found is not None
    assert (found.nvlinks, found.pairs) == (((bus_id(0), 18, 0),), ())


def test_a_driver_that_knows_none_of_the_questions(gpu_guest: MakeGuest) -> None:
    facts = linked(gpu_guest(keys=WHOLE, text="fail nvmlDeviceGetNvLinkState 13\nfail nvmlDeviceGetP2PStatus 13"))
    assert [(pair.nvlinks, pair.read) for pair in record_pairs(facts)] == [(0, "")]


def board(*devices: str) -> str:
    """A switch with these devices below."""
    inner = "".join(f'<pci busid="{one}" class="0x030200"/>' for one in devices)
    return f'<system version="1"><cpu numaid="0"><pci busid="ffff:01:00.0" class="0x060400">{inner}</pci></cpu></system>'


def flat(text: str) -> str:
    return "".join(line.strip() for line in text.splitlines())


def test_what_the_pod_says_of_its_host_comes_before_the_images_file(gpu_guest: MakeGuest) -> None:
    guest = placed(gpu_guest(keys=WHOLE))
    facts = replace(guest.boot(1), pod_topology=board("gpu:1", "gpu:0"))
    guest.system.put(f"{TOPOLOGY_FILES}/10de-2330x2.xml", board("gpu:0", "gpu:1"))
    found = places.run(guest.system, facts)
    assert flat(guest.text(TOPOLOGY_FILE)) == board(bus_id(1), bus_id(0))
    assert found.places is not None and found.places.source == "nccl-topology.xml of initdata"
    assert [one for one in found.warnings if one.code] == []


def test_a_pod_that_contradicts_the_bus_gets_what_the_image_says(gpu_guest: MakeGuest) -> None:
    guest = placed(gpu_guest(keys=WHOLE))
    facts = replace(guest.boot(1), pod_topology=board("gpu:0", "0000:99:00.0"))
    guest.system.put(f"{TOPOLOGY_FILES}/10de-2330x2.xml", board("gpu:0", "gpu:1"))
    found = places.run(guest.system, facts)
    assert flat(guest.text(TOPOLOGY_FILE)) == board(bus_id(0), bus_id(1))
    (doubt,) = [one for one in found.warnings if one.code]
    assert (doubt.code, doubt.path) == ("E_TOPOLOGY_FILE", "nccl-topology.xml of initdata")
    assert "GPU 0000:99:00.0 is not on the bus" in doubt.what


def test_every_container_finds_the_file(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest(keys=WHOLE)
    facts = linked(guest)
    assert bus_id(1) in guest.text(TOPOLOGY_FILE)
    guest.facts = replace(facts, cc_checked=())
    cdi.run(guest.system, guest.facts)
    mounts = yaml.safe_load(guest.text("/run/cdi/nvidia.yaml"))["containerEdits"]["mounts"]
    (mount,) = [one for one in mounts if one["containerPath"] == NCCL]
    assert mount["hostPath"] == TOPOLOGY_FILE and "ro" in mount["options"]


def test_a_boards_own_file_is_preferred_and_a_wrong_one_is_a_warning(gpu_guest: MakeGuest) -> None:
    path = f"{TOPOLOGY_FILES}/10de-2330x2.xml"
    text = ('<system version="1"><cpu numaid="0"><pci busid="ffff:01:00.0" class="0x060400"><pci busid="gpu:0" class="0x030200"/>'
            '<pci busid="gpu:1" class="0x030200"/></pci></cpu></system>')
    guest = gpu_guest(keys=WHOLE)
    guest.system.put(path, text)
    assert places.tell(linked(guest)).endswith(f"NCCL by {path}")
    assert "ffff:01:00.0" in guest.text(TOPOLOGY_FILE)
    other = gpu_guest(keys=WHOLE)
    other.system.put(path, text.replace("gpu:1", "0000:99:00.0"))
    facts = linked(other)
    assert [one.code for one in facts.warnings if one.code] == ["E_TOPOLOGY_FILE"]
    assert "ffff:01:00.0" not in other.text(TOPOLOGY_FILE)
