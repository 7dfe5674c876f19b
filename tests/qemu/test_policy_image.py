# SPDX-License-Identifier: Apache-2.0
"""An image that is confidential: the lines of Kata's classes boot, a line that relaxes anything does not.

It has the confidential policy, and an init that is at another address in each start.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from nvrc_build import pipeline
from nvrc_build.after.contents import read_tree
from nvrc_build.job import Brought, open_supply
from nvrc_build.supply import supply
from nvrc_lab.ground.places import checkout
from nvrc_lab.qemu.machine import Accel, Machine, make_argv
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.watch.console import Story
from nvrc_lab.watch.watch import Limits, watch

ROOTFS = checkout().root / "rootfs"
POLICY = ROOTFS / "files/policy-confidential.toml"
# What the lab itself says to an emulated machine; a real one is not told which clock to take.
CLOCK = ("tsc=unstable", "clocksource=hpet")
# As Kata's Go runtime writes it for an initrd, with what the confidential GPU classes add.
KATA = ("tsc=reliable no_timer_check i8042.noaux=1 reboot=k panic=1 console=ttyS0 quiet nr_cpus=1 cgroup_no_v1=all pci=realloc "
        "pci=nocrs pci=assign-busses nvrc.smi.srs=1")

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> pipeline.Image:
    policy, shipped = tmp_path_factory.mktemp("policy") / "policy.toml", POLICY.read_text(encoding="utf-8")
    words = "words = [" + ", ".join(f'"{word}"' for word in ("@kata", *CLOCK)) + "]"
    assert 'words = ["@kata"]' in shipped
    policy.write_text(shipped.replace('words = ["@kata"]', words), encoding="utf-8")
    own = tmp_path_factory.mktemp("own")
    for path, text in {"images/guarded.toml": 'extends = "lab"\nagent_policy = "deny"\n',
                       "locks/image-guarded.toml": (ROOTFS / "locks/image-lab.toml").read_text(encoding="utf-8")}.items():
        (own / path).parent.mkdir()
        (own / path).write_text(text, encoding="utf-8")
    return pipeline.build("guarded", out=tmp_path_factory.mktemp("image"), cache=checkout().out / "cache", line_policy=policy,
                          brought=Brought(declarations=own))


def boot(image: pipeline.Image, folder: Path, line: str) -> tuple[Story, list[str]]:
    lines: list[str] = []
    machine = Machine(kernel=image.kernel, initrd=image.initrd, qmp_socket=folder / "qmp", cmdline=line)
    went = watch(make_argv(machine, find_qemu().program, Accel.TCG), folder / "console", Limits(total_s=120),
                 lambda _story, new, _seconds: lines.extend(new))
    return went.story, lines


def test_the_line_of_the_classes_boots_and_the_console_names_the_policy(image: pipeline.Image, tmp_path: Path) -> None:
    _, lines = boot(image, tmp_path, f"{KATA} agent.log=info")
    sha256 = json.loads(image.manifest.read_text())["policy"]["sha256"]
    assert any("step parameters ok" in line and f"policy sha256={sha256}" in line for line in lines), lines[-20:]
    assert any("nvrc: READY" in line for line in lines), lines[-20:]


def test_the_init_can_be_anywhere(image: pipeline.Image, tmp_path: Path) -> None:
    tools = supply.root(open_supply(cache=checkout().cache), "tools")
    program = read_tree(image.initrd, tmp_path, "image", tools=tools).get("/usr/lib/nvrc/nvrc")
    assert program is not None
    assert ELFFile(io.BytesIO(program.read())).header.e_type == "ET_DYN"


def test_a_line_that_relaxes_it_does_not(image: pipeline.Image, tmp_path: Path) -> None:
    _, lines = boot(image, tmp_path, f"{KATA} nvrc.ready=always nvrc.cc=any nvrc.gpus=min:0 agent.debug_console")
    fatal = [line for line in lines if "nvrc: FATAL code=E_PARAMETERS step=parameters" in line]
    assert len(fatal) == 1, lines[-20:]
    for said in ("4 mistakes", "nvrc.ready: is always", "nvrc.cc: is any", "nvrc.gpus: is min:0", "agent.debug_console: is never"):
        assert said in fatal[0]
    assert not any("nvrc: READY" in line for line in lines)
