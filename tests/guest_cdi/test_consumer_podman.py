# SPDX-License-Identifier: Apache-2.0
"""The proof that does not come from us: podman, with its own CDI library and crun, uses the document we generate.

And the counterpart: our own injector writes config.json, and crun alone starts the same container from it.

The machine is a driver tree in a temporary folder with our stand-in NVML, nodes in a private /dev, the document in a
private /run. The container's program is linked against libcuda.so.1, which its loader finds only when the nodes,
mounts and hooks of the document did their work; it prints what it sees.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from guest_cdi.load import Data
from namespace.hooks_cell import in_cell

pytestmark = pytest.mark.namespace

TOP = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).parent / "programs"
VERSION = "580.95.05"
# A directory that the loader does not search by itself, so that the cache is needed.
LIBRARIES = f"/usr/lib/{platform.machine()}-linux-gnu/nvidia/current"
NODES = {"nvidia0": (195, 0), "nvidia3": (195, 3), "nvidiactl": (195, 255), "nvidia-uvm": (511, 0), "nvidia-uvm-tools": (511, 1)}
ORDINARY = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0), "ptmx": (5, 2)}
COMMON = {"nvidiactl": "c 195:255 660", "nvidia-uvm": "c 511:0 660", "nvidia-uvm-tools": "c 511:1 660"}
GPU = {0: {"nvidia3": "c 195:3 660"}, 1: {"nvidia0": "c 195:0 660"}}
DESCRIPTION = f"""
driver {VERSION}
gpu 0 uuid=GPU-aaaaaaaa-0000-4000-8000-000000000000 minor=3 bus=0000:1a:00.0
gpu 1 uuid=GPU-bbbbbbbb-0000-4000-8000-000000000000 minor=0 bus=0000:1b:00.0
"""


def compile_c(source: str, target: Path, *flags: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(target), "-x", "c", "-", "-x", "none", *flags],
                   input=source, text=True, check=True, timeout=60)


@pytest.fixture
def machine(tmp_path: Path, nvml_standin: Path) -> Path:
    """driver/: the driver's files; rootfs/: a container root; bin/nvidia-cdi-hook: our hooks."""
    for program in ("podman", "crun"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    libraries = tmp_path / "driver" / LIBRARIES.lstrip("/")
    soname = "-Wl,-soname,libcuda.so.1"
    compile_c("int cuda_answer(void) { return 42; }", libraries / f"libcuda.so.{VERSION}", "-shared", "-fPIC", soname)
    (libraries / "libcuda.so.1").symlink_to(f"libcuda.so.{VERSION}")
    shutil.copyfile(nvml_standin, libraries / f"libnvidia-ml.so.{VERSION}")
    (libraries / "libnvidia-ml.so.1").symlink_to(f"libnvidia-ml.so.{VERSION}")
    (libraries / "nvml-mock.conf").write_text(DESCRIPTION)
    root = tmp_path / "rootfs"
    for name in ("dev", "etc", "proc", "run", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    compile_c((PROGRAMS / "look.c").read_text(), root / "look", str(libraries / f"libcuda.so.{VERSION}"))
    for name in needed(root / "look"):
        (root / name.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, root / name.lstrip("/"))
    hook = tmp_path / "bin" / "nvidia-cdi-hook"
    hook.parent.mkdir()
    hook.write_text(f"#!{sys.executable} -ISB\nimport sys\nsys.path.insert(0, {str(TOP)!r})\n"
                    "from guest_cdi.__main__ import main\nsys.exit(main())\n")
    hook.chmod(0o755)
    return tmp_path


def needed(program: Path) -> list[str]:
    """The loader and the C library; libcuda is what the document brings."""
    printed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True, timeout=30).stdout
    return [word for line in printed.splitlines() if "libcuda" not in line for word in line.split() if word.startswith("/")]


def prepare_cell(machine: Path) -> None:
    """A private /dev with the nodes, a private /run, one generation of cgroups."""
    staged = machine / "dev"
    staged.mkdir()
    mount("-t", "tmpfs", "dev", str(staged))
    for name, (major, minor) in {**ORDINARY, **NODES}.items():
        os.mknod(staged / name, 0o020000, os.makedev(major, minor))
        os.chmod(staged / name, 0o666 if name in ORDINARY else 0o660)
    for name in ("pts", "shm", "mqueue"):
        (staged / name).mkdir()
    mount("--move", str(staged), "/dev")
    mount("-t", "devpts", "devpts", "/dev/pts", "-o", "newinstance")
    mount("-t", "tmpfs", "run", "/run")
    mount("-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    protect(machine, "/etc")
    protect(machine, "/var")
    if os.path.isdir("/etc/cdi"):       # this machine's own documents are none of ours
        mount("-t", "tmpfs", "cdi", "/etc/cdi")


def protect(machine: Path, directory: str) -> None:
    """Whatever the engine writes there, such as its network lock, goes to memory and ends with the cell."""
    layer = machine / f"layer{directory.replace('/', '-')}"
    layer.mkdir()
    mount("-t", "tmpfs", "layer", str(layer))
    for name in ("upper", "work"):
        (layer / name).mkdir()
    mount("-t", "overlay", "overlay", directory, "-o", f"lowerdir={directory},upperdir={layer}/upper,workdir={layer}/work")


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, timeout=30)


def generate(machine: Path, *options: str) -> None:
    command = [sys.executable, "-m", "guest_cdi", "generate", f"--driver-root={machine}/driver", "--dev-root=/",
               f"--nvidia-cdi-hook-path={machine}/bin/nvidia-cdi-hook", "--output=/var/run/cdi/nvidia.yaml", *options]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def document_hooks() -> int:
    return Path("/var/run/cdi/nvidia.yaml").read_text(encoding="utf-8").count("- hookName:")


def podman(machine: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["podman", f"--root={machine}/store", "--runroot=/run/podman", "--tmpdir=/run/libpod", "--storage-driver=vfs",
               "--runtime=crun", "--cgroup-manager=cgroupfs", "--events-backend=none", "run", "--rm", "--cgroups=disabled",
               "--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096", *options,
               "--rootfs", f"{machine}/rootfs", "/look", LIBRARIES]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def look(machine: Path, devices: Sequence[str], *options: str) -> dict[str, Data]:
    done = podman(machine, *(f"--device={device}" for device in devices), *options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def in_machine(machine: Path, body: Callable[[], object]) -> None:
    def prepared() -> None:
        prepare_cell(machine)
        body()

    in_cell(prepared)


@pytest.mark.parametrize("style", ["separate", "combined"])
def test_a_container_has_one_gpu_and_the_driver(machine: Path, style: str) -> None:
    def body() -> None:
        generate(machine, f"--hook-style={style}")
        assert document_hooks() == (5 if style == "separate" else 1)
        seen = look(machine, ["nvidia.com/gpu=0"])
        assert seen["cuda"] == 42
        assert seen["visible"] == "void"
        assert seen["directory"] == LIBRARIES
        assert seen["nodes"] == {**GPU[0], **COMMON}
        assert seen["libraries"] == {
            f"libcuda.so.{VERSION}": "file", "libcuda.so.1": f"libcuda.so.{VERSION}", "libcuda.so": "libcuda.so.1",
            f"libnvidia-ml.so.{VERSION}": "file", "libnvidia-ml.so.1": f"libnvidia-ml.so.{VERSION}"}

    in_machine(machine, body)


NAMES: dict[str, tuple[list[str], list[int]]] = {
    "by index": (["nvidia.com/gpu=1"], [1]),
    "by UUID": (["nvidia.com/gpu=GPU-bbbbbbbb-0000-4000-8000-000000000000"], [1]),
    "both": (["nvidia.com/gpu=1", "nvidia.com/gpu=0"], [0, 1]),
    "all": (["nvidia.com/gpu=all"], [0, 1]),
}


@pytest.mark.parametrize(("names", "indices"), NAMES.values(), ids=list(NAMES))
def test_names_bring_their_nodes(machine: Path, names: list[str], indices: list[int]) -> None:
    def body() -> None:
        generate(machine)
        expected = {name: node for index in indices for name, node in GPU[index].items()}
        assert look(machine, names)["nodes"] == {**expected, **COMMON}

    in_machine(machine, body)


def test_another_user_owns_the_nodes(machine: Path) -> None:
    def body() -> None:
        generate(machine)
        seen = look(machine, ["nvidia.com/gpu=0"], "--user=1000:1000")
        assert (seen["cuda"], seen["uid"]) == (42, 1000)

    in_machine(machine, body)


def test_without_the_device_the_program_does_not_start(machine: Path) -> None:
    """Otherwise the tests above would prove nothing."""
    def body() -> None:
        generate(machine)
        done = podman(machine)
        assert done.returncode == 127
        assert "libcuda.so.1" in done.stderr

    in_machine(machine, body)


def test_an_unknown_name_is_refused_by_the_engine(machine: Path) -> None:
    def body() -> None:
        generate(machine)
        done = podman(machine, "--device=nvidia.com/gpu=7")
        assert done.returncode != 0
        assert "nvidia.com/gpu=7" in done.stderr

    in_machine(machine, body)


def write_bundle(machine: Path) -> None:
    kinds = ("pid", "mount", "ipc", "uts", "network")
    (machine / "config.json").write_text(json.dumps({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/look", LIBRARIES], "cwd": "/", "env": ["PATH=/"]},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                   {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}],
        "linux": {"namespaces": [{"type": kind} for kind in kinds]}}))


def test_our_injector_serves_an_engine_without_cdi(machine: Path) -> None:
    def body() -> None:
        generate(machine)
        write_bundle(machine)
        command = [sys.executable, "-m", "guest_cdi", "inject", f"--bundle={machine}", "nvidia.com/gpu=1"]
        done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        command = ["crun", "--root=/run/crun", "--cgroup-manager=disabled", "run", f"--bundle={machine}", "look"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
        assert (seen["cuda"], seen["visible"], seen["nodes"]) == (42, "void", {**GPU[1], **COMMON})
        assert seen["libraries"]["libcuda.so"] == "libcuda.so.1"
        assert seen["libraries"][f"libcuda.so.{VERSION}"] == "file"

    in_machine(machine, body)


@pytest.fixture(autouse=True)
def leaves_nothing(tmp_path: Path) -> Iterator[None]:
    yield
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        assert str(tmp_path) not in stream.read()
