# SPDX-License-Identifier: Apache-2.0
"""The reference generator itself, run in a chroot on the very trees that we describe, when its binary is at hand.

NVRC_NVIDIA_CTK names it (release 1.20; NVRC_NVIDIA_CTK_1_19 for that one); needs root. On each machine both must write the
same text, or both must refuse.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fakes.elf import shared_object
from fakes.machine import ROOTS, Machine, find_place, load
from fakes.nvml import MockNvml
from fakes.random_machine import make_machine
from guest_cdi import cli
from guest_cdi.generate import generate
from guest_cdi.host import LinuxHost
from guest_cdi.lean.errors import CdiError
from guest_cdi.locate import locate_nvml
from guest_cdi.render import render_yaml

Describe = Callable[[str], MockNvml]

BINARIES = {"1.20": os.environ.get("NVRC_NVIDIA_CTK", ""), "1.19": os.environ.get("NVRC_NVIDIA_CTK_1_19", "")}
RELEASES = [release for release, binary in BINARIES.items() if binary]
CHROOT = shutil.which("chroot", path="/usr/sbin:/usr/bin:/sbin:/bin") or "chroot"
SEEDS = range(int(os.environ.get("NVRC_CDI_SEEDS", "60")))

pytestmark = pytest.mark.skipif(not RELEASES or os.geteuid() != 0,
                                reason="NVRC_NVIDIA_CTK names no reference generator, or this is not root")

each_release = pytest.mark.parametrize("release", RELEASES or ["1.20"])


def describe_nvml(machine: Machine) -> str:
    lines = [f"driver {machine.driver}"]
    for gpu in machine.gpus:
        family = "mig-family=rtx mig-gb=96" if any(mig.gfx for mig in gpu.migs) else ""
        lines.append(f'gpu {gpu.index} name="{gpu.name}" uuid={gpu.uuid} minor={gpu.minor} bus={gpu.bus_id} '
                     f"mig={'on' if gpu.mig_enabled else 'off'} {family}")
        lines += [f"mig gpu={gpu.index} gi={mig.gi} ci={mig.ci} index={mig.index} uuid={mig.uuid} slices=1 "
                  f"profile={'1g.24gb+gfx' if mig.gfx else '3g.40gb'}" for mig in gpu.migs]
    return "\n".join(lines)


def put(root: Path, path: str, source: str) -> None:
    place = find_place(root, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    shutil.copy(source, place)


def furnish(root: Path, machine: Machine, mock: MockNvml, binary: str) -> None:
    """What the binary itself needs: the loader's files, a /tmp, and NVML where it will look for it."""
    needed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    for word in needed.split():
        if word.startswith("/"):
            put(root, word, os.path.realpath(word))
    for path in machine.files:
        if path.rpartition("/")[2].startswith("libnvidia-ml.so."):
            put(root, path, mock.library)
        elif "libnvidia-sandboxutils" in path:
            # The reference would load it; a shared object without code brings it down.
            find_place(root, path).write_bytes(b"")
    find_place(root, "/tmp").mkdir(exist_ok=True)
    put(root, "/reference/nvidia-ctk", binary)
    put(root, "/reference/nvml.conf", str(mock.folder / "nvml-mock.conf"))


def run_reference(root: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CHROOT, str(root), "/reference/nvidia-ctk", "cdi", "generate", "--mode=nvml", *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd="/",
        env={"HOME": "/", "TERM": "linux", "NVRC_NVML_MOCK": "/reference/nvml.conf"})


def compare(machine: Machine, folder: Path, nvml_mock: Describe, release: str) -> None:
    root = machine.build(folder / "root", nodes=True)
    furnish(root, machine, nvml_mock(describe_nvml(machine)), BINARIES[release])
    reference = run_reference(root, machine.arguments)
    if "ERROR_LIBRARY_NOT_FOUND" in reference.stderr:
        return      # its loader knows fewer directories than we search for NVML
    arguments = cli.build_parser().parse_args(
        [*machine.arguments, "--compat=nvidia-ctk", f"--reference-release={release}"], cli.Arguments())
    host = LinuxHost(str(root))
    try:
        options = cli.read_options(arguments)
        locate_nvml(host, options, str(root))
        ours = render_yaml(generate(host, machine.nvml(), options).spec)
    except CdiError as err:
        assert reference.returncode != 0, f"only we refused: {err}"
        return
    assert reference.returncode == 0, reference.stderr[-500:]
    assert ours == reference.stdout


@each_release
@pytest.mark.parametrize("case", sorted(path.parent.name for path in ROOTS.glob("*/machine.txt")))
def test_our_machines(case: str, release: str, tmp_path: Path, nvml_mock: Describe) -> None:
    compare(load(case), tmp_path, nvml_mock, release)


@each_release
@pytest.mark.parametrize("seed", SEEDS)
def test_random_machines(seed: int, release: str, tmp_path: Path, nvml_mock: Describe) -> None:
    compare(make_machine(seed), tmp_path, nvml_mock, release)


@each_release
@pytest.mark.parametrize("flags", [["gds"], ["gdrcopy"], ["mofed"], ["nvswitch"], ["imex"], ["imex", "--device-id", "channel3"],
                                   ["imex", "--no-all-device"], ["management", "--nvidia-cdi-hook-path", "/usr/bin/nvidia-cdi-hook"]])
def test_other_modes_agree(release: str, flags: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Real device nodes, below a root of their own for both."""
    for minor, name in enumerate((
            "nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-nvswitch0", "nvidia-nvswitchctl", "nvidia-nvlink", "nvidia-fs0", "gdrdrv",
            "nvidia-caps/nvidia-cap1", "nvidia-caps-imex-channels/channel0", "nvidia-caps-imex-channels/channel3",
            "infiniband/uverbs0", "infiniband/rdma_cm", "infiniband/umad0")):
        place = tmp_path / "dev" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(place, 0o020666, os.makedev(240, minor))
    for folder in ("etc", "run/udev", "usr/lib/x86_64-linux-gnu"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/cufile.json").touch()
    for name in ("libcuda.so", "libnvidia-ml.so"):
        (tmp_path / f"usr/lib/x86_64-linux-gnu/{name}.580.95.05").write_bytes(shared_object(f"{name}.1"))
    words = ["--mode", *flags, f"--driver-root={tmp_path}", f"--dev-root={tmp_path}"]
    theirs = subprocess.run([BINARIES[release], "cdi", "generate", *words], capture_output=True, text=True, check=True).stdout
    assert cli.main([*words, "--compat=nvidia-ctk", "--quiet", f"--reference-release={release}"]) == 0
    assert capfd.readouterr().out == theirs
