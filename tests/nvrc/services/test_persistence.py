# SPDX-License-Identifier: Apache-2.0
"""The attach ledger, and every way in which nvidia-persistenced comes up, fails, stalls, or says success and lies."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.daemons import Stage, exited, gpu
from fakes.trouble import told
from nvrc.machine.journal import Line
from nvrc.machine.privileges import PERSISTENCED_ACCOUNT
from nvrc.services.launch import MOST_WORDS
from nvrc.services.ledger import Ledger, lines_about, read_device_line
from nvrc.steps import persistenced as step
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.gpu import GpuState

PROGRAM = "/bin/nvidia-persistenced"
PID_FILE = "/run/nvrc/nvidia-persistenced/nvidia-persistenced.pid"
TAG = "Nov 21 10:00:00 nvidia-persistenced:"
BDFS = [gpu(index).bdf for index in range(8)]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(str(tmp_path))
    stage.program(PROGRAM)
    stage.system.put(PID_FILE, "5120\n")
    stage.system.put_group(5120, PERSISTENCED_ACCOUNT.gid)
    return stage


def attaches(stage: Stage, at_s: float, bdf: str, took_s: float = 3.0, how: str = "persistence mode enabled.") -> float:
    stage.says(at_s, f"{TAG} device {bdf} - registered")
    stage.says(at_s + took_s, f"{TAG} device {bdf} - {how}")
    return at_s + took_s


def all_attach(stage: Stage, count: int, took_s: float = 3.0) -> float:
    at_s = 1.0
    for bdf in BDFS[:count]:
        at_s = attaches(stage, at_s, bdf, took_s)
    return at_s


def information(uuid: str) -> str:
    return f"Model: \t\t NVIDIA H100\nIRQ:   \t\t 24\nGPU UUID: \t {uuid}\nDevice Minor: \t 0\n"


def test_every_gpu_attaches(stage: Stage) -> None:
    ended_s = all_attach(stage, 8)
    stage.says(ended_s, f"{TAG} Local RPC services initialized")
    stage.ends(ended_s)
    stage.system.put(f"/proc/driver/nvidia/gpus/{BDFS[0]}/information", information("GPU-00112233-4455-6677-8899-aabbccddeeff"))
    stage.system.put(f"/proc/driver/nvidia/gpus/{BDFS[1]}/information", information("GPU-????????-????-????-????-????????????"))
    facts = step.run(stage.system, stage.facts(gpus=8))
    assert facts.ledger is not None
    assert [record.bdf for record in facts.ledger] == BDFS
    assert {record.state for record in facts.ledger} == {GpuState.ATTACHED}
    assert {record.seconds for record in facts.ledger} == {3.0}
    assert [record.uuid for record in facts.ledger[:3]] == ["GPU-00112233-4455-6677-8899-aabbccddeeff", "", ""]
    (running,) = facts.services
    assert (running.started_pid, running.pid) == (4711, 5120)
    assert facts.warnings == ()
    assert step.tell(facts) == "8 of 8 GPUs attached, slowest 3.0 s"


@pytest.mark.parametrize(("cmdline", "command"), [
    ("", f"{PROGRAM} --verbose --uvm-persistence-mode"), ("nvrc.uvm.persistence.mode=off", f"{PROGRAM} --verbose")])
def test_the_command_line(stage: Stage, cmdline: str, command: str) -> None:
    stage.ends(all_attach(stage, 1))
    step.run(stage.system, stage.facts(cmdline=cmdline))
    assert stage.commands == [command]
    assert "own /run/nvrc/nvidia-persistenced 64900:64900 755" in stage.system.effects


def test_lines_that_are_read_after_the_end_count(stage: Stage) -> None:
    stage.ends(4)
    attaches(stage, 4.1, BDFS[0], 0.2)
    facts = step.run(stage.system, stage.facts())
    assert facts.ledger is not None
    assert facts.ledger[0].state is GpuState.ATTACHED
    assert stage.system.clock == pytest.approx(104.3)


def test_a_line_whose_speaker_could_not_be_seen_at_first_counts_when_it_can(stage: Stage) -> None:
    """Seen in 1 of 167 boots on a busy host: all lines of one of two GPUs were there, and it was never tried."""
    stage.says(1, f"{TAG} device {BDFS[0]} - registered", pid=5120)
    stage.says(1.2, f"{TAG} device {BDFS[0]} - persistence mode enabled.", pid=5120)
    stage.system.later(2, lambda: stage.system.put("/proc/5120/stat", f"5120 (nvidia-persiste) S 1 {'0 ' * 17}10100 0\n"))
    stage.ends(3)
    facts = step.run(stage.system, stage.facts())
    assert facts.ledger is not None
    assert facts.ledger[0].state is GpuState.ATTACHED


def test_slow_gpus_may_take_longer_together_than_one_alone_is_given(stage: Stage) -> None:
    stage.ends(all_attach(stage, 8, took_s=100))
    facts = step.run(stage.system, stage.facts(gpus=8, cmdline="nvrc.timeout.persistenced=30"))
    assert stage.system.clock == 901
    assert step.tell(facts) == "8 of 8 GPUs attached, slowest 100.0 s"
    assert step.deadline_s(stage.facts(gpus=8)) >= 8 * 2 * 200


# Failures


def test_a_wedged_gpu_is_named_with_how_far_it_got(stage: Stage) -> None:
    at_s = all_attach(stage, 5)
    stage.says(at_s, f"{TAG} device {BDFS[5]} - registered")
    with pytest.raises(NvrcError) as caught:
        step.run(stage.system, stage.facts(gpus=8, cmdline="nvrc.timeout.persistenced=60 nvrc.timeout.per_gpu=0"))
    assert caught.value.code == "E_PERSISTENCED_STALL"
    assert caught.value.what == (f"5 of 8 GPUs attached, last 60.0 s ago, no progress for 60.0 s; {BDFS[5]} does not come up")
    assert not any(effect.startswith("signal") for effect in stage.system.effects), "it is never killed while it attaches"


def test_noise_is_no_progress(stage: Stage) -> None:
    for second in range(1, 400):
        stage.says(second, "somebody: noise")
        stage.kernel_says(second, "NVRM: noise")
    with pytest.raises(NvrcError, match=r"0 of 1 GPUs attached, none yet, no progress for 130\.0 s; nvidia-persistenced is not working on any GPU"):
        step.run(stage.system, stage.facts())


def test_a_stall_carries_what_the_kernel_said_about_that_gpu(stage: Stage) -> None:
    stage.says(1, f"{TAG} device {BDFS[0]} - registered")
    stage.kernel_says(2, f"NVRM: GPU {BDFS[0]}: GPU has fallen off the bus.")
    stage.kernel_says(2, f"NVRM: GPU {BDFS[1]}: RmInitAdapter failed! (0x62:0x65:1792)")
    with pytest.raises(NvrcError) as caught:
        step.run(stage.system, stage.facts(gpus=2))
    assert caught.value.code == "E_PERSISTENCED_STALL"
    assert caught.value.hint.startswith("the GPU no longer answers on PCIe")


def fail_one_of_two(stage: Stage) -> None:
    """What NVIDIA's programs do: every sign says success."""
    stage.says(1, f"{TAG} device {BDFS[0]} - registered")
    stage.kernel_says(2, "NVRM: osInitNvMapping: *** Cannot attach gpu")
    stage.kernel_says(2, f"NVRM: GPU {BDFS[0]}: RmInitAdapter failed! (0x22:0x56:884)")
    stage.says(2.5, f"{TAG} device {BDFS[0]} - failed to open.")
    ended_s = attaches(stage, 3, BDFS[1])
    stage.says(ended_s, f"{TAG} Local RPC services initialized")
    stage.system.put("/var/run/nvidia-persistenced/socket")
    stage.ends(ended_s)


