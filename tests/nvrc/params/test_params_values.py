# SPDX-License-Identifier: Apache-2.0
"""Values of parameters: what is accepted, how it prints, what is refused and in which words."""

from __future__ import annotations

import pytest

from fakes.cases import Case
from nvrc.params import values
from nvrc.params.extension import VERITY, read_name, unknown_items
from nvrc.params.mig import LAYOUT, MigLayout, MigRule, read_layout
from nvrc.params.table import PARAMS, find
from nvrc.params.values import CountRule, GpuCount, Kind, MalformedError, ModeClaim, text
from nvrc.vocabulary.mode import Mode

HASH, SALT = "a1" * 32, "0f" * 16
VERITY_PARAMS = "kata.extension.gpu.verity_params"
ITEMS = f"root_hash={HASH},salt={SALT},data_blocks=1024,data_block_size=4096,hash_block_size=4096"


def kind(name: str) -> Kind:
    row = find(name)
    assert row is not None
    return row.kind


# name, given, printed
ACCEPTED = [
    ("nvrc.log", "", "off"), ("nvrc.log", "0", "off"), ("nvrc.log", "DEBUG", "debug"), ("nvrc.log", "trace", "trace"),
    *(("nvrc.dcgm", word, "on") for word in ("on", "TRUE", "1", "Yes")),
    *(("nvrc.dcgm", word, "off") for word in ("off", "False", "0", "NO")),
    ("nvrc.smi.srs", "enabled", "1"), ("nvrc.smi.srs", "Disabled", "0"), ("nvrc.smi.srs", "1", "1"),
    ("nvrc.smi.lgc", "1980", "1980"), ("nvrc.smi.lgc", "0001", "1"), ("nvrc.smi.lmc", "50000", "50000"),
    ("nvrc.smi.pl", "700", "700"), ("nvrc.timeout.per_gpu", "0", "0"), ("nvrc.timeout.modules", "3600", "3600"),
    ("nvrc.mode", "nvswitch-nvl4", "servicevm-nvl4"), ("nvrc.mode", "gpu", "gpu"),
    ("nvrc.fm.mode", "1", "1"), ("nvrc.fm.rail.policy", "Greedy", "greedy"),
    ("nvrc.cc", "ppcie", "ppcie"), ("nvrc.ready", "verified", "verified"),
    ("nvrc.verity.corruption", "io-error", "io-error"),
    ("nvrc.gpus", "8", "8"), ("nvrc.gpus", "min:2", "min:2"), ("nvrc.gpus", "MIN:007", "min:7"),
    ("nvrc.gpus", "ALL", "all"), ("nvrc.gpus", "0", "0"), ("nvrc.gpus", "8".rjust(20, "0"), "8"),
    ("nvrc.uvm.options", "uvm_disable_hmm=1,a=-x.y:z+_", "uvm_disable_hmm=1,a=-x.y:z+_"),
    ("nvrc.mig", "all:1g.10gb*7", "all:1g.10gb*7"), ("nvrc.mig", "0:3g.40gb,4g.40gb;1:off", "0:3g.40gb,4g.40gb;1:off"),
    ("nvrc.mig", "0-3:1g.10gb,1g.10gb,2g.20gb*1", "0-3:1g.10gb*2,2g.20gb"), ("nvrc.mig", "5-5:off", "5:off"), ("nvrc.mig", "0:4g.40gb*2", "0:4g.40gb*2"),
    ("nvrc.mig", "1:1g.10gb+me,1g.24gb+me.all,1g.24gb-me", "1:1g.10gb+me,1g.24gb+me.all,1g.24gb-me"),
    (VERITY_PARAMS, ITEMS, ITEMS),
    (VERITY_PARAMS, ",".join(reversed(ITEMS.replace(HASH, HASH.upper()).split(","))), ITEMS),
    (VERITY_PARAMS, ITEMS.replace(SALT, "-"), ITEMS.replace(SALT, "-")),
    (VERITY_PARAMS, ITEMS + ",new=1", ITEMS),
    *((VERITY_PARAMS, blocks, blocks) for blocks in (ITEMS.replace("1024", "1"), ITEMS.replace("1024", "281474976710656"))),
]

