# SPDX-License-Identifier: Apache-2.0
"""Words of the command line that are the kernel's, the agent's or a module's: which of them a policy lets stand.

Two tables. NEVER holds with any policy, and no policy can allow what is in it. KATA is what Kata's runtimes write for
every VM, with the values that they write; a policy names it `@kata`. Who wrote a word cannot be told from the line.

The kernel takes `-` for `_` in names, and so do comparisons here. The agent splits the line at every white space,
quoted or not, so what stands inside quotes is judged as words of its own too. Loaded only where there is a policy.
"""

from __future__ import annotations

from guest_cdi.lean.light import Iterable, Iterator, NamedTuple
from nvrc.params.cmdline import Token, shown, tokenise
from nvrc.params.module_options import driver_option
from nvrc.params.table import is_ours
from nvrc.vocabulary.needs import NEEDS

Entry = tuple[str, str, str]

KATA_SET = "@kata"
DEFAULT = (KATA_SET,)


class Row(NamedTuple):
    """`word`: a name, one with its value, or a beginning and `*`; the kernel takes what begins as a switch for it."""

    word: str
    why: str


class Refused(NamedTuple):
    key: str
    what: str
    hint: str


_LOADER = "could make the loader, libc or the interpreter load or write what the image did not choose"
_SETTING = "the kernel writes it below /proc/sys with every right, before any program runs"
_MODULE = "changes a module that the init loads, or one that it rests on"
_KEPT_OUT = "keeps out what the image chose to have in its kernel"
_OTHER_DRIVER = "another driver would take a GPU before NVIDIA's"
_AGENT_DOOR = "opens another way to command the agent than the one the runtime uses"
_ADDRESS = "the kernel would write its messages to an address of the line's choice"
_WATCH = "lets the kernel watch, and tell the console, what programs of the guest do"
_WEAKER = "takes a protection of the kernel away"
_PROCESSOR = "takes away what keeps programs from reading the kernel and each other by faults of the processor"
_SEEDS = "the kernel's random numbers could come from the host alone"

NEVER: tuple[Row, ...] = (
    Row("sysctl.*", _SETTING),
    Row("sysctl/*", _SETTING),
    # The kernel hands unknown words to init as its environment. The first program takes none of it.
    Row("LD_*", _LOADER),
    Row("PYTHON*", _LOADER),
    Row("_PYI_*", _LOADER),
    Row("GLIBC_TUNABLES", _LOADER),
    Row("GCONV_PATH", _LOADER),
    Row("LOCPATH", _LOADER),
    Row("MALLOC_*", _LOADER),
    Row("TOMOYO_*", "the kernel would run a program of the line's choice, as root, for one that is started"),
    # What runs in the kernel.
    Row("firmware_class.*", "firmware would come from a folder that the image does not own"),
    Row("module.*", "modules without a good signature could be loaded"),
    Row("module_blacklist", _KEPT_OUT),
    Row("modprobe.*", _KEPT_OUT),
    Row("initcall_blacklist", _KEPT_OUT),
    Row("pci_stub.*", _OTHER_DRIVER),
    Row("vfio_pci.*", _OTHER_DRIVER),
    Row("bootconfig", "the kernel would take more parameters from the end of the initrd"),
    Row("overlay.*", _MODULE),
    Row("erofs.*", _MODULE),
    Row("dm_mod.*", _MODULE),
    Row("dm_verity.*", _MODULE),
    Row("dm_bufio.*", _MODULE),
    Row("dm_crypt.*", _MODULE),
    Row("virtio*", _MODULE),
    Row("vsock*", _MODULE),
    Row("vmw_vsock*", _MODULE),
    Row("ib_*", _MODULE),
    Row("mlx5_*", _MODULE),
    # Protections of the kernel.
    *(Row(word, _WEAKER) for word in (
        "lockdown", "lsm", "security", "apparmor*", "loadpin.*", "ima_*", "evm", "iomem", "rodata", "nokaslr",
        "nosmap*", "nosmep*", "clearcpuid", "noexec", "ibt", "cfi", "nousershstk*", "norandmaps*",
        "randomize_kstack_offset", "hardened_usercopy", "sysrq_always_enabled*", "proc_mem.*", "init_on_alloc",
        "init_on_free", "vsyscall", "stack_guard_gap", "mem_encrypt", "no_hash_pointers", "hash_pointers",
        "slab_debug*", "slub_debug*", "ignore_rlimit_data")),
    *(Row(word, _PROCESSOR) for word in (
        "mitigations", "pti", "nopti", "kpti", "nospec*", "spec_*", "spectre_*", "ssbd", "retbleed", "l1tf",
        "l1d_flush", "mds", "mmio_stale_data", "tsx*", "srbds", "gather_data_sampling", "reg_file_data_sampling",
        "indirect_target_selection", "tsa", "vmscape", "arm64.*", "id_aa64*")),
    Row("random.trust_bootloader", _SEEDS),
    Row("random.trust_cpu", _SEEDS),
    Row("acpi_rsdp", "the kernel would take the host's tables from a place of the line's choice"),
    Row("earlycon", _ADDRESS),
    Row("earlyprintk", _ADDRESS),
    Row("efivar_ssdt", "the kernel would run the host's code for ACPI from a variable of the firmware"),
    # Watching and debugging.
    Row("kprobe_event", _WATCH),
    Row("trace_*", _WATCH),
    Row("ftrace*", _WATCH),
    Row("tp_printk*", _WATCH),
    Row("printk.devkmsg", "containers could fill the kernel's log, and hide there what the driver says"),
    Row("stacktrace*", _WATCH),
    Row("profile", _WATCH),
    Row("debugfs", _WATCH),
    Row("print_fatal_signals", _WATCH),
    Row("dyndbg", _WATCH),
    Row("kgdb*", _WATCH),
    Row("ekgdboc", _WATCH),
    Row("netconsole.*", _WATCH),
    Row("crashkernel", "another kernel could be started in place of the measured one"),
    # The agent.
    Row("agent.debug_console*", "a shell in the guest for anyone who reaches the console or the port"),
    Row("agent.policy_file", "the agent would judge the runtime's calls by another policy than the image's"),
    Row("agent.config_file", "the agent would take all of its settings from a file that the image did not choose"),
    Row("agent.server_addr", _AGENT_DOOR),
    Row("agent.devmode", _AGENT_DOOR),
    Row("agent.guest_components_procs=none", "nothing would compare the initdata that the agent takes with the TEE's"),
    Row("agent.secure_storage_integrity", "what is written to encrypted volumes would no longer be authenticated"),
)

