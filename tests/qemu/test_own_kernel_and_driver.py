# SPDX-License-Identifier: Apache-2.0
"""The whole way from files that somebody brings by path to a booted image: an installer (.run) and a kernel.

The installer is made here, with the script in front that is never run and the files where NVIDIA's has them; its
content is the lab's, so that the modules which are compiled from it attach a virtual GPU. The kernel is the
distribution's, laid out as whoever builds one lays it out. Some seconds more than CI has: NVRC_WHOLE_MATRIX=1.
"""

from __future__ import annotations

import io
import lzma
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from fakes.elves import make_elf
from nvrc_build import pipeline
from nvrc_build.ground.errors import BuildError
from nvrc_build.job import CHECKOUT, Brought
from nvrc_build.papers.inventory import read_inventory
from nvrc_build.products import kernel as kernels
from nvrc_build.products.products import kernel_root
from nvrc_build.supply.apt import file_sha256
from nvrc_build.supply.compile import headers_release
from nvrc_build.tree.tree import Origin, Tree
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit import kit, standins
from nvrc_lab.kit.archives import join_archives
from nvrc_lab.kit.standins import DRIVER_VERSION
from nvrc_lab.qemu.machine import Accel, Machine, make_argv
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.scenario.hardware import describe_functions, describe_nvml, place_gpus
from nvrc_lab.scenario.scenario import find_scenario, read_scenario
from nvrc_lab.watch.watch import Limits, watch

pytestmark = [pytest.mark.qemu, pytest.mark.skipif(not os.environ.get("NVRC_WHOLE_MATRIX"), reason="NVRC_WHOLE_MATRIX is not set")]

CACHE = CHECKOUT / "out/cache"
OURS = "ours"
SCRIPT = b"#! /bin/sh\nskip=3\ntouch /it-was-run; exit 1\n"
# What the slice takes and the lab has no stand-in for.
FURTHER = ("nvcuvid", "nvidia-encode", "nvidia-pkcs11-openssl3")
MAKEFILE = "modules:\n\t$(MAKE) -C $(SYSOUT) M=$(CURDIR) CC=$(CC) modules\n"


@pytest.fixture(scope="module")
def bench() -> kit.Bench:
    return kit.open_bench(checkout())


def write_installer(bench: kit.Bench, folder: Path) -> Path:
    """NVIDIA-Linux-x86_64-VERSION.run, of the lab's driver."""
    inside, path = folder / "inside", folder / f"NVIDIA-Linux-x86_64-{DRIVER_VERSION}.run"
    shutil.copytree(bench.shop.kernel, inside / "kernel-open")
    (inside / "kernel-open/Makefile").write_text(MAKEFILE, encoding="ascii")
    kit.build_libraries(bench.shop, inside)
    for name in FURTHER:
        (inside / f"lib{name}.so.{DRIVER_VERSION}").write_bytes(make_elf(soname=f"lib{name}.so.1"))
    for name in ("nvidia-smi", "nvidia-persistenced"):
        shutil.copyfile(standins.build_program(bench.shop, "nvidia"), inside / name)
    (inside / "firmware").mkdir()
    (inside / "firmware/gsp_ga10x.bin").write_bytes(b"ga10x")
    (inside / "nvidia.icd").write_text("libnvidia-opencl.so.1\n", encoding="ascii")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(inside, f"./NVIDIA-Linux-x86_64-{DRIVER_VERSION}")
    path.write_bytes(SCRIPT + lzma.compress(packed.getvalue(), preset=0))
    return path


def lay_out_kernel(bench: kit.Bench, folder: Path) -> Path:
    """vmlinuz, config, modules and headers of one build."""
    root, release = kernel_root(pipeline.make_inputs(pipeline.open_job("lab", cache=CACHE))), headers_release(bench.shop.root)
    folder.mkdir()
    shutil.copyfile(kernels.image_path(root), folder / "vmlinuz")
    shutil.copyfile(root / f"boot/config-{release}", folder / "config")
    shutil.copytree(root / "usr/lib/modules" / release, folder / "modules", symlinks=True)
    shutil.copytree(bench.shop.root / f"usr/src/linux-headers-{release}", folder / "headers", symlinks=True)
    return folder


