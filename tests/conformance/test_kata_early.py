# SPDX-License-Identifier: Apache-2.0
"""The agent beside the attach below Kata's own runtime: what a pod has before its GPUs, and what becomes of it.

What these need is what tests/conformance/test_kata_runtime.py needs, and docs/conformance.md says where it comes from.
The moment is told by the guest's console in the runtime's log: its verdict comes when everything is up, and not before.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nvrc_lab.agent.kata_host import KataHost
from nvrc_lab.agent.kata_pod import MEMBER, describe, good, open_pod, tail, until_nothing_is_left
from nvrc_lab.commands.conformance import RUNTIME, missing
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.image import BootFiles
from nvrc_lab.scenario.scenario import parse_scenario
from nvrc_lab.scenario.values import Scenario

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(bool(missing(RUNTIME, os.environ)),
                       reason=f"no Kata given: name it with {', '.join(RUNTIME.needs)}; docs/conformance.md says what they are"),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]

ATTACH_MS, ATTACHED_S = 12000, 600.0
MACHINES = {
    "eight": f"gpus: [{{product: L40S, count: 8, attach_ms: {ATTACH_MS}}}]",
    "fabric": f"gpus: [{{product: H100, count: 8, attach_ms: {ATTACH_MS}}}], nvswitches: 4, memory_mib: 768",
    "failing": f"gpus: [{{product: H100, count: 4, attach_ms: {ATTACH_MS}}}]",
}
FAILS = "faults: [{name: attach-fails, gpu: 3}]"
CLOCK = "tsc=unstable no_timer_check"
ASKS = ("--env", "VISIBLE_CDI_DEVICES=nvidia.com/gpu=all")
NOBODY = ("--user", "65534:65534")
RIGHTS = tuple(word for name in ("SYS_RAWIO", "NET_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH") for word in ("--cap-add", f"CAP_{name}"))
# Of every GPU that there is: the node that a container made itself, and which was not refused.
OPENED = "container: made nvidia"
Configure = Callable[..., Path]
BootOf = Callable[..., tuple[BootFiles, str]]


def machine(name: str, more: str = "") -> Scenario:
    text = (f"summary: GPUs that take their time, and an agent that does not wait for them.\nmachine: {{{MACHINES[name]}}}\n"
            f"cmdline: nvrc.agent.early=on\n{more}\nexpect: {{verdict: ready}}\n")
    return parse_scenario(text, name, name)


def console(host: KataHost, sandbox: str) -> list[str]:
    lines = host.log.read_text(errors="replace").splitlines()
    return [line for line in lines if "vmconsole=" in line and f"sandbox={sandbox} " in line]


def configured(configure: Configure, boot: tuple[BootFiles, str]) -> Path:
    """Emulation may count the guest's seconds by a clock that a busy host has spoilt; KVM's guests have one of their own."""
    files, line = boot
    return configure(files, f"{line} {CLOCK}", agent__kata={"visible_cdi_devices": True})


def is_up(host: KataHost, sandbox: str) -> bool:
    return any("nvrc: READY " in line for line in console(host, sandbox))


@pytest.mark.parametrize("name", ["eight", "fabric"])
def test_all_of_the_pod_but_its_gpus_is_there_during_the_attach(host: KataHost, configure: Configure, boot_of: BootOf,
                                                                name: str) -> None:
    sandbox = f"early-{name}"
    config = configured(configure, boot_of(machine(name)))
    with ThreadPoolExecutor() as pool, open_pod(host, sandbox, config, "/stay") as pod:
        assert not is_up(host, sandbox), "the sandbox waits for no GPU"
        asked = pool.submit(pod.run, "gpu", "/show", "/dev", "env", options=(*ASKS, *NOBODY), limit_s=ATTACHED_S)
        while f"{sandbox}-gpu" not in host.ctr("task", "list").output and not asked.done():
            time.sleep(0.2)
        aside = good(pod.run("sidecar", "/look", options=RIGHTS), host)
        executed = good(pod.execute("/show", "/proc/uptime"), host)
        good(host.ctr("task", "metrics", sandbox), host)
        assert not is_up(host, sandbox), "sidecars run, and are answered, beside the attach"
        assert pod.state(f"{sandbox}-gpu") == "RUNNING"
        assert executed
        assert [line for line in aside if line.startswith(OPENED)] == [], "a node of its own making opens nothing yet"
        lines = good(asked.result(), host)
        assert is_up(host, sandbox), "the container's program starts when all are up"
        after = good(pod.run("late", "/look", options=RIGHTS), host)
    nodes = {line.split()[2] for line in lines if line.startswith("show /dev: nvidia")}
    assert {f"nvidia{number}" for number in range(8)} | {"nvidiactl", "nvidia-uvm"} <= nodes
    assert "show env: NVIDIA_VISIBLE_DEVICES=void" in lines
    assert len([line for line in after if line.startswith(OPENED) and line.endswith("=ok")]) == 8, "it was the gate that refused"
    assert until_nothing_is_left(host) == ([], [])


def test_a_gpu_that_fails_ends_the_pod_and_says_why(host: KataHost, configure: Configure, boot_of: BootOf, tmp_path: Path) -> None:
    sandbox, message = "early-failing", tmp_path / "message"
    message.touch()
    config = configured(configure, boot_of(machine("failing", FAILS)))
    with open_pod(host, sandbox, config, "/stay") as pod:
        mount = ("--mount", f"type=bind,src={message},dst=/dev/termination-log,options=rbind:rw")
        started = host.run(f"{sandbox}-gpu", config, "/show", "env",
                           options=("--detach", "--null-io", *describe(sandbox, MEMBER), *ASKS, *mount))
        assert started.status == 0, f"{started.errors}\n{tail(host)}"
        assert not is_up(host, sandbox)
        assert pod.until_stopped(f"{sandbox}-gpu", ATTACHED_S) == "STOPPED"
        host.ctr("task", "delete", "--force", f"{sandbox}-gpu")
        host.ctr("containers", "delete", f"{sandbox}-gpu")
    lines = console(host, sandbox)
    assert any("nvrc: FATAL code=E_GPU_ATTACH step=persistenced" in line for line in lines), "\n".join(lines[-30:])
    said = message.read_text(errors="replace")
    assert said.startswith("guest init: E_GPU_ATTACH in step persistenced: "), said
    read = subprocess.run([f"{checkout().root}/.venv/bin/nvrc", "doctor", "-"], input=said, capture_output=True, text=True,
                          check=False)
    assert "E_GPU_ATTACH" in read.stdout
    assert until_nothing_is_left(host) == ([], [])
