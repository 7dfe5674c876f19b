# SPDX-License-Identifier: Apache-2.0
"""`nvrc-lab list|explain|matrix` from words to text, and machines that end with the one who asked for them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.cases import Case
from nvrc_lab.__main__ import main
from nvrc_lab.commands import matrix
from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.places import checkout
from nvrc_lab.ground.scratch import PREFIX
from nvrc_lab.kit.image import BootFiles
from nvrc_lab.qemu.accel import Choice
from nvrc_lab.qemu.machine import Accel
from nvrc_lab.qemu.qemu import Qemu
from nvrc_lab.run.compose import Foreign
from nvrc_lab.run.runner import Lab, Result, StoppedError, run_all, run_scenario
from nvrc_lab.scenario.scenario import find_scenario, parse_scenario, read_scenario
from nvrc_lab.scenario.values import Scenario

CPU = parse_scenario("summary: s.\nexpect: {verdict: ready}", "mine", "mine.yaml")


def test_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    plain = capsys.readouterr().out.splitlines()
    assert main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["scenarios"]
    assert [line.split()[0] for line in plain] == [row["name"] for row in rows]
    assert {row["verdict"] for row in rows} == {"ready", "failed", "lost", "panic"}


def test_list_can_be_narrowed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list", "cc", "mismatch"])
    assert capsys.readouterr().out.split()[0] == "cc-mismatch"


def test_explain_tells_machine_faults_and_expectation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "attach-fails"]) == 0
    text = capsys.readouterr().out
    for word in ("0000:41:00.0  NVIDIA H100 80GB HBM3 (10de:2330), /dev/nvidia1", "attach-fails (GPU 1):", "failed with E_GPU_ATTACH",
                 "laid over the image: base, hardware, driver", "rdinit=/lab/init"):
        assert word in text


def test_explain_lists_faults(capsys: pytest.CaptureFixture[str]) -> None:
    main(["explain", "faults", "--json"])
    assert {"name": "attach-fails", "about": "the GPU takes its time and then does not attach", "needs": ["gpu"]} in json.loads(
        capsys.readouterr().out)["faults"]


@pytest.mark.long
def test_explain_has_words_for_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    for path in checkout().scenarios.glob("*.yaml"):
        with Case(path.stem):
            assert main(["explain", path.stem]) == 0
            assert read_scenario(find_scenario(path.stem, checkout().scenarios)).summary in capsys.readouterr().out


def test_a_mistake_of_a_file_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.yaml").write_text("sumary: x\nexpect: {verdict: ready}\n")
    assert main(["matrix", "--folder", str(tmp_path)]) == 2
    assert f"{tmp_path}/bad.yaml: line 1: sumary: unknown key; did you mean summary?" in capsys.readouterr().err


def test_a_word_that_no_scenario_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "no-such-thing"]) == 2
    assert "no scenario has no-such-thing in its name" in capsys.readouterr().err


def test_a_folder_without_scenarios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "--folder", str(tmp_path)]) == 2
    assert f"no scenario is in {tmp_path}: " in capsys.readouterr().err


def test_an_agent_that_is_no_program_is_refused_before_anything_is_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "agent").write_text("#!/bin/sh")
    assert main(["matrix", "policy-pins", "--accel=tcg", "--agent", str(tmp_path / "agent")]) == 2
    assert "is not an x86-64 ELF program: give a kata-agent" in capsys.readouterr().err


def result(*problems: str, console: Path = Path("/none")) -> Result:
    return Result(scenario=CPU, seconds=3.25, verdict="ready", code="OK", problems=problems, console=console)


def test_the_result_for_a_program() -> None:
    assert matrix.as_json(result()) == {"name": "mine", "ok": True, "seconds": 3.25, "verdict": "ready", "code": "OK", "problems": [],
                                        "console": None}


def test_the_result_for_people() -> None:
    assert matrix.tell(result()) == ["ok    mine                                  3.2 s  ready"]
    assert matrix.tell(result("code: expected A, found B"))[1:] == ["      code: expected A, found B", "      console: /none"]
    assert matrix.summarise([result(), result("x")], 61.0) == ["1 of 2 scenarios as expected in 61 s", "not as expected: mine"]


def test_long_scenarios_go_first() -> None:
    eight = read_scenario(find_scenario("gpu-8", checkout().scenarios))
    assert matrix.weight(eight) > matrix.weight(CPU)


@pytest.mark.parametrize(("text", "weight"), [
    pytest.param("", 0.0, id="empty"),
    pytest.param("agent: {seconds: 4}", 4.0, id="its-agent-waits"),
    pytest.param("machine: {gpus: [{product: H100, count: 2, attach_ms: 1800}]}", 4.0, id="gpus-attach"),
    pytest.param("machine: {gpus: [{product: H100, attach_ms: 0}]}\nfaults: [{name: attach-slow, gpu: 0, value: '2000'}]", 3.2,
                 id="a-slow-attach"),
    pytest.param("faults: [{name: program-killed, program: nvlsm, value: starting}]", 4.0, id="held-back-to-be-killed"),
])
def test_what_a_scenario_waits_for_is_in_its_weight(text: str, weight: float) -> None:
    scenario = parse_scenario(f"summary: s\nexpect: {{verdict: ready}}\n{text}", "mine", "mine.yaml")
    assert matrix.weight(scenario) == pytest.approx(weight)


def fake_lab(tmp_path: Path, program: str) -> Lab:
    """A QEMU that is a shell script, and an image of empty files."""
    qemu = tmp_path / "qemu"
    qemu.write_text(f"#!/bin/sh\n{program}\n")
    qemu.chmod(0o755)
    for name in ("kernel", "initrd", "base"):
        (tmp_path / name).write_bytes(b"")
    return Lab(places=checkout(), qemu=Qemu(program=str(qemu), version=(7, 2)), choice=Choice(accel=Accel.TCG, reason=""),
               image=BootFiles(kernel=tmp_path / "kernel", initrd=tmp_path / "initrd"), kit={"base": tmp_path / "base"})


def test_a_machine_that_says_nothing_of_ours_is_a_finding(tmp_path: Path) -> None:
    lab = fake_lab(tmp_path, "echo hello")
    found = run_scenario(lab, CPU, tmp_path / "console")
    assert found.verdict == "none"
    assert "verdict: expected ready, found none" in found.problems[0]
    assert (tmp_path / "console").read_text() == "hello\n"


def test_a_qemu_that_somebody_kills_is_told_in_one_line_with_a_remedy(tmp_path: Path) -> None:
    lab, before = fake_lab(tmp_path, "echo hello; kill -9 $$"), leftovers()
    (problem,) = run_scenario(lab, CPU, tmp_path / "console").problems
    assert "QEMU was ended by SIGKILL after" in problem
    assert "memory runs out (see dmesg): run fewer machines at a time, --workers 1" in problem
    assert "\n" not in problem
    (other,) = run_scenario(replace(lab, foreign=Foreign(program=tmp_path / "initrd"), kit={**lab.kit, "foreign": lab.kit["base"]}),
                            CPU, tmp_path / "console").problems
    assert "QEMU was ended by SIGKILL" in other
    assert leftovers() - before == set()


def leftovers() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*")}


def test_a_machine_ends_when_it_is_told_to(tmp_path: Path) -> None:
    stop, before = threading.Event(), leftovers()
    stop.set()
    with pytest.raises(StoppedError):
        run_scenario(fake_lab(tmp_path, "exec sleep 600"), CPU, tmp_path / "console", stop)
    assert leftovers() - before == set()


def test_who_stops_listening_leaves_no_machine_behind(tmp_path: Path) -> None:
    """The first machine ends at once, the others would run for long: as after Ctrl-C."""
    pids, before = tmp_path / "pids", leftovers()
    lab = fake_lab(tmp_path, f"mkdir {tmp_path}/first 2>/dev/null && exit 0; echo $$ >> {pids}; exec sleep 600")
    running = run_all(lab, [replace(CPU, name=f"m{number}") for number in range(4)], tmp_path, 2)
    assert next(running).verdict == "none"
    until = time.monotonic() + 20
    while not pids.exists() and time.monotonic() < until:
        threading.Event().wait(0.01)
    running.close()
    assert [pid for pid in pids.read_text().split() if Path(f"/proc/{pid}").exists()] == []
    assert leftovers() - before == set()


def test_what_the_lab_cannot_do_for_one_scenario_is_its_failure(tmp_path: Path) -> None:
    lab = replace(fake_lab(tmp_path, "echo"), qemu=Qemu(program=str(tmp_path / "absent"), version=(7, 2)))
    scenarios: list[Scenario] = [replace(CPU, name="one"), replace(CPU, name="two")]
    found = list(run_all(lab, scenarios, tmp_path, 2))
    assert sorted(one.scenario.name for one in found) == ["one", "two"]
    assert all("could not be started" in one.problems[0] or one.verdict == "none" for one in found)


def test_a_machine_that_cannot_be_made_says_what_is_in_the_way(tmp_path: Path) -> None:
    lab = fake_lab(tmp_path, "echo")
    (tmp_path / "initrd").unlink()
    (found,) = run_all(lab, [CPU], tmp_path, 1)
    assert f"the machine of mine could not be made: No such file or directory ({tmp_path / 'initrd'})" in found.problems[0]


def test_a_command_line_that_the_kernel_would_cut_is_refused(tmp_path: Path) -> None:
    long = replace(CPU, cmdline="x" * 3000)
    with pytest.raises(LabError, match="longer than 1911 of the kernel's"):
        run_scenario(fake_lab(tmp_path, "echo"), long, tmp_path / "console")


@pytest.mark.long
def test_the_lab_starts_quickly() -> None:
    code = "import sys; from nvrc_lab.__main__ import make_parser; make_parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(done.stdout.split())
    assert not loaded & {"yaml", "nvrc_build", "nvrc_build.pipeline", "nvrc.boot", "pytest"}, "what only some commands need"


def test_variants_are_left_out_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    scenarios = matrix.choose(checkout().scenarios, ())
    chosen = matrix.without_variants(scenarios, is_json=False)
    assert len(chosen) >= 40
    assert {one.name for one in scenarios if one.variant} == {one.name for one in scenarios} - {one.name for one in chosen}
    assert f"{len(scenarios) - len(chosen)} variants are left out; --all runs them" in capsys.readouterr().out
    assert matrix.without_variants(chosen, is_json=False) == chosen
    assert not capsys.readouterr().out
