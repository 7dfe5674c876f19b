# SPDX-License-Identifier: Apache-2.0
"""The steps that are a few lines each: journal, parameters, identity, loopback, lock-modules, agent."""

from __future__ import annotations

import hashlib
import os
import shutil
from errno import EACCES, EAGAIN, EBUSY, EINVAL, EIO, ENODEV, ENOENT, ENOEXEC, ENOSYS, EPERM, EROFS
from pathlib import Path

import pytest

from fakes.system import FakeSystem, bare_guest
from fakes.trouble import told
from nvrc.engine.facts import Facts, FailedWithFacts, merge, replace
from nvrc.hardware.cgroups import CONTROLLERS
from nvrc.steps import agent, device_nodes, identity, journal, lock_modules, loopback, parameters
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.trouble import remark


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return bare_guest(str(tmp_path))


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


# journal

def test_journal_sets_sysctls_and_opens_both_logs(system: FakeSystem) -> None:
    facts = journal.run(system, Facts())
    written = [effect for effect in system.effects if effect.startswith("write")]
    assert written == [f"write {path} {value}" for path, value in journal.SYSCTLS]
    assert facts.journal is not None
    assert os.stat(system.real_path("/dev/log")).st_mode & 0o777 == 0o666
    os.close(facts.journal.log_socket)
    os.close(facts.journal.kernel_log)


@pytest.mark.parametrize(("decided", "words"), [
    ("on", ("printk.devkmsg=on on the kernel command line lets containers fill the kernel's log and hide messages of the driver",)),
    ("ratelimit", ()), ("off", ())])
def test_a_devkmsg_that_the_command_line_locked_stays_as_it_is(system: FakeSystem, decided: str, words: tuple[str, ...]) -> None:
    system.put("/proc/sys/kernel/printk_devkmsg", f"{decided}\n")
    system.fail["write /proc/sys/kernel/printk_devkmsg"] = error(EINVAL)
    facts = journal.run(system, Facts())
    assert facts.journal is not None
    assert tuple(one.what for one in facts.warnings) == words
    os.close(facts.journal.log_socket)
    os.close(facts.journal.kernel_log)


@pytest.mark.parametrize(("effect", "text"), [
    ("write /proc/sys/net/core/rmem_max", "cannot write 16777216 to /proc/sys/net/core/rmem_max: Read-only"),
    ("bind /dev/log", "cannot bind /dev/log: Read-only"),
    ("open /dev/kmsg", "cannot read /dev/kmsg: Read-only"),
])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_journal_failures_have_one_code(system: FakeSystem, effect: str, text: str) -> None:
    system.fail[effect] = error(EROFS)
    with pytest.raises(NvrcError, match=text) as caught:
        journal.run(system, Facts())
    assert caught.value.code == "E_JOURNAL"


# parameters

def test_parameters_are_read_once_and_warnings_collected(system: FakeSystem) -> None:
    system.put("/proc/cmdline", "quiet nvrc.smi.lgc=1200 nvrc.smi.src=1\n")
    facts = parameters.run(system, Facts(warnings=(remark("earlier"),)))
    assert facts.parameters is not None
    assert told(facts.warnings)[0] == "earlier"
    assert "did you mean nvrc.smi.srs" in told(facts.warnings)[1]


def test_every_mistake_of_the_line_is_in_one_message(system: FakeSystem) -> None:
    system.put("/proc/cmdline", "nvrc.smi.lgc=fast nvrc.dcgm=maybe\n")
    with pytest.raises(NvrcError, match=r"nvrc\.smi\.lgc.*nvrc\.dcgm") as caught:
        parameters.run(system, Facts())
    assert caught.value.code == "E_PARAMETERS"
    assert len(caught.value.details) == 2


def test_policy_of_the_image_is_applied(system: FakeSystem) -> None:
    system.put("/etc/nvrc/policy.toml", 'deny = ["nvrc.dcgm"]\n')
    system.put("/proc/cmdline", "nvrc.dcgm=on\n")
    with pytest.raises(FailedWithFacts, match=r"nvrc\.dcgm") as caught:
        parameters.run(system, Facts())
    assert caught.value.facts.policy == hashlib.sha256(b'deny = ["nvrc.dcgm"]\n').hexdigest()


