# SPDX-License-Identifier: Apache-2.0
"""A hundred pods that do not start, each as `kubectl describe pod` shows it and nothing else: cause, remedy, who acts.

Every scenario of the lab that fails before a sandbox is one: what its machine told the runtime, recorded in
refusals.txt by `nvrc-lab matrix --keep`, else its declared expectation in PID 1's own words. The others are what hosts say.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.cases import Case
from nvrc.cli import main
from nvrc.hostlogs.events import HOST_SIGNS
from nvrc.vocabulary.console import refusal
from nvrc.vocabulary.errors import FailureCode, find_code
from nvrc.vocabulary.trouble import Trouble
from nvrc_lab.ground.places import checkout
from nvrc_lab.scenario.scenario import list_scenarios, read_scenario
from nvrc_lab.scenario.values import Scenario, Verdict

ID = "4f2a" + "9c1d" * 15
RECORDED = dict(line.split("\t", 1) for line in Path(__file__).with_name("refusals.txt").read_text().splitlines())
HOST, AUTHOR, IMAGE = "node operator", "pod author", "image owner"
# Who acts, by hand: from what has to be changed, not from the table of codes.
WHO = {
    HOST: """E_CC_DEVTOOLS E_CC_DISAGREE E_CC_MISMATCH E_EXTENSION_DEVICE E_FABRIC_STALL E_FABRIC_START E_GPU_ATTACH E_GPU_NVML
             E_GPU_PROBE E_MODULE_DEVICE E_NVLSM E_NVML_HANG E_PCI_READ E_PERSISTENCED_STALL E_READY_STATE E_TOPOLOGY E_VERITY""",
    AUTHOR: "E_EXTENSION_PARAMS E_GPU_SETTING E_MIG E_MODE_MISMATCH E_MODULE_OPTIONS E_PARAMETERS",
    IMAGE: """E_AGENT_EXEC E_AGENT_EXIT E_AGENT_MISSING E_CC_UNKNOWN E_CDI_LIBCUDA E_CGROUP E_DCGM E_DEVICE_NODES E_DRIVER_VERSION
              E_EXTENSION_MOUNT E_FABRIC_CONFIG E_HARDENING E_JOURNAL E_LOCK_MODULES E_LOOPBACK E_MODULE_MISSING E_MODULE_SIGNATURE
              E_MODULE_SYMBOL E_MODULE_VERSION E_MOUNT E_NVML E_NVML_LIBRARY E_PERSISTENCED_START E_POLICY E_RUN_FULL E_SERVICE_LOST""",
    "bug report": "E_NVML_CRASH",
}
DESCRIBE = """\
Name:                train-0
Namespace:           ml
Priority:            0
Runtime Class Name:  kata-qemu-nvidia-gpu
Service Account:     default
Node:                node-7/10.0.0.7
Start Time:          Fri, 20 Nov 2026 10:14:00 +0100
Annotations:         io.katacontainers.config.hypervisor.kernel_params: nvrc.log=debug
Status:              Pending
IP:
Containers:
  train:
    Container ID:
    Image:          registry.example.org/train:1
    State:          Waiting
      Reason:       ContainerCreating
    Ready:          False
    Limits:
      nvidia.com/pgpu:  2
Conditions:
  Type                        Status
  PodReadyToStartContainers   False
  Ready                       False
Tolerations:                 node.kubernetes.io/not-ready:NoExecute op=Exists for 300s
Events:
  Type     Reason                  Age                From               Message
  ----     ------                  ----               ----               -------
  Normal   Scheduled               95s                default-scheduler  Successfully assigned ml/train-0 to node-7
  Warning  FailedCreatePodSandBox  12s (x3 over 80s)  kubelet            {}