def test_success_with_a_gpu_that_failed_is_a_failure_that_says_why(stage: Stage) -> None:
    fail_one_of_two(stage)
    with pytest.raises(NvrcError) as caught:
        step.run(stage.system, stage.facts(gpus=2))
    assert caught.value.code == "E_GPU_ATTACH"
    assert caught.value.what == (
        f"1 of 2 GPUs attached; nvrc.gpus=all requires 2; GPU {BDFS[0]} failed to attach: a "
        "confidential GPU attaches once between two resets, and this one had its attach or lost its secure session")
    assert "reset it from the host" in caught.value.hint


def test_a_driver_of_two_releases_is_the_reason_not_the_gpu(stage: Stage) -> None:
    stage.says(1, f"{TAG} device {BDFS[0]} - registered")
    stage.kernel_says(2, "NVRM: API mismatch: the client has the version 550.163.01, but")
    stage.says(2.5, f"{TAG} device {BDFS[0]} - failed to open.")
    stage.ends(3)
    with pytest.raises(NvrcError) as caught:
        step.run(stage.system, stage.facts())
    assert caught.value.code == "E_DRIVER_VERSION"
    assert BDFS[0] in caught.value.what


@pytest.mark.parametrize(("wanted", "holds"), [("all", False), ("min:1", True), ("min:2", False), ("2", False), ("1", False)])
def test_how_many_gpus_are_enough_is_the_command_lines_to_say(stage: Stage, wanted: str, holds: bool) -> None:
    fail_one_of_two(stage)
    facts = stage.facts(gpus=2, cmdline=f"nvrc.gpus={wanted}")
    if not holds:
        with pytest.raises(NvrcError, match=f"nvrc.gpus={wanted} requires"):
            step.run(stage.system, facts)
        return
    found = step.run(stage.system, facts)
    assert found.ledger is not None
    assert [(record.state, record.code) for record in found.ledger] == [
        (GpuState.FAILED, "E_GPU_ATTACH"), (GpuState.ATTACHED, "")]
    assert len(found.warnings) == 1
    assert told(found.warnings)[0].startswith(f"E_GPU_ATTACH GPU {BDFS[0]} failed to attach: a confidential GPU")
    assert step.tell(found) == "1 of 2 GPUs attached, slowest 3.0 s"


