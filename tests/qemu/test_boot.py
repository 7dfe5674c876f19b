# SPDX-License-Identifier: Apache-2.0
"""The frozen init as a kernel starts it: hand-over, ends, faults, and what a boot loads. One virtual machine a test."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes import hostile
from fakes.lab_image import lab_image
from nvrc.machine.journal import FORWARD_LINES
from nvrc.report.report import from_json
from nvrc.steps.hardening import HARDENING
from nvrc_build.tree.tree import Origin, Tree
from nvrc_lab.kit.archives import join_archives
from nvrc_lab.kit.image import BootFiles
from nvrc_lab.qemu.machine import Accel, Machine, make_argv
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.watch.console import Story
from nvrc_lab.watch.watch import Limits, record_of, watch

pytestmark = pytest.mark.qemu

MODULES = Path(__file__).with_name("boot_imports.txt")
FLOOD = 4 * FORWARD_LINES  # by far more than PID 1 hands on, and than any queue holds


@dataclass(frozen=True)
class Booted:
    story: Story
    lines: tuple[str, ...]

    def agent(self, text: str) -> list[str]:
        return [line.partition("agent: ")[2] for line in self.lines if f"agent: {text}" in line]

    @property
    def report_text(self) -> str:
        found = (re.search(r"nvrc: report (.*)", line) for line in self.lines)
        return "\n".join(match[1] for match in found if match)


Boot = Callable[..., Booted]


@pytest.fixture(scope="session")
def image() -> BootFiles:
    return lab_image()


@pytest.fixture
def boot(image: BootFiles, tmp_path: Path) -> Boot:
    def run(words: str, *, keys: tuple[str, ...] = (), files: Mapping[str, Path] | None = None,
            cgroups: str = "cgroup_no_v1=all") -> Booted:
        initrd = lay_over(image.initrd, files, tmp_path / "initrd") if files else image.initrd
        machine = Machine(kernel=image.kernel, initrd=initrd, qmp_socket=tmp_path / "qmp", console=tmp_path / "console",
                          cmdline=f"quiet panic=1 {cgroups} {words}")
        lines: list[str] = []

        def listen(_story: Story, new: tuple[str, ...], _seconds: float) -> None:
            lines.extend(new)
            if keys and any("agent: acts" in line for line in new):
                press(tmp_path / "qmp", keys)

        argv = make_argv(machine, find_qemu().program, Accel.TCG)
        went = watch(argv, tmp_path / "console", Limits(total_s=90), listen, record=record_of(tmp_path / "console"))
        return Booted(went.story, tuple(lines))

    return run


def lay_over(initrd: Path, files: Mapping[str, Path], target: Path) -> Path:
    tree = Tree()
    for path, file in files.items():
        tree.add_file(path, file, Origin(slice="test"), 0o755)
    join_archives([initrd], tree, target)
    return target


def press(monitor: Path, keys: tuple[str, ...]) -> None:
    """Keys of the machine's own keyboard, together, through QEMU's monitor."""
    pressed = [{"type": "qcode", "data": key} for key in keys]
    with socket.socket(socket.AF_UNIX) as qmp:
        qmp.connect(str(monitor))
        with qmp.makefile("rw", encoding="utf-8") as talk:
            assert "QMP" in json.loads(talk.readline())
            for order in ({"execute": "qmp_capabilities"}, {"execute": "send-key", "arguments": {"keys": pressed}}):
                talk.write(json.dumps(order) + "\n")
                talk.flush()
                assert json.loads(talk.readline()) == {"return": {}}


def test_hand_over_to_an_agent_that_believes_it_is_pid_1(boot: Boot) -> None:
    went = boot("lab.agent=sysctls,report,poweroff nvrc.report=console nvrc.log=trace LEAK=1 KATA_AGENT_TRACING=1")
    assert went.story.ready is not None
    assert went.story.ready.mode == "cpu"
    assert went.story.end is not None
    assert went.story.end.code == "OK"
    assert went.agent("pid=1 ppid=0 pgid=0 sid=0 uid=0")
    assert went.agent("limit nofile soft=1048576 hard=1048576")
    assert went.agent("oom_score_adj -997")
    assert {line.split("=")[0] for line in went.agent("env ")} == {"env PATH", "env HOME", "env TERM"}
    assert [line.split()[1] for line in went.agent("fd ")] == ["0", "1", "2"]
    assert went.agent("signals blocked=0000000000000000 ignored=0000000000000000")
    assert went.agent("proc processes=1 own=yes")
    assert went.agent("cgroup2 mounted=yes writable=yes")
    assert went.agent("modules_disabled 1")
    assert went.agent("shm mounted=yes")
    assert went.agent("pts mounted=yes")
    assert not [line for line in went.agent("duty ") if "fail" in line]
    check_report(went)
    check_imports(went)
    check_protections(went)


def test_a_kernel_without_version_1_of_cgroups_and_a_line_that_does_not_say_so(boot: Boot) -> None:
    """Debian's kernel lists cpuset and memory in /proc/cgroups, and refuses to mount them."""
    went = boot("lab.agent=report,poweroff", cgroups="")
    assert went.story.failure is not None
    assert (went.story.failure.code, went.story.failure.step) == ("E_CGROUP", "agent")
    assert went.story.failure.what.endswith("no version 1 of: cpuset, memory")
    assert went.story.failure.hint == "add cgroup_no_v1=all to kernel_params"
    assert not went.agent("")


