# SPDX-License-Identifier: Apache-2.0
"""Whole command lines: what they set, what is wrong with them, and that every mistake is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nvrc.params.extension import Extension, VerityParams
from nvrc.params.parse import Parsed, Problem, Settings, Severity, Source, parse
from nvrc.params.policy import load_policy
from nvrc.params.values import CountRule, GpuCount, LogLevel, ModeClaim, ReadyRule, ReadyState
from nvrc.vocabulary.errors import NvrcError

E, W, N = Severity.ERROR, Severity.WARNING, Severity.NOTICE
HASH = "5e" * 32
VERITY = f"root_hash={HASH},salt=00ff,data_blocks=16,data_block_size=4096,hash_block_size=4096"
GPU_EXTENSION = Extension(name="gpu", verity=VerityParams(
    root_hash=HASH, salt="00ff", data_blocks=16, data_block_size=4096, hash_block_size=4096))
RUNTIME_LINE = (
    b'tsc=reliable no_timer_check reboot=k cryptomgr.notests net.ifnames=0 pci=lastbus=0 console=hvc0 quiet '
    b'dm-mod.create="dm-verity,,,ro,0 8 verity 1 /dev/vda1 /dev/vda2 4096 4096 1 0 sha256 ab cd" root=/dev/dm-0 '
    b'rootflags=data=ordered,errors=remount-ro ro rootfstype=erofs panic=1 nr_cpus=4 selinux=0 '
    b'systemd.unit=kata-containers.target agent.log=debug agent.debug_console agent.hotplug_timeout=20 '
    b'cgroup_no_v1=all pci=realloc nvrc.smi.srs=1 kata.extension.gpu.verity_params=' + VERITY.encode() + b"\n")


def findings(parsed: Parsed) -> list[tuple[Severity, str]]:
    return [(problem.severity, str(problem)) for problem in parsed.problems]


SETTINGS = {
    "nothing": (b"", Settings()),
    "a runtime's line": (RUNTIME_LINE, Settings(
        ready_state=ReadyState.READY, cgroup_v2=True, extensions=(GPU_EXTENSION,))),
    "the last one holds": (b"nvrc.log=debug nvrc.log=debug", Settings(log=LogLevel.DEBUG)),
    "an empty log level": (b"nvrc.log=", Settings()),
    "quotes": (b'nvrc.mode="gpu" "nvrc.gpus=min:2"', Settings(
        claimed_mode=ModeClaim.GPU, gpus=GpuCount(CountRule.AT_LEAST, 2))),
    "words after two dashes": (b"quiet -- nvrc.dcgm=on", Settings(dcgm=True)),
    "inside another word's quotes": (b'x="nvrc.dcgm=on"', Settings()),
    "names of others": (b"nvxx.log=1 nvrcx=1 nvrclog=1 agent.log=1 log=1 mynvrc.log=1 kata.ext=1 srs=1", Settings()),
    "bytes of others that are not UTF-8": (b"x=\xff \xfe=1", Settings()),
    "same extension twice": (RUNTIME_LINE + RUNTIME_LINE, Settings(
        ready_state=ReadyState.READY, cgroup_v2=True, extensions=(GPU_EXTENSION,))),
    "cgroup v2 by systemd's word": (b"systemd.unified_cgroup_hierarchy=1", Settings(cgroup_v2=True)),
    "cgroup v2 by a number": (b"systemd.unified_cgroup_hierarchy=02", Settings(cgroup_v2=True)),
    "cgroup v2 by a word that the agent does not take": (b"systemd.unified_cgroup_hierarchy=yes", Settings()),
    "cgroup v2 in capitals": (b"systemd.unified_cgroup_hierarchy=True", Settings()),
    "cgroup v2 before the bare word": (b"systemd.unified_cgroup_hierarchy=true systemd.unified_cgroup_hierarchy",
                                       Settings(cgroup_v2=True)),
    "the agent's own configuration": (b"agent.config_file=/etc/agent.toml", Settings(agent_has_config=True)),
    "cgroup v2 taken back": (b"systemd.unified_cgroup_hierarchy=1 systemd.unified_cgroup_hierarchy=0", Settings()),
    "some controllers on v1": (b"cgroup_no_v1=memory systemd.unified_cgroup_hierarchy", Settings()),
}


@pytest.mark.parametrize(("line", "settings"), SETTINGS.values(), ids=SETTINGS.keys())
def test_a_good_line_sets_what_it_says(line: bytes, settings: Settings) -> None:
    parsed = parse(line)
    assert replace(parsed.settings, module_options=()) == settings  # test_module_options.py has those
    assert parsed.problems == ()
    assert parsed.is_clean
    parsed.raise_on_error()


PROBLEMS: dict[str, tuple[bytes, list[tuple[Severity, str]]]] = {
    "typing mistake": (b"nvrc.smi.src=1", [(W, "nvrc.smi.src: unknown, did you mean nvrc.smi.srs?")]),
    "typing mistake in an old name": (b"nvrc.nvidia_smi_src=1", [
        (W, "nvrc.nvidia_smi_src: unknown, did you mean nvrc.smi.srs?")]),
    "neighbours swapped": (b"nvrc.lgo=debug", [(W, "nvrc.lgo: unknown, did you mean nvrc.log?")]),
    "wrong case": (b"NVRC.LOG=debug", [(W, "NVRC.LOG: unknown, did you mean nvrc.log?")]),
    "wrong mark": (b"nvrc_log=debug", [(W, "nvrc_log: unknown, did you mean nvrc.log?")]),
    "prefix mistyped": (b"nvcr.smi.srs=1 nvr.log=debug", [
        (W, "nvcr.smi.srs: unknown, did you mean nvrc.smi.srs?"), (W, "nvr.log: unknown, did you mean nvrc.log?")]),
    "nothing like it": (b"nvrc.quantum=1 nvrc", [(W, "nvrc.quantum: unknown"), (W, "nvrc: unknown")]),
    "unknown and unprintable": (b"nvrc.\xff\x1b=1", [(W, r"'nvrc.\udcff\x1b': unknown")]),
    "unknown and endless": (b"nvrc." + b"x" * 500 + b"=1", [(W, f"'nvrc.{'x' * 55}...': unknown")]),
    "bare key": (b"nvrc.strict", [(E, "nvrc.strict: has no value; write nvrc.strict= and on|off")]),
    "empty value": (b"nvrc.dcgm=", [(E, "nvrc.dcgm: '' is neither on (true, 1, yes) nor off (false, 0, no)")]),
    "not UTF-8": (b"nvrc.log=\xff", [(E, r"nvrc.log: '\udcff' is not one of off|error|warn|info|debug|trace")]),
    "every mistake at once": (b"nvrc.smi.lgc=x nvrc.smi.pl=0 nvrc.smi.src=1", [
        (E, "nvrc.smi.lgc: 'x' is not a whole number of MHz from 1 to 10000"),
        (E, "nvrc.smi.pl: '0' is not a whole number of watts from 1 to 10000"),
        (W, "nvrc.smi.src: unknown, did you mean nvrc.smi.srs?")]),
    "the same mistake twice": (b"nvrc.x=1 nvrc.x=2", [(W, "nvrc.x: unknown")]),
    "a mistake that a later word hides": (b"nvrc.log=loud nvrc.log=info", [
        (E, "nvrc.log: 'loud' is not one of off|error|warn|info|debug|trace")]),
    "different values": (b"nvrc.log=debug nvrc.log=info", [
        (W, "nvrc.log: given more than once with different values; the last one, info, holds")]),
    "old and new name differ": (b"nvrc.smi.srs=1 nvrc.nvidia_smi_srs=0", [
        (W, "nvrc.smi.srs: given more than once with different values; the last one, 0, holds"),
        (N, "nvrc.smi.srs: given by its old name nvrc.nvidia_smi_srs, which works")]),
    "old names": (b"nvrc.uvm_persistence_mode=on nvrc.nvidia_smi_lgc=9 nvrc.smi.lmcd=8", [
        (N, "nvrc.uvm.persistence.mode: given by its old name nvrc.uvm_persistence_mode, which works"),
        (N, "nvrc.smi.lgc: given by its old name nvrc.nvidia_smi_lgc, which works"),
        (N, "nvrc.smi.lmc: given by its old name nvrc.smi.lmcd, which works")]),
    "bare extension": (b"kata.extension.gpu.verity_params", [
        (E, "kata.extension.gpu.verity_params: has no value; write kata.extension.gpu.verity_params= and the five "
            "items of a verified image")]),
    "extension without a name": (b"kata.extension..verity_params=" + VERITY.encode(), [
        (E, "kata.extension..verity_params: '' is not an extension name (letters, digits, _ . -)")]),
    "extension key mistyped": (b"kata.extension.gpu.verity=1 kata.extension.", [
        (W, "kata.extension.gpu.verity: unknown, did you mean kata.extension.gpu.verity_params?"),
        (W, "kata.extension.: unknown")]),
    "extension given twice, once malformed": (
        f"kata.extension.a.verity_params={VERITY} kata.extension.a.verity_params={VERITY}0".encode(), [
            (E, "kata.extension.a.verity_params: hash_block_size 40960 is not a power of two")]),
    "extension with two hashes": (
        " ".join(f"kata.extension.a.verity_params={items}" for items in (VERITY, VERITY.replace("5e", "ff"))).encode(), [
            (E, "kata.extension.a.verity_params: given more than once with different items")]),
    "extension item unknown": (f"kata.extension.a.verity_params={VERITY},fec=1".encode(), [
        (W, "kata.extension.a.verity_params: has unknown items, which are ignored: 'fec'")]),
    "quote takes parameters": (b'x="a nvrc.log=debug', [
        (E, "x: opens a quote that never closes, so it takes the rest of the line and the parameters in it")]),
    "quote takes parameters, behind other words": (b'quiet nvrc.dcgm=on x="a nvrc.log=debug', [
        (E, "x: opens a quote that never closes, so it takes the rest of the line and the parameters in it")]),
    "quote takes an extension": (b'"x kata.extension.a.verity_params=1', [
        (E, "x kata.extension.a.verity_params: opens a quote that never closes, so it takes the rest of the line and "
            "the parameters in it")]),
    "quote takes words of others": (b'nvrc.log="info', [
        (W, "nvrc.log: opens a quote that never closes, so it takes the rest of the line")]),
    "ready state asked for and refused": (b"nvrc.smi.srs=1 nvrc.ready=never", [
        (W, "nvrc.smi.srs: asks for the ready state, but nvrc.ready=never wins")]),
    "two programs on one port": (b"nvrc.dcgm=on nvrc.metrics=9400", [
        (W, "nvrc.metrics: 9400 is taken: dcgm-exporter, which nvrc.dcgm=on starts, listens there; choose another")]),
    "a port for each": (b"nvrc.dcgm=on nvrc.metrics=9401", []),
    "longer than a kernel keeps": (b"x" * 2047 + b"\n", [
        (W, "command line: has 2048 bytes, and x86-64 and arm64 kernels keep 2047: what follows may be lost, and the "
            "last word may be half of one")]),
    "strict makes warnings errors and leaves notices": (b"nvrc.smi.src=1 nvrc.nvidia_smi_lgc=5 nvrc.strict=yes", [
        (E, "nvrc.smi.src: unknown, did you mean nvrc.smi.srs?"),
        (N, "nvrc.smi.lgc: given by its old name nvrc.nvidia_smi_lgc, which works")]),
}


@pytest.mark.parametrize(("line", "expected"), PROBLEMS.values(), ids=PROBLEMS.keys())
def test_what_is_wrong_with_a_line(line: bytes, expected: list[tuple[Severity, str]]) -> None:
    parsed = parse(line)
    assert findings(parsed) == expected
    assert parsed.is_clean == all(severity is N for severity, _ in expected)
    assert len(parsed.errors) + len(parsed.warnings) == len(expected)


def test_2046_bytes_are_not_too_long() -> None:
    assert parse(b"x" * 2046 + b"\n").problems == ()


def test_the_error_names_every_mistake_on_one_line_with_its_code() -> None:
    with pytest.raises(NvrcError) as raised:
        parse(b"nvrc.smi.lgc=x nvrc.dcgm= nvrc.nothing=1").raise_on_error()
    assert raised.value.code == "E_PARAMETERS"
    assert raised.value.what == ("2 mistakes: nvrc.smi.lgc: 'x' is not a whole number of MHz from 1 to 10000; "
                                 "nvrc.dcgm: '' is neither on (true, 1, yes) nor off (false, 0, no)")


def test_one_error_is_not_counted() -> None:
    with pytest.raises(NvrcError) as raised:
        parse(b"nvrc.strict").raise_on_error()
    assert raised.value.what == "nvrc.strict: has no value; write nvrc.strict= and on|off"


def test_a_parameter_with_an_error_shows_its_default_and_the_others_stand() -> None:
    parsed = parse(b"nvrc.smi.lgc=x nvrc.smi.pl=300")
    assert parsed.settings == Settings(power_limit_w=300)


def test_sources_say_where_each_value_came_from() -> None:
    policy = load_policy(b'pin.nvrc.cc = "on"')
    parsed = parse(b"nvrc.log=info nvrc.nvidia_smi_lgc=1500 nvrc.cc=on " + RUNTIME_LINE, policy)
    told = {field: source for field, source in parsed.sources if source is not Source.DEFAULT}
    assert told == {"log": Source.COMMAND_LINE, "gpu_clock_mhz": Source.ALIAS, "cc": Source.POLICY,
                    "ready_state": Source.COMMAND_LINE, "extensions": Source.COMMAND_LINE}
    assert parsed.source("dcgm") is Source.DEFAULT
    described = {name: (value, source) for name, value, source in parsed.described()}
    assert described["nvrc.smi.lgc"] == ("1500", Source.ALIAS)
    assert described["nvrc.smi.pl"] == ("unset", Source.DEFAULT)
    assert described["kata.extension.gpu.verity_params"] == (VERITY, Source.COMMAND_LINE)


@pytest.mark.parametrize(("line", "rule"), [
    (b"", ReadyRule.NEVER), (b"nvrc.smi.srs=0", ReadyRule.NEVER), (b"nvrc.smi.srs=1", ReadyRule.VERIFIED),
    (b"nvrc.ready=always", ReadyRule.ALWAYS), (b"nvrc.ready=srs nvrc.smi.srs=1", ReadyRule.VERIFIED),
    (b"nvrc.ready=never nvrc.smi.srs=1", ReadyRule.NEVER),
])
def test_the_ready_rule_follows_the_old_request_unless_told_otherwise(line: bytes, rule: ReadyRule) -> None:
    assert parse(line).settings.ready_rule is rule


def test_a_line_full_of_unknown_names_gets_few_guesses() -> None:
    parsed = parse(b" ".join(b"nvrc.timeout.persistense%d=1" % number for number in range(2000)))
    assert len(parsed.problems) == 2001
    assert [bool(problem.hint) for problem in parsed.problems] == [False, *[True] * 7, *[False] * 1993]


def test_problems_compare_by_what_they_say() -> None:
    assert Problem(W, "a", "b") == Problem(W, "a", "b", "")
    assert str(Problem(W, "a", "b", "c")) == "a: b, c"
