# SPDX-License-Identifier: Apache-2.0
"""The policy in the image: what the file may say, and what it does to a command line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from nvrc.params.parse import Parsed, Source, parse
from nvrc.params.policy import NO_POLICY, SIZE_LIMIT, Limit, load_policy
from nvrc.params.values import CcMode, CountRule, GpuCount, ReadyRule, ReadyState
from nvrc.vocabulary.errors import NvrcError

PAGE = Path(__file__).parents[3] / "docs" / "policy.md"
VERITY = f"root_hash={'ab' * 32},salt=00,data_blocks=1,data_block_size=4096,hash_block_size=4096"


def under(policy: str, line: str) -> Parsed:
    return parse(line.encode(), load_policy(policy.encode()))


def test_an_empty_file_is_a_policy_that_bounds_the_words_of_others() -> None:
    assert load_policy(b"") == NO_POLICY._replace(words=("@kata",), sha256=hashlib.sha256(b"").hexdigest())


def test_a_policy_has_the_hash_of_its_file() -> None:
    file = b"strict = true\n"
    assert load_policy(file).sha256 == hashlib.sha256(file).hexdigest()


# policy, line, errors expected
JUDGED = {
    "pinned and silent": ('pin.nvrc.cc = "on"', "quiet", []),
    "pinned and repeated": ('pin.nvrc.cc = "on"', "nvrc.cc=ON", []),
    "pinned and changed": ('pin.nvrc.cc = "on"', "nvrc.cc=off", [
        "nvrc.cc: is off, but the image's policy pins it to on"]),
    "pinned and changed by the old name": ("pin.nvrc.smi.lgc = 1500", "nvrc.nvidia_smi_lgc=1400", [
        "nvrc.nvidia_smi_lgc: is 1400, but the image's policy pins it to 1500"]),
    "pinned and changed back": ('pin.nvrc.cc = "on"', "nvrc.cc=off nvrc.cc=on", [
        "nvrc.cc: is off, but the image's policy pins it to on"]),
    "pinned and not on the list": ('pin.nvrc.cc = "on"\nallow = []', "nvrc.cc=on", []),
    "denied": ('deny = ["nvrc.dcgm"]', "nvrc.dcgm=off nvrc.log=info", ["nvrc.dcgm: is denied by the image's policy"]),
    "denied though pinned to that": ('deny = ["nvrc.cc"]\npin.nvrc.cc = "on"', "nvrc.cc=on", [
        "nvrc.cc: is denied by the image's policy"]),
    "denied by prefix, unknown included": ('deny = ["nvrc.timeout.*"]', "nvrc.timeout.boot=9 nvrc.timeout.root=9", [
        "nvrc.timeout.boot: is denied by the image's policy",
        "nvrc.timeout.root: unknown, and is denied by the image's policy, did you mean nvrc.timeout.boot?"]),
    "denied by a prefix that ends in a word": ('deny = ["nvrc.smi.l*"]', "nvrc.smi.lgc=1400 nvrc.smi.pl=300", [
        "nvrc.smi.lgc: is denied by the image's policy"]),
    "denied by a prefix of extensions": (
        'deny = ["kata.extension.a*"]', f"kata.extension.a.verity_params={VERITY}", [
            "kata.extension.a.verity_params: is denied by the image's policy"]),
    "an option of the driver, and no list": ("strict = true", "nvidia.x=1", [
        "nvidia.x: is an option of the driver, and the image's policy has no allow list that names it"]),
    "an option of the driver, and another's list": ('allow = ["nvrc.log"]', "nvidia.x=1", [
        "nvidia.x: is not on the list that the image's policy allows"]),
    "an option of the driver, allowed": ('allow = ["nvidia.x"]', "nvidia.x=1", []),
    "denied beats allowed": ('allow = ["nvrc.*"]\ndeny = ["nvrc.dcgm"]', "nvrc.dcgm=on", [
        "nvrc.dcgm: is denied by the image's policy"]),
    "allowed": ('allow = ["nvrc.log"]', "nvrc.log=info agent.log=info root=/dev/vda1", []),
    "not allowed": ('allow = ["nvrc.log"]', f"nvrc.dcgm=on nvrc.x=1 kata.extension.a.verity_params={VERITY}", [
        "nvrc.dcgm: is not on the list that the image's policy allows",
        "nvrc.x: unknown, and is not on the list that the image's policy allows",
        "kata.extension.a.verity_params: is not on the list that the image's policy allows"]),
    "one extension allowed": (
        'allow = ["kata.extension.a.verity_params"]', f"kata.extension.a.verity_params={VERITY}", []),
    "within bounds": ("limit.nvrc.smi.pl = { min = 200, max = 700 }", "nvrc.smi.pl=700 nvrc.smi.pl=200", []),
    "GPUs, as many as there must be": ("limit.nvrc.gpus = { min = 1 }", "nvrc.gpus=min:1 nvrc.gpus=all nvrc.gpus=1", []),
    "GPUs, and none would do": ("limit.nvrc.gpus = { min = 1 }", "nvrc.gpus=min:0", [
        "nvrc.gpus: is min:0, but the image's policy admits at least 1"]),
    "GPUs, by default": ("limit.nvrc.gpus = { min = 8 }", "quiet", []),
    "below": ("limit.nvrc.smi.pl = { min = 200, max = 700 }", "nvrc.smi.pl=199", [
        "nvrc.smi.pl: is 199, but the image's policy admits at least 200 and at most 700"]),
    "at both bounds": ("limit.nvrc.smi.pl = { min = 300, max = 300 }", "nvrc.smi.pl=300", []),
    "above": ("limit.nvrc.smi.pl = { max = 700 }", "nvrc.smi.pl=701", [
        "nvrc.smi.pl: is 701, but the image's policy admits at most 700"]),
    "unset is within": ("limit.nvrc.smi.pl = { max = 700 }", "", []),
    "among the values": ('limit.nvrc.log = ["off", "warn"]', "nvrc.log=WARN", []),
    "not among the values": ('limit.nvrc.log = ["off", "warn"]', "nvrc.log=info", [
        "nvrc.log: is info, but the image's policy admits off, warn"]),
    "default not among the values": ('limit.nvrc.cc = ["on", "ppcie"]', "", [
        "nvrc.cc: is not given, and its default any is not among what the image's policy admits: on, ppcie"]),
    "default not among the values, behind what is given": (
        'limit.nvrc.log = ["off", "warn"]\nlimit.nvrc.cc = ["on"]', "nvrc.log=off", [
            "nvrc.cc: is not given, and its default any is not among what the image's policy admits: on"]),
    "default replaced by one": ('limit.nvrc.cc = ["on", "ppcie"]', "nvrc.cc=ppcie", []),
    "layouts": ('limit.nvrc.mig = ["all:off", "all:1g.10gb*7"]', "nvrc.mig=all:1g.10gb*7", []),
    "strict": ("strict = true", "nvrc.smi.src=1", ["nvrc.smi.src: unknown, did you mean nvrc.smi.srs?"]),
    "strict and switched off": ("strict = true", "nvrc.strict=off", [
        "nvrc.strict: is off, but the image's policy pins it to on"]),
    "strict is false": ("strict = false", "nvrc.smi.src=1", []),
    "words of others": ('allow = []\nlimit.nvrc.smi.pl = { max = 5 }', "cgroup_no_v1=all x.y=1", [
        "x.y: is not among the words that the image's policy allows, take it off the line, or name it in words of the "
        "image's policy"]),
    "extension pinned and changed": (
        f'pin."kata.extension.gpu.verity_params" = "{VERITY}"',
        f"kata.extension.gpu.verity_params={VERITY.replace('ab', 'cd')}", [
            f"kata.extension.gpu.verity_params: is {VERITY.replace('ab', 'cd')}, but the image's policy pins it to "
            f"{VERITY}"]),
    "extension limited": (f'limit."kata.extension.gpu.verity_params" = ["{VERITY}"]', "", []),
}


@pytest.mark.parametrize(("policy", "line", "errors"), JUDGED.values(), ids=JUDGED.keys())
def test_a_policy_judges_a_line(policy: str, line: str, errors: list[str]) -> None:
    assert [str(problem) for problem in under(policy, line).errors] == errors


def test_bounds_of_a_number_admit_nothing_else() -> None:
    assert not Limit(low=1).admits(CcMode.ON)


@pytest.mark.parametrize("limit", [Limit(), Limit(low=0)])
def test_without_a_lower_bound_no_gpu_is_enough(limit: Limit) -> None:
    assert limit.admits(GpuCount(CountRule.AT_LEAST, 0))


def test_a_pin_holds_without_a_word_on_the_line() -> None:
    parsed = under('pin.nvrc.cc = "on"\npin.nvrc.lockdown.kexec = true\npin.nvrc.smi.pl = 300', "quiet")
    assert (parsed.settings.cc, parsed.settings.lockdown_kexec, parsed.settings.power_limit_w) == (CcMode.ON, True, 300)
    assert parsed.source("cc") is Source.POLICY
    assert parsed.problems == ()


def test_a_pinned_extension_must_be_there() -> None:
    parsed = under(f'pin."kata.extension.gpu.verity_params" = "{VERITY}"', "")
    assert [extension.name for extension in parsed.settings.extensions] == ["gpu"]
    assert parsed.source("extensions") is Source.POLICY


def test_pinning_the_ready_rule_answers_a_runtime_that_asks_for_ready() -> None:
    parsed = under('strict = true\npin.nvrc.ready = "never"', "nvrc.smi.srs=1")
    assert parsed.settings.ready_state is ReadyState.READY
    assert parsed.settings.ready_rule is ReadyRule.NEVER
    assert not parsed.errors
    assert [str(problem) for problem in parsed.warnings] == [
        "nvrc.smi.srs: asks for the ready state, but the policy pins nvrc.ready=never wins"]


@pytest.mark.parametrize(("section", "may"), [
    ("", True), ("initdata = { require = true }", True), ('initdata = { allow = ["nccl-topology.xml"] }', True),
    ('initdata = { allow = ["nvrc.*"] }', False), ("initdata = { allow = [] }", False)])
def test_whether_initdata_may_describe_the_host(section: str, may: bool) -> None:
    assert load_policy(section.encode()).allows_initdata("nccl-topology.xml") is may


# file, every part that the message must have
UNUSABLE = {
    "not UTF-8": (b"\xff", ["can't decode"]),
    "not TOML": (b"strict =", ["Invalid value"]),
    "a number without end": (b"a = " + b"9" * 5000, ["4300 digits"]),
    "nested without end": (b"a = " + b"[" * 5000, []),
    "too long": (b"#" * (SIZE_LIMIT + 1), ["65537 bytes, more than the 65536"]),
    "unknown sections": (b"pins = {}\nfoo = 1", ["'pins' is not one of strict, pin, allow, deny, limit, words, initdata, verifier, did you mean pin?",
                                                 "'foo' is not one of"]),
    "strict is a word": (b'strict = "yes"', ["strict is neither true nor false"]),
    "strict against a pin": (b"strict = true\npin.nvrc.strict = false", [
        "strict = true contradicts pin nvrc.strict = off"]),
    "pin is no table": (b"pin = 3", ["pin is not a table"]),
    "pin of nothing known": (b'pin.nvrc.lgo = "off"', ["pin 'nvrc.lgo' is not a parameter, did you mean nvrc.log?"]),
    "pin of a strange name": (b'pin."\\u20ac" = "off"', [r"pin '\u20ac' is not a parameter"]),
    "pin of an old name": (b'pin.nvrc.nvidia_smi_srs = "1"', ["is an old name, did you mean nvrc.smi.srs?"]),
    "pin malformed": (b'pin.nvrc.log = "loud"', ["pin nvrc.log: 'loud' is not one of"]),
    "pin of a date": (b"pin.nvrc.log = 2026-01-01", ["pin nvrc.log: is not a string, a number, true or false"]),
    "pin twice": (b'[pin]\n"nvrc.log" = "off"\nnvrc.log = "warn"', ["pin 'nvrc.log' is given twice"]),
    "pin outside its limit": (b'pin.nvrc.log = "info"\nlimit.nvrc.log = ["off"]', ["outside its own limit (off)"]),
    "pin of no extension": (b'pin."kata.extension./.verity_params" = "x"', ["'/' is not an extension name"]),
    "pin of an extension with unknown items": (
        f'pin."kata.extension.a.verity_params" = "{VERITY},fec=1"'.encode(), ["has unknown items: 'fec'"]),
    "allow is a word": (b'allow = "nvrc.log"', ["allow is not a list of names"]),
    "allow holds a number": (b'allow = ["nvrc.log", 3]', ["allow holds something that is not a name"]),
    "allow of nothing known": (b'allow = ["nvrc.lgo"]', ["allow 'nvrc.lgo' is not a parameter, did you mean nvrc.log?"]),
    "allow of an entry of initdata": (b'allow = ["nccl-topology.xml"]', ["allow 'nccl-topology.xml' is not a parameter"]),
    "allow of an empty name": (b'allow = [""]', ["allow '' is not a parameter"]),
    "deny of a prefix of nothing": (b'deny = ["nvcr.*"]', ["deny 'nvcr.*' covers no parameter"]),
    "limit is no table": (b"limit = []", ["limit is not a table"]),
    "limit of nothing known": (b"limit.nvrc.q = []", ["limit 'nvrc.q' is not a parameter"]),
    "limit without values": (b"limit.nvrc.log = []", ["limit nvrc.log: an empty list admits nothing; use deny"]),
    "limit is a word": (b'limit.nvrc.log = "off"', ["limit nvrc.log: is neither a list of values nor"]),
    "limit of a word by numbers": (b"limit.nvrc.log = { min = 1 }", ["min and max are for numbers"]),
    "limit upside down": (b"limit.nvrc.smi.pl = { min = 9, max = 3 }", ["limit nvrc.smi.pl: min 9 is above max 3"]),
    "limit outside the parameter": (b"limit.nvrc.smi.pl = { min = 0 }", ["'0' is not a whole number of watts"]),
    "limit by a table": (b"limit.nvrc.smi.pl = { min = {} }", ["limit nvrc.smi.pl: is not a string, a number"]),
    "verifier by a name": (b'verifier = "v"', ["verifier is not the path of a program in the image"]),
    "verifier by way of another folder": (b'verifier = "/usr/../v"', ["verifier is not the path of a program"]),
    "verifier that cannot be printed": (b'verifier = "/usr/\\u0007v"', ["verifier is not the path of a program"]),
    "verifier is a number": (b"verifier = 3", ["verifier is not the path of a program"]),
    "everything at once": (b'x = 1\nstrict = 2\npin.nvrc.q = 1\nlimit.nvrc.log = 1\nallow = 1\ndeny = 1', [
        "'x' is not one of", "strict is neither", "pin 'nvrc.q'", "limit nvrc.log", "allow is not", "deny is not"]),
}


# file, all that the message may say
MISTAKEN = {
    "two pins of nothing known": ("pin.nvrc.q = 1\npin.nvrc.r = 1", [
        "pin 'nvrc.q' is not a parameter", "pin 'nvrc.r' is not a parameter"]),
    "two limits of nothing known": ("limit.nvrc.q = 1\nlimit.nvrc.r = 1", [
        "limit 'nvrc.q' is not a parameter", "limit 'nvrc.r' is not a parameter"]),
    "what has no name is not read": ('pin."kata.extension./.verity_params" = "x"', [
        "pin 'kata.extension./.verity_params': '/' is not an extension name (letters, digits, _ . -)"]),
    "GPUs, at most": ("limit.nvrc.gpus = { max = 1 }", [
        "limit nvrc.gpus: min and max are for numbers (min alone is possible); list the values among N, min:N or all"]),
    "a word by numbers": ("limit.nvrc.log = { min = 1 }", [
        "limit nvrc.log: min and max are for numbers; list the values among off|error|warn|info|debug|trace"]),
    "GPUs, at least all": ('limit.nvrc.gpus = { min = "all" }', ["limit nvrc.gpus: 'all' is not a plain number"]),
    "behind an option of the driver": ('allow = ["nvidia.x", "nvrc.lgo"]', [
        "allow 'nvrc.lgo' is not a parameter, did you mean nvrc.log?"]),
    "a prefix with a sign too many": ('deny = ["nvrcx*"]', ["deny 'nvrcx*' covers no parameter"]),
    "words is a word": ('words = "kata"', ["words is not a list of words"]),
    "words holds a number": ('words = ["@kata", 3]', ["words is not a list of words"]),
    "words of no set": ('words = ["@nope"]', ["words '@nope' is not a set of words; there is @kata"]),
}


@pytest.mark.parametrize(("policy", "mistakes"), MISTAKEN.values(), ids=MISTAKEN.keys())
def test_a_mistake_is_told_once_and_no_other(policy: str, mistakes: list[str]) -> None:
    with pytest.raises(NvrcError) as raised:
        load_policy(policy.encode())
    assert raised.value.what == f"/etc/nvrc/policy.toml: {'; '.join(mistakes)}"


def test_a_file_may_have_all_the_bytes_that_it_may_have() -> None:
    assert load_policy(b"#" * SIZE_LIMIT).pins == {}


@pytest.mark.parametrize(("data", "parts"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_unusable_file_is_refused_with_all_its_mistakes(data: bytes, parts: list[str]) -> None:
    with pytest.raises(NvrcError) as raised:
        load_policy(data)
    assert raised.value.code == "E_POLICY"
    assert raised.value.what.startswith("/etc/nvrc/policy.toml: ")
    assert [part for part in parts if part not in raised.value.what] == []
    assert raised.value.what.isascii()
    assert raised.value.what.isprintable()


def test_a_verifier_is_a_path_and_may_be_left_out() -> None:
    assert [load_policy(file).verifier for file in (b'verifier = "/usr/bin/v"', b'verifier = ""', b"")] == ["/usr/bin/v", "", ""]


def test_quoted_and_bare_names_mean_the_same() -> None:
    bare = load_policy(b"[limit]\nnvrc.smi.pl = { max = 5 }\nnvrc.log = ['off']\n[pin]\nnvrc.cc = 'on'")
    assert load_policy(b'[limit]\n"nvrc.smi.pl" = { max = 5 }\n"nvrc.log" = ["off"]\n[pin]\n"nvrc.cc" = "on"')._replace(
        sha256=bare.sha256) == bare


def test_the_documented_example_does_what_its_comments_say() -> None:
    page = PAGE.read_text()
    example = page.split("```toml\n")[1].split("```")[0]
    accepted = under(example, "nvrc.cc=on nvrc.log=warn nvrc.smi.pl=300 nvrc.timeout.persistenced=600 agent.log=debug "
                     "tsc=reliable hugepages=64 agent.hotplug_timeout=20")
    assert accepted.problems == ()
    refused = under(example, "nvrc.dcgm=on nvrc.smi.srs=1 nvrc.ready=always nvrc.cc=off nvrc.log=trace nvrc.smi.pl=800 "
                    "nvrc.q=1 mitigations=off agent.log=trace sysctl.kernel.modprobe=/x agent.trace=true")
    assert [problem.parameter for problem in refused.errors] == [
        "nvrc.dcgm", "nvrc.smi.srs", "nvrc.ready", "nvrc.cc", "nvrc.log", "nvrc.smi.pl", "nvrc.q",
        "mitigations", "agent.log", "sysctl.kernel.modprobe", "agent.trace"]
