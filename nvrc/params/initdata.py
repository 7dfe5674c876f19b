# SPDX-License-Identifier: Apache-2.0
"""Initdata: what a pod gives its VM on a small disk, and the parameters in its entry `nvrc.toml`. Pure.

The disk is Kata's: the word `initdata`, the length of a gzip stream as 64 bits, the stream, zeros up to a sector. In
the stream is a TOML document with `algorithm`, `version` and `[data]`; the agent takes `aa.toml`, `cdh.toml` and
`policy.rego` from it and leaves `nvrc.toml` and `nccl-topology.xml` (nvrc/steps/places.py) alone. The digest of the
document is what a TEE is started with. All of it comes from the host, so every size has a limit before anything is
unpacked. Loaded only where there is such a disk.
"""

from __future__ import annotations

import zlib

from guest_cdi.lean.light import Iterator, Mapping, NamedTuple
from nvrc.params.cmdline import Token, shown
from nvrc.params.parse import Parsed, Problem, Severity, parse
from nvrc.params.policy import TOPOLOGY, Policy
from nvrc.params.values import text
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.nearmiss import closest

MAGIC, HEADER, SECTOR = b"initdata", 16, 512
# Kubernetes keeps the annotations of a pod below 256 KiB; the agent takes a policy of 16 MiB at most.
PACKED_LIMIT, TEXT_LIMIT, OWN_LIMIT = 1 << 20, 4 << 20, 64 << 10
OWN = "nvrc.toml"
ENTRIES = ("aa.toml", "cdh.toml", "policy.rego", OWN, TOPOLOGY)
ALGORITHMS, VERSION = ("sha256", "sha384", "sha512"), "0.1.0"
_TOLD = 16  # of what is unknown: guessing costs time, and hundreds of names are not typing mistakes
GZIP = 31  # zlib's number for the gzip format and nothing else


class Initdata(NamedTuple):
    """`tokens`: the parameters of nvrc.toml, as words of a command line. `remarks`: what the agent would not take."""

    algorithm: str
    digest: bytes
    entries: Mapping[str, str]
    tokens: tuple[Token, ...] = ()
    remarks: tuple[str, ...] = ()

    def bound(self, size: int) -> bytes:
        """The digest as a TEE keeps it: cut off or filled up with zeros."""
        return self.digest[:size].ljust(size, b"\0")


def is_initdata(head: bytes) -> bool:
    return head.startswith(MAGIC)


def packed_size(head: bytes) -> int:
    """How many bytes of a disk belong to it, by what its header says; NvrcError E_INITDATA for more than the limit."""
    if len(head) < HEADER:
        raise _wrong(f"its disk ends after {len(head)} bytes, inside the header")
    length = int.from_bytes(head[len(MAGIC):HEADER], "little")
    if not 0 < length <= PACKED_LIMIT:
        raise _wrong(f"its header says {length} packed bytes; 1 to {PACKED_LIMIT} are possible")
    return HEADER + length


def unpack_disk(content: bytes) -> bytes:
    """The TOML document on a disk."""
    size = packed_size(content[:HEADER])
    if len(content) < size:
        raise _wrong(f"its header says {size - HEADER} packed bytes, and its disk ends after {len(content) - HEADER}")
    return unpack(content[HEADER:size])


def unpack(packed: bytes) -> bytes:
    """What a gzip stream holds, which must be one, whole, and of bearable size."""
    if len(packed) > PACKED_LIMIT:
        raise _wrong(f"it has {len(packed)} packed bytes; at most {PACKED_LIMIT} are possible")
    stream = zlib.decompressobj(GZIP)
    try:
        found = stream.decompress(packed, TEXT_LIMIT + 1)
    except zlib.error as err:
        raise _wrong(f"it is damaged ({err})") from err
    if len(found) > TEXT_LIMIT:
        raise _wrong(f"it unpacks to more than {TEXT_LIMIT} bytes")
    if not stream.eof:
        raise _wrong("its gzip stream is cut off")
    if stream.unused_data:
        raise _wrong(f"{len(stream.unused_data)} bytes follow its gzip stream")
    return found


