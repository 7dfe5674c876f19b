# SPDX-License-Identifier: Apache-2.0
"""`nvrc status --vm CID` over the kernel's own vsock, inside one machine whose kernel loops it back (CID 1 is itself).

The document is the status that PID 1 wrote, told by a program as PID 1 tells it to the host. PID 1 itself is asked as
well, and says nothing to CID 1: only the host (CID 2) is answered.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fakes.lab_image import lab_image
from nvrc_build import pipeline
from nvrc_build.products import kernel as kernels
from nvrc_build.products.products import kernel_root
from nvrc_build.tree.tree import Origin, Tree
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.archives import join_archives
from nvrc_lab.kit.image import BootFiles
from nvrc_lab.qemu.machine import make_argv
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.compose import compose, needed_parts
from nvrc_lab.run.runner import open_lab
from nvrc_lab.scenario.faults import BOOT_OVER
from nvrc_lab.scenario.scenario import parse_scenario
from nvrc_lab.watch.watch import Limits, record_of, watch

pytestmark = pytest.mark.qemu

CACHE = Path(__file__).resolve().parents[2] / "out/cache"
OWN, OTHER, NOBODYS = 1030, 1040, 1050
NVRC = "/usr/lib/nvrc/nvrc"
# In the order in which one needs the other.
MODULES = ("vsock", "vmw_vsock_virtio_transport_common", "vsock_loopback")
SCENARIO = parse_scenario(f"""
summary: A machine without a GPU that serves its status, with a vsock that reaches itself.
cmdline: nvrc.status.vsock={OWN}
agent: {{does: [hold]}}
expect: {{verdict: ready}}
""", "plain-vsock", "this test")
EVENTS = (BOOT_OVER, "wait /run/nvrc/status.json 30000", f"answer {OTHER} /run/nvrc/status.json",
          *(f"run {NVRC} status --vm 1 --port {port}" for port in (OTHER, OWN, NOBODYS)), "kill 1 15")


def put_modules(base: BootFiles, folder: Path) -> BootFiles:
    """The modules behind the image's own files, of the image's own kernel."""
    root = kernel_root(pipeline.make_inputs(pipeline.open_job("lab", cache=CACHE)))
    kernels.write_modules(kernels.select_modules(root, list(MODULES)), root, folder / "modules", ())
    tree = Tree()
    for path in sorted(folder.glob("modules/**/*.ko")):
        tree.add_file(f"/lab/{path.name}", path, Origin(slice="test"))
    initrd = folder / "with-modules"
    join_archives([base.initrd], tree, initrd)
    return BootFiles(kernel=base.kernel, initrd=initrd)


def test_a_status_comes_over_plain_vsock_and_pid_1_tells_the_host_alone(tmp_path: Path) -> None:
    lab = open_lab(checkout(), find_qemu(), lab_image(), [SCENARIO])
    machine = compose(SCENARIO, put_modules(lab.image, tmp_path), {name: lab.kit[name] for name in needed_parts(SCENARIO)},
                      tmp_path, events=EVENTS, early=[f"/lab/{name}.ko" for name in MODULES])
    lines: list[str] = []
    watch(make_argv(machine, lab.qemu.program, lab.choice.accel), tmp_path / "console", Limits(total_s=240),
          lambda _story, more, _now_s: lines.extend(more), record=record_of(tmp_path / "console"))
    text = "\n".join(lines)
    assert re.findall(rf"probe: run {NVRC} exit=(\d+)", text) == ["0", "2", "2"], text
    assert ": no-gpu, mode cpu\n" in text
    assert f"the VM closed port {OWN} silently" in text
    assert f"vsock 1:{NOBODYS}: Connection reset by peer" in text