def test_the_line_of_the_step_names_the_policy(system: FakeSystem) -> None:
    system.put("/etc/nvrc/policy.toml", "")
    assert parameters.tell(parameters.run(system, Facts())) == f"policy sha256={hashlib.sha256(b'').hexdigest()}"


@pytest.mark.parametrize("content", [None, "pin = 3\n"])
def test_a_policy_that_cannot_be_used_is_fatal(system: FakeSystem, content: str | None) -> None:
    system.put("/etc/nvrc/policy.toml", content or "")
    if content is None:
        system.fail["read /etc/nvrc/policy.toml"] = error(EIO)
    with pytest.raises(NvrcError) as caught:
        parameters.run(system, Facts())
    assert caught.value.code == "E_POLICY"


@pytest.mark.parametrize(("kind", "what"), [
    ("dangling", "/etc/nvrc/policy.toml is a link, not a file"), ("link", "/etc/nvrc/policy.toml is a link, not a file"),
    ("folder", "/etc/nvrc/policy.toml is a folder, not a file"), ("fifo", "/etc/nvrc/policy.toml is a FIFO, not a file"),
    ("dangling folder", "/etc/nvrc is a link, not a folder"), ("file for a folder", "/etc/nvrc is a file, not a folder"),
])
def test_a_policy_that_is_lost_is_not_one_that_is_absent(system: FakeSystem, kind: str, what: str) -> None:
    folder = Path(system.real_path("/etc/nvrc"))
    shutil.rmtree(folder, ignore_errors=True)
    if kind == "dangling folder":
        folder.symlink_to("/gone")
    elif kind == "file for a folder":
        folder.write_text("")
    else:
        folder.mkdir()
        path = folder / "policy.toml"
        {"dangling": lambda: path.symlink_to("/gone"), "link": lambda: path.symlink_to("/dev/null"),
         "folder": path.mkdir, "fifo": lambda: os.mkfifo(path)}[kind]()
    with pytest.raises(NvrcError) as caught:
        parameters.run(system, Facts())
    assert (caught.value.code, caught.value.what) == ("E_POLICY", what)


def test_an_image_without_a_policy_boots(system: FakeSystem) -> None:
    shutil.rmtree(system.real_path("/etc/nvrc"), ignore_errors=True)
    facts = parameters.run(system, Facts())
    assert facts.parameters is not None
    assert (facts.policy, parameters.tell(facts)) == ("", "")


def test_steps_that_only_need_the_processor_have_time_on_a_busy_host() -> None:
    from nvrc.boot import BOOT

    assert [step.load().deadline_s(Facts()) for step in BOOT if step.name in ("parameters", "topology")] == [120, 120]


# identity

@pytest.mark.parametrize(("content", "name"), [
    ("node-7 extra\n", "node-7"), ("\n", "localhost"), (None, "localhost"), ("x" * 64, "x" * 64),
])
def test_hostname(system: FakeSystem, content: str | None, name: str) -> None:
    if content is None:
        os.unlink(system.real_path("/etc/hostname"))
    else:
        system.put("/etc/hostname", content)
    identity.run(system, Facts())
    assert f"hostname {name}" in system.effects
    assert system.text("/proc/sys/kernel/ctrl-alt-del") == "0"


@pytest.mark.parametrize("content", ["x" * 65, "b\xfcro", "a\x07b"])
def test_a_file_without_a_host_name_is_refused(system: FakeSystem, content: str) -> None:
    system.put("/etc/hostname", content.encode("latin-1"))
    with pytest.raises(NvrcError, match="holds no host name"):
        identity.run(system, Facts())


@pytest.mark.parametrize("effect", ["read /etc/hostname", "hostname guest", "write /proc/sys/kernel/ctrl-alt-del"])
def test_identity_failures_have_one_code(system: FakeSystem, effect: str) -> None:
    system.fail[effect] = error(EPERM)
    with pytest.raises(NvrcError) as caught:
        identity.run(system, Facts())
    assert caught.value.code == "E_IDENTITY"


