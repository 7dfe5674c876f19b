# SPDX-License-Identifier: Apache-2.0
"""A hostile container (tests/fakes/tenant.c) as Kata's own runtime and a real kata-agent make it, in a pod with a GPU.

What these need is what tests/conformance/test_kata_runtime.py needs, and docs/conformance.md says where it comes from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from fakes.tenant import read_answers
from nvrc_lab.agent.kata_host import KataHost
from nvrc_lab.agent.kata_pod import Pod, good, open_pod, tail
from nvrc_lab.commands.conformance import RUNTIME, missing
from nvrc_lab.kit.image import BootFiles

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(bool(missing(RUNTIME, os.environ)),
                       reason=f"no Kata given: name it with {', '.join(RUNTIME.needs)}; docs/conformance.md says what they are"),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]

Configure = Callable[..., Path]
BootOf = Callable[..., tuple[BootFiles, str]]
# The ports that a container tries to take are taken.
WORDS = "nvrc.metrics=9400 nvrc.status.vsock=1025"
PATIENCE_S = 240.0
# As in tests/qemu/test_tenant.py: what the kernel quotes, and what is locked for whoever it is.
DONE = {"audit", "stack", "nameless", "crash"}
LOCKED = {"load-module", "load-module-file", "unload-module", "kexec", "registers", "port-level"}
# kata-agent leaves the rules for devices to controllers of cgroup v1, which a guest with v2 does not have: what may make a
# node can open it.
NODES = {"fuse", "gpu", "gpu-control", "serial"}
NO_NODES = ("--cap-drop", "CAP_MKNOD")
PRIVILEGED = ("--privileged", "--privileged-without-host-devices")


@pytest.fixture
def pod(host: KataHost, configure: Configure, boot_of: BootOf) -> Iterator[Pod]:
    files, line = boot_of("gpu-1")
    with open_pod(host, "tenant", configure(files, f"{line} {WORDS}"), "/stay") as running:
        yield running


def try_all(pod: Pod, name: str, *words: str, options: Sequence[str] = ()) -> Mapping[str, str]:
    ran = pod.run(name, "/tenant", *words, options=options, limit_s=PATIENCE_S)
    found = read_answers(tuple(ran.output.splitlines()))
    assert {"begins", "end"} <= found.keys(), (ran.errors, tail(pod.host))
    return found


def done(found: Mapping[str, str]) -> set[str]:
    return {name for name, answer in found.items() if answer == "done"}


def test_what_a_container_can_do(pod: Pod) -> None:
    """With the rights that containerd gives one which asks for nothing, without the one for nodes, and privileged."""
    plain = try_all(pod, "plain")
    assert len(plain) > 90, "it tried them"
    assert done(plain) == DONE | NODES
    assert done(try_all(pod, "no-nodes", options=NO_NODES)) == DONE
    privileged = try_all(pod, "privileged", "files", "machine", options=PRIVILEGED)
    assert done(privileged) & LOCKED == set()
    assert done(privileged) >= {"core-pattern", "sysfs", "mount", "bpf", "kcore"}, "it is the guest's root"


def test_what_a_container_uses_up_comes_back(host: KataHost, pod: Pod) -> None:
    """Descriptors are limited by the runtime's rlimits, memory and processes by nothing but the guest."""
    found = try_all(pod, "greedy", "memory", "descriptors", "processes")
    assert found["memory"] == "Killed"
    assert found["processes"].endswith("EAGAIN")
    good(pod.run("after", "/show", "env"), host)
    assert pod.state() == "RUNNING"