# name, given, a part of the message
REFUSED = [
    ("nvrc.log", "verbose", "'verbose' is not one of off|error|warn|info|debug|trace"),
    ("nvrc.log", "ＯＦＦ", "is not one of"),
    ("nvrc.uvm.persistence.mode", "enabled", "'enabled' is neither on"), ("nvrc.dcgm", "", "'' is neither on"),
    ("nvrc.smi.srs", "on", "is not one of 0|1|enabled|disabled"), ("nvrc.smi.srs", "", "is not one of"),
    ("nvrc.smi.lgc", "0", "'0' is not a whole number of MHz from 1 to 10000"),
    ("nvrc.smi.lgc", "10001", "from 1 to 10000"),
    ("nvrc.smi.lgc", "１９", "is not a whole number"), ("nvrc.smi.lgc", "1_0", "is not a whole number"),
    ("nvrc.smi.lgc", "+5", "is not a whole number"), ("nvrc.smi.lgc", "-5", "is not a whole number"),
    ("nvrc.smi.lgc", "0x10", "is not a whole number"), ("nvrc.smi.lgc", "9" * 5000, "is not a whole number"),
    ("nvrc.timeout.modules", "0", "seconds from 1 to 3600"),
    ("nvrc.cc", "devtools", "is not one of any|off|on|ppcie"), ("nvrc.mode", "GPUS", "is not one of cpu|gpu|"),
    ("nvrc.gpus", "min:", "is not one of N, min:N, all"), ("nvrc.gpus", "129", "from 0 to 128"),
    ("nvrc.gpus", "max:2", "not one of"),
    ("nvrc.uvm.options", "a", "'a' is not name=value"), ("nvrc.uvm.options", "a=1,", "'' is not name=value"),
    ("nvrc.uvm.options", "a=$(x)", "is not name=value"), ("nvrc.uvm.options", "a-b=1", "is not name=value"),
    ("nvrc.uvm.options", "a=1,a=1", "option a is given twice"), ("nvrc.uvm.options", "é=1", "is not name=value"),
    ("nvrc.mig", "", "'' is not GPUS:PROFILES"), ("nvrc.mig", "off", "is not GPUS:PROFILES"),
    ("nvrc.mig", "all:", "'' is not a profile name"),
    ("nvrc.mig", "all:1g.10gb*0", "'0' is not a whole number from 1 to 8"),
    ("nvrc.mig", "0:1g.10gb*2*2", "'2*2' is not a whole number"),
    ("nvrc.mig", "0:4g.40gb*3", "more than 8 slices"), ("nvrc.mig", "0:4g.40gb,4g.40gb,1g.10gb", "more than 8 slices"),
    ("nvrc.mig", "0:off;0:1g.10gb", "an earlier rule already names"),
    ("nvrc.mig", "0-3:off;2:off", "an earlier rule"),
    ("nvrc.mig", "all:off;all:off", "an earlier rule"), ("nvrc.mig", "3-1:off", "from 3 to 127"),
    ("nvrc.mig", "x:off", "'x'"),
    ("nvrc.mig", "128:off", "from 0 to 127"), ("nvrc.mig", "all:off;", "'' is not GPUS:PROFILES"),
    *(("nvrc.mig", f"0:{name}", "is not a profile name") for name in (
        "1c.3g.40gb", "0g.10gb", "9g.10gb", "1g.010gb", "1g.10GB", "1g.10gb+", "1g.10gb+ME", "1g.10gb+me.",
        "1g", "1g.gb", "1g.10", "12g.10gb", "1g.10gbme", "1g.99999gb", "é")),
    (VERITY_PARAMS, "", "'' is not item=value"),
    (VERITY_PARAMS, "root_hash", "'root_hash' is not item=value"),
    (VERITY_PARAMS, f"root_hash={HASH}", "lacks salt, data_blocks, data_block_size, hash_block_size"),
    (VERITY_PARAMS, ITEMS + ",salt=00", "item salt is given twice"),
    (VERITY_PARAMS, "a\udc9d=1,a\udc9d=1", r"item 'a\udc9d' is given twice"),
    (VERITY_PARAMS, ITEMS.replace(HASH, HASH[2:]), "root_hash 'a1a1a1a1a1a1a1a1...' is not 64 hexa"),
    (VERITY_PARAMS, ITEMS.replace(HASH, "g" * 64), "is not 64 hexadecimal digits"),
    (VERITY_PARAMS, ITEMS.replace(SALT, ""), "salt '' is not an even number from 2 to 512"),
    (VERITY_PARAMS, ITEMS.replace(SALT, "abc"), "salt 'abc' is not an even number"),
    (VERITY_PARAMS, ITEMS.replace("=1024", "=0"), "data_blocks '0' is not a whole number from 1"),
    (VERITY_PARAMS, ITEMS.replace("=1024", "=281474976710657"), "from 1 to 281474976710656"),
    (VERITY_PARAMS, ITEMS.replace("data_block_size=4096", "data_block_size=4k"), "data_block_size '4k'"),
    (VERITY_PARAMS, ITEMS.replace("hash_block_size=4096", "hash_block_size=256"), "from 512 to 65536"),
    (VERITY_PARAMS, ITEMS.replace("hash_block_size=4096", "hash_block_size=4095"), "not a power of two"),
]