def test_a_missing_agent_is_found_at_once(system: FakeSystem) -> None:
    os.unlink(system.real_path("/usr/bin/kata-agent"))
    with pytest.raises(NvrcError, match="/usr/bin/kata-agent does not exist") as caught:
        identity.run(system, Facts())
    assert caught.value.code == "E_AGENT_MISSING"


@pytest.mark.parametrize("kind", ["mode", "directory"])
def test_an_agent_that_cannot_be_executed_is_found_at_once(system: FakeSystem, kind: str) -> None:
    real = system.real_path("/usr/bin/kata-agent")
    if kind == "mode":
        os.chmod(real, 0o644)
    else:
        os.unlink(real)
        os.mkdir(real, 0o755)
    with pytest.raises(NvrcError, match="is not an executable file"):
        identity.run(system, Facts())


# loopback

def test_loopback(system: FakeSystem) -> None:
    loopback.run(system, Facts())
    assert "raise lo" in system.effects
    system.fail["raise lo"] = error(EPERM)
    with pytest.raises(NvrcError, match="cannot bring lo up: Operation not permitted"):
        loopback.run(system, Facts())


# lock-modules

def locked(system: FakeSystem, cmdline: str = "") -> Facts:
    system.put("/proc/cmdline", cmdline)
    return lock_modules.run(system, parameters.run(system, Facts()))


def test_modules_are_locked_and_read_back(system: FakeSystem) -> None:
    locked(system)
    assert not any("kexec" in effect or effect.startswith("mount") for effect in system.effects)
    assert system.text("/proc/sys/kernel/modules_disabled") == "1"


def test_kexec_and_root_are_locked_when_the_line_says_so(system: FakeSystem) -> None:
    system.put("/proc/sys/kernel/kexec_load_disabled", "0")
    locked(system, "nvrc.lockdown.kexec=on nvrc.lockdown.root=on")
    assert system.text("/proc/sys/kernel/kexec_load_disabled") == "1"
    assert "mount  /  0x21" in system.effects


def lockable(system: FakeSystem, levels: str) -> str:
    """A kernel's file, which shows what may be and takes what shall be: here it keeps what it was given last."""
    system.put("/sys/kernel/security/lockdown", levels)
    return "write /sys/kernel/security/lockdown integrity"


@pytest.mark.parametrize(("line", "levels", "written"), [
    ("", "[none] integrity confidentiality\n", True), ("nvrc.lockdown.kernel=on", "[none] integrity confidentiality\n", True),
    ("nvrc.lockdown.kernel=off", "[none] integrity confidentiality\n", False),
    ("", "none [integrity] confidentiality\n", False), ("nvrc.lockdown.kernel=on", "none integrity [confidentiality]\n", False)])
def test_the_kernel_is_locked_down_unless_it_is_or_the_line_says_no(system: FakeSystem, line: str, levels: str, written: bool) -> None:
    effect = lockable(system, levels)
    if written:
        with pytest.raises(NvrcError, match="does not read back as integrity"):  # a file, and no kernel, so it does not mark it
            locked(system, line)
    else:
        locked(system, line)
    assert (effect in system.effects) is written
    assert system.text("/proc/sys/kernel/modules_disabled") == "1", "nothing is loaded any more when signatures count"


def test_a_kernel_without_lockdown_is_refused_only_if_the_line_asks_for_it(system: FakeSystem) -> None:
    locked(system)
    with pytest.raises(NvrcError, match="does not exist: this kernel has no lockdown"):
        locked(system, "nvrc.lockdown.kernel=on")


def test_a_refused_lockdown_is_fatal(system: FakeSystem) -> None:
    effect = lockable(system, "[none] integrity confidentiality\n")
    system.fail[effect.rpartition(" ")[0]] = error(EPERM)
    with pytest.raises(NvrcError, match="cannot write integrity to /sys/kernel/security/lockdown: Operation not permitted"):
        locked(system)


def test_a_root_that_stays_writable_is_fatal(system: FakeSystem) -> None:
    system.fail["mount /"] = error(EBUSY)
    with pytest.raises(NvrcError, match="cannot remount / read-only: Device or resource busy"):
        locked(system, "nvrc.lockdown.root=on")


