# SPDX-License-Identifier: Apache-2.0
"""The whole way from a signed repository with NVIDIA's packages to a booted image, by declarations of one's own.

The packages are made here: their names, versions and places are those of NVIDIA's repository, their content is not. Two
branches are in it, and Debian's packages are beside it. The modules are compiled and signed as the real ones are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.archives import Content, make_key, make_package, sign, stop_agent
from fakes.elves import make_elf
from nvrc_build import pipeline, relock
from nvrc_build.ground.progress import silent
from nvrc_build.job import Brought
from nvrc_build.papers.inventory import read_inventory
from nvrc_build.supply.archives import Addresses
from nvrc_lab.qemu.machine import Accel, Machine, make_argv
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.watch.watch import Limits, watch

pytestmark = pytest.mark.qemu

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / "out/cache"
LIB = "/usr/lib/x86_64-linux-gnu"
WANTED, NEWER = "580.95.05", "590.48.01"
MODULE = b'#include <linux/module.h>\nMODULE_DESCRIPTION("a test");\nMODULE_LICENSE("Dual MIT/GPL");\n'
# package: what it has of a release, by NVIDIA's names for files
LIBRARIES = {
    "libcuda1": "cuda", "libnvidia-cfg1": "nvidia-cfg", "libnvidia-ml1": "nvidia-ml", "libnvidia-nvvm4": "nvidia-nvvm",
    "libnvidia-ptxjitcompiler1": "nvidia-ptxjitcompiler", "libnvcuvid1": "nvcuvid", "libnvidia-encode1": "nvidia-encode",
    "nvidia-opencl-icd": "nvidia-opencl",
}


def files_of_driver(version: str) -> dict[str, dict[str, Content]]:
    found: dict[str, dict[str, Content]] = {}
    for package, name in LIBRARIES.items():
        library = f"lib{name}.so.{version}"
        found[package] = {f"{LIB}/{library}": make_elf(soname=f"lib{name}.so.1"), f"{LIB}/lib{name}.so.1": library}
    found["libcuda1"][f"{LIB}/libcuda.so"] = "libcuda.so.1"
    source = f"/usr/src/nvidia-{version}"
    return found | {
        "libnvidia-pkcs11-openssl3": {f"{LIB}/libnvidia-pkcs11-openssl3.so.{version}": make_elf()},
        "libnvidia-nscq": {f"{LIB}/libnvidia-nscq.so.{version}": make_elf(soname="libnvidia-nscq.so.2"),
                           f"{LIB}/libnvidia-nscq.so.2": f"libnvidia-nscq.so.{version}"},
        "nvidia-persistenced": {"/usr/bin/nvidia-persistenced": make_elf()},
        "nvidia-smi": {"/usr/bin/nvidia-smi": make_elf()},
        "nvidia-opencl-common": {"/etc/OpenCL/vendors/nvidia.icd": b"libnvidia-opencl.so.1\n"},
        "firmware-nvidia-gsp": {f"/lib/firmware/nvidia/{version}/gsp_{chip}.bin": chip.encode()
                                for chip in ("tu10x", "ga10x")},
        "nvidia-fabricmanager": {
            "/usr/bin/nv-fabricmanager": make_elf(),
            "/usr/share/nvidia/nvswitch/fabricmanager.cfg": b"TOPOLOGY_FILE_PATH=/usr/share/nvidia/nvswitch\n",
            "/usr/share/nvidia/nvswitch/dgxh100_hgxh100_topology": b"x"},
        "nvidia-kernel-open-dkms": {
            f"{source}/Makefile": b"modules:\n\t$(MAKE) -C $(SYSOUT) M=$(CURDIR) CC=$(CC) modules\n",
            f"{source}/Kbuild": b"obj-m += nvidia.o nvidia-uvm.o\n",
            f"{source}/nvidia.c": MODULE + f'MODULE_VERSION("{version}");\n'.encode(), f"{source}/nvidia-uvm.c": MODULE},
    }


OTHERS: dict[str, dict[str, Content]] = {
    "nvlsm": {"/opt/nvidia/nvlsm/sbin/nvlsm": make_elf(), "/opt/nvidia/nvlsm/lib/libgrpc_mgr.so": make_elf(),
              "/usr/share/nvidia/nvlsm/nvlsm.conf": b"x"},
    "datacenter-gpu-manager-4-core": {"/usr/bin/nv-hostengine": make_elf(), f"{LIB}/libdcgm.so.4": make_elf()},
    "datacenter-gpu-manager-exporter": {"/usr/bin/dcgm-exporter": make_elf(),
                                        "/etc/dcgm-exporter/default-counters.csv": b"x"},
}


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brought]:
    repository, own = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("own")
    for version in (WANTED, NEWER):
        for name, files in files_of_driver(version).items():
            make_package(repository, name, f"{version}-1", files)
    for name, files in OTHERS.items():
        make_package(repository, name, "4.5.0-1", files)
    (own / "images").mkdir()
    (own / "images/ours.toml").write_text('extends = "nvidia-cuda"\ndriver_branch = "580"\nstand_in_agent = true\n')
    with tempfile.TemporaryDirectory(prefix="key-") as folder:
        home = Path(folder) / "home"
        key = make_key(home)
        sign(repository, home)
        stop_agent(home)
        yield Brought(declarations=own, addresses=Addresses(places={"cuda-debian13": str(repository)},
                                                            keys={"cuda-debian13": key}))


@pytest.fixture(scope="module")
def image(brought: Brought, tmp_path_factory: pytest.TempPathFactory) -> pipeline.Image:
    changes = relock.relock(["ours"], cache=CACHE, mirror=None, checkout=CHECKOUT, progress=silent, brought=brought)
    assert list(changes) == ["image-ours"]
    return pipeline.build("ours", out=tmp_path_factory.mktemp("images"), cache=CACHE, brought=brought)


def test_the_image_has_the_branch_that_it_names_from_the_repository(image: pipeline.Image) -> None:
    found = read_inventory(image.manifest)
    versions = {name: version for name, version in found.packages.items() if name in files_of_driver(WANTED)}
    assert set(versions.values()) == {f"{WANTED}-1"}
    assert {f"{LIB}/libcuda.so.{WANTED}", f"{LIB}/libnvidia-nscq.so.{WANTED}", "/usr/bin/nv-fabricmanager", "/usr/sbin/nvlsm",
            f"{LIB}/libgrpc_mgr.so", "/usr/bin/nv-hostengine", f"/usr/lib/firmware/nvidia/{WANTED}/gsp_ga10x.bin"} <= found.files.keys()
    assert [path for path in found.files if path.endswith("/updates/nvidia-uvm.ko")]
    assert (image.folder / "signing.x509").is_file()


def test_it_boots(image: pipeline.Image, tmp_path: Path) -> None:
    machine = Machine(kernel=image.kernel, initrd=image.initrd, memory_mib=1024,
                      cmdline="console=ttyS0 panic=1 quiet loglevel=4 cgroup_no_v1=all lab.agent=poweroff")
    lines: list[str] = []
    went = watch(("nice", *make_argv(machine, find_qemu().program, Accel.TCG)), tmp_path / "console", Limits(total_s=180),
          lambda _story, new, _seconds: lines.extend(new))
    assert went.story.ready is not None, "\n".join(lines[-20:])