_CLOCK = "the clock and the interrupts of a virtual machine"
_KEYBOARD = "no search for a keyboard"
_SYSTEMD = "for systemd, which is not in the guest"
_ROOT = "where the root file system is; the kernel has acted on it before the init runs"
_PCI = "how the kernel gives addresses to passed-through devices"
_AGENT = "how long the agent waits, or how much it says"

KATA: tuple[Row, ...] = (
    Row("tsc=reliable", _CLOCK),
    Row("no_timer_check", _CLOCK),
    Row("rcupdate.rcu_expedited=1", _CLOCK),
    Row("i8042.direct=1", _KEYBOARD),
    Row("i8042.dumbkbd=1", _KEYBOARD),
    Row("i8042.nopnp=1", _KEYBOARD),
    Row("i8042.noaux=1", _KEYBOARD),
    Row("noreplace-smp", "no change of the kernel's locks when processors come and go"),
    Row("reboot=k", "a restart is an exit of the VM"),
    Row("panic=1", "the VM ends a second after a panic"),
    Row("cryptomgr.notests", "no self-tests of the kernel's ciphers"),
    Row("net.ifnames=0", "names of network interfaces"),
    Row("pci=lastbus=0", _PCI),
    Row("pci=realloc", _PCI),
    Row("pci=nocrs", _PCI),
    Row("pci=assign-busses", _PCI),
    Row("console=hvc0", "where messages go"),
    Row("console=hvc1", "where messages go"),
    Row("console=ttyS0", "where messages go"),
    Row("quiet", "fewer messages of the kernel"),
    Row("nr_cpus", "how many processors there may be"),
    Row("selinux=0", "no SELinux in the guest"),
    Row("selinux=1", "SELinux, where the kernel has it"),
    Row("cgroup_no_v1=all", "cgroup version 2"),
    Row("systemd.unified_cgroup_hierarchy", "cgroup version 2"),
    Row("systemd.show_status=false", _SYSTEMD),
    Row("systemd.unit=kata-containers.target", _SYSTEMD),
    Row("systemd.mask=systemd-networkd.service", _SYSTEMD),
    Row("systemd.mask=systemd-networkd.socket", _SYSTEMD),
    Row("root", _ROOT),
    Row("rootflags", _ROOT),
    Row("rootfstype", _ROOT),
    Row("ro", _ROOT),
    Row("dm-mod.create", _ROOT),
    Row("agent.log=info", _AGENT),
    Row("agent.log=warn", _AGENT),
    Row("agent.log=error", _AGENT),
    Row("agent.hotplug_timeout", _AGENT),
    Row("agent.cdi_timeout", _AGENT),
    Row("agent.cdh_api_timeout", _AGENT),
    Row("agent.image_pull_timeout", _AGENT),
    Row("agent.launch_process_timeout", _AGENT),
    Row("agent.container_pipe_size", "how much a container's output may wait in the agent"),
    Row("agent.passfd_listener_port", "where the runtime takes a container's output from"),
)

# Only these are read by a program that splits inside quotes.
_AGENT_READS = ("agent.", "cgroup_no_v1", "systemd.unified_cgroup_hierarchy")
_TAKE_OFF = "take it off the line"


def fold(key: str) -> str:
    """A name as the kernel compares it, where `-` is `_`; a quote inside one changes nothing for the agent."""
    return key.replace("-", "_").replace('"', "")