def test_more_gpus_than_wanted_are_told_as_such(stage: Stage) -> None:
    stage.ends(all_attach(stage, 2))
    with pytest.raises(NvrcError, match=r"2 of 2 GPUs attached; nvrc\.gpus=1 requires 1") as caught:
        step.run(stage.system, stage.facts(gpus=2, cmdline="nvrc.gpus=1"))
    assert caught.value.code == "E_GPU_COUNT"


def test_a_gpu_that_the_daemon_never_mentions_has_failed(stage: Stage) -> None:
    stage.ends(all_attach(stage, 1))
    with pytest.raises(NvrcError) as caught:
        step.run(stage.system, stage.facts(gpus=2))
    assert caught.value.code == "E_GPU_ATTACH"
    assert f"nvidia-persistenced never tried GPU {BDFS[1]}" in caught.value.what
    assert stage.system.clock == 105, "one second for lines that are still under way"


@pytest.mark.parametrize(("line", "hint"), [
    pytest.param("Failed to query NVIDIA devices. Please ensure that the NVIDIA device files (/dev/nvidia*) exist",
                 "the nvidia module is not loaded", id="no-driver"),
    pytest.param("Failed to open libnvidia-cfg.so.1: libnvidia-cfg.so.1: cannot open shared object file",
                 "libnvidia-cfg.so.1 or a library it needs", id="no-library"),
    pytest.param("Failed to create RPC service", "libtirpc found no transport: add /etc/netconfig", id="no-netconfig"),
    pytest.param("Unable to access /var/run/nvidia-persistenced: No such file or directory",
                 "the daemon cannot write its folder", id="no-var-run"),
    pytest.param("Failed to lock PID file: Resource temporarily unavailable",
                 "another nvidia-persistenced is running", id="running-already"),
])
def test_every_way_in_which_the_daemon_does_not_come_up(stage: Stage, line: str, hint: str) -> None:
    stage.says(0.5, f"{TAG} {line}")
    stage.ends(1, exited(1))
    with pytest.raises(NvrcError) as caught:
        step.run(stage.system, stage.facts())
    assert caught.value.code == "E_PERSISTENCED_START"
    assert caught.value.what.startswith("nvidia-persistenced exited with status 1 ")
    assert caught.value.what.endswith(f"its last message: {line}")
    assert caught.value.hint.startswith(hint)


def test_a_crash_of_the_daemon_is_a_failed_start(stage: Stage) -> None:
    stage.ends(1, int(signal.SIGSEGV))
    with pytest.raises(NvrcError, match="nvidia-persistenced was killed by SIGSEGV") as caught:
        step.run(stage.system, stage.facts())
    assert caught.value.code == "E_PERSISTENCED_START"


@pytest.mark.long
def test_of_a_flood_the_newest_is_kept(stage: Stage) -> None:
    for number in range(3 * MOST_WORDS):
        stage.says(0.5, f"{TAG} {number}", pid=666)
    stage.says(0.6, f"{TAG} device {BDFS[0]} - registered")
    stage.says(0.7, f"{TAG} Failed to query NVIDIA devices")
    stage.ends(1, int(signal.SIGSEGV))
    with pytest.raises(NvrcError) as caught:
        step.run(stage.system, stage.facts())
    assert "its last message: Failed to query NVIDIA devices" in caught.value.what


