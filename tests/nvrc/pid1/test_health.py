# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.trouble import told
from nvrc.machine.journal import KERNEL, KERNEL_LOST, Line
from nvrc.pid1.health import FAULT, LOST, MOST_KINDS, GpuHealth, read_gone, read_xid
from nvrc.vocabulary.errors import BY_CODE
from nvrc.vocabulary.gpu import GpuRecord, GpuState
from nvrc.vocabulary.trouble import Trouble

ATTACHED = GpuState.ATTACHED


class Watch:
    def __init__(self, count: int = 2) -> None:
        self.news: list[Trouble] = []
        self.health = GpuHealth(tuple(GpuRecord(bdf=f"0000:4{index}:00.0", uuid="GPU-1", state=ATTACHED, seconds=3.0)
                                      for index in range(count)), self.news.append)

    def hear(self, text: str, uid: int = KERNEL) -> None:
        self.health.hear(Line(0, uid, text))

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(record.state.value, record.code) for record in self.health.records]


@pytest.mark.parametrize(("line", "states", "news"), [
    pytest.param("NVRM: Xid (PCI:0000:41:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
                 [("attached", ""), ("lost", LOST)],
                 "E_GPU_LOST GPU 0000:41:00.0 (GPU-1): Xid 79, fell off the bus: pid='<unknown>', name=<unknown>, GPU has fallen off the bus.", id="xid-79"),
    pytest.param("NVRM: GPU 0000:40:00.0: GPU has fallen off the bus.", [("lost", LOST), ("attached", "")],
                 "E_GPU_LOST GPU 0000:40:00.0 (GPU-1): Xid 79, fell off the bus", id="off-the-bus"),
    pytest.param("NVRM: Xid (PCI:0000:40:00): 119, pid=12, Timeout after 6s", [("failed", FAULT), ("attached", "")],
                 "E_GPU_FAULT GPU 0000:40:00.0 (GPU-1): Xid 119, GSP did not answer: pid=12, Timeout after 6s", id="xid-119"),
    pytest.param("NVRM: Xid (PCI:0000:40:00.0): 48, DBE", [("failed", FAULT), ("attached", "")],
                 "E_GPU_FAULT GPU 0000:40:00.0 (GPU-1): Xid 48, double-bit memory error: DBE", id="with-function"),
    pytest.param("NVRM: Xid (PCI:0000:40:00): 13, pid=7, Graphics Exception", [("attached", ""), ("attached", "")],
                 "GPU 0000:40:00.0 (GPU-1): Xid 13: pid=7, Graphics Exception", id="the-workloads-own"),
    pytest.param("NVRM: Xid (PCI:0000:99:00): 79, x", [("attached", ""), ("attached", "")],
                 "E_GPU_LOST GPU 0000:99:00: Xid 79, fell off the bus: x", id="unknown-gpu"),
    pytest.param("nvidia-nvswitch2: SXid (PCI:0000:52:00.0): 20034, Fatal, Link 03", [("attached", ""), ("attached", "")],
                 "NVSwitch nvidia-nvswitch2 at 0000:52:00.0: SXid 20034: Fatal, Link 03", id="switch"),
])
def test_what_the_kernel_says_becomes_health(line: str, states: list[tuple[str, str]], news: str) -> None:
    watch = Watch()
    watch.hear(line)
    assert watch.states == states
    assert told(watch.news) == (news,)
    assert watch.news[0].uuid == ("GPU-1" if "(GPU-1)" in news else "")
    assert watch.health.is_whole is (states == [("attached", ""), ("attached", "")])


@pytest.mark.parametrize("line", ["NVRM: loading", "Xid", "NVRM: Xid (PCI:zz): 79, x", ""])
def test_other_lines_are_no_news(line: str) -> None:
    watch = Watch()
    watch.hear(line)
    assert watch.news == []


def test_a_program_cannot_speak_for_the_kernel() -> None:
    watch = Watch()
    for uid in (0, 1000):
        watch.hear("NVRM: Xid (PCI:0000:40:00): 79, x", uid)
    assert (watch.news, watch.health.is_whole) == ([], True)


def test_each_kind_is_told_once_for_each_gpu() -> None:
    watch = Watch()
    for _ in range(3):
        for bus in ("40", "41"):
            watch.hear(f"NVRM: Xid (PCI:0000:{bus}:00): 31, x")
    watch.hear("NVRM: Xid (PCI:0000:40:00): 43, x")
    assert len(watch.news) == 3