def read_initdata(document: bytes) -> Initdata:
    """NvrcError E_INITDATA with every mistake in it."""
    if len(document) > TEXT_LIMIT:
        raise _wrong(f"it has {len(document)} bytes; at most {TEXT_LIMIT} are possible")
    found = _toml(document, "initdata")
    mistakes: list[str] = []
    algorithm, version, data = found.get("algorithm"), found.get("version"), found.get("data", {})
    if algorithm not in ALGORITHMS:
        mistakes.append(f"algorithm is {algorithm!a:.40}, not one of {', '.join(ALGORITHMS)}")
    if version != VERSION:
        mistakes.append(f"version is {version!a:.40}; this program reads {VERSION}")
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        mistakes.append("data is not a table of texts")
        data = {}
    tokens = tuple(_tokens(data[OWN], mistakes)) if OWN in data else ()
    if mistakes:
        raise _wrong("; ".join(mistakes))
    return Initdata(str(algorithm), _digest(str(algorithm), document), data, tokens,
                    tuple(_unknown(found, data)))


def parse_both(line: bytes, policy: Policy, pod: Initdata) -> Parsed:
    """A command line and what the pod gives beside it, under the image's policy. What the agent takes is its matter."""
    parsed = parse(line, policy, pod.tokens)
    if TOPOLOGY not in pod.entries or policy.allows_initdata(TOPOLOGY):
        return parsed
    refused = Problem(Severity.ERROR, TOPOLOGY, "is not among what the image's policy lets initdata decide")
    return parsed._replace(problems=(*parsed.problems, refused))


def _tokens(own: str, mistakes: list[str]) -> Iterator[Token]:
    if len(own) > OWN_LIMIT:
        mistakes.append(f"{OWN} has {len(own)} characters; at most {OWN_LIMIT} are possible")
        return
    try:
        document = _toml(own.encode("utf-8", "surrogatepass"), OWN)
    except NvrcError as err:
        mistakes.append(err.what)
        return
    mistakes += (f"{OWN}: {shown(name)} is not a section; there is params" for name in document if name != "params")
    waiting: list[tuple[str, object]] = [("", document.get("params", {}))]
    seen: set[str] = set()
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += ((f"{name}.{key}" if name else key, inner) for key, inner in reversed(value.items()))
        elif name in seen:
            mistakes.append(f"{OWN}: {shown(name)} is given twice")
        elif name and isinstance(value, bool | int | str):
            seen.add(name)
            yield Token(name, value if isinstance(value, str) else text(value))
        else:
            mistakes.append(f"{OWN}: params {shown(name)} is not a text, a number, true or false")


def _unknown(document: Mapping[str, object], data: Mapping[str, object]) -> Iterator[str]:
    """Names that neither this program nor the agent takes: probably typing mistakes."""
    others = [name for name in document if name not in ("algorithm", "version", "data")]
    yield from (f"{shown(name)} is unknown" for name in others[:_TOLD])
    if len(others) > _TOLD:
        yield f"{len(others) - _TOLD} more keys are unknown"
    strange = [name for name in data if name not in ENTRIES]
    for name in strange[:_TOLD]:
        near = closest(name, ENTRIES)
        yield f"the entry {shown(name)} is unknown" + (f", did you mean {near}?" if near else "")
    if len(strange) > _TOLD:
        yield f"{len(strange) - _TOLD} more entries are unknown"


def _toml(data: bytes, name: str) -> dict[str, object]:
    from nvrc.vocabulary.plaintoml import read_toml

    try:
        return read_toml(data.decode())
    except ValueError as err:
        raise _wrong(f"{name} is not a TOML document ({err})") from err


def _digest(algorithm: str, data: bytes) -> bytes:
    import hashlib

    return hashlib.new(algorithm, data).digest()


def _wrong(what: str) -> NvrcError:
    return NvrcError("E_INITDATA", f"initdata: {what}")
