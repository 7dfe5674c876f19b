# SPDX-License-Identifier: Apache-2.0
"""Images of ours below Kata's own runtime: containerd, the shim, QEMU and a real kata-agent, in namespaces of their own.

NVRC_KATA_SHIM, NVRC_CONTAINERD, NVRC_KATA_AGENT and NVRC_KATA_CONFIG name what others made; docs/conformance.md says
where each comes from. Without them these tests are skipped. The errors looked at are what a kubelet puts into events.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nvrc_lab.agent.kata_config import write_config
from nvrc_lab.agent.kata_host import KataHost
from nvrc_lab.agent.kata_pod import good, tail, until_nothing_is_left
from nvrc_lab.commands.bench import list_built_in
from nvrc_lab.commands.conformance import RUNTIME, missing
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.image import BootFiles
from nvrc_lab.run.compose import Foreign
from nvrc_lab.scenario.scenario import find_scenario, parse_scenario, read_scenario

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(bool(missing(RUNTIME, os.environ)),
                       reason=f"no Kata given: name it with {', '.join(RUNTIME.needs)}; docs/conformance.md says what they are"),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]

CONFIG, OTHER_INIT = (Path(os.environ.get(name, "")) for name in ("NVRC_KATA_CONFIG", "NVRC_OTHER_INIT"))
# What the shim says when DestroySandbox gets no answer.
UNANSWERED = "Agent did not stop sandbox"
Configure = Callable[..., Path]
BootOf = Callable[..., tuple[BootFiles, str]]


def shown(lines: tuple[str, ...], path: str) -> list[str]:
    return [line.removeprefix(f"show {path}: ") for line in lines if line.startswith(f"show {path}: ")]


def test_a_container_says_what_it_was_asked(host: KataHost, configure: Configure) -> None:
    lines = good(host.run("hello", configure(), "/show", "/proc/self/cgroup", "env"), host)
    assert shown(lines, "/proc/self/cgroup") == ["0::/"]
    assert "PATH=/" in shown(lines, "env")
    assert until_nothing_is_left(host) == ([], [])
    stopped = [line for line in host.log.read_text(errors="replace").splitlines() if "sandbox=hello" in line]
    assert any('"Stopping VM"' in line for line in stopped)
    assert [line for line in stopped if UNANSWERED in line] == [], "the agent's last answer comes before the machine's end"


def test_a_class_with_the_folder_of_kata_config_as_written(host: KataHost, files: BootFiles, tmp_path: Path) -> None:
    name = f"kata-{CONFIG.stem.removeprefix('configuration-')}"
    folder = tmp_path / "class"
    (folder / "config.d").mkdir(parents=True)
    words = ["nvrc-image", "kata-config", str(files.initrd.parent), "--runtime-class", name, "-d", str(folder / "config.d"),
             "--kernel-params", "nvrc.log=debug", *(["--drop", "gpu"] if "gpu" in name else [])]
    made = subprocess.run([f"{checkout().root}/.venv/bin/{words[0]}", *words[1:]], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    config = write_config(folder, CONFIG, host.programs, {})  # the image, its line and its timeouts are the drop-in's
    good(host.run("drop-in", config, "/show", "/proc/self/cgroup"), host)


# Each ends the boot in a step of its own: what the pod's author wrote, the devices that the node gave, the image's parts.
FAILED = (
    "parameters-malformed", "policy-broken", "policy-pins", "mode-mismatch", "topology-2-switches", "extension-no-disk",
    "module-other-kernel", "probe-refused", "fabric-silent", "attach-fails", "driver-mismatch", "nvml-refuses-gpu",
    "gpu-settings-out-of-range", "cc-mismatch", "cdi-no-libcuda", "cgroup-version", "agent-missing", "agent-no-program",
)
# What no scenario of the lab is: a pod that asks for more GPUs than its node gave, and an agent of Kata's that gives up.
ASKED = {
    "too-few-gpus": """
summary: One GPU where the pod's author asks for two.
machine: {gpus: [{product: H100}]}
cmdline: nvrc.gpus=2
expect: {verdict: failed, code: E_GPU_COUNT, step: persistenced}
""",
    "agent-gives-up": """
summary: An agent that gives up before it has a sandbox, over an address that it does not know.
cmdline: agent.server_addr=nonsense
expect: {verdict: lost, code: E_AGENT_EXIT, step: supervise, what: [without ever having had a sandbox]}
"""}


@pytest.mark.parametrize("name", [*FAILED, *ASKED])
def test_a_failed_boot_is_the_error_of_the_pod(host: KataHost, configure: Configure, boot_of: BootOf, name: str) -> None:
    """Expected is what the scenario expects of the verdict. `nvrc doctor` finds the code in what the author copies."""
    scenario = (parse_scenario(ASKED[name], name, name) if name in ASKED
                else read_scenario(find_scenario(name, checkout().scenarios)))
    went = host.run(name, configure(*boot_of(scenario)), "/show", "env")
    assert went.status != 0
    expected = (f"code = FailedPrecondition desc = guest init: {scenario.expect.code} in step {scenario.expect.step}: ",
                *scenario.expect.what, " (hint: ")
    assert [text for text in expected if text not in went.errors] == [], f"{went.errors}\n{tail(host)}"
    host.ctr("containers", "delete", name)
    assert until_nothing_is_left(host)[1] == []
    read = subprocess.run([f"{checkout().root}/.venv/bin/nvrc", "doctor", "-"], input=went.errors, capture_output=True,
                          text=True, check=False)
    assert (read.returncode, scenario.expect.code in read.stdout) == (1, True), read.stdout + read.stderr


def test_an_agent_that_is_killed_ends_the_pod_and_leaves_nothing(host: KataHost, configure: Configure, boot_of: BootOf) -> None:
    scenario = parse_scenario("{summary: Somebody kills the agent., expect: {verdict: ready}}", "killed", "killed")
    boot = boot_of(scenario, ("wait /run/kata-containers/killed 120000", "sleep 5000", "kill kata-agent 9"))
    went = host.run("killed", configure(*boot), "/stay")
    assert went.status == 255, f"{went.status} {went.errors}"
    host.ctr("containers", "delete", "killed")
    assert until_nothing_is_left(host)[1] == []


VIEW = ("/proc/self/mountinfo", "/proc/self/limits", "/proc/self/cgroup", "/proc/self/oom_score_adj", "/proc/self/status",
        "/proc/sys/kernel", "/dev", "env")
# Numbers of this boot, not of an init; the kernel computes two limits from the memory that an initrd leaves.
MOVING = re.compile(r"^show /proc/self/(mountinfo: [0-9 :]+|limits: Max (processes|pending signals) |status: (Vm|Rss|Pid|Tgid|Ngid|NSpid|NSt|SigQ|.*ctxt))")


@pytest.mark.skipif(not os.environ.get("NVRC_OTHER_INIT"), reason="no other init given: NVRC_OTHER_INIT")
def test_a_container_sees_the_same_below_another_init(host: KataHost, configure: Configure, boot_of: BootOf, lab_files: BootFiles,
                                                      tmp_path: Path) -> None:
    """What the agent needs is in the kernel before, as the other one leaves modules to a kernel that has them built in."""
    views = {}
    for name, foreign in (("ours", None), ("theirs", Foreign(program=OTHER_INIT))):
        boot = boot_of("cpu", foreign=foreign, early=list_built_in(lab_files.initrd))
        lines = good(host.run(name, configure(*boot, folder=tmp_path / name), "/show", *VIEW), host)
        views[name] = {line for line in lines if not MOVING.match(line)}
    assert views["ours"] ^ views["theirs"] == set()
