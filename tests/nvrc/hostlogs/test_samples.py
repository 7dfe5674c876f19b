# SPDX-License-Identifier: Apache-2.0
"""What doctor makes of what hosts have: each sample is one machine's log, events or console in a form that hosts keep."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from nvrc.cli import main

SAMPLES = Path(__file__).parent / "samples"
BAD = "4f2a" + "9c1d" * 15
OTHER = "b81e" + "07a6" * 15
ATTACH = ("failed", "E_GPU_ATTACH in step persistenced", "node operator")
NO_AGENT = ("failed", "the guest never reached the agent, and nothing in it said why", "node operator")


def call(*argv: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return main(argv, out, err), out.getvalue(), err.getvalue()


PARAMETERS = ("failed", "E_PARAMETERS in step parameters", "pod author")
EXPECTED = {
    # What containerd 1.7.24 and Kata 4.1.0 wrote of a boot that failed, shortened to the lines about it.
    "real-containerd.log": ("c1", *PARAMETERS), "real-syslog.log": ("c1", *PARAMETERS), "real-ctr.txt": ("", *PARAMETERS),
    "real-no-file.txt": ("", "failed", "the runtime's configuration names a file that this node does not have", "node operator"),
    "real-no-syslog.txt": ("", "failed", "the runtime found no syslog on the node, and does not start without one", "node operator"),
    "shim-logrus.log": (BAD, *ATTACH), "shim-json.log": (BAD, *ATTACH), "journal-short.log": (BAD, *ATTACH),
    "journal-iso.log": (BAD, *ATTACH), "journal-json.log": (BAD, *ATTACH), "journal-export.log": (BAD, *ATTACH),
    "containerd.log": (BAD, *ATTACH), "runtime-rs.log": (OTHER, *ATTACH), "console.log": ("", *ATTACH),
    "console-iso.log": ("", *ATTACH), "console-cri.log": ("", *ATTACH), "describe-farewell.txt": (BAD, *ATTACH),
    "events.json": (BAD, *ATTACH), "events.yaml": (BAD, *ATTACH),
    "agent-gives-up.log": (OTHER, "failed", "E_AGENT_EXIT after the boot", "image owner"),
    "describe-no-agent.txt": (BAD, *NO_AGENT), "describe-hybrid.txt": (BAD, *NO_AGENT),
    "describe-pod-resources.txt": (BAD, "failed", "the runtime asks kubelet which devices the pod has, and kubelet does not "
                                   "answer that question", "node operator"),
    "describe-insufficient.txt": ("", "failed", "no node has as many free GPUs as the pod asks for", "pod author"),
    "describe-create-timeout.txt": (BAD, "failed", "the agent runs but did not create the container in time", "node operator"),
    "describe-cdi-timeout.txt": (BAD, "failed", "the container asks for a device that the guest's CDI document does not have",
                                 "image owner"),
    "describe-kubelet.txt": ("", "failed", "kubelet gave up before the VM was ready or the runtime had told why it was not",
                             "node operator"),
    "describe-drop-in.txt": (BAD, "failed", "a file in the runtime's config.d folder is not TOML; the runtime reads every file "
                             "in it", "node operator"),
    "describe-block.txt": (BAD, "failed", "the guest kernel has no driver for a disk that the runtime attached", "image owner"),
}


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items(), ids=EXPECTED)
def test_sample(name: str, expected: tuple[str, str, str, str]) -> None:
    status, out, err = call("doctor", str(SAMPLES / name), "--json")
    document = json.loads(out)
    assert (status, err, document["schema"]) == (1, "", 1)
    (found,) = document["diagnoses"]
    assert (found["sandbox"] or "", found["state"], found["summary"], found["who"]) == expected
    assert found["remedy"]


def test_every_sample_is_expected_here() -> None:
    assert {path.name for path in SAMPLES.iterdir()} == {*EXPECTED, "two-sandboxes.log"}


@pytest.mark.parametrize("name", [name for name, row in EXPECTED.items() if row[2] == ATTACH[1]])
def test_the_words_of_the_guest_are_there(name: str) -> None:
    out = call("doctor", str(SAMPLES / name))[1]
    assert "  what     1 of 2 GPUs attached; GPU 0000:41:00.0 failed to attach\n" in out
    assert "  do       reset it from the host before the VM starts again\n" in out
    assert ": unknown" not in out


def test_sandboxes_of_one_stream_are_kept_apart() -> None:
    file = str(SAMPLES / "two-sandboxes.log")
    status, out, _ = call("doctor", file, "--json")
    found = {one["sandbox"]: one["state"] for one in json.loads(out)["diagnoses"]}
    assert (status, found) == (1, {BAD: "failed", OTHER: "ready"})
    assert call("doctor", file)[1].count("\nsandbox ") == 1
    status, out, _ = call("doctor", file, "--sandbox", "b81e")
    assert status == 0
    assert out.startswith(f"sandbox {OTHER}\nready: ")
    assert BAD not in out


def test_a_sandbox_that_is_not_there_is_a_wrong_call() -> None:
    status, out, err = call("doctor", str(SAMPLES / "two-sandboxes.log"), "--sandbox", "0000")
    assert (status, out) == (2, "")
    assert f"no line of a sandbox whose id begins with '0000'; there are {BAD}, {OTHER}\n" in err


def test_unknown_input_says_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"lorem\nipsum\n\xff\n")
    status, out, err = call("doctor", str(tmp_path / "x"))
    assert (status, out) == (2, "")
    assert "nothing in it is known; doctor reads a VM's console" in err
    assert "journalctl" in err and "kubectl describe" in err


def test_a_healthy_pod_is_no_wrong_call(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("Name: p\nStatus: Running\nEvents:  <none>\n")
    status, out, _ = call("doctor", str(tmp_path / "x"))
    assert status == 1
    assert out.startswith("unfinished: no event reports a failure that doctor knows")


def test_a_log_without_the_console_says_how_to_get_it(tmp_path: Path) -> None:
    line = f'time="2026-11-20T10:14:01+01:00" level=info msg="Starting VM" name=containerd-shim-v2 sandbox={BAD}\n'
    (tmp_path / "x").write_text(line)
    status, out, _ = call("doctor", str(tmp_path / "x"))
    assert status == 1
    assert "enable_debug = true" in out


def test_tries_of_one_pod_that_ended_alike_are_one_finding(tmp_path: Path) -> None:
    text = (SAMPLES / "describe-no-agent.txt").read_text()
    (tmp_path / "x").write_text(text + text.splitlines()[-1].replace(BAD, OTHER) + "\n")
    (found,) = json.loads(call("doctor", str(tmp_path / "x"), "--json")[1])["diagnoses"]
    assert (found["sandbox"], found["alike"]) == (BAD, [OTHER])
    assert f"  alike    {OTHER}\n" in call("doctor", str(tmp_path / "x"))[1]