# Folded once: a line may have a thousand words.
_KATA_NAMES = frozenset(fold(row.word) for row in KATA)
_NEVER_NAMES = {fold(row.word): row for row in NEVER if not row.word.endswith("*")}
_NEVER_FAMILIES = {fold(row.word.removesuffix("*")): row for row in NEVER if row.word.endswith("*")}
_NEVER_BEGIN = tuple(_NEVER_FAMILIES)
_NEEDED = frozenset(module.replace("-", "_") for need in NEEDS
                    for module in (*need.modules, *need.where_there, *need.elsewhere))


def never(key: str) -> Row | None:
    """The row that forbids a word of this name. A name that the runtime itself writes is none, whatever its family."""
    folded = fold(key)
    if folded in _KATA_NAMES:
        return None
    module, has_option, option = folded.partition(".")
    if has_option and module in _NEEDED:
        return Row(f"{module}.*", _MODULE)
    return _row_of("dyndbg" if option == "dyndbg" else folded)  # of one module, or of all by a pattern


def forbidden(token: Token) -> Row | None:
    """As `never`, or with this value; a console that has an address is `earlycon` to the kernel (do_early_param)."""
    if row := _NEVER_NAMES.get(f"{fold(token.key)}={token.value}"):
        return row
    if token.key == "console" and (token.value or "").partition(",")[2].startswith(("mmio", "io,", "0x")):
        return _NEVER_NAMES["earlycon"]
    return never(token.key)


def _row_of(folded: str) -> Row | None:
    if folded in _NEVER_NAMES:
        return _NEVER_NAMES[folded]
    if not folded.startswith(_NEVER_BEGIN):
        return None
    return next(row for begin, row in _NEVER_FAMILIES.items() if folded.startswith(begin))


def is_foreign(key: str) -> bool:
    """Whether somebody else acts on the word; those of ours have sections of their own."""
    return not is_ours(key) and driver_option(key) is None


def foreign(cmdline: bytes) -> Iterator[Token]:
    """The words of others, those that only a reader without quotes finds, and what is nobody's, be it the driver's."""
    tokens = tokenise(cmdline)
    yield from (token for token in tokens if is_foreign(token.key) or never(token.key))
    if b'"' in cmdline or not cmdline.isascii():  # else all readers find the same
        yield from _hidden(cmdline, frozenset(tokens))


def refuse(cmdline: bytes, entries: tuple[str, ...]) -> Iterator[Refused]:
    """Every word of the line that may not stand there, with the reason and the remedy."""
    words = [row.word for row in KATA] if KATA_SET in entries else []
    allowed = split_entries([*words, *(one for one in entries if one != KATA_SET)])
    for token in foreign(cmdline):
        if (row := forbidden(token)) is not None:
            yield Refused(token.key, f"is never a pod author's: {row.why}", f"{_TAKE_OFF}; no policy can allow it")
        elif what := _not_allowed(token, allowed):
            yield Refused(token.key, what, f"{_TAKE_OFF}, or name it in words of the image's policy")


def admits(token: Token, entries: Iterable[Entry]) -> bool:
    """Whether one of the entries allows a word."""
    return not _not_allowed(token, entries)


def split_entries(entries: Iterable[str]) -> list[Entry]:
    """Folded name, whether there is a value, and the value; of entries that are no sets."""
    return [(fold(name), has_value, value) for name, has_value, value in (entry.partition("=") for entry in entries)]


def _not_allowed(token: Token, allowed: Iterable[Entry]) -> str:
    folded, values = fold(token.key), []
    for name, has_value, value in allowed:
        if not _fits(folded, name):
            continue
        if not has_value or value == token.value:
            return ""
        values.append(value)
    if not values:
        return "is not among the words that the image's policy allows"
    return f"is {shown(token.value or '')}, and the image's policy allows {', '.join(values)}"


def _hidden(cmdline: bytes, tokens: frozenset[Token]) -> Iterator[Token]:
    """What a reader that knows no quotes takes for words, as far as it is the agent's or on the table of the never. The
    kernel ends a word at a no-break space, too.
    """
    for piece in cmdline.replace(b'"', b"").split():
        yield from (found for found in tokenise(piece)
                    if found not in tokens and (found.key.startswith(_AGENT_READS) or never(found.key)))


def entry_mistake(entry: str) -> str:
    """Why an entry of `words` cannot be one; empty if it can."""
    name, has_value, _ = entry.partition("=")
    if entry in (KATA_SET, "*"):
        return ""
    plain = entry.isascii() and entry.isprintable() and '"' not in entry and " " not in entry
    if not plain or not name or "*" in name[:-1] or (has_value and name.endswith("*")):
        return f"is neither a name, a name with its value, the beginning of a name and *, nor {KATA_SET}"
    if name.startswith("@"):
        return f"is not a set of words; there is {KATA_SET}"
    if not is_foreign(name.removesuffix("*")):
        return "is not for words; put it into allow"
    row = _NEVER_NAMES.get(fold(entry)) or (_row_of(fold(name)) if never(name) else None)
    if row is not None:
        return f"is never a pod author's: {row.why}"
    return ""


def _fits(folded: str, pattern: str) -> bool:
    return folded.startswith(pattern[:-1]) if pattern.endswith("*") else folded == pattern