@pytest.mark.parametrize(("name", "given", "printed"), ACCEPTED, ids=[f"{n}={g[:40]}" for n, g, _ in ACCEPTED])
def test_a_value_prints_in_one_form_and_reads_back(name: str, given: str, printed: str) -> None:
    value = kind(name).parse(given)
    assert text(value) == printed
    assert kind(name).parse(printed) == value


def test_a_bad_value_is_refused_in_words() -> None:
    for name, given, message in REFUSED:
        with Case(name, given[:40]):
            with pytest.raises(MalformedError) as raised:
                kind(name).parse(given)
            assert message in str(raised.value)
            assert str(raised.value).isascii()


@pytest.mark.parametrize(("name", "has_bounds"), [
    ("nvrc.smi.pl", True), ("nvrc.timeout.boot", True), ("nvrc.dcgm", False), ("nvrc.gpus", False), ("nvrc.cc", False),
])
def test_only_plain_numbers_have_bounds_for_a_policy(name: str, has_bounds: bool) -> None:
    assert kind(name).is_number is has_bounds


def test_all_gpus_are_no_number() -> None:
    assert kind("nvrc.gpus").parse("all") == GpuCount(CountRule.ALL, 0)


@pytest.mark.parametrize("name", ["gpu", "A_b-c.9", "0123456789"])
def test_an_extension_name_that_fits_a_disk_serial(name: str) -> None:
    assert read_name(name) == name


@pytest.mark.parametrize(("name", "message"), [
    ("", "is not an extension name"), ("..", "is not an extension name"), ("a/b", "is not an extension name"),
    ("é", "is not an extension name"), ("elevenchars", "more than the 10 characters that fit a disk serial"),
])
def test_an_extension_name_that_cannot_be(name: str, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        read_name(name)


def test_unknown_items_of_an_extension_are_named_and_change_nothing() -> None:
    given = f"new=1,{ITEMS},newer=2"
    assert VERITY.parse(given) == VERITY.parse(ITEMS)
    assert unknown_items(given) == ("new", "newer")


@pytest.mark.parametrize(("index", "profiles"), [(0, ("3g.40gb", "3g.40gb")), (1, ()), (2, ()), (3, ("1g.10gb",))])
def test_a_mig_layout_answers_for_each_gpu(index: int, profiles: tuple[str, ...]) -> None:
    assert read_layout("all:1g.10gb;0:3g.40gb*2;1-2:off").profiles(index) == profiles


def test_a_gpu_that_no_rule_names_is_left_alone() -> None:
    assert read_layout("1:off").profiles(0) is None
    assert LAYOUT.parse("1:off") == MigLayout((MigRule((1, 1), ()),))


@pytest.mark.parametrize(("count", "ready", "on_bus", "holds"), [
    (GpuCount(CountRule.ALL), 8, 8, True), (GpuCount(CountRule.ALL), 7, 8, False),
    (GpuCount(CountRule.ALL), 0, 0, True),
    (GpuCount(CountRule.EXACTLY, 4), 4, 4, True), (GpuCount(CountRule.EXACTLY, 4), 4, 8, False),
    (GpuCount(CountRule.EXACTLY, 4), 3, 4, False),
    (GpuCount(CountRule.AT_LEAST, 4), 4, 8, True), (GpuCount(CountRule.AT_LEAST, 4), 3, 8, False),
])
def test_an_expected_gpu_count(count: GpuCount, ready: int, on_bus: int, holds: bool) -> None:
    assert count.holds(ready, on_bus) is holds


def test_what_a_gpu_count_requires_of_this_machine() -> None:
    counts = (GpuCount(CountRule.ALL), GpuCount(CountRule.AT_LEAST, 2), GpuCount(CountRule.EXACTLY, 4))
    assert [count.required(8) for count in counts] == [
        "nvrc.gpus=all requires 8", "nvrc.gpus=min:2 requires 2", "nvrc.gpus=4 requires 4"]


def test_claims_about_the_machine_are_the_modes() -> None:
    assert [claim.value for claim in ModeClaim] == [mode.value for mode in Mode]
    borne_out = {claim: [mode for mode in Mode if claim.holds(mode.value)] for claim in ModeClaim}
    assert borne_out.pop(ModeClaim.GPU) == [Mode.GPU, Mode.GPU_NVL4, Mode.GPU_NVL5]
    assert all([mode.value for mode in modes] == [claim.value] for claim, modes in borne_out.items())


def test_the_word_for_no_value_is_no_value() -> None:
    assert text(None) == values.UNSET
    for row in PARAMS:
        with pytest.raises(MalformedError):
            row.kind.parse(values.UNSET)
