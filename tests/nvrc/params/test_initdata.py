# SPDX-License-Identifier: Apache-2.0
"""Initdata: what is accepted, what every kind of damage is called, and what it may decide beside line and policy."""

from __future__ import annotations

import gzip
import hashlib
import random

import pytest

from nvrc.params.cmdline import Token
from nvrc.params.initdata import (
    MAGIC,
    PACKED_LIMIT,
    SECTOR,
    TEXT_LIMIT,
    read_initdata,
    unpack,
    unpack_disk,
)
from nvrc.params.initdata_make import pack, pack_disk
from nvrc.params.parse import Severity, parse
from nvrc.params.policy import NO_POLICY, load_policy
from nvrc.params.values import text
from nvrc.vocabulary.errors import NvrcError

HEAD = b'version = "0.1.0"\nalgorithm = "sha256"\n'


def document(own: str, more: str = "") -> bytes:
    return HEAD + f"[data]\n{more}\"nvrc.toml\" = '''\n{own}'''\n".encode()


def test_parameters_of_a_document() -> None:
    found = read_initdata(document('[params]\n"nvrc.gpus" = 8\nnvrc.cc = "on"\nnvrc.dcgm = true\n', '"aa.toml" = "x"\n'))
    assert found.tokens == (Token("nvrc.gpus", "8"), Token("nvrc.cc", "on"), Token("nvrc.dcgm", "on"))
    assert (set(found.entries), found.remarks) == ({"aa.toml", "nvrc.toml"}, ())


def test_the_digest_is_that_of_the_text_cut_or_filled_for_a_tee() -> None:
    raw = document("")
    found = read_initdata(raw)
    assert found.digest == hashlib.sha256(raw).digest()
    assert found.bound(48) == found.digest + bytes(16)
    longer = read_initdata(raw.replace(b"sha256", b"sha512"))
    assert longer.bound(32) == hashlib.sha512(raw.replace(b"sha256", b"sha512")).digest()[:32]


def test_a_disk_and_what_is_on_it() -> None:
    disk = pack_disk(document(""))
    assert (unpack_disk(disk), len(disk) % SECTOR, disk[:8]) == (document(""), 0, MAGIC)
    assert gzip.decompress(pack(b"x")) == b"x"


def disk_of(packed: bytes, length: int | None = None) -> bytes:
    return MAGIC + (len(packed) if length is None else length).to_bytes(8, "little") + packed


WHOLE = pack(document(""))
DISKS = {
    "header cut": (MAGIC + b"\1", "ends after 9 bytes, inside the header"),
    "no length": (disk_of(b"", 0), "says 0 packed bytes"),
    "too large": (disk_of(b"", PACKED_LIMIT + 1), f"says {PACKED_LIMIT + 1} packed bytes; 1 to {PACKED_LIMIT} are possible"),
    "longest length": (disk_of(b"", (1 << 64) - 1), "says 18446744073709551615 packed bytes; 1 to"),
    "disk ends early": (disk_of(WHOLE, len(WHOLE) + 1), f"says {len(WHOLE) + 1} packed bytes, and its disk ends after {len(WHOLE)}"),
    "cut short": (disk_of(WHOLE[:-9]), "its gzip stream is cut off"),
    "checksum gone": (disk_of(WHOLE[:-4]), "its gzip stream is cut off"),
    "flipped bit": (disk_of(WHOLE[:-6] + bytes([WHOLE[-6] ^ 1]) + WHOLE[-5:]), "it is damaged"),
    "no gzip": (disk_of(b"plain text"), "it is damaged"),
    "doubled stream": (disk_of(WHOLE + WHOLE), f"{len(WHOLE)} bytes follow its gzip stream"),
    "bomb": (disk_of(pack(bytes(TEXT_LIMIT + 1))), f"unpacks to more than {TEXT_LIMIT} bytes"),
}


@pytest.mark.parametrize(("content", "words"), DISKS.values(), ids=DISKS)
def test_a_disk_that_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(NvrcError, match=words) as caught:
        unpack_disk(content)
    assert caught.value.code == "E_INITDATA"