@pytest.mark.parametrize("line", [
    "overlay: Unknown parameter 'NVRM: Xid (PCI:0000:40:00): 79, x'", "x NVRM: GPU 0000:40:00.0: GPU has fallen off the bus",
    " NVRM: Xid (PCI:0000:40:00): 79, x", "tmpfs: Bad value for 'nvidia-nvswitch0: SXid (PCI:0000:40:00.0): 20034, x'",
    "NVRM: Xid (PCI:[17]: segfault at 0 ip 0 NVRM: Xid (PCI:0000:40:00): 79, x",
])
def test_words_that_the_kernel_quotes_are_not_the_drivers(line: str) -> None:
    watch = Watch()
    watch.hear(line)
    assert (watch.news, watch.health.is_whole) == ([], True)


def test_a_flood_about_other_places_hides_no_fault() -> None:
    watch = Watch()
    for number in range(MOST_KINDS * 4):
        watch.hear(f"NVRM: Xid (PCI:00{number & 255:02x}:{number >> 8:02x}:00): 79, x")
    for number in range(MOST_KINDS + 50):
        watch.hear(f"NVRM: Xid (PCI:0000:41:00): {number}, x")
    before = len(watch.news)
    watch.hear("NVRM: Xid (PCI:0000:40:00): 79, the real one")
    assert list(told(watch.news[before:])) == ["E_GPU_LOST GPU 0000:40:00.0 (GPU-1): Xid 79, fell off the bus: the real one"]
    assert watch.states[0] == ("lost", LOST)


def test_a_gap_in_the_kernels_log_is_told_but_not_each() -> None:
    watch = Watch()
    for _ in range(1000):
        watch.hear("gap", KERNEL_LOST)
    assert len(watch.news) == 10
    assert told(watch.news)[0] == "gap (1 times): a fault of a GPU may be among them; ask nvidia-smi"
    assert watch.health.is_whole


def test_a_lost_gpu_stays_lost_and_a_faulty_one_can_still_be_lost() -> None:
    watch = Watch(1)
    watch.hear("NVRM: Xid (PCI:0000:40:00): 119, x")
    watch.hear("NVRM: Xid (PCI:0000:40:00): 79, x")
    watch.hear("NVRM: Xid (PCI:0000:40:00): 48, x")
    assert watch.states == [("lost", LOST)]
    assert watch.health.records[0].uuid == "GPU-1"


def test_a_flood_of_kinds_is_bounded() -> None:
    watch = Watch()
    for number in range(MOST_KINDS + 50):
        watch.hear(f"NVRM: Xid (PCI:0000:40:00): {number}, x")
    assert len(watch.news) == MOST_KINDS == 256
    assert watch.states[0] == ("lost", LOST), "its state is kept all the same"


def counted(watch: Watch) -> dict[tuple[str, int], int]:
    return {(one.gpu, one.number): one.count for one in watch.health.xids}


def test_xids_are_counted_for_each_gpu_of_the_machine() -> None:
    watch = Watch()
    for place, number in (("40", 31), ("41", 31), ("40", 31), ("40", 79), ("40", 31), ("99", 31)):
        watch.hear(f"NVRM: Xid (PCI:0000:{place}:00): {number}, x")
    assert counted(watch) == {("0000:40:00.0", 31): 3, ("0000:41:00.0", 31): 1, ("0000:40:00.0", 79): 1}


def test_a_flood_of_kinds_fills_the_count_of_all_gpus_and_what_is_known_counts_on() -> None:
    watch = Watch()
    for number in range(600):
        watch.hear(f"NVRM: Xid (PCI:0000:40:00): {number}, x")
    watch.hear("NVRM: Xid (PCI:0000:40:00): 7, x")
    assert (len(counted(watch)), max(number for _, number in counted(watch))) == (512, 511)
    assert counted(watch)["0000:40:00.0", 7] == 2


def test_each_switch_is_told_of_by_itself() -> None:
    watch = Watch()
    for bus in ("52", "53", "52"):
        watch.hear(f"nvidia-nvswitch{bus}: SXid (PCI:0000:{bus}:00.0): 20034, Fatal")
    assert len(watch.news) == 2


def test_gpus_that_persistenced_does_not_attach_again_are_failed() -> None:
    watch = Watch(3)
    watch.hear("NVRM: Xid (PCI:0000:41:00): 79, x")
    watch.news.clear()
    records = watch.health.records
    watch.health.attached_again((records[0], *(replace(one, state=GpuState.FAILED, code="E_GPU_ATTACH") for one in records[1:])))
    assert watch.states == [("attached", ""), ("lost", LOST), ("failed", "E_GPU_ATTACH")]
    assert list(told(watch.news)) == [
        "E_GPU_ATTACH GPU 0000:41:00.0 (GPU-1): not attached again by nvidia-persistenced",
        "E_GPU_ATTACH GPU 0000:42:00.0 (GPU-1): not attached again by nvidia-persistenced",
        "nvidia-persistenced has attached 1 of 3 GPUs again"]
    assert [(one.gpu, one.uuid, one.step) for one in watch.news[:1]] == [("0000:41:00.0", "GPU-1", "supervise")]


