# SPDX-License-Identifier: Apache-2.0
"""What containers are promised of GPUs that are not attached yet, and whether it is kept; with the real worker."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fakes.gpu_guest import CONFIDENTIAL, GpuGuest, MakeGuest, bus_id
from nvrc.nvml.promised import Promise, add_wait, check_kept, read_majors, read_nodes
from nvrc.steps import promise
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

pytestmark = pytest.mark.long


def early(guest: GpuGuest) -> GpuGuest:
    """As the step finds it: the driver lists the GPUs, whose minors run against the bus, and the worker is forked."""
    for number in range(guest.gpus):
        guest.system.put(f"{paths.GPU_PROC}/{bus_id(number)}/information", f"Device Minor: \t {guest.gpus - 1 - number}\n")
    guest.system.put("/proc/self/mounts", "rootfs / rootfs rw 0 0\n")
    guest.start()
    guest.facts = promise.run(guest.system, guest.facts)
    return guest


def published(guest: GpuGuest, path: str = paths.CDI_SPEC) -> dict[str, object]:
    document: dict[str, object] = yaml.safe_load(guest.system.read(path))
    return document


def test_the_document_is_whole_from_the_start(gpu_guest: MakeGuest) -> None:
    guest = early(gpu_guest())
    document = published(guest)
    assert [device["name"] for device in document["devices"]] == ["0", "1", "all"]  # type: ignore[attr-defined]
    assert read_nodes(document) == {"0": ("/dev/nvidia1",), "1": ("/dev/nvidia0",)}
    assert promise.tell(guest.facts) == "2 GPUs"


def libraries(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    return {line.split()[-1] for line in lines if "libnvidia-ml" in line}


def test_nvidias_library_is_left_alone(gpu_guest: MakeGuest) -> None:
    guest = early(gpu_guest())
    assert guest.facts.worker is not None
    assert libraries(guest.facts.worker.pid) <= libraries(os.getpid()), "beside what another test has loaded here"


def test_its_last_hook_waits_in_the_container_by_the_images_own_program(gpu_guest: MakeGuest) -> None:
    edits = published(early(gpu_guest("nvrc.timeout.boot=100")))["containerEdits"]
    *others, last = edits["hooks"]  # type: ignore[index]
    assert (last["hookName"], last["path"], last["args"]) == ("startContainer", "/run/nvrc/await", ["await"])
    assert last["timeout"] == 160, "the runtime must not be the first to lose patience"
    assert {hook["hookName"] for hook in others} == {"createContainer"}
    mounts = {row["containerPath"]: (row["hostPath"], set(row["options"])) for row in edits["mounts"]}  # type: ignore[index]
    assert mounts["/run/nvrc/await"] == ("/usr/lib/nvrc/await", {"ro", "nosuid", "nodev", "bind", "rprivate"})
    assert mounts["/run/nvrc/gpus"] == ("/run/nvrc/gpus", {"ro", "nosuid", "nodev", "noexec", "rbind", "rprivate"})


def test_what_daemons_are_yet_to_make_is_found_in_their_folders(gpu_guest: MakeGuest) -> None:
    """Sockets and NCCL's file; by the document of a boot that waits they are mounts of their own."""
    guest = early(gpu_guest())
    mounts = {row["hostPath"]: row for row in published(guest)["containerEdits"]["mounts"]}  # type: ignore[index]
    assert mounts["/run/nvidia-topologyd"]["containerPath"] == "/var/run/nvidia-topologyd"
    assert mounts["/run/nvidia-persistenced"]["containerPath"] == "/run/nvidia-persistenced"
    assert "ro" in mounts["/run/nvidia-persistenced"]["options"]
    assert not any(path.endswith("/socket") for path in mounts)


