# SPDX-License-Identifier: Apache-2.0
"""Kata's own runtime for the tests that are below it, as far as it is given; one host for each file of tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp

import pytest

from nvrc_build.after.contents import read_tree
from nvrc_build.job import open_supply
from nvrc_build.supply import supply
from nvrc_build.tree.tree import Entry
from nvrc_lab.agent.kata_config import Value, write_config
from nvrc_lab.agent.kata_host import Given, KataHost, open_host
from nvrc_lab.agent.pod_image import write_image
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.image import BootFiles, build_image
from nvrc_lab.kit.kit import find_kit
from nvrc_lab.qemu.accel import choose_accel
from nvrc_lab.qemu.machine import Accel
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.compose import Foreign, compose, needed_parts
from nvrc_lab.scenario.scenario import find_scenario, read_scenario
from nvrc_lab.scenario.values import Scenario

IMAGE = "nvidia-base"  # serves disks and iptables, and boots without a GPU
DIAL_S = 600  # a host may be so busy that a boot takes minutes
CGROUP_V2 = "cgroup_no_v1=all"
# Of an image of ours, so that a container has programs that are linked to libraries.
LIBRARIES = "/usr/lib/x86_64-linux-gnu"
OF_IPTABLES = ("/usr/sbin/ip", "/usr/sbin/xtables", "/usr/lib64/", f"{LIBRARIES}/xtables/", *(
    f"{LIBRARIES}/lib{name}.so" for name in ("c", "m", "mnl", "nftnl", "xtables")), f"{LIBRARIES}/ld-linux")
LINKS = ("/bin", "/lib", "/lib64", "/sbin")
Configure = Callable[..., Path]
BootOf = Callable[..., tuple[BootFiles, str]]


@pytest.fixture(scope="module")
def agent() -> Path:
    return Path(os.environ["NVRC_KATA_AGENT"])


@pytest.fixture(scope="module")
def files(agent: Path) -> BootFiles:
    return build_image(IMAGE, agent=agent)


@pytest.fixture(scope="module")
def lab_files(agent: Path) -> BootFiles:
    return build_image(agent=agent)


@pytest.fixture(scope="module")
def host(files: BootFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KataHost]:
    folder = tmp_path_factory.mktemp("host")
    qemu, places = find_qemu(), checkout()
    programs = {}
    for name, source in (*((name, places.root / f"qemu-tests/container/{name}.c") for name in ("show", "stay", "carry", "look")),
                         ("tenant", places.root / "tests/fakes/tenant.c")):
        subprocess.run(["gcc", "-static", "-O1", "-DPLAIN", "-o", folder / name, source], check=True)
        programs[name] = folder / name
    write_image(folder / "pod.tar", programs, read_iptables(files, folder / "unpacked"))
    given = Given(shim=Path(os.environ["NVRC_KATA_SHIM"]).resolve(), programs=Path(os.environ["NVRC_CONTAINERD"]).resolve(),
                  qemu=qemu.program, has_kvm=choose_accel(qemu, places.accel).accel is Accel.KVM)
    with open_host(given, folder, folder / "pod.tar") as running:
        yield running


def read_iptables(files: BootFiles, work: Path) -> list[Entry]:
    work.mkdir()
    tools = supply.root(open_supply(cache=checkout().cache), "tools")
    return [entry for entry in read_tree(files.initrd, work, "image", tools=tools)
            if entry.path.startswith(OF_IPTABLES) or entry.path in LINKS]


@pytest.fixture
def configure(host: KataHost, files: BootFiles, tmp_path: Path) -> Configure:
    """The class's file with an image of ours and whatever a test wants of it."""

    def write(boot: BootFiles | None = None, line: str = CGROUP_V2, folder: Path = tmp_path / "class", **tables: Mapping[str, Value]) -> Path:
        boot = boot or files
        rows: dict[str, dict[str, Value]] = {
            "hypervisor.qemu": {"kernel": str(boot.kernel), "initrd": str(boot.initrd), "image": "", "kernel_params": line},
            "agent.kata": {"dial_timeout": DIAL_S}}
        for name, more in tables.items():
            rows.setdefault(name.replace("__", "."), {}).update(more)
        return write_config(folder, Path(os.environ["NVRC_KATA_CONFIG"]), host.programs, rows)

    return write


@pytest.fixture
def boot_of(lab_files: BootFiles, tmp_path: Path) -> BootOf:
    """A scenario's machine as the runtime starts it: its archive, and its words without those of the lab's console."""

    def make(scenario: Scenario | str, events: Sequence[str] = (), *, foreign: Foreign | None = None,
             early: Sequence[str] = ()) -> tuple[BootFiles, str]:
        if isinstance(scenario, str):
            scenario = read_scenario(find_scenario(scenario, checkout().scenarios))
        folder = Path(mkdtemp(dir=tmp_path))
        kit = find_kit(checkout(), needed_parts(scenario, foreign))
        machine = compose(scenario, lab_files, kit, folder, foreign=foreign, events=events, early=early)
        assert machine.kernel is not None
        assert machine.initrd is not None
        words = [word for word in machine.cmdline.split() if not word.startswith("console=")]
        return BootFiles(kernel=machine.kernel, initrd=machine.initrd), " ".join(words)

    return make
