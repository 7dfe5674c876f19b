# SPDX-License-Identifier: Apache-2.0
"""Modules by need on a real kernel: what is loaded before the lock, and disks that are plugged in after it.

The image is the lab's with the module tree of one that serves more; the prober stands where the agent does.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from fakes.lab_image import lab_image
from fakes.mesh import REDIRECT, RULES
from nvrc.vocabulary.needs import NEEDS, Sign
from nvrc_build import pipeline
from nvrc_build.products import kernel as kernels
from nvrc_build.products.products import kernel_root
from nvrc_build.tree.tree import Origin, Tree
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit import standins
from nvrc_lab.kit.archives import join_archives
from nvrc_lab.kit.image import BootFiles, put_agent
from nvrc_lab.qemu.machine import Accel, Machine, escape, make_argv
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.probing import told
from nvrc_lab.watch.console import Story
from nvrc_lab.watch.watch import Limits, watch

pytestmark = pytest.mark.qemu

CACHE = Path(__file__).resolve().parents[2] / "out/cache"
SERVED = ("agent", "storage", "netfilter", "networks", "sev-snp", "tdx", "encrypted-storage", "rdma")
# What this machine has no sign of; of encrypted storage it has one of the programs.
ABSENT = ("sev-snp", "tdx", "rdma")
SCRIPT = """\
grep /proc/sys/kernel/modules_disabled 1
cat /proc/modules
say plug
wait /dev/vda 30000
wait /dev/sda 30000
hex /dev/vda 8
hex /dev/sda 8
poweroff
"""
PLUGS: tuple[Mapping[str, str], ...] = (
    {"driver": "virtio-blk-pci", "drive": "blk", "bus": "port1", "id": "late-blk"},
    {"driver": "scsi-hd", "drive": "scsi", "bus": "scsi0.0", "id": "late-sd"},
)
# Of the virtio devices that a need goes by, this machine has a SCSI controller, as Kata's runtimes attach it.
ATTACHED = (Sign.VIRTIO, "8")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BootFiles:
    """The lab image, the prober for its agent, and behind both the modules of an image that serves much."""
    folder = tmp_path_factory.mktemp("image")
    base = put_agent(lab_image(), standins.build_program(standins.open_workshop(checkout()), "prober"), folder)
    root = kernel_root(pipeline.make_inputs(pipeline.open_job("lab", cache=CACHE)))
    served = [need for need in NEEDS if need.name in SERVED]
    modules = map(kernels.split_signature, kernels.select_modules(root, ["dm-verity", "erofs", "virtio_blk", *(
        name for need in served for name in need.modules)], [name for need in served for name in need.where_there]))
    tree, origin = Tree(), Origin(slice="test")
    release = f"/usr/lib/modules/{kernels.find_release(root)}"
    kernels.write_modules(tuple(modules), root, folder / "modules", SERVED)
    for path in sorted(folder.glob("modules/**/*")):
        if path.is_file():
            tree.add_file(f"{release}/{path.relative_to(folder / 'modules')}", path, origin)
    tree.add_file("/lab/script", SCRIPT.encode(), origin)
    tree.add_file("/usr/local/bin/confidential-data-hub", b"", origin)
    return put_behind(base, tree, folder / "initrd")


def put_behind(base: BootFiles, tree: Tree, initrd: Path) -> BootFiles:
    join_archives([base.initrd], tree, initrd)
    return BootFiles(kernel=base.kernel, initrd=initrd)


def test_iptables_of_the_base_image_takes_the_rules_of_a_service_mesh(tmp_path: Path) -> None:
    """With the image as it is built: what it serves, and its modules with the signatures beside them."""
    prober = standins.build_program(standins.open_workshop(checkout()), "prober")
    built = pipeline.build("nvidia-base", out=tmp_path, cache=CACHE, agent=prober)
    tree, origin = Tree(), Origin(slice="test")
    tree.add_file("/lab/rules", RULES.encode(), origin)
    tree.add_file("/lab/script", b"run /sbin/iptables-restore /lab/rules\nrun /sbin/iptables-save\n"
                                 b"run /sbin/ip6tables-save\npoweroff\n", origin)
    image = put_behind(BootFiles(kernel=built.kernel, initrd=built.initrd), tree, tmp_path / "initrd")
    machine = Machine(kernel=image.kernel, initrd=image.initrd, memory_mib=768,
                      cmdline="console=ttyS0 panic=1 quiet loglevel=4 cgroup_no_v1=all")
    heard: list[str] = []
    went = watch(make_argv(machine, find_qemu().program, Accel.TCG), tmp_path / "console",
                 Limits(total_s=240), lambda _story, new, _seconds: heard.extend(new))
    assert went.story.ready is not None, heard[-20:]
    done = [line.rpartition(" ms=")[0] for line in told(heard, "run")]
    assert done == [f"/sbin/{name} exit=0" for name in ("iptables-restore", "iptables-save", "ip6tables-save")], heard
    assert REDIRECT in heard


def plug_in(monitor: Path) -> None:
    """Over QEMU's monitor, in its JSON lines; between them come events."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(monitor))
        with sock.makefile("rw") as lines:
            lines.readline()
            for order in ({"execute": "qmp_capabilities"},
                          *({"execute": "device_add", "arguments": dict(plug)} for plug in PLUGS)):
                lines.write(json.dumps(order) + "\n")
                lines.flush()
                while "event" in (answer := json.loads(lines.readline())):
                    pass
                assert "return" in answer, answer