@pytest.fixture(scope="module")
def brought(bench: kit.Bench, tmp_path_factory: pytest.TempPathFactory) -> Brought:
    folder, own = tmp_path_factory.mktemp("brought"), tmp_path_factory.mktemp("own")
    (own / "images").mkdir()
    (own / "locks").mkdir()
    (own / f"images/{OURS}.toml").write_text('extends = "nvidia-run"\nkernel = "@kernel"\nstand_in_agent = true\n')
    rows = (CHECKOUT / "rootfs/locks/image-nvidia-run.toml").read_text(encoding="utf-8").splitlines(keepends=True)
    (own / f"locks/image-{OURS}.toml").write_text("".join(row for row in rows if 'name = "linux-image-' not in row))
    installer = write_installer(bench, folder)
    return Brought(declarations=own, kernel=lay_out_kernel(bench, folder / "linux"),
                   driver_run=f"{installer}#sha256={file_sha256(installer)}")


@pytest.fixture(scope="module")
def image(brought: Brought, tmp_path_factory: pytest.TempPathFactory) -> pipeline.Image:
    return pipeline.build(OURS, out=tmp_path_factory.mktemp("images"), cache=CACHE, brought=brought)


def test_the_image_has_what_was_brought(image: pipeline.Image, brought: Brought) -> None:
    assert brought.kernel is not None
    assert image.kernel.read_bytes() == (brought.kernel / "vmlinuz").read_bytes()
    found = read_inventory(image.manifest).files
    assert {f"/usr/lib/x86_64-linux-gnu/libcuda.so.{DRIVER_VERSION}", "/usr/bin/nvidia-persistenced",
            f"/usr/lib/firmware/nvidia/{DRIVER_VERSION}/gsp_ga10x.bin"} <= found.keys()
    assert [path for path in found if path.endswith("/updates/nvidia-uvm.ko")]
    assert [path for path in found if path.endswith("/virtio_scsi.ko")]
    assert not Path("/it-was-run").exists()


def test_it_boots_and_attaches_a_gpu(image: pipeline.Image, tmp_path: Path) -> None:
    scenario, parts = read_scenario(find_scenario("gpu-1", checkout().scenarios)), kit.find_kit(checkout(), ["base", "pci"])
    gpus, tree = place_gpus(scenario.machine), Tree()
    for path, text in {"/lab/target": "/init\n", "/etc/nvml-mock.conf": describe_nvml(gpus, DRIVER_VERSION, ()),
                       "/lab/modules": f"/lab/lab_pci.ko fn={describe_functions(scenario, gpus, {})}\n"}.items():
        tree.add_file(path, text.encode(), Origin(slice="test"))
    join_archives([image.initrd, *parts.values()], tree, tmp_path / "initrd")
    machine = Machine(kernel=image.kernel, initrd=tmp_path / "initrd", memory_mib=1024, cmdline=(
        "console=ttyS0 panic=1 quiet loglevel=4 cgroup_no_v1=all rdinit=/lab/init lab.agent=poweroff"))
    lines: list[str] = []
    went = watch(make_argv(machine, find_qemu().program, Accel.TCG), tmp_path / "console", Limits(total_s=180),
                 lambda _story, new, _seconds: lines.extend(new))
    assert went.story.ready is not None, "\n".join(lines[-20:])
    assert any("step modules ok" in line and "nvidia-uvm" in line for line in lines), lines[-20:]
    assert any("nvrc: READY" in line and "gpus=1" in line for line in lines), lines[-20:]


def test_another_file_than_the_one_that_was_meant_is_refused(brought: Brought, tmp_path: Path) -> None:
    assert brought.driver_run is not None
    path, _, sha256 = brought.driver_run.partition("#sha256=")
    other = Brought(declarations=brought.declarations, kernel=brought.kernel, driver_run=f"{path}#sha256={'0' * 64}")
    with pytest.raises(BuildError, match="sha256") as caught:
        pipeline.build(OURS, out=tmp_path, cache=CACHE, brought=other)
    assert sha256 in str(caught.value)
