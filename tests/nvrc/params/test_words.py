# SPDX-License-Identifier: Apache-2.0
"""Words of others on a line under a policy: what stands, what never does, and that no spelling gets around it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvrc.params.cmdline import tokenise
from nvrc.params.parse import NO_POLICY, parse
from nvrc.params.policy import load_policy
from nvrc.params.words import KATA, NEVER, Row, admits, entry_mistake, never, split_entries
from nvrc.steps.modules import TABLE
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.needs import NEEDS

EVERYTHING = load_policy(b'allow = ["nvrc.*", "kata.extension.*", "nvidia*"]\nwords = ["*"]')

# What the runtimes write for the classes with GPUs: Go and runtime-rs, disk and initrd.
CLASSES = {
    "go, verity disk, confidential": (
        'tsc=reliable no_timer_check rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 i8042.noaux=1 '
        'noreplace-smp reboot=k cryptomgr.notests net.ifnames=0 pci=lastbus=0 console=hvc0 console=hvc1 quiet '
        'systemd.show_status=false dm-mod.create="dm-verity,,,ro,0 4096 verity 1 /dev/vda1 /dev/vda2 4096 4096 512 0 sha256 '
        'abcd ef01" root=/dev/dm-0 rootflags=ro rootfstype=erofs panic=1 selinux=0 systemd.unit=kata-containers.target '
        'systemd.mask=systemd-networkd.service systemd.mask=systemd-networkd.socket agent.launch_process_timeout=15 '
        'cgroup_no_v1=all pci=realloc pci=nocrs pci=assign-busses nvrc.smi.srs=1'),
    "go, plain disk": (
        "tsc=reliable no_timer_check console=ttyS0 quiet root=/dev/vda1 rootflags=data=ordered,errors=remount-ro ro "
        "rootfstype=ext4 panic=1 nr_cpus=8 selinux=1 agent.hotplug_timeout=20 agent.cdi_timeout=100 cgroup_no_v1=all"),
    "runtime-rs, initrd": (
        "reboot=k panic=1 systemd.unit=kata-containers.target systemd.mask=systemd-networkd.service "
        "agent.passfd_listener_port=1027 agent.log=info console=hvc0 cgroup_no_v1=all pci=realloc"),
}


@pytest.mark.parametrize("line", CLASSES.values(), ids=CLASSES.keys())
def test_what_the_runtimes_write_stands_under_the_smallest_policy(line: str) -> None:
    assert parse(line.encode(), load_policy(b"")).errors == ()


# policy, line, what is said of each word refused
JUDGED = {
    "not named": ("", "memtest=1", ["memtest: is not among the words that the image's policy allows"]),
    "named": ('words = ["@kata", "memtest"]', "memtest=1 quiet", []),
    "named with another value": ('words = ["mem=1G", "mem=2G"]', "mem=3G mem=2G", [
        "mem: is '3G', and the image's policy allows 1G, 2G"]),
    "named with a value, given without": ('words = ["mem=1G"]', "mem", ["mem: is '', and the image's policy allows 1G"]),
    "by its beginning": ('words = ["agent.t*"]', "agent.trace=1 agent.x", [
        "agent.x: is not among the words that the image's policy allows"]),
    "the runtime's set left out": ("words = []", "quiet nvrc.log=info", [
        "quiet: is not among the words that the image's policy allows"]),
    "of the runtime with another value": ("", "panic=0", ["panic: is '0', and the image's policy allows 1"]),
    "dashes are underscores": ('words = ["a-b"]', "a_b a-b", []),
    "never, though named by its beginning": ('words = ["*"]', "lockdown=none", [
        "lockdown: is never a pod author's: takes a protection of the kernel away"]),
    "never: a log that containers may fill": ('words = ["*"]', "printk.devkmsg=on printk-devkmsg=on", [
        "printk.devkmsg: is never a pod author's: containers could fill the kernel's log"]),
    "never: seeds of the host, pages that are not cleared": ('words = ["*"]', "random.trust_cpu=1 init_on_free=0", [
        "random.trust_cpu: is never a pod author's: the kernel's random numbers could come from the host alone",
        "init_on_free: is never a pod author's: takes a protection of the kernel away"]),
    "never: what undoes a row of the hardening": ('words = ["*"]', "sysrq_always_enabled norandmaps clearcpuid=smap apparmor.mode=complain", [
        f"{word}: is never a pod author's: takes a protection of the kernel away"
        for word in ("sysrq_always_enabled", "norandmaps", "clearcpuid", "apparmor.mode")]),
    "never: what the kernel takes for a switch": ('words = ["*"]', "sysrq_always_enabledX norandmaps-=1 nosmep.x", [
        f"{word}: is never a pod author's: takes a protection of the kernel away" for word in ("sysrq_always_enabledX", "norandmaps-", "nosmep.x")]),
    "never: messages of one module, or of all": ('words = ["*"]', "usbcore.dyndbg=+p *.dyndbg=+p a.b.dyndbg=+p", [
        f"{word}: is never a pod author's: lets the kernel watch" for word in ("usbcore.dyndbg", "*.dyndbg")]),
    "never: what keeps a fault of the processor from being used": (
        'words = ["*"]', "mitigations=off nopti nospectre_v2 spec_store_bypass_disable=off spectre_v2_user=off tsx=on mds=off", [
            f"{word}: is never a pod author's: takes away what keeps programs from reading" for word in (
                "mitigations", "nopti", "nospectre_v2", "spec_store_bypass_disable", "spectre_v2_user", "tsx", "mds")]),
    "never: a program that the kernel runs as root": ('words = ["*"]', "TOMOYO_trigger=/x TOMOYO_loader=/y", [
        f"{word}: is never a pod author's: the kernel would run a program" for word in ("TOMOYO_trigger", "TOMOYO_loader")]),
    "never: addresses and limits, by other names": ('words = ["*"]', "slub_debug slab_debug=P slab-debugX ignore_rlimit_data=1", [
        f"{word}: is never a pod author's: takes a protection of the kernel away"
        for word in ("slub_debug", "slab_debug", "slab-debugX", "ignore_rlimit_data")]),
    "never: registers of what crashed": ('words = ["*"]', "print-fatal-signals=1", [
        "print-fatal-signals: is never a pod author's: lets the kernel watch"]),
    "never: messages to an address": (
        'words = ["*"]', "earlycon=uart,0x1 earlyprintk=serial,0x1 console=uart8250,mmio32,0x1", [
            f"{word}: is never a pod author's: the kernel would write its messages to an address"
            for word in ("earlycon", "earlyprintk", "console")]),
    "never: an early console at a port": ('words = ["console"]', "console=ns16550,io,0x3f8", ["console: is never a pod author's"]),
    "never: an early console in memory": ('words = ["console"]', "console=uart,0x1", ["console: is never a pod author's"]),
    "a console without an address": ('words = ["console"]', "console console=ttyS1,115200n8 console=tty0 console=io,x", []),
    "never: messages of the driver's modules, which an allow list may name": (
        'allow = ["nvidia*"]', "nvidia.dyndbg=+p nvidia-uvm.dyndbg nvidia.NVreg_A=1", [
            f"{word}: is never a pod author's: lets the kernel watch" for word in ("nvidia.dyndbg", "nvidia-uvm.dyndbg")]),
    "never: another driver for the GPU": ('words = ["*"]', "pci-stub.ids=10de:2330 vfio_pci.ids=10de:2330", [
        "pci-stub.ids: is never a pod author's: another driver would take a GPU", "vfio_pci.ids: is never a pod author's"]),
    "what only the agent sees": ('words = ["@kata", "x"]', 'x="a agent.log=trace agent.debug_console b"', [
        "agent.log: is 'trace', and the image's policy allows info, warn, error",
        "agent.debug_console: is never a pod author's"]),
    "quoted, but nobody's": ('words = ["x"]', 'x="a b=1 quiet"', []),
    "a quote that never closes": ('words = ["*"]', 'x="a agent.policy_file=/x', [
        "agent.policy_file: is never a pod author's"]),
    "never: an agent without its guest components, though named": (
        'words = ["agent.*", "agent.guest_components_procs"]', 'agent.guest_components_procs=none x="agent.guest_components_procs=none"', [
            "agent.guest_components_procs: is never a pod author's: nothing would compare", "x: is not among the words"]),
    "fewer of its guest components": (
        'words = ["agent.guest_components_procs"]', "agent.guest_components_procs=confidential-data-hub", []),
    "never: encrypted volumes without authentication": ('words = ["*"]', "agent.secure_storage_integrity=false", [
        "agent.secure_storage_integrity: is never a pod author's"]),
    "words of ours": ("", "nvrc.log=info nvrc.q=1", []),
    "nearly ours": ("", "nvcr.log=info", ["nvcr.log: is not among the words that the image's policy allows"]),
    "bytes that are no text": ("", "\udcff\udca0agent.x", [
        "'\\udcff': is not among the words", "agent.x: is not among the words"]),
}


@pytest.mark.parametrize(("policy", "line", "said"), JUDGED.values(), ids=JUDGED.keys())
def test_a_policy_judges_the_words_of_others(policy: str, line: str, said: list[str]) -> None:
    parsed = parse(line.encode("utf-8", "surrogateescape"), load_policy(policy.encode()))
    errors = [str(problem) for problem in parsed.errors]
    assert len(errors) == len(said)
    assert [text for text, start in zip(errors, said, strict=True) if not text.startswith(start)] == []


def test_a_refusal_names_word_reason_and_remedy() -> None:
    parsed = parse(b"sysctl.kernel.core_pattern=|/x", load_policy(b""))
    with pytest.raises(NvrcError) as raised:
        parsed.raise_on_error()
    assert raised.value.code == "E_PARAMETERS"
    assert raised.value.what == (
        "sysctl.kernel.core_pattern: is never a pod author's: the kernel writes it below /proc/sys with every right, before "
        "any program runs, take it off the line; no policy can allow it")


def test_an_image_without_a_policy_bounds_nothing() -> None:
    assert parse(b"sysctl.kernel.modprobe=/x agent.debug_console mitigations=off", NO_POLICY).errors == ()


# Lines that worked under a strict policy with an allow list when only our own names were bounded.
ATTACKS = (
    "sysctl.kernel.core_pattern=|/x", "sysctl.kernel.modprobe=/x", "sysctl/kernel/modprobe=/x", "rdinit=/usr/bin/kata-agent",
    "init=/usr/bin/kata-agent", "agent.debug_console", "agent.debug_console_vport=1026", "agent.policy_file=/x",
    "agent.config_file=/x", "module.sig_enforce=0", "lockdown=none", "lsm=", "firmware_class.path=/tmp",
    "overlay.metacopy=on", "module_blacklist=nvidia", "modprobe.blacklist=nvidia", "initcall_blacklist=x",
    "LD_PRELOAD=/dev/vdb", "LD_AUDIT=/dev/vdb", "PYTHONPATH=/x", "GLIBC_TUNABLES=x", "mitigations=off", "resume=/dev/vdb",
)


@pytest.mark.parametrize("word", ATTACKS)
def test_a_policy_refuses_what_once_got_past_it(word: str) -> None:
    policy = load_policy(b'strict = true\nallow = ["nvrc.log"]\npin.nvrc.cc = "on"')
    assert [problem.parameter for problem in parse(f"quiet {word}".encode(), policy).errors] == [word.partition("=")[0]]


def names(pattern: str) -> st.SearchStrategy[str]:
    """Names that a row is about, with every dash and underscore as either."""
    stem, tail = pattern.removesuffix("*"), st.text("abz019._/", max_size=8)
    spelt = st.tuples(*(st.sampled_from("-_") if char in "-_" else st.just(char) for char in stem)).map("".join)
    return st.builds(str.__add__, spelt, tail) if pattern.endswith("*") else spelt


def nobodys(words: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(words).flatmap(names).filter(lambda name: never(name) is not None)


NAMES = [row.word for row in NEVER if "=" not in row.word]  # others are about one value

never_names = nobodys(NAMES)
spellings = st.sampled_from([
    "{0}", "{0}=1", "{0}=", '"{0}"', '"{0}=a b"', '{0}="a b"', '"{0}=1', "{0}=1 {0}=2", "-- {0}=1", "quiet\t{0}=1\n",
    "quiet\v{0}=1", "quiet\xa0{0}=1", '{0}=1"', 'x="1" {0}="', '""{0}=1',
])


@pytest.mark.long
@given(never_names, spellings, st.sampled_from([EVERYTHING, load_policy(b"")]))
def test_no_spelling_of_a_word_that_is_nobodys_passes(name: str, spelling: str, policy: object) -> None:
    line = spelling.format(name).encode("latin-1")
    assert parse(line, policy).errors  # type: ignore[arg-type]


@given(nobodys([word for word in NAMES if word.startswith("agent")]), st.sampled_from([
    'x="a {0} b"', 'x="a {0}=1"', 'x="a {0}', '"x {0}"', 'nvrc.q="a {0}=1 b"', "x='{0}' {0}"]))
def test_no_word_of_the_agent_hides_inside_quotes(name: str, spelling: str) -> None:
    found = [problem.parameter for problem in parse(spelling.format(name).encode(), EVERYTHING).errors]
    assert name in found or any(name in one for one in found)


@given(st.sampled_from([row.word for row in NEVER]).flatmap(names))
def test_no_policy_can_name_a_word_that_is_nobodys(name: str) -> None:
    if never(name) is None:
        return
    assert entry_mistake(name)
    with pytest.raises(NvrcError, match="never a pod author's"):
        load_policy(f'words = ["{name}"]'.encode())


def test_every_module_that_the_init_loads_is_on_a_table() -> None:
    loaded = {row.module.replace("-", "_") for row in TABLE} | {"dm_mod", "dm_verity", "erofs"} | {
        name.replace("-", "_") for need in NEEDS for name in (*need.modules, *need.where_there, *need.elsewhere)}
    ours = {name for name in loaded if name.startswith("nvidia")}  # allow and deny bound these
    assert [name for name in sorted(loaded - ours) if never(f"{name}.option") is None] == []


@pytest.mark.parametrize("row", [row for row in NEVER if row.word.endswith("*")], ids=lambda row: row.word)
def test_a_family_ends_where_its_name_does(row: Row) -> None:
    whole = row.word.removesuffix("*")
    assert never(f"{whole}x") == row
    assert never(f"{whole[:-1]}?") is None


def test_the_tables_do_not_contradict_each_other() -> None:
    assert [row.word for row in KATA if never(row.word.partition("=")[0])] == []
    assert [row.word for row in KATA if entry_mistake(row.word)] == []
    assert len({row.word for row in NEVER}) == len(NEVER)
    assert len({row.word for row in KATA}) == len(KATA)


# entry, part of the message
MISTAKES = {
    "never": ("agent.policy_file", "is never a pod author's: the agent would judge"),
    "never with this value": ("agent.guest-components_procs=none", "is never a pod author's: nothing would compare"),
    "never, in full": ("sysctl.*", "is never a pod author's"),
    "inside a family": ("sysctl.kernel.*", "is never a pod author's"),
    "ours": ("nvrc.log", "is not for words; put it into allow"),
    "an extension": ("kata.extension.*", "is not for words; put it into allow"),
    "the driver's": ("nvidia.NVreg_A", "is not for words; put it into allow"),
    "a set that is none": ("@kuber", "is not a set of words; there is @kata"),
    "two words": ("a b", "is neither a name"),
    "a quote": ("a=\\\"b", "is neither a name"),
    "nothing": ("", "is neither a name"),
    "a star within": ("a*b", "is neither a name"),
    "a beginning with a value": ("a*=1", "is neither a name"),
}


@pytest.mark.parametrize(("entry", "part"), MISTAKES.values(), ids=MISTAKES.keys())
def test_an_entry_that_cannot_be_one_is_said_to_be_so(entry: str, part: str) -> None:
    with pytest.raises(NvrcError) as raised:
        load_policy(f'words = ["{entry}"]'.encode())
    assert part in raised.value.what


@pytest.mark.parametrize("content", ["words = 1", "words = [1]", "words = {}"])
def test_words_is_a_list_of_words(content: str) -> None:
    with pytest.raises(NvrcError, match="words is not a list of words"):
        load_policy(content.encode())


@pytest.mark.parametrize(("entries", "is_admitted"), [
    ([], False), (["isolcpus"], True), (["isolcpus=1"], True), (["iso*"], True), (["isolcpus=2"], False), (["isol", "isolcpus"], True)])
def test_one_entry_is_enough_for_a_word(entries: list[str], is_admitted: bool) -> None:
    [token] = tokenise(b"isolcpus=1")
    assert admits(token, split_entries(entries)) is is_admitted