@pytest.mark.parametrize("signatures", ["", "module.sig_enforce=1"], ids=["unsigned", "signed-only"])
def test_disks_that_come_after_the_lock_have_a_driver(image: BootFiles, tmp_path: Path, signatures: str) -> None:
    """Where the kernel wants each module as it was signed, too: none of them may be missing then."""
    drives: tuple[str, ...] = ()
    for name in ("blk", "scsi"):
        (tmp_path / name).write_bytes(f"on {name}".ljust(1 << 20, "\0").encode())
        drives += ("-drive", f"if=none,id={name},format=raw,file={escape(tmp_path / name)}")
    machine = Machine(kernel=image.kernel, initrd=image.initrd, extra=drives, qmp_socket=tmp_path / "qmp",
                      devices=("pcie-root-port,id=port1,chassis=1", "virtio-scsi-pci,id=scsi0"),
                      cmdline="console=ttyS0 panic=1 quiet loglevel=4 cgroup_no_v1=all "
                              f"{signatures}")
    heard: list[str] = []
    plugged: list[bool] = []

    def hear(_story: Story, new: tuple[str, ...], _seconds: float) -> None:
        heard.extend(new)
        if not plugged and any("plug" in line for line in told(heard, "say")):
            plugged.append(True)
            plug_in(tmp_path / "qmp")

    went = watch(make_argv(machine, find_qemu().program, Accel.TCG), tmp_path / "console",
                 Limits(total_s=240), hear)
    assert went.story.ready is not None, heard[-20:]
    assert told(heard, "cat /proc/sys/kernel/modules_disabled") == ["1"], heard[-20:]
    loaded = {line.split()[0] for line in told(heard, "cat /proc/modules")}
    served = [need for need in NEEDS if need.name in set(SERVED) - set(ABSENT)]
    wanted = {name for need in served for name in need.modules}
    missing = {name for need in served if need.signs[0][0] is Sign.VIRTIO and ATTACHED not in need.signs for name in need.modules}
    assert wanted - missing <= loaded, wanted - missing - loaded
    assert missing and not missing & loaded, "this machine has neither such a network function nor vsock"
    assert {"nf_log_syslog", "libcrc32c"} <= loaded
    assert "aesni_intel" not in loaded, "this processor has no AES"
    assert [line for line in heard if "nvrc: warn" in line and "aesni" in line] == []
    absent = {name for need in NEEDS if need.name in ABSENT for name in (*need.modules, *need.where_there)}
    assert absent & loaded == set()
    assert told(heard, "hex /dev/vda") == [b"on blk\0\0".hex()], heard[-20:]
    assert told(heard, "hex /dev/sda") == [b"on scsi\0".hex()], heard[-20:]