def test_a_gpu_that_failed_to_attach_is_not_whole() -> None:
    assert not GpuHealth((GpuRecord(bdf="0000:40:00.0", state=GpuState.FAILED),), lambda _: None).is_whole


@given(st.text(alphabet=st.sampled_from("NVRM:Xid (PCI0123456789.,)GPUhasfallen"), max_size=80))
def test_any_line_is_heard_without_an_error(text: str) -> None:
    watch = Watch()
    for head in ("", "NVRM: Xid (PCI:0000:40:00): ", "nvidia-nvswitch0: SXid "):
        watch.hear(head + text)
    assert set(watch.states) <= {("attached", ""), ("lost", LOST), ("failed", FAULT)}


@pytest.mark.parametrize(("text", "is_read"), [
    ("NVRM: Xid (PCI:0:40:0): 31, x", False), ("NVRM: Xid (PCI:0:40:00): 31, x", True),
    ("NVRM: Xid (PCI:00000000:40:00.0): 31, x", True), ("NVRM: Xid (PCI:000000000:40:00.0): 31, x", False),
    ("NVRM: Xid (PCI:0000:40:00): 1234, x", True), ("NVRM: Xid (PCI:0000:40:00): 12345, x", False),
    ("nvidia-nvswitch0: SXid (PCI:0000:52:00.0): 123456, x", True),
    ("nvidia-nvswitch0: SXid (PCI:0000:52:00.0): 1234567, x", False),
    ("nvidia-nvswitch255: SXid (PCI:0000:52:00.0): 1, x", True), ("nvidia-nvswitch2555: SXid (PCI:0000:52:00.0): 1, x", False),
])
def test_how_long_places_and_numbers_are(text: str, is_read: bool) -> None:
    watch = Watch()
    watch.hear(text)
    assert bool(watch.news) is is_read


def test_codes_are_known() -> None:
    assert {LOST, FAULT} <= set(BY_CODE)


def test_xids_are_counted_by_their_own_lines() -> None:
    watch = Watch(1)
    watch.hear("NVRM: Xid (PCI:0000:40:00): 31, x")
    watch.hear("NVRM: Xid (PCI:0000:40:00): 31, x")
    watch.hear("NVRM: Xid (PCI:0000:40:00): 79, x")
    watch.hear("NVRM: GPU 0000:40:00.0: GPU has fallen off the bus.")
    watch.hear("NVRM: Xid (PCI:0000:99:00): 31, nobody's")
    assert [(xid.gpu, xid.number, xid.count) for xid in watch.health.xids] == [("0000:40:00.0", 31, 2), ("0000:40:00.0", 79, 1)]


PATTERNS = (re.compile(r"NVRM: Xid \(PCI:([0-9a-fA-F:.]{7,16})\): ([0-9]{1,4}), *(.*)"),
            re.compile(r"NVRM: GPU ([0-9a-fA-F:.]{7,16}): GPU has fallen off the bus"))
PIECES = ("NVRM: Xid (PCI:", "NVRM: GPU ", "0000:40:00", "0000:40:00.0", "0000:4g:00", "12345", "0000:40:00.012345", "): ", ": ", ")", ",", " ",
          "79", "٣", "1234", "", "pid=1, name=x", "GPU has fallen off the bus", "!")


@pytest.mark.long
def test_lines_are_read_as_their_patterns_say() -> None:
    """Lines of the driver's pieces, put together by chance: most are none, and some are."""
    chance, found = random.Random(15), [0, 0]
    whole = ("NVRM: Xid (PCI:", "0000:40:00", "): ", "79", ",", " ", "pid=1"), ("NVRM: GPU ", "0000:40:00.0", ": ", "GPU has fallen off the bus")
    for number in range(20_000):
        pieces = list(whole[number % 2])
        for _ in range(chance.randrange(3)):
            pieces[chance.randrange(len(pieces))] = chance.choice(PIECES)
        text = "".join(pieces)
        xid, gone = (pattern.match(text) for pattern in PATTERNS)
        assert read_xid(text, "NVRM: Xid (PCI:", 4) == (xid and (xid[1], int(xid[2]), xid[3])), text
        assert read_gone(text) == (gone[1] if gone else ""), text
        found[0] += bool(xid)
        found[1] += bool(gone)
    assert min(found) > 1000