@pytest.mark.long
def test_the_largest_bomb_unpacks_no_further_than_the_limit() -> None:
    """A mebibyte of gzip could hold a gibibyte."""
    import tracemalloc

    bomb = pack(bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(NvrcError, match="unpacks to more"):
        unpack(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * TEXT_LIMIT


DOCUMENTS = {
    "no TOML": (b"= 1", "not a TOML document"),
    "no UTF-8": (b"\xff", "not a TOML document"),
    "too long": (b"#" * (TEXT_LIMIT + 1), f"at most {TEXT_LIMIT} are possible"),
    "deep": (b"a = " + b"[" * 100_000, "not a TOML document"),
    "algorithm": (HEAD.replace(b"sha256", b"md5"), "algorithm is 'md5', not one of sha256, sha384, sha512"),
    "version": (HEAD.replace(b"0.1.0", b"0.2.0"), "version is '0.2.0'; this program reads 0.1.0"),
    "nothing": (b"", "algorithm is None.*; version is None"),
    "data": (b"data = 3\n" + HEAD, "data is not a table of texts"),
    "entry": (HEAD + b"[data]\na = 1\n", "data is not a table of texts"),
    "given twice": (HEAD + b'[data]\n"nvrc.toml" = ""\n"nvrc.toml" = ""\n', "not a TOML document"),
    "own TOML": (document("params = "), "nvrc.toml is not a TOML document"),
    "own section": (document("[param]\n"), "nvrc.toml: 'param' is not a section; there is params"),
    "own value": (document('params."nvrc.gpus" = [8]\n'), "params 'nvrc.gpus' is not a text, a number, true or false"),
    "own table": (document("params = 3\n"), "params '' is not a text"),
    "own twice": (document('[params]\n"nvrc.cc" = "on"\nnvrc.cc = "off"\n'), "'nvrc.cc' is given twice"),
    "own size": (document("#" * 70_000), "has 70000 characters; at most 65536"),
}


@pytest.mark.parametrize(("content", "words"), DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_document_that_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(NvrcError, match=words) as caught:
        read_initdata(content)
    assert caught.value.code == "E_INITDATA"


def test_names_that_neither_side_takes_are_told() -> None:
    found = read_initdata(b'extra = 1\n' + document("", '"nvcr.toml" = ""\n'))
    assert found.remarks == ("'extra' is unknown", "the entry 'nvcr.toml' is unknown, did you mean nvrc.toml?")


def test_of_many_unknown_names_the_first_are_told() -> None:
    many = "".join(f"k{number} = 1\n" for number in range(100)) + "[data]\n" + "".join(f'"e{number}" = ""\n' for number in range(1000))
    remarks = read_initdata(HEAD + many.encode()).remarks
    assert (len(remarks), remarks[0], remarks[16]) == (34, "'k0' is unknown", "84 more keys are unknown")
    assert (remarks[17], remarks[-1]) == ("the entry 'e0' is unknown", "984 more entries are unknown")
    own = "[params]\n" + "".join(f"nvrc.gpu{number} = 1\n" for number in range(50))
    hints = [problem.hint for problem in parse(b"", NO_POLICY, read_initdata(document(own)).tokens).problems]
    assert (len(hints), sum(map(bool, hints))) == (50, 8)


@pytest.mark.long
def test_hostile_bytes_end_in_one_code() -> None:
    chance = random.Random(16)
    good = pack_disk(document('[params]\n"nvrc.gpus" = 8\n'))
    for _ in range(3000):
        piece = bytearray(good[:chance.randrange(len(good) + 1)])
        for _flip in range(chance.randrange(6)):
            if piece:
                piece[chance.randrange(len(piece))] = chance.randrange(256)
        try:
            read_initdata(unpack_disk(bytes(piece)))
        except NvrcError as err:
            assert err.code == "E_INITDATA"


VERITY = f"root_hash={'ab' * 32},salt=00,data_blocks=1,data_block_size=4096,hash_block_size=4096"
POLICY = """
words = ["*"]
allow = ["nvrc.gpus", "nvrc.log", "nvrc.dcgm"]
pin = { "nvrc.cc" = "on" }
limit = { "nvrc.gpus" = { min = 4 } }
"""
RULED = {
    "alone": ("", "", "nvrc.gpus=8", {"nvrc.gpus": ("8", "initdata")}, ()),
    "over the line": ("nvrc.gpus=4 nvrc.log=info", "", "nvrc.gpus=8", {"nvrc.gpus": ("8", "initdata"), "nvrc.log": ("info", "command line")}, ()),
    "unknown": ("", "", "nvrc.gpu=8", {}, ("nvrc.gpu: is in initdata and is not a parameter, did you mean nvrc.gpus?",)),
    "of the agent": ("", "", "agent.log=debug", {}, ("agent.log: is in initdata and is not a parameter",)),
    "malformed": ("", "", "nvrc.gpus=many", {}, ("nvrc.gpus: 'many' is ",)),
    "pinned": ("", POLICY, "nvrc.cc=off", {}, ("nvrc.cc: is off, but the image's policy pins it to on",)),
    "limited": ("", POLICY, "nvrc.gpus=2", {}, ("nvrc.gpus: is 2, but the image's policy admits at least 4",)),
    "not allowed": ("nvrc.gpus=4", POLICY, "nvrc.ready=always", {}, ("nvrc.ready: is not on the list that the image's policy allows",)),
    "for the line only": ("nvrc.gpus=4", POLICY + 'initdata = { allow = ["nvrc.log"] }', "nvrc.gpus=8", {},
                          ("nvrc.gpus: is not among what the image's policy lets initdata decide",)),
    "an extension": ("", 'words = ["*"]\ninitdata = { allow = ["kata.extension.a.*"] }', f"kata.extension.a.verity_params={VERITY}",
                     {"kata.extension.a.verity_params": (VERITY, "initdata")}, ()),
    "another extension": ("", 'words = ["*"]\ninitdata = { allow = ["kata.extension.a.*"] }', f"kata.extension.b.verity_params={VERITY}",
                          {}, ("kata.extension.b.verity_params: is not among what the image's policy lets initdata decide",)),
    "an old name": ("", 'words = ["*"]\ninitdata = { allow = ["nvrc.smi.lgc"] }', "nvrc.nvidia_smi_lgc=1500",
                    {"nvrc.smi.lgc": ("1500", "initdata")}, ()),
    "for both": ("nvrc.gpus=4", POLICY + 'initdata = { allow = ["nvrc.log"] }', "nvrc.log=info",
                 {"nvrc.log": ("info", "initdata"), "nvrc.gpus": ("4", "command line")}, ()),
}


@pytest.mark.parametrize(("line", "policy", "pod", "values", "errors"), RULED.values(), ids=RULED)
def test_what_initdata_may_decide(line: str, policy: str, pod: str, values: dict[str, tuple[str, str]],
                                  errors: tuple[str, ...]) -> None:
    ruled = load_policy(policy.encode()) if policy else NO_POLICY
    parsed = parse(line.encode(), ruled, tuple(Token(*word.split("=", 1)) for word in pod.split()))
    assert len(parsed.errors) == len(errors)
    assert all(str(found).startswith(words) for found, words in zip(parsed.errors, errors, strict=True))
    told = {name: (value, source.value) for name, value, source in parsed.described()}
    assert {name: told[name] for name in values} == values


def test_a_value_that_both_give_is_a_notice() -> None:
    parsed = parse(b"nvrc.gpus=4", NO_POLICY, (Token("nvrc.gpus", "8"),))
    assert [(problem.severity, str(problem)) for problem in parsed.problems] == [
        (Severity.NOTICE, "nvrc.gpus: is 4 on the command line; 8 of initdata holds")]
    assert text(parsed.settings.gpus) == "8"


@pytest.mark.parametrize(("policy", "required", "allowed"), [
    ("", False, None), ("initdata = { require = true }", True, None), ("initdata = { require = false }", False, None),
    ("initdata = { allow = [] }", False, ()), ('initdata = { allow = ["nvrc.log"], require = true }', True, ("nvrc.log",)),
])
def test_a_policy_may_require_initdata(policy: str, required: bool, allowed: tuple[str, ...] | None) -> None:
    found = load_policy(policy.encode())
    assert (found.requires_initdata, found.initdata) == (required, allowed)


def test_an_image_without_a_policy_requires_none() -> None:
    assert not NO_POLICY.requires_initdata


SECTIONS = {
    "empty": ("initdata = {}", "initdata is not a table with allow, require or both"),
    "list": ('initdata = ["nvrc.gpus"]', "initdata is not a table"),
    "unknown key": ("initdata = { deny = [] }", "initdata is not a table"),
    "no boolean": ('initdata = { require = "yes" }', "initdata require is neither true nor false"),
    "unknown name": ('initdata = { allow = ["nvrc.gpu"] }', "allow 'nvrc.gpu' is not a parameter, did you mean nvrc.gpus"),
}


@pytest.mark.parametrize(("policy", "words"), SECTIONS.values(), ids=SECTIONS)
def test_a_policy_with_a_section_that_is_none(policy: str, words: str) -> None:
    with pytest.raises(NvrcError, match=words):
        load_policy(policy.encode())
