# SPDX-License-Identifier: Apache-2.0
"""Pods as clusters have them below Kata's own runtime: volumes, init containers, GPUs, pulls in the guest, policies.

What these need is what tests/conformance/test_kata_runtime.py needs, and docs/conformance.md says where it comes from.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.mesh import REDIRECT, RULES
from nvrc_build.declared.declared import AgentPolicy
from nvrc_build.products.agent_policy import DEFAULT, reads_policy, render, requests_of
from nvrc_build.tree.tree import Origin, Tree
from nvrc_lab.agent.kata_host import KataHost
from nvrc_lab.agent.kata_pod import good, open_pod, until_nothing_is_left
from nvrc_lab.commands.conformance import RUNTIME, missing
from nvrc_lab.kit.archives import join_archives
from nvrc_lab.kit.image import BootFiles

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(bool(missing(RUNTIME, os.environ)),
                       reason=f"no Kata given: name it with {', '.join(RUNTIME.needs)}; docs/conformance.md says what they are"),
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]

EXEC = "default ExecProcessRequest := true"
POLICY_ANNOTATION = "io.katacontainers.config.agent.policy"
NETWORK_ADMIN = ("--cap-add", "CAP_NET_ADMIN", "--cap-add", "CAP_NET_RAW")
Configure = Callable[..., Path]
BootOf = Callable[..., tuple[BootFiles, str]]
Govern = Callable[[str], Path]


def shown(lines: tuple[str, ...], path: str) -> list[str]:
    return [line.removeprefix(f"show {path}: ") for line in lines if line.startswith(f"show {path}: ")]


def bind(source: Path, target: str, mode: str = "ro") -> tuple[str, str]:
    return "--mount", f"type=bind,src={source},dst={target},options=rbind:{mode}"


def put_behind(files: BootFiles, tree: Tree, initrd: Path) -> BootFiles:
    join_archives([files.initrd], tree, initrd)
    return BootFiles(kernel=files.kernel, initrd=initrd)


def test_the_life_of_a_pod(host: KataHost, configure: Configure) -> None:
    with open_pod(host, "pod", configure(), "/stay") as pod:
        lines = good(pod.run("one", "/show", "/proc/self/cgroup"), host)
        assert shown(lines, "/proc/self/cgroup") == ["0::/"]
        assert pod.run("two", "/stay", "go", "5").status == 5
        executed = good(pod.execute("/show", "/proc/sys/kernel/osrelease"), host)
        assert shown(executed, "/proc/sys/kernel/osrelease")
        good(host.ctr("task", "metrics", "pod"), host)
        assert pod.stop() == "STOPPED"
    assert until_nothing_is_left(host) == ([], [])


@pytest.mark.parametrize("driver", ["virtio-scsi", "virtio-blk"])
def test_a_block_volume_reaches_the_container(host: KataHost, configure: Configure, tmp_path: Path, driver: str) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"block" * (1 << 18))
    loop = host.enter(["losetup", "--find", "--show", str(disk)]).output.strip()
    assert loop.startswith("/dev/loop"), "no loop device on this host"
    try:
        config = configure(hypervisor__qemu={"block_device_driver": driver, "disable_block_device_use": False})
        lines = good(host.run(driver, config, "/show", loop, options=("--device", loop)), host)
        assert shown(lines, loop) == [f"block {disk.stat().st_size // 512 * 512} bytes"]
    finally:
        host.enter(["losetup", "--detach", loop])


@pytest.mark.parametrize("driver", ["virtio-scsi", "virtio-blk"])
def test_a_volume_is_mounted_in_the_guest_by_its_file_system(host: KataHost, configure: Configure, tmp_path: Path,
                                                             driver: str) -> None:
    """A directly assigned volume: its driver leaves the runtime a note of what to plug in, and the agent mounts it."""
    disk, content, volume = (tmp_path / name for name in ("disk", "content", "volume"))
    content.mkdir()
    volume.mkdir()
    shutil.copy(host.folder / "show", content / "script")
    assert host.enter(["mkfs.ext4", "-q", "-d", str(content), str(disk), "16M"]).status == 0
    note = (f"/proc/{host.inside}/root/run/kata-containers/shared/direct-volumes/"
            f"{base64.urlsafe_b64encode(str(volume).encode()).decode()}")
    os.makedirs(note)
    Path(note, "mountInfo.json").write_text(json.dumps({
        "volume-type": "block", "device": str(disk), "fstype": "ext4", "options": ["rw", "noatime"]}))
    config = configure(hypervisor__qemu={"block_device_driver": driver, "disable_block_device_use": False})
    lines = good(host.run(f"mounted-{driver}", config, "/volume/script", "/volume", "/proc/self/mountinfo",
                          options=bind(volume, "/volume", "rw")), host)
    assert shown(lines, "/volume") == ["lost+found", "script"]
    row, = (row for row in shown(lines, "/proc/self/mountinfo") if row.split()[4] == "/volume")
    assert " - ext4 /dev/" in row, row


def ask_shim(host: KataHost, sandbox: str, path: str) -> str:
    """A question to the shim's management socket, as `kata-runtime iptables` does it."""
    found = f"/proc/{host.inside}/root/run/vc/sbs/{sandbox}/shim-monitor.sock"
    folder = os.open(os.path.dirname(found), os.O_PATH | os.O_DIRECTORY)  # the whole path is too long for a socket
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(f"/proc/self/fd/{folder}/shim-monitor.sock")
            client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(65536), b""))
    finally:
        os.close(folder)
    return answer.decode(errors="replace")


