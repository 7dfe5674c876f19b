# SPDX-License-Identifier: Apache-2.0
"""Protections that the kernel has and does not switch on by itself, as rows; Documentation/admin-guide/sysctl.

A word `sysctl.NAME=VALUE` of the kernel command line is in force before any program runs. What has a row here is set
back, whatever the line said; other such words stay. Every row holds until the machine ends: nothing else writes them.
"""

from __future__ import annotations

from guest_cdi.lean.light import NamedTuple
from nvrc.engine.facts import Facts, replace
from nvrc.engine.table import SHORT
from nvrc.machine.system import Files, System
from nvrc.vocabulary.errors import NvrcError

FOLDER = "/proc/sys"


class Row(NamedTuple):
    """`required`: every kernel has it. `at_least`: a number above `value` refuses more, and stays."""

    name: str
    value: str
    why: str
    required: bool = False
    at_least: bool = False

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.name.replace('.', '/')}"


HARDENING: tuple[Row, ...] = (
    # What the kernel would start as root, in the init's own namespaces.
    Row("kernel.core_pattern", "", "no core dump: a `|program` here runs as root, and a dump holds a tenant's memory"),
    Row("kernel.core_uses_pid", "0", "with it an empty pattern still names a file"),
    Row("kernel.modprobe", "", "the kernel starts no modprobe: the init loads modules, and then locks loading"),
    Row("kernel.hotplug", "", "the kernel starts no program for a device that appears"),
    Row("kernel.poweroff_cmd", "/sbin/poweroff", "the kernel's own default, which the image does not have"),
    Row("kernel.kexec_load_disabled", "1", "no other kernel takes the place of the measured one"),
    Row("kernel.sysrq", "0", "no key of a console acts on the machine; /proc/sysrq-trigger stays, which the init uses"),
    # What an unprivileged process may learn or do.
    Row("kernel.kptr_restrict", "2", "no addresses of the kernel in /proc", required=True),
    Row("kernel.dmesg_restrict", "1", "the kernel's log names them, and the devices of other tenants"),
    Row("kernel.randomize_va_space", "2", "all of a program's addresses are random", required=True),
    Row("kernel.perf_event_paranoid", "2", "no kernel profile without CAP_PERFMON", at_least=True),
    Row("kernel.yama.ptrace_scope", "1", "a process traces its own children only, as on the usual distributions",
        at_least=True),
    Row("kernel.unprivileged_bpf_disabled", "1", "no BPF programs without CAP_BPF, and no way back"),
    Row("net.core.bpf_jit_harden", "2", "no chosen constants in what the kernel compiles of a BPF program"),
    Row("kernel.unprivileged_userns_clone", "0", "no user namespaces without CAP_SYS_ADMIN (Debian's kernels and kin)"),
    Row("kernel.io_uring_disabled", "2", "an interface with many flaws behind it, which neither agent nor driver uses"),
    Row("vm.unprivileged_userfaultfd", "0", "no faults of the kernel handled by a process without CAP_SYS_PTRACE"),
    Row("vm.mmap_min_addr", "65536", "a null pointer of the kernel leads to nothing of a process", at_least=True),
    Row("dev.tty.ldisc_autoload", "0", "no line disciplines loaded by users of a terminal"),
    Row("dev.tty.legacy_tiocsti", "0", "no typing into the terminal of another user"),
    Row("fs.suid_dumpable", "0", "no dump and no tracing of a program that changed its user", required=True),
    Row("fs.protected_symlinks", "1", "no following of others' links in folders like /tmp", required=True),
    Row("fs.protected_hardlinks", "1", "no hard links to files that the maker may not write", required=True),
    Row("fs.protected_fifos", "2", "no opening of others' pipes in folders like /tmp to write", required=True),
    Row("fs.protected_regular", "2", "the same for files", required=True),
    # What goes on after a fault.
    Row("kernel.panic_on_oops", "1", "a kernel that has met a fault of its own does not go on", required=True),
)


deadline_s = SHORT


def run(system: System, facts: Facts) -> Facts:
    missing = tuple(row.name for row in HARDENING if not _apply(system, row))
    try:
        system.drop_audit_messages()
    except OSError as err:
        raise NvrcError("E_HARDENING", f"the kernel refused a rule that drops programs' audit messages: {err.strerror}",
                        "remove audit=1 and rules of audit from the kernel command line") from err
    return replace(facts, unhardened=missing)


def tell(facts: Facts) -> str:
    missing = facts.unhardened or ()
    kept = f"{len(HARDENING) - len(missing)} of {len(HARDENING)} rows"
    return f"{kept}; not in this kernel: {' '.join(missing)}" if missing else kept


def _apply(system: Files, row: Row) -> bool:
    """Whether the kernel has it; it is as the row says then."""
    try:
        found = system.read(row.path, 256).decode(errors="replace").strip()
    except FileNotFoundError as err:
        if row.required:
            raise NvrcError("E_HARDENING", f"{row.path} is missing",
                            "check that /proc is the kernel's own and that nothing is mounted below it") from err
        return False
    except OSError as err:
        raise NvrcError("E_HARDENING", f"cannot read {row.path}: {err.strerror}") from err
    if found == row.value or (row.at_least and found.isdecimal() and int(found) >= int(row.value)):
        return True
    try:
        system.write(row.path, f"{row.value}\n".encode())
    except OSError as err:
        raise NvrcError("E_HARDENING", f"cannot write {row.value!r} to {row.path}, which holds {found[:60]!r}: "
                        f"{err.strerror}") from err
    return True