def test_the_devices_are_shut_before_the_document_is_there(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest()
    guest.system.fail[f"shut {paths.CGROUP}"] = OSError(1, "Operation not permitted")
    with pytest.raises(NvrcError, match="does not keep containers off the GPUs") as caught:
        early(guest)
    assert caught.value.code == "E_AGENT_EARLY"
    assert not guest.system.exists(paths.CDI_SPEC)


def test_cgroups_are_mounted_for_the_gate(gpu_guest: MakeGuest) -> None:
    guest = early(gpu_guest())
    effects = [effect for effect in guest.system.effects if paths.CGROUP in effect]
    assert effects[0].startswith(f"mount cgroup2 {paths.CGROUP} cgroup2")
    assert effects[1] == f"shut {paths.CGROUP} (195,)"


def test_until_all_is_up_nothing_of_it_changes_and_then_all(gpu_guest: MakeGuest) -> None:
    guest = early(gpu_guest())
    before = guest.system.read(paths.CDI_SPEC)
    guest.boot()
    assert guest.system.read(paths.CDI_SPEC) == before
    assert not guest.system.exists(paths.GPUS_READY)
    assert guest.facts.promise is not None
    promise.keep(guest.system, guest.facts.promise)
    names = [device["name"] for device in published(guest)["devices"]]  # type: ignore[attr-defined]
    assert {"0", "1", "all"} < set(names)
    assert any(name.startswith("GPU-") for name in names)
    assert guest.system.read(paths.CDI_SPEC) == guest.system.read(paths.CDI_HELD)
    assert b"await" not in guest.system.read(paths.CDI_SPEC)
    assert guest.system.effects[-1] == f"open {paths.CGROUP} 77"
    word = Path(guest.system.real_path(paths.GPUS_READY))
    assert (word.read_bytes(), stat.S_IMODE(word.stat().st_mode)) == (b"ready\n", 0o644)


def test_a_gpu_that_comes_up_as_another_is_a_broken_promise(gpu_guest: MakeGuest) -> None:
    guest = early(gpu_guest())
    assert guest.facts.promise is not None
    swapped = {"0": ("/dev/nvidia0",), "1": ("/dev/nvidia1",)}
    guest.facts = replace(guest.facts, promise=guest.facts.promise._replace(nodes=swapped))
    with pytest.raises(NvrcError, match="0, 1; 0 was /dev/nvidia0 and is /dev/nvidia1") as caught:
        guest.boot()
    assert caught.value.code == "E_AGENT_EARLY"
    assert not guest.system.exists(paths.CDI_HELD)


def test_confidential_gpus_are_never_reached_early(gpu_guest: MakeGuest) -> None:
    guest = early(gpu_guest(keys="cc=on", text=CONFIDENTIAL))
    with pytest.raises(NvrcError, match="the agent runs already, and the GPUs are confidential: on") as caught:
        guest.boot()
    assert caught.value.code == "E_AGENT_EARLY"


def named(**devices: str) -> dict[str, object]:
    return {"devices": [{"name": name, "containerEdits": {"deviceNodes": [{"path": path, "major": 195}]}}
                        for name, path in devices.items()]}


@pytest.mark.parametrize(("document", "is_kept"), [
    (named(**{"0": "/dev/nvidia0"}), True),
    (named(**{"0": "/dev/nvidia0", "GPU-1": "/dev/nvidia0", "all": "/dev/nvidia0"}), True),
    (named(**{"0": "/dev/nvidia1"}), False),
    (named(**{"0:0": "/dev/nvidia0"}), False),
    (named(**{"0": "/dev/nvidia0", "1": "/dev/nvidia1"}), False),
    (named(), False),
])
def test_what_is_kept(document: dict[str, object], is_kept: bool) -> None:
    kept = Promise({"0": ("/dev/nvidia0",)}, 1)
    if is_kept:
        check_kept(kept, document)
    else:
        with pytest.raises(NvrcError):
            check_kept(kept, document)


def test_a_document_without_common_edits_gets_the_hook() -> None:
    assert [hook["hookName"] for hook in add_wait({}, 1)["containerEdits"]["hooks"]] == ["startContainer"]  # type: ignore[index]


def test_numbers_of_all_nodes_are_found() -> None:
    document = {**named(**{"0": "/dev/nvidia0"}), "containerEdits": {"deviceNodes": [{"path": "/dev/x", "major": 511}, {}]}}
    assert read_majors(document) == (195, 511)