def test_rules_of_an_init_container_hold_for_the_pod_and_the_agent_reads_them(host: KataHost, configure: Configure,
                                                                              tmp_path: Path) -> None:
    (tmp_path / "rules").write_text(RULES)
    with open_pod(host, "mesh", configure(), "/stay") as pod:
        good(pod.run("init", "/usr/sbin/iptables-restore", "/rules",
                     options=(*NETWORK_ADMIN, *bind(tmp_path / "rules", "/rules"))), host)
        assert REDIRECT in good(pod.run("look", "/usr/sbin/iptables-save", options=NETWORK_ADMIN), host)
        answer = ask_shim(host, "mesh", "/iptables")
        assert " 200 OK" in answer.partition("\n")[0], answer
        assert REDIRECT in answer


def test_a_program_in_an_empty_volume_runs(host: KataHost, configure: Configure, tmp_path: Path) -> None:
    volume = tmp_path / "volumes/kubernetes.io~empty-dir/work"
    volume.mkdir(parents=True)
    lines = good(host.run("empty", configure(), "/carry", "/show", "/volume/show", "/volume",
                          options=bind(volume, "/volume", "rw")), host)
    assert shown(lines, "/volume") == ["show"]


def test_a_pull_in_the_guest_begins_with_the_pause_bundle_and_runs_a_script_of_a_configmap(
        host: KataHost, configure: Configure, files: BootFiles, tmp_path: Path) -> None:
    """Without a shared file system: the sandbox's root and the volume's files are copied to folders below /run."""
    tree, origin = Tree(), Origin(slice="test")
    tree.add_file("/pause_bundle/rootfs/stay", host.folder / "stay", origin, mode=0o755)
    tree.add_file("/pause_bundle/config.json", json.dumps({
        "ociVersion": "1.0.0", "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["/stay"], "env": ["PATH=/"], "user": {"uid": 0, "gid": 0}}}).encode(), origin)
    volume = tmp_path / "volumes/kubernetes.io~configmap/scripts"
    volume.mkdir(parents=True)
    shutil.copy(host.folder / "show", volume / "script")
    config = configure(put_behind(files, tree, tmp_path / "initrd"), hypervisor__qemu={"shared_fs": "none"},
                       runtime={"experimental_force_guest_pull": True})
    with open_pod(host, "pull", config, "/other", options=bind(volume, "/scripts")) as pod:
        lines = good(pod.execute("/scripts/script", "/proc/1/cmdline", "/proc/self/mountinfo"), host)
        assert shown(lines, "/proc/1/cmdline")[0].startswith("/stay"), "the bundle's own program, not the one that was asked for"
        roots = [row for row in shown(lines, "/proc/self/mountinfo") if row.split()[4] == "/"]
        assert [row for row in roots if "/kata-containers/" in row and " - tmpfs " in row], roots


ASKED = {"gpu-2": ("1", ["nvidia1"]), "gpu-8-nvswitch": ("all", [f"nvidia{number}" for number in range(8)])}


@pytest.mark.parametrize("scenario", ASKED)
def test_a_pod_gets_the_gpus_that_it_asks_for(host: KataHost, configure: Configure, boot_of: BootOf, scenario: str) -> None:
    asked, gpus = ASKED[scenario]
    config = configure(*boot_of(scenario), agent__kata={"visible_cdi_devices": True})
    with open_pod(host, scenario, config, "/stay") as pod:
        lines = good(pod.run("gpu", "/show", "/dev", "env", "/etc/ld.so.cache",
                             options=("--env", f"VISIBLE_CDI_DEVICES=nvidia.com/gpu={asked}")), host)
    nodes = {row.split()[0] for row in shown(lines, "/dev") if row.startswith("nvidia")}
    assert sorted(node for node in nodes if node.removeprefix("nvidia").isdigit()) == gpus
    assert {"nvidiactl", "nvidia-uvm"} <= nodes
    assert "NVIDIA_VISIBLE_DEVICES=void" in shown(lines, "env")
    assert shown(lines, "/etc/ld.so.cache") != ["ENOENT"]


@pytest.fixture
def requests(agent: Path) -> tuple[str, ...]:
    program = agent.read_bytes()
    if not reads_policy(program):
        pytest.skip("this agent was built without policies")
    return requests_of(program)


@pytest.fixture
def govern(configure: Configure, files: BootFiles, tmp_path: Path) -> Govern:
    """The class with an image whose policy is another one."""

    def write(policy: str) -> Path:
        tree = Tree()
        tree.add_file(DEFAULT, policy.encode(), Origin(slice="test"))
        return configure(put_behind(files, tree, tmp_path / "initrd"))

    return write


def test_a_request_that_the_image_forbids_is_refused_by_name(host: KataHost, govern: Govern, requests: tuple[str, ...]) -> None:
    policy = render(AgentPolicy.ALLOW_ALL, requests)
    assert EXEC in policy
    with open_pod(host, "policy", govern(policy.replace(EXEC, EXEC.replace("true", "false"))), "/stay") as pod:
        refused = pod.execute("/show", "env")
        assert refused.status != 0
        assert "ExecProcessRequest is blocked by policy" in refused.errors


@pytest.mark.parametrize("brought", [False, True], ids=["as-it-is", "with-a-policy-of-the-pod"])
@pytest.mark.parametrize("choice", [AgentPolicy.DENY, AgentPolicy.ALLOW_SET_POLICY], ids=lambda choice: choice.value)
def test_a_closed_policy_is_the_event_of_the_pod_unless_it_may_bring_its_own(
        host: KataHost, govern: Govern, requests: tuple[str, ...], choice: AgentPolicy, brought: bool) -> None:
    text = base64.b64encode(render(AgentPolicy.ALLOW_ALL, requests).encode()).decode()
    went = host.run(f"{choice.value}-{brought}", govern(render(choice, requests)), "/show", "env",
                    options=("--annotation", f"{POLICY_ANNOTATION}={text}") if brought else ())
    if brought and choice is AgentPolicy.ALLOW_SET_POLICY:
        assert "PATH=/" in shown(good(went, host), "env")
        return
    assert went.status != 0
    refused = "SetPolicyRequest" if brought else "CreateSandboxRequest"
    assert f"{refused} is blocked by policy" in went.errors, went.errors