"""
HEAD = "Failed to create pod sandbox: rpc error: code = Unknown desc = "
Told = Callable[[str], str]
# The runtimes' and engines' words around what PID 1 told.
AROUND: dict[str, Told] = {
    "containerd": lambda told: (f'{HEAD}failed to start sandbox "{ID}": failed to create containerd task: failed to create shim task: Failed to '
                                f"Check if grpc server is working: rpc error: code = FailedPrecondition desc = {told}: unknown"),
    "CRI-O": lambda told: (f"{HEAD}CreateContainer failed: Failed to Check if grpc server is working: rpc error: code = FailedPrecondition "
                           f"desc = {told}"),
    "runtime-rs": lambda told: (f'{HEAD}failed to start sandbox "{ID}": failed to create containerd task: failed to create shim task: Others("failed to handle '
                                'message start sandbox in task handler\\n\\nCaused by:\\n    0: create sandbox\\n    1: rpc status: Status '
                                f'{{ code: FAILED_PRECONDITION, message: \\"{told}\\", details: [], special_fields: SpecialFields }}"): unknown'),
}


def failing() -> list[Scenario]:
    """Those that end before a sandbox: a lost VM has none if its agent gave up, and a panic tells a runtime nothing."""
    every = [read_scenario(path) for path in list_scenarios(checkout().scenarios)]
    return [one for one in every if one.expect.verdict is Verdict.FAILED or one.expect.code == "E_AGENT_EXIT"]


FAILING = failing()


def row_of(scenario: Scenario) -> FailureCode:
    row = find_code(scenario.expect.code)
    assert row is not None
    return row


def told_by(scenario: Scenario) -> str:
    expect, row = scenario.expect, row_of(scenario)
    declared = Trouble(code=expect.code, step=expect.step or row.step, what=", ".join(expect.what) or row.meaning, hint=row.remedy)
    return RECORDED.get(scenario.name) or refusal(declared)


def diagnose(tmp_path: Path, message: str) -> tuple[dict[str, object], str]:
    file = tmp_path / "describe.txt"
    file.write_text(DESCRIBE.format(message))
    out, text, err = io.StringIO(), io.StringIO(), io.StringIO()
    assert main(["doctor", str(file), "--json"], out, err) == 1
    assert main(["doctor", str(file)], text, err) == 1
    assert err.getvalue() == ""
    (found,) = json.loads(out.getvalue())["diagnoses"]
    return found, text.getvalue()


@pytest.mark.long
@pytest.mark.parametrize("scenario", FAILING, ids=lambda scenario: scenario.name)
def test_a_pod_whose_guest_failed(tmp_path: Path, scenario: Scenario) -> None:
    told, expect, row = told_by(scenario), scenario.expect, row_of(scenario)
    where = f"in step {expect.step}" if expect.step else "after the boot"
    for engine, around in AROUND.items():
        with Case(engine):
            found, text = diagnose(tmp_path, around(told))
            assert (found["state"], found["summary"]) == ("failed", f"{expect.code} {where}")
            failure = found["failure"]
            assert isinstance(failure, dict)
            assert all(word.strip() in failure["what"] for word in expect.what)
            assert found["who"] == next((who for who, codes in WHO.items() if expect.code in codes.split()), row.who)
            # What PID 1 told is all there, once, and no word of the runtime's is taken for it.
            assert refusal(Trouble(code=failure["code"], step=failure["step"], what=failure["what"], hint=failure["hint"])) == told
            assert failure["hint"] or found["remedy"]
            words = " ".join(text.split())
            for sentence in (failure["what"], failure["hint"] or row.remedy):
                assert words.count(" ".join(sentence.split())) == 1 or len(sentence) < 20
            assert "rpc" not in text and ": unknown\n" not in text and "special_fields" not in text


SAID = {
    "drop-in": (HOST, 'failed to create shim task: error decoding file "/opt/kata/config.d/pod.yaml: toml: line 1: expected \'.\' or \'=\', but got \':\' instead'),
    "no-file": (HOST, 'failed to create shim task: /opt/kata/configuration-qemu.toml: file /opt/kata/nvidia.img does not exist'),
    "no-syslog": (HOST, "failed to create shim task: Unix syslog delivery error: unknown"),
    "no-handler": (HOST, 'failed to get sandbox runtime: no runtime for "kata-qemu-nvidia-gpu" is configured'),
    "no-class": (AUTHOR, 'pod rejected: RuntimeClass "kata-qemu-nvidia-gpus" not found'),
    "admission": (HOST, "UnexpectedAdmissionError: Allocate failed due to can't allocate unregistered device nvidia.com/pgpu, which is unexpected"),
    "pod-resources": (HOST, "failed to create shim task: device cold plug failed: cold plug: GetPodResources failed: rpc error: code = Unknown desc = PodResources API Get method disabled"),
    "no-gpu-free": (AUTHOR, "0/3 nodes are available: 3 Insufficient nvidia.com/pgpu. preemption: 0/3 nodes are available"),
    "outer-cdi": (HOST, "failed to create containerd task: CDI device injection failed: unresolvable CDI devices nvidia.com/pgpu=65"),
    "guest-cdi": (IMAGE, "failed to create shim task: rpc status: Status { code: INTERNAL, message: \"failed to inject devices after CDI timeout of 100 seconds\" }"),
    "block-driver": (IMAGE, "failed to create shim task: Timeout after 3s waiting for uevent VirtioBlkPciMatcher"),
    "dma-limit": (HOST, "failed to create shim task: QEMU: vfio_register_ram_discard_listener: possibly running out of DMA mappings"),
    "create-timeout": (HOST, "failed to create containerd task: failed to create shim task: CreateContainerRequest timed out: context deadline exceeded"),
    "dead-agent": (IMAGE, "failed to exec: CheckRequest timed out: Dead agent"),
    "dead-agent-word": (IMAGE, "Dead agent"),
    "no-agent": (HOST, "Failed to Check if grpc server is working: rpc error: code = DeadlineExceeded desc = timed out connecting to vsock 262325044:1024: unknown"),
    "kubelet-limit": (HOST, "rpc error: code = DeadlineExceeded desc = stream terminated by RST_STREAM with error code: CANCEL"),
}


@pytest.mark.parametrize("row", HOST_SIGNS, ids=lambda row: str(row.name))
def test_a_pod_of_which_only_the_host_speaks(tmp_path: Path, row: tuple[str, ...]) -> None:
    name, _, cause, remedy, _ = row
    who, said = SAID[name]
    found, text = diagnose(tmp_path, HEAD + said)
    assert (found["state"], found["summary"], found["who"]) == ("failed", cause, who)
    assert text.count(cause) == 1
    # Where the driver's or a daemon's own words are in the error, they explain more than the host's.
    assert found["remedy"] == remedy or found["cause"] != cause
    assert " ".join(str(found["remedy"]).split()) in " ".join(text.split())


def test_there_are_more_than_fifty_and_what_was_recorded_is_of_scenarios_that_fail() -> None:
    assert len(FAILING) + len(HOST_SIGNS) > 100
    by_name = {scenario.name: scenario for scenario in FAILING}
    assert RECORDED.keys() <= by_name.keys()
    assert len(RECORDED) >= 40
    assert [name for name, told in RECORDED.items() if f"guest init: {by_name[name].expect.code} in step " not in told] == []
