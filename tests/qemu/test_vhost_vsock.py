# SPDX-License-Identifier: Apache-2.0
"""`nvrc status --vm CID` on a host with /dev/vhost-vsock (NVRC_NESTED). The host is itself a machine of the lab's, and
runs this machine's QEMU with the lab's image as its guest: one emulation in another, which takes ten minutes.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from nvrc_build import pipeline
from nvrc_build.products import kernel as kernels
from nvrc_build.products.products import kernel_root
from nvrc_build.tree.tree import Origin, Tree
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.archives import join_archives
from nvrc_lab.kit.image import BootFiles, build_image
from nvrc_lab.qemu.machine import TCG_CPU, Machine, make_argv
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.compose import compose, needed_parts
from nvrc_lab.run.runner import open_lab
from nvrc_lab.scenario.faults import BOOT_OVER
from nvrc_lab.scenario.scenario import Scenario, parse_scenario
from nvrc_lab.watch.watch import Limits, record_of, watch

pytestmark = [pytest.mark.qemu, pytest.mark.skipif(not os.environ.get("NVRC_NESTED"), reason="NVRC_NESTED is not set")]

CACHE = Path(__file__).resolve().parents[2] / "out/cache"
CID, PATIENCE_S = 77, 2400
NVRC, HOST = "/usr/lib/nvrc/nvrc", "/lab/host"
ASKED = f"probe: run {NVRC} exit="
# In the order in which one needs the other.
MODULES = ("vsock", "vmw_vsock_virtio_transport_common", "vhost_iotlb", "vhost", "vhost_vsock")
FIRMWARE = ("/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/pvh.bin", "/usr/share/qemu/kvmvapic.bin")
# Debian's QEMU finds it by the place of the program that was started, which is the loader.
EMULATION = "x86_64-linux-gnu/qemu/accel-tcg-x86_64.so"
INNER = parse_scenario("""
summary: A machine without a GPU that serves its status.
cmdline: nvrc.status.vsock=1030
agent:
  does: [poweroff]
  seconds: 600
expect: {verdict: ready}
""", "inner", "this test")
OUTER = parse_scenario(f"""
summary: The host of that machine.
machine: {{memory_mib: 1536, cpus: 2}}
agent:
  does: [poweroff]
  seconds: {PATIENCE_S + 100}
expect: {{verdict: ready}}
""", "outer", "this test")
# Its clock counts instructions: deadlines of the boot are for machines that are faster.
START = (f"{HOST}/lib/ld-linux-x86-64.so.2 --library-path {HOST}/lib {HOST}/qemu -L {HOST}/share -M q35 -nodefaults "
         f"-no-user-config -display none -no-reboot -accel tcg,thread=single -icount shift=0 -cpu {TCG_CPU} -m 224M "
         f"-serial file:/run/inner -device vhost-vsock-pci,guest-cid={CID} -readconfig {HOST}/conf")
EVENTS = (BOOT_OVER, f"spawn {START}", f"loop {PATIENCE_S}", "sleep 30000", f"run {NVRC} status --vm {CID}", "end")


class AnsweredError(Exception):
    """Nothing more is to be seen; whoever watches a machine ends it when this comes by."""


def unpack(kernel: Path, target: Path) -> Path:
    """The kernel as an ELF file, which QEMU starts as it is: its own unpacking takes minutes here. Offsets are those of
    the kernel's Documentation/arch/x86/boot.rst; behind the packed data is its size.
    """
    data = kernel.read_bytes()
    begin = (data[0x1F1] + 1) * 512 + int.from_bytes(data[0x248:0x24C], "little")
    packed = data[begin:begin + int.from_bytes(data[0x24C:0x250], "little") - 4]
    target.write_bytes(subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout)
    return target


def own_qemu() -> dict[str, Path]:
    """Of another distribution than the image, so with its loader and libraries."""
    program = Path(find_qemu().program)
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    libraries = [Path(path) for path in re.findall(r"(/\S+) \(0x", said)]
    return {**{f"{HOST}/lib/{path.name}": path for path in libraries}, f"{HOST}/qemu": program,
            f"{HOST}/lib/{EMULATION}": Path("/usr/lib") / EMULATION, **{f"{HOST}/share/{Path(path).name}": Path(path) for path in FIRMWARE}}


def put_host(base: BootFiles, inner: Machine, folder: Path) -> BootFiles:
    """Behind the image's own files: modules of its kernel, QEMU, and the machine that it is to run."""
    root = kernel_root(pipeline.make_inputs(pipeline.open_job("lab", cache=CACHE)))
    kernels.write_modules(kernels.select_modules(root, list(MODULES)), root, folder / "modules", ())
    assert inner.kernel
    assert inner.initrd
    (folder / "conf").write_text(f'[machine]\n kernel = "{HOST}/kernel"\n initrd = "{HOST}/initrd"\n'
                                 f' append = "no_timer_check tsc=reliable console=ttyS0 {inner.cmdline}"\n')
    files = {**{f"/lab/{path.name}": path for path in folder.glob("modules/**/*.ko")}, **own_qemu(),
             f"{HOST}/kernel": unpack(inner.kernel, folder / "kernel"), f"{HOST}/initrd": inner.initrd, f"{HOST}/conf": folder / "conf"}
    tree = Tree()
    for path, file in files.items():
        tree.add_file(path, file, Origin(slice="test"), mode=0o755)
    initrd = folder / "with-host"
    join_archives([base.initrd], tree, initrd)
    return BootFiles(kernel=base.kernel, initrd=initrd)


def test_a_host_reads_the_status_of_its_vm_over_vhost_vsock(tmp_path: Path) -> None:
    lab = open_lab(checkout(), find_qemu(), build_image(), [INNER, OUTER])

    def machine(scenario: Scenario, image: BootFiles, events: Sequence[str] = (), early: Sequence[str] = ()) -> Machine:
        folder = tmp_path / scenario.name
        folder.mkdir()
        return compose(scenario, image, {name: lab.kit[name] for name in needed_parts(scenario)}, folder, events=events, early=early)

    outer = machine(OUTER, put_host(lab.image, machine(INNER, lab.image), tmp_path), EVENTS, [f"/lab/{name}.ko" for name in MODULES])
    lines: list[str] = []

    def hear(_story: object, more: Sequence[str], _now_s: float) -> None:
        lines.extend(more)
        if any(f"{ASKED}0" in line for line in more):
            raise AnsweredError

    with pytest.raises(AnsweredError):
        watch(make_argv(outer, lab.qemu.program, lab.choice.accel), tmp_path / "console", Limits(total_s=PATIENCE_S + 300, silence_s=300),
              hear, record=record_of(tmp_path / "console"))
    assert any(line.endswith(": no-gpu, mode cpu") for line in lines)