def test_no_modules_disabled_is_fatal(system: FakeSystem) -> None:
    os.unlink(system.real_path("/proc/sys/kernel/modules_disabled"))
    with pytest.raises(NvrcError, match="modules_disabled does not exist") as caught:
        locked(system)
    assert caught.value.code == "E_LOCK_MODULES"


def test_a_refused_write_is_fatal(system: FakeSystem) -> None:
    system.fail["write /proc/sys/kernel/modules_disabled"] = error(EPERM)
    with pytest.raises(NvrcError, match="cannot write 1"):
        locked(system)


def test_a_lock_that_does_not_hold_is_fatal(system: FakeSystem) -> None:
    os.unlink(system.real_path("/proc/sys/kernel/modules_disabled"))
    os.symlink("/dev/null", system.real_path("/proc/sys/kernel/modules_disabled"))
    with pytest.raises(NvrcError, match="does not read back as 1"):
        locked(system)


# agent

def started(system: FakeSystem, cmdline: str) -> Facts:
    system.put("/proc/cmdline", cmdline)
    return agent.run(system, parameters.run(system, Facts()))


def test_agent_starts_as_init_of_its_own_namespace(system: FakeSystem) -> None:
    facts = started(system, "quiet KATA_AGENT_LOG_LEVEL=debug\n")
    (program,) = system.programs
    assert facts.agent_pid == system.next_pid
    assert (program.path, program.args) == ("/usr/bin/kata-agent", ())
    assert program.own_pid_namespace is True
    assert (program.open_files, program.oom_score_adj) == (1048576, -997)
    assert dict(program.env).keys() == {"PATH", "HOME", "TERM"}
    assert not any("cgroup" in effect for effect in system.effects), "the agent mounts the cgroup tree it wants"


def test_ports_are_taken_before_a_container_can_be(system: FakeSystem) -> None:
    system.vsock, system.tcp = [7], [8]
    facts = started(system, "nvrc.metrics=9400 nvrc.status.vsock=1025")
    assert facts.ports == (7, 8)
    begun = next(number for number, effect in enumerate(system.effects) if effect.startswith("start "))
    assert {"vsock 1025", "tcp 9400"} <= set(system.effects[:begun])


def test_a_port_that_was_taken_before_the_daemons_is_handed_on(system: FakeSystem) -> None:
    """As the executor joins what steps found: each fact has one writer."""
    system.put("/proc/cmdline", "nvrc.metrics=9400")
    system.tcp = [8]
    facts = replace(parameters.run(system, Facts()), modules=("ib_umad",))
    for step in (device_nodes, agent):
        facts = merge(facts, facts, step.run(system, facts))
    assert facts.ports == (-1, 8)
    assert system.effects.count("tcp 9400") == 1


def test_without_such_words_no_port_is_taken(system: FakeSystem) -> None:
    assert started(system, "quiet").ports is None


def test_cgroup2_is_mounted_when_the_line_asks_for_it(system: FakeSystem) -> None:
    started(system, "cgroup_no_v1=all\n")
    assert "mount cgroup2 /sys/fs/cgroup cgroup2 0x20000e nsdelegate" in system.effects


