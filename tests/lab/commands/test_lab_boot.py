# SPDX-License-Identifier: Apache-2.0
"""`nvrc-lab boot` from its words to its order, the files it boots, and how the command itself answers."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nvrc_lab.__main__ import COMMANDS, main
from nvrc_lab.commands import boot
from nvrc_lab.commands.order import AGENT_LINGER_S, Order, read_order
from nvrc_lab.ground.errors import LabError
from nvrc_lab.kit.image import BootFiles, check_agent, check_files, put_agent, read_answer
from nvrc_lab.qemu.machine import Accel
from nvrc_lab.watch.console import Story, hear_bytes, hear_line
from nvrc_lab.watch.verdict import judge
from nvrc_lab.watch.watch import Ending, Run

ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00"


def order(*words: str) -> Order:
    parser = argparse.ArgumentParser()
    boot.add_arguments(parser)
    return read_order(parser.parse_args(words))


@pytest.mark.parametrize(("words", "scenario"), [
    pytest.param((), "gpu-1", id="nothing"), pytest.param(("cpu",), "cpu", id="a-scenario"),
    pytest.param(("--cmdline", "nvrc.log=debug", "--cpus", "2"), "gpu-1", id="options"),
    pytest.param(("--agent", "/a"), None, id="an-agent"), pytest.param(("--kernel", "/k", "--initrd", "/i"), None, id="an-image"),
    pytest.param(("--linger", "1"), None, id="stopped-after-ready"), pytest.param(("cc", "--agent", "/a"), "cc", id="a-scenario-with-an-agent"),
])
def test_without_a_scenario_it_is_one_gpu_and_a_container_unless_image_or_agent_are_given(words: tuple[str, ...],
                                                                                           scenario: str | None) -> None:
    assert order(*words).scenario == scenario


def test_the_default_order_is_the_lab_image_and_its_stand_in() -> None:
    default = order()
    assert (default.memory_mib, default.cpus) == (None, None)
    assert (default.kernel, default.initrd, default.agent, default.accel) == (None, None, None, None)
    assert (default.linger_s, default.cmdline, default.is_json) == (None, "", False)
    machine = boot.make_machine(default, BootFiles(kernel=Path("/k"), initrd=Path("/i")))
    assert machine.cmdline.endswith("lab.agent=poweroff")
    assert (machine.memory_mib, machine.cpus) == (512, 1)


def test_a_given_agent_is_stopped_after_a_while_and_gets_no_words_for_the_stand_in() -> None:
    given = order("--agent", "/a", "--cmdline", "nvrc.log=debug")
    assert given.linger_s == AGENT_LINGER_S
    machine = boot.make_machine(given, BootFiles(kernel=Path("/k"), initrd=Path("/i")))
    assert machine.cmdline.endswith("cgroup_no_v1=all nvrc.log=debug")
    assert order("--agent", "/a", "--linger", "3").linger_s == 3


def test_a_time_limit_is_for_the_machine_and_for_another_build_that_is_waited_for() -> None:
    assert (order().timeout_s, order().wait_s) == (120.0, None)
    assert (order("--timeout", "5").timeout_s, order("--timeout", "5").wait_s) == (5.0, 5.0)


def test_the_accelerator_can_be_chosen() -> None:
    assert order("--accel", "kvm").accel is Accel.KVM


@pytest.mark.parametrize(("words", "what"), [
    (("--kernel", "/k"), "--kernel and --initrd belong together"),
    (("--initrd", "/i"), "--kernel and --initrd belong together"),
    (("--memory", "0"), "--memory 0 is not above zero"),
    (("--cpus", "-1"), "--cpus -1 is not above zero"),
    (("--timeout", "0"), "--timeout 0.0 is not above zero"),
])
def test_orders_that_make_no_sense(words: tuple[str, ...], what: str) -> None:
    with pytest.raises(LabError, match=what):
        order(*words)


def test_the_result_for_a_program() -> None:
    story = Story()
    for line in ("[    2.5] nvrc: step journal skip 0.100s why", "nvrc: warn w",
                 "nvrc: READY in 1.234s mode=cpu gpus=0 cdi=1 agent=87", 'nvrc: END code=OK what="over"'):
        story = hear_line(hear_bytes(story, line.encode()), line, 3.25)
    run = Run(story=story, ending=Ending.GUEST, status=0, complaint="", seconds=4.0, console=Path("/c"))
    choice = boot.Choice(accel=Accel.TCG, reason="because")
    answer: object = json.loads(json.dumps(boot.as_json(run, judge(run), choice)))
    assert answer == {
        "ok": True, "verdict": "ready", "code": "OK", "what": "over", "hint": "", "seconds": 4.0, "boot_seconds": 1.234,
        "mode": "cpu", "gpus": 0, "cdi": 1, "kernel_seconds": None, "warnings": ["w"],
        "steps": [{"name": "journal", "outcome": "skip", "seconds": 0.1, "detail": "why", "heard_at": 3.25}],
        "accel": "tcg", "accel_reason": "because", "console": "/c",
    }


def test_the_result_of_a_boot_that_never_was() -> None:
    run = Run(story=Story(), ending=Ending.SILENCE, status=-15, complaint="", seconds=4.0, console=Path("/c"))
    answer = boot.as_json(run, judge(run), boot.Choice(accel=Accel.KVM, reason=""))
    assert (answer["ok"], answer["verdict"], answer["boot_seconds"], answer["steps"]) == (False, "failed", None, [])


def test_the_factory_answers_with_two_files() -> None:
    assert read_answer('{"profile": "lab", "kernel": "/k", "initrd": "/i"}') == BootFiles(
        kernel=Path("/k"), initrd=Path("/i"))


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kernel": 1, "initrd": "/i"}', "building\n{}"])
def test_another_answer_of_the_factory_is_shown(text: str) -> None:
    with pytest.raises(LabError, match="did not answer with a kernel and an initrd"):
        read_answer(text)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "k").touch()
    with pytest.raises(LabError, match=r"the initrd .*/i is not a file: name an existing one with --initrd"):
        check_files(BootFiles(kernel=tmp_path / "k", initrd=tmp_path / "i"))


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", ELF[:18], ELF[:4] + b"\x01" + ELF[5:], ELF[:18] + b"\xb7\x00"],
                         ids=["empty", "script", "cut", "32 bits", "another processor"])
def test_an_agent_that_cannot_run_in_the_guest(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "agent").write_bytes(content)
    with pytest.raises(LabError, match="is not an x86-64 ELF program"):
        check_agent(tmp_path / "agent")


def test_an_agent_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"agent cannot be read \(No such file"):
        check_agent(tmp_path / "agent")


def test_the_agent_lies_in_a_second_archive_over_the_first(tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    agent.write_bytes(ELF + b"program")
    (tmp_path / "initrd").write_bytes(b"first")
    files = put_agent(BootFiles(kernel=Path("/k"), initrd=tmp_path / "initrd"), agent, tmp_path / "new")
    image = files.initrd.read_bytes()
    assert image.startswith(b"first\0\0\0\0\0\0\0" + b"070701")
    assert b"usr/bin/kata-agent\0" in image
    assert ELF + b"program" in image
    assert (tmp_path / "initrd").read_bytes() == b"first"


def test_every_command_has_help_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit) as left:
            main([name, "--help"])
        assert left.value.code == 0
        assert "examples:" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["fly"], ["boot", "--accel", "hvf"]], ids=["nothing", "unknown", "bad choice"])
def test_wrong_use_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert "usage: nvrc-lab" in capsys.readouterr().err


def test_something_missing_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", "--kernel", "/k"]) == 2
    assert capsys.readouterr().err == ("nvrc-lab: --kernel and --initrd belong together: give both, or neither for the "
                                       "lab image\n")


@pytest.mark.long
def test_the_lab_starts_without_heavy_imports() -> None:
    code = "import sys, nvrc_lab.__main__ as m; m.make_parser(); print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in ("yaml", "hypothesis", "pytest", "asyncio", "elftools", "jsonschema") if name in loaded] == []
