# SPDX-License-Identifier: Apache-2.0
"""Hostile containers in a pod with a GPU: what Kata's default gives them, what uses the machine up, and a privileged one.

On the lab's image; with NVRC_BUILT_IMAGES=1 also on nvidia-base, nvidia-confidential and kata-base (fakes/built_images.py), which
take minutes to build. kata-base boots from its disk, under extensions, in tests/qemu/test_kata_extensions.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from fakes.built_images import IMAGES, build
from fakes.tenant import add_tenant, read_answers, with_tenant
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.unpacked_boot import lighten
from nvrc_lab.qemu.accel import choose_accel
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.runner import Lab, Result, open_lab, run_scenario
from nvrc_lab.scenario.scenario import parse_scenario

pytestmark = pytest.mark.qemu
# Warnings are shown, as where somebody looks for a mistake: what the kernel quotes gets to the console only then.
POD = parse_scenario("""
summary: A pod with one GPU, of which this container was given none.
machine: {gpus: [{product: H100}], memory_mib: 900}
cmdline: nvrc.metrics=9400 nvrc.status.vsock=1025 loglevel=7
container: {devices: []}
expect: {verdict: ready, mode: gpu, gpus: 1, container: {gpus: []}}
deadline_s: 180
""", "tenant", "this test")
# With the rights of a container that asks for nothing. The kernel quotes what crashes and how; the first is its log's matter.
DONE = {"audit", "stack", "nameless", "crash"}
# A privileged container is the guest's root; these it cannot do either, as they are locked until the machine ends.
LOCKED = {"load-module", "load-module-file", "unload-module", "kexec", "registers", "port-level"}
# The kernel allows as many files and threads as fit its memory: many more than a boot has, and a minute's work to use up.
FEW = "sysctl.fs.file-max=8192 sysctl.kernel.threads-max=1000"
Run = Callable[..., Result]


@pytest.fixture(scope="module", params=IMAGES)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    places, qemu = checkout(), find_qemu()
    choice = choose_accel(qemu, places.accel)
    built = build(request.param, tmp_path_factory.mktemp("built"))
    image = add_tenant(lighten(built, [POD], choice.accel, places), tmp_path_factory.mktemp("image"))
    return open_lab(places, qemu, image, [POD], choice=choice)


@pytest.fixture(scope="module")
def run(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Run:
    def start(*words: str, is_privileged: bool = False, line: str = "") -> Result:
        pod = replace(POD, cmdline=f"{POD.cmdline} {line}")
        scenario = with_tenant(pod, *words, is_privileged=is_privileged)
        return run_scenario(lab, scenario, tmp_path_factory.mktemp("consoles") / "console")

    return start


def answers(result: Result) -> Mapping[str, str]:
    assert result.told is not None
    found = read_answers(result.told.lines)
    assert {"begins", "end"} <= found.keys(), result.console.read_text(errors="replace")[-3000:]
    return found


@pytest.fixture(scope="module")
def default(run: Run) -> Result:
    return run()


def test_a_container_does_none_of_these_things(default: Result) -> None:
    found = answers(default)
    assert {name for name, answer in found.items() if answer == "done"} == DONE
    assert len(found) > 90, "it tried them"
    assert default.verdict == "ready"
    assert default.told is not None
    assert any('END code=OK what="the agent powered off"' in line for line in default.told.lines)


def test_its_audit_messages_do_not_reach_the_kernels_log(default: Result) -> None:
    """The kernel took them, and the rule of the step `hardening` had them dropped."""
    assert default.told is not None
    assert not [line for line in default.told.lines if "audit: type=1107" in line]


def test_a_verdict_that_the_kernel_quotes_is_told_as_forged(default: Result) -> None:
    """In the path of a program with an executable stack, and of one that is started without a word, which the kernel
    warns of once each, there may be line ends."""
    assert any("one of them is forged" in problem for problem in default.problems), default.problems
    assert default.told is not None
    assert default.told.run.story.ready is not None
    assert default.told.run.story.ready.gpus == 1, "the first one counts"


def test_words_of_the_driver_that_it_has_quoted_break_no_gpu(default: Result) -> None:
    assert default.told is not None
    assert any("NVRM: Xid (PC" in line for line in default.told.lines), "the kernel printed them"
    assert not [line for line in default.told.lines if "nvrc: warn" in line and ("Xid" in line or "E_GPU" in line)]


def test_a_container_that_uses_up_memory_descriptors_and_processes_ends_neither_pid_1_nor_the_metrics(run: Run) -> None:
    """PID 1 lives; what was killed or could not be started for want of these comes back."""
    went = run("memory", "descriptors", "processes", line=FEW)
    found = answers(went)
    assert found["memory"] == "Killed"
    assert found["descriptors"] == "ENFILE"
    forks, refusal = found["processes"].split()
    assert (refusal, 500 < int(forks) < 1000) == ("EAGAIN", True)
    assert went.verdict == "ready"
    assert went.told is not None
    assert any('END code=OK what="the agent powered off"' in line for line in went.told.lines)
    assert not [line for line in went.told.lines if "will not be restarted" in line]


def test_what_stays_locked_for_a_privileged_one(run: Run) -> None:
    found = answers(run("files", "machine", is_privileged=True))
    assert {name for name in LOCKED if found[name] == "done"} == set()
    # Such a container is the guest's root, as docs/threat-model.md says.
    assert {name for name, answer in found.items() if answer == "done"} >= {"core-pattern", "sysfs", "mount", "bpf", "kcore"}
