# SPDX-License-Identifier: Apache-2.0
"""`kubectl nvrc why POD` against a kubectl that answers from files: the script asks, filters and hands on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.bytecode import BYTECODE

pytestmark = pytest.mark.long  # shells, each with programs of ours

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "kubectl/kubectl-nvrc"
SAMPLES = ROOT / "tests/nvrc/hostlogs/samples"
BAD = "4f2a" + "9c1d" * 15
OTHER = "b81e" + "07a6" * 15
UID = "5d1c0000-0000-4000-8000-000000000001"

# Writes down what it is asked, and answers each kind of question from a file; a file that is missing is a refusal.
KUBECTL = """#!/bin/sh
printf '%s\\n' "$*" >>"$ANSWERS/asked"
case "$*" in
    *containerStatuses*) answer=messages ;;
    *'get pod'*) answer=pod ;;
    *'get events'*) answer=events ;;
    *'get --raw'*) answer=log ;;
esac
[ -e "$ANSWERS/$answer" ] || { echo "Error from server (Forbidden): no $answer" >&2; exit 1; }
cat "$ANSWERS/$answer"
"""


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.answers = folder / "answers"
        self.programs = folder / "bin"
        self.answers.mkdir()
        self.programs.mkdir()
        self.program("kubectl", KUBECTL)
        self.program("nvrc", f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m nvrc "$@"\n')
        self.answer("pod", f"node-7|{UID}|2026-11-20T09:14:00Z|kata-qemu-nvidia-gpu")
        self.answer("messages", "\n\n")

    def program(self, name: str, text: str) -> None:
        file = self.programs / name
        file.write_text(text)
        file.chmod(0o755)

    def answer(self, name: str, text: str) -> None:
        (self.answers / name).write_text(text)

    def sample(self, answer: str, name: str) -> None:
        self.answer(answer, (SAMPLES / name).read_text())

    @property
    def asked(self) -> str:
        return (self.answers / "asked").read_text()

    def call(self, *argv: str, stdin: str = "") -> tuple[int, str, str]:
        done = subprocess.run(["/bin/sh", str(SCRIPT), *argv], input=stdin, capture_output=True, text=True, check=False, timeout=60,
                              env={"PATH": f"{self.programs}:{os.environ['PATH']}", "ANSWERS": str(self.answers),
                                   "TMPDIR": str(self.answers.parent), **BYTECODE})
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def test_the_event_alone_is_enough(cluster: Cluster) -> None:
    cluster.sample("events", "describe-farewell.txt")
    status, out, err = cluster.call("why", "train-0", "-n", "ml")
    assert (status, err) == (1, "")
    assert out.startswith("pod train-0, node node-7, class kata-qemu-nvidia-gpu, VMs known: 1\nthe log of node-7 cannot be read")
    assert f"\nsandbox {BAD}\nfailed: E_GPU_ATTACH in step persistenced\n" in out
    assert "--namespace=ml get events" in cluster.asked


def test_the_nodes_log_tells_what_the_event_cannot(cluster: Cluster) -> None:
    cluster.sample("events", "describe-no-agent.txt")
    cluster.sample("log", "two-sandboxes.log")
    status, out, err = cluster.call("why", "pod/train-0", "--json", "--context", "prod")
    (found,) = json.loads(out)["diagnoses"]
    assert (status, err) == (1, "")
    assert (found["sandbox"], found["summary"]) == (BAD, "E_GPU_ATTACH in step persistenced"), "another pod's VM is left out"
    assert "--context=prod get --raw /api/v1/nodes/node-7/proxy/logs/?query=containerd&sinceTime=2026-11-20T09:14:00Z" in cluster.asked


def test_the_sandbox_is_found_in_containerds_lines_about_the_pod(cluster: Cluster) -> None:
    cluster.answer("events", "Events:  <none>\n")
    told = f'time="2026-11-20T10:14:01+01:00" level=info msg="RunPodSandbox for name:\\"train-0\\" uid:\\"{UID}\\" returns sandbox id \\"{OTHER}\\""\n'
    cluster.answer("log", told + (SAMPLES / "two-sandboxes.log").read_text())
    status, out, _ = cluster.call("why", "train-0")
    assert status == 0
    assert f"sandbox {OTHER}\nready: " in out
    assert BAD not in out


def test_a_console_names_no_sandbox_of_the_pod(cluster: Cluster) -> None:
    """A container knows its pod's uid, and would have another pod's VM explained in the place of its own."""
    cluster.answer("events", "")
    words = f'vmconsole="{UID} RunPodSandbox returns sandbox id \\"{BAD}\\""'
    cluster.answer("log", f'time="2026-11-20T10:14:01Z" level=debug msg="reading guest console" sandbox={OTHER} {words}\n'
                   + (SAMPLES / "two-sandboxes.log").read_text())
    _, out, _ = cluster.call("why", "train-0")
    assert "VMs known: 0" in out
    assert BAD not in out


def test_what_containers_can_write_is_not_taken_for_the_hosts(cluster: Cluster) -> None:
    cluster.answer("events", "Normal Started Started container main\n")
    cluster.answer("messages", f'guest init: E_GPU_ATTACH in step persistenced: 1 of 2 (hint: sandbox id "{BAD}")\n\n')
    cluster.sample("log", "two-sandboxes.log")
    status, out, _ = cluster.call("why", "train-0")
    assert status == 1
    assert "VMs known: 0" in out
    assert "failed: E_GPU_ATTACH in step persistenced\n" in out
    assert "  warning  a container can write this message itself" in out
    for reason in ("Unhealthy", "ProbeWarning", "FailedPostStartHook", "FailedPreStopHook"):
        assert f"reason!={reason}" in cluster.asked, "events of probes and hooks quote containers"


def test_a_log_that_is_given_is_read_instead_of_the_nodes(cluster: Cluster) -> None:
    cluster.sample("events", "describe-no-agent.txt")
    status, out, _ = cluster.call("why", "train-0", "--log", "-", stdin=(SAMPLES / "journal-short.log").read_text())
    assert status == 1
    assert "failed: E_GPU_ATTACH in step persistenced" in out
    assert "--raw" not in cluster.asked
    assert cluster.call("why", "train-0", f"--log={SAMPLES / 'journal-iso.log'}")[1] == out


def test_a_pod_that_was_not_scheduled(cluster: Cluster) -> None:
    cluster.answer("pod", f"|{UID}|2026-11-20T09:14:00Z|kata-qemu-nvidia-gpu")
    cluster.sample("events", "describe-insufficient.txt")
    status, out, _ = cluster.call("why", "train-0")
    assert status == 1
    assert out.startswith("pod train-0, node none, class kata-qemu-nvidia-gpu, VMs known: 0\nthe pod has no node yet\n")
    assert "  who      pod author\n" in out


@pytest.mark.parametrize(("argv", "said"), [
    pytest.param([], "usage: kubectl nvrc why POD", id="nothing"),
    pytest.param(["wy", "p"], "no command 'wy', did you mean why?", id="command"),
    pytest.param(["why"], "name the pod", id="no-pod"), pytest.param(["why", "a", "b"], "one pod at a time: a, b", id="two"),
    pytest.param(["why", "a; rm"], "'a; rm' is no name of a pod", id="no-name"),
    pytest.param(["why", "a", "-n"], "-n needs a value", id="no-value"), pytest.param(["why", "a", "-x"], "no option -x", id="option"),
    pytest.param(["why", "a", "--log", "/nonexistent/x"], "/nonexistent/x cannot be read", id="log"),
])
def test_wrong_calls(cluster: Cluster, argv: list[str], said: str) -> None:
    cluster.sample("events", "describe-no-agent.txt")
    status, out, err = cluster.call(*argv)
    assert (status, out) == (2, "")
    assert said in err


def test_a_pod_that_is_not_there(cluster: Cluster) -> None:
    (cluster.answers / "pod").unlink()
    status, out, err = cluster.call("why", "train-0")
    assert (status, out) == (2, "")
    assert "Error from server" in err


def test_nothing_is_left_behind(cluster: Cluster) -> None:
    cluster.sample("events", "describe-farewell.txt")
    cluster.call("why", "train-0")
    assert {path.name for path in cluster.answers.parent.iterdir()} == {"answers", "bin"}


def test_help_has_the_examples(cluster: Cluster) -> None:
    status, out, err = cluster.call("--help")
    assert (status, err) == (0, "")
    assert "kubectl nvrc why train-0 -n ml --json" in out
    assert os.access(SCRIPT, os.X_OK)