@pytest.mark.parametrize("text", ["", "5121\n"], ids=["no pid", "that of another row"])
def test_a_daemon_that_left_no_pid_cannot_be_looked_after(stage: Stage, text: str) -> None:
    stage.system.put_group(5121, 0)
    stage.system.put(PID_FILE, text)
    stage.ends(all_attach(stage, 1))
    with pytest.raises(NvrcError, match=r"nvidia-persistenced left no pid of its own in its folder, /run/nvidia-persistenced"):
        step.run(stage.system, stage.facts())


def test_a_read_only_var_run_is_told(stage: Stage) -> None:
    stage.system.fail["mkdir /run/nvidia-persistenced"] = OSError(30, "Read-only file system")
    with pytest.raises(NvrcError, match="cannot make /run/nvidia-persistenced: Read-only file system"):
        step.run(stage.system, stage.facts())


# Ledger


@pytest.mark.parametrize(("text", "found"), [
    (f"{TAG} device 0000:40:00.0 - registered", ("0000:40:00.0", "registered")),
    ("nvidia-persistenced[812]: device 0000:40:00.0 - failed to open.", ("0000:40:00.0", "failed to open.")),
    ("nvidia-persistenced: device 10000:e1:00.0 - persistence mode enabled.  ", ("10000:e1:00.0", "persistence mode enabled.")),
    ("nvidia-persistenced: Started (812)", ("", "")),
    ("nvidia-persistenced: device lost", ("", "")),
    ("nvidia-persistenced-other: device 0000:40:00.0 - registered", ("", "")),
    ("device 0000:40:00.0 - registered", ("", "")),
    ("", ("", "")),
])
def test_device_lines(text: str, found: tuple[str, str]) -> None:
    assert read_device_line(text) == found


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    ledger = Ledger(BDFS[:1])
    ledger.hear(Line(1, 0, f"nvidia-persistenced: device {text}"), 1.0)
    assert ledger.records[0].bdf == BDFS[0]


def hear(ledger: Ledger, said: str, now: float, *, bdf: str = BDFS[0]) -> bool:
    return ledger.hear(Line(1, 0, f"{TAG} device {bdf} - {said}"), now)


def test_only_known_gpus_count() -> None:
    ledger = Ledger(BDFS[:1])
    assert not hear(ledger, "registered", 1, bdf="0000:99:00.0")
    assert hear(ledger, "registered", 1)
    assert not hear(ledger, "registered", 2), "said twice is no progress"


def test_a_final_word_stands() -> None:
    ledger = Ledger(BDFS[:2])
    hear(ledger, "registered", 1)
    assert ledger.pending[0].state is GpuState.REGISTERED
    assert hear(ledger, "failed to open.", 4)
    assert not hear(ledger, "persistence mode enabled.", 5)
    assert not hear(ledger, "registered", 5)
    record = ledger.records[0]
    assert (record.state, record.code, record.seconds) == (GpuState.FAILED, "E_GPU_ATTACH", 3)
    ledger.close()
    assert [record.state for record in ledger.records] == [GpuState.FAILED, GpuState.FAILED]
    assert ledger.tell(9) == "0 of 2 GPUs attached, none yet"


def test_a_gpu_that_was_in_the_mode_already_is_attached() -> None:
    ledger = Ledger(BDFS[:1])
    assert hear(ledger, "already in requested persistence mode.", 3)
    assert ledger.tell(7.14) == "1 of 1 GPUs attached, last 4.1 s ago"


def test_other_words_about_a_gpu_change_nothing() -> None:
    ledger = Ledger(BDFS[:1])
    hear(ledger, "registered", 1)
    assert not hear(ledger, "Enabled UVM Persistence mode.", 2)
    assert ledger.records[0].state is GpuState.REGISTERED


def test_lines_about_a_gpu_leave_out_those_of_others() -> None:
    lines = ["NVRM: GPU 0000:40:00.0: a", "NVRM: Xid (PCI:0000:41:00): 79", "NVRM: general"]
    assert lines_about(BDFS[0], lines, BDFS) == (lines[0], lines[2])


@pytest.mark.parametrize(("said", "why"), [("Yes", ": the driver's own options exclude it"), ("No", "")])
def test_a_gpu_that_the_driver_excludes_is_told_as_such(stage: Stage, said: str, why: str) -> None:
    stage.system.put(f"/proc/driver/nvidia/gpus/{BDFS[1]}/information", f"Model: \t H100\nGPU Excluded:\t {said}\n")
    stage.ends(all_attach(stage, 1))
    facts = step.run(stage.system, stage.facts(gpus=2, cmdline="nvrc.gpus=min:1"))
    assert told(facts.warnings) == (f"E_GPU_ATTACH nvidia-persistenced never tried GPU {BDFS[1]}{why}",)