def test_cgroup2_is_left_alone_when_it_is_there(system: FakeSystem) -> None:
    system.put("/proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
    started(system, "cgroup_no_v1=all\n")
    assert not any("cgroup" in effect for effect in system.effects)


def test_an_ordinary_child_finds_cgroup2_mounted(system: FakeSystem) -> None:
    started(system, "nvrc.agent.pidns=off\n")
    assert system.programs[0].own_pid_namespace is False
    assert any(effect.startswith("mount cgroup2") for effect in system.effects)


def test_cgroup2_that_cannot_be_mounted_is_fatal(system: FakeSystem) -> None:
    system.fail["mount /sys/fs/cgroup"] = error(ENOENT)
    with pytest.raises(NvrcError, match="cannot mount cgroup2"):
        started(system, "cgroup_no_v1=all\n")


ALL_V1 = "".join(f"{name}\t0\t1\t1\n" for name in CONTROLLERS)


@pytest.mark.parametrize(("line", "table", "refused", "expected"), [
    pytest.param("quiet", ALL_V1, (), "", id="kernel-with-version-1"),
    pytest.param("quiet", ALL_V1, ("cpuset", "memory"), "no version 1 of: cpuset, memory", id="listed-and-not-there"),
    pytest.param("quiet", ALL_V1.replace("cpuset\t0\t1\t1\n", ""), (), "", id="not-listed-so-not-mounted"),
    pytest.param("quiet", ALL_V1.replace("cpuset\t0\t1\t1", "cpuset\t0\t1\t0"), ("cpuset",), "", id="disabled-so-not-mounted"),
    pytest.param("quiet", ALL_V1.replace("memory\t0\t1\t1\n", ""), (), "no version 1 of: memory", id="memory-not-listed"),
    pytest.param("quiet", "devices\t0\t1\t1\nmisc\t0\t1\t1\nx\n", ("misc",), "no version 1 of: memory", id="of-no-concern"),
    pytest.param("cgroup_no_v1=memory", ALL_V1, ("memory",), "no version 1 of: memory", id="one-taken-from-version-1"),
    pytest.param("systemd.unified_cgroup_hierarchy=yes", ALL_V1, CONTROLLERS, "no version 1 of: blkio", id="no-word-of-the-agent"),
    pytest.param("quiet", ALL_V1, OSError(ENODEV, "No such device"), "no version 1 of: blkio", id="no-version-1-at-all"),
    pytest.param("quiet", ALL_V1, OSError(ENOSYS, "Function not implemented"), "", id="a-kernel-that-cannot-be-asked"),
    pytest.param("cgroup_no_v1=all", ALL_V1, CONTROLLERS, "", id="version-2"),
    pytest.param("systemd.unified_cgroup_hierarchy=1", ALL_V1, CONTROLLERS, "", id="version-2-by-the-other-word"),
    pytest.param("agent.config_file=/etc/a.toml", ALL_V1, CONTROLLERS, "", id="the-agent-has-a-file"),
    pytest.param("nvrc.agent.pidns=off", ALL_V1, CONTROLLERS, "", id="ordinary-child"),
])
def test_cgroups_that_the_agent_would_die_of_end_the_boot_before_it(
        system: FakeSystem, line: str, table: str, refused: tuple[str, ...] | OSError, expected: str) -> None:
    system.put("/proc/cgroups", f"#subsys_name\thierarchy\tnum_cgroups\tenabled\n{table}")
    system.refused = refused
    if not expected:
        started(system, f"{line}\n")
        assert len(system.programs) == 1
        return
    with pytest.raises(NvrcError, match=expected) as caught:
        started(system, f"{line}\n")
    assert (caught.value.code, caught.value.hint) == ("E_CGROUP", "add cgroup_no_v1=all to kernel_params")
    assert system.programs == []


def test_a_kernel_without_cgroups_is_told_so(system: FakeSystem) -> None:
    os.unlink(system.real_path("/proc/cgroups"))
    with pytest.raises(NvrcError, match="the kernel has no /proc/cgroups") as caught:
        started(system, "quiet\n")
    assert (caught.value.code, caught.value.hint) == ("E_CGROUP", "build the guest kernel with CONFIG_CGROUPS")


def test_the_gpu_extension_selects_the_attester(system: FakeSystem) -> None:
    program = agent.describe(own_pid_namespace=True, has_gpu_extension=True)
    assert dict(program.env)["KATA_ATTESTER_VARIANT"] == "nvidia"


@pytest.mark.parametrize(("number", "hint"), [
    (ENOENT, "loader or interpreter is missing"), (ENOEXEC, "not a program for this machine"),
    (EAGAIN, "memory is used up"), (EINVAL, "CONFIG_PID_NS"), (EPERM, "CONFIG_PID_NS"), (EACCES, "check the agent's file"),
])
def test_a_failed_exec_says_why(system: FakeSystem, number: int, hint: str) -> None:
    system.fail["start /usr/bin/kata-agent"] = error(number)
    with pytest.raises(NvrcError, match=os.strerror(number)) as caught:
        started(system, "quiet\n")
    assert caught.value.code == "E_AGENT_EXEC"
    assert hint in caught.value.hint