def check_report(went: Booted) -> None:
    report = from_json(went.report_text.encode())
    assert [step.name for step in report.steps if step.outcome.value == "ok"]
    assert report.interpreter_s is not None
    assert 0 < report.interpreter_s < 30
    assert report.started_s > report.interpreter_s
    assert report.cpu_s
    assert report.resident_kib is not None
    assert report.resident_kib < 20 << 10
    assert json.loads(went.report_text)["failure"] is None


def check_imports(went: Booted) -> None:
    """What a boot loads is what it pays for: a module that is new here is a decision, made by editing the list."""
    listed = set(MODULES.read_text().split())
    found = {name for line in went.lines if "imported " in line for name in line.partition("imported ")[2].split()}
    assert found, "nvrc.log=trace names what was imported"
    assert not found & {"pyroute2", "psutil", "yaml", "asyncio", "sqlite3", "ssl", "pynvml", "json", "argparse"}
    assert found - listed == set(), "loaded now, and not on the list of boot_imports.txt"
    assert listed - found == set(), "on the list of boot_imports.txt, and not loaded any more"


def test_no_word_of_the_line_makes_pid_1_load_a_file_of_the_archive(boot: Boot, tmp_path: Path) -> None:
    """The file is there when the init starts, as a disk is where the root is one."""
    files = {"/lab/hostile": hostile.make_object(tmp_path)}
    words = f"{hostile.loading_words('/lab/hostile')} {hostile.other_words('/lab/hostile')}"
    went = boot(f"lab.agent=report,poweroff {words}", files=files)
    assert not [line for line in went.lines if hostile.MARK in line or "ERROR: ld.so" in line]
    assert went.story.ready is not None, went.lines[-20:]
    assert {line.split("=")[0] for line in went.agent("env ")} == {"env PATH", "env HOME", "env TERM"}
    direct = boot(f"lab.agent=poweroff rdinit={hostile.FROZEN} {hostile.loading_words('/lab/hostile')}", files=files)
    assert [said for said in hostile.SAYS if not any(said in line for line in direct.lines)] == [], direct.lines[-20:]


# In force before any program runs, and each the opposite of its row.
FROM_THE_LINE = ("sysctl.kernel.core_pattern=|/usr/bin/nvrc sysctl.kernel.core_uses_pid=1 sysctl.kernel.modprobe=/usr/bin/nvrc "
                 "sysctl.kernel.kptr_restrict=0 sysctl.kernel.randomize_va_space=0 sysctl.kernel.yama.ptrace_scope=0 "
                 "sysctl.fs.suid_dumpable=2 sysctl.fs.protected_symlinks=0 sysctl.kernel.sysrq=1 sysctl.kernel.panic_on_oops=0 "
                 "sysctl.kernel.unprivileged_bpf_disabled=0 sysctl.vm.mmap_min_addr=0 sysctl.kernel.poweroff_cmd=/usr/bin/nvrc")


def test_the_kernels_protections_hold_against_the_line_under_an_agent_on_a_locked_root(boot: Boot) -> None:
    went = boot(f"lab.agent=sysctls,report,poweroff nvrc.lockdown.root=on nvrc.lockdown.kexec=on {FROM_THE_LINE}")
    assert went.story.end is not None
    assert went.story.end.code == "OK"
    assert [line for line in went.agent("mount / ") if " ro" in line]
    check_protections(went)


def check_protections(went: Booted) -> None:
    """While the agent runs."""
    found = dict(line.partition("=")[::2] for line in (one.removeprefix("sysctl ") for one in went.agent("sysctl ")))
    assert went.story.ready is not None, went.lines[-20:]
    told = next(row.line.detail for row in went.story.steps if row.line.name == "hardening")
    missing = told.partition("not in this kernel: ")[2].split()
    assert {row.name for row in HARDENING if row.required} <= found.keys()
    for row in HARDENING:
        if row.name in missing:
            assert row.name not in found
        elif row.at_least:
            assert int(found[row.name]) >= int(row.value), row.name
        else:
            assert found[row.name] == row.value, row.name
    assert len(missing) < 6, missing


def test_a_frozen_init_that_cannot_be_executed_is_a_verdict_and_a_power_off(boot: Boot, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program\n", encoding="ascii")
    went = boot("", files={hostile.FROZEN: tmp_path / "text"})
    assert went.story.failure is not None, went.lines[-20:]
    assert (went.story.failure.code, went.story.failure.what) == (
        "E_INIT_EXEC", f"cannot execute {hostile.FROZEN}: errno 8")
    assert not went.story.panic
    assert any("reboot: Power down" in line for line in went.lines)


@pytest.mark.parametrize(("words", "code", "text"), [
    pytest.param("lab.agent=exit:0", "E_AGENT_EXIT", "exited with status 0", id="exit-0"),
    pytest.param("lab.agent=crash", "E_AGENT_EXIT", "killed by SIGSEGV", id="crash"),
    pytest.param("nvrc.smi.lgc=fast nvrc.dcgm=perhaps", "E_PARAMETERS", "2 ", id="malformed-parameters"),
])
def test_every_failure_ends_with_one_fatal_line(boot: Boot, words: str, code: str, text: str) -> None:
    failure = boot(words).story.failure
    assert failure is not None
    assert failure.code == code
    assert text in failure.what
    assert failure.hint


def test_ctrl_alt_del_ends_the_machine_in_order(boot: Boot) -> None:
    went = boot("lab.agent=hold", keys=("ctrl", "alt", "delete"))
    assert went.agent("SIGTERM received, ending")
    assert went.story.end is not None
    assert went.story.end.code == "OK"
    assert "SIGINT to PID 1" in went.story.end.what


def test_ctrl_alt_del_does_not_wait_for_an_agent_that_ignores_it(boot: Boot) -> None:
    failure = boot("lab.agent=ignore-term nvrc.timeout.agent_stop=1", keys=("ctrl", "alt", "delete")).story.failure
    assert failure is not None
    assert failure.code == "E_AGENT_STOP"


def test_an_ordinary_child_floods_the_log_sees_what_it_expects_and_leaves_no_zombie(boot: Boot) -> None:
    went = boot(f"lab.agent=orphans:1000,flood:{FLOOD},report,exit:0 nvrc.agent.pidns=off")
    assert went.agent("mount /sys/fs/cgroup cgroup2")
    assert any("zombies=0" in line for line in went.agent("orphans "))
    assert any(f"sent={FLOOD} failed=0" in line for line in went.agent("flood "))
    assert went.story.end is not None
    assert went.story.end.code == "OK"
