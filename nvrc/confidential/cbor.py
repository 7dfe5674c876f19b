# SPDX-License-Identifier: Apache-2.0
"""As much of CBOR (RFC 8949) as two claims of a CCA token need. Definite lengths only, as the RMM writes them.

The token is a collection of two COSE_Sign1 structures, the realm's under 44241. Its payload is a map of claims, where
10 is the challenge and 44235 the realm's personalization value (Realm Management Monitor specification, A7.2).
"""

from __future__ import annotations

from nvrc.vocabulary.errors import NvrcError

_REALM, _CHALLENGE, _PERSONALIZATION = 44241, 10, 44235
_DEPTH = 8
Item = int | bytes | str | list["Item"] | dict[int | str | bytes, "Item"] | None


def find_personalization(token: bytes) -> tuple[bytes, bytes]:
    """The value, and the challenge that the token answers."""
    try:
        collection = _whole(token)
        sealed = collection[_REALM] if isinstance(collection, dict) else None
        signed = _whole(sealed) if isinstance(sealed, bytes) else None
        payload = signed[2] if isinstance(signed, list) else None
        claims = _whole(payload) if isinstance(payload, bytes) else None
        found = [claims[key] for key in (_PERSONALIZATION, _CHALLENGE)] if isinstance(claims, dict) else []
    except (KeyError, IndexError, ValueError) as err:
        raise _damaged(str(err)) from err
    if len(found) != 2 or not isinstance(found[0], bytes) or not isinstance(found[1], bytes):
        raise _damaged("the claims are not where they belong")
    return found[0], found[1]


def _whole(data: bytes) -> Item:
    item, end = _read(data, 0, 0)
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes follow")
    return item


def _read(data: bytes, at: int, depth: int) -> tuple[Item, int]:
    if depth > _DEPTH:
        raise ValueError("too deep")
    kind, number, at = _head(data, at)
    if kind in (0, 1):
        return (number if kind == 0 else -1 - number), at
    if kind in (2, 3):
        if number > len(data) - at:
            raise ValueError("cut off")
        piece = data[at:at + number]
        return (piece if kind == 2 else piece.decode()), at + number
    if kind == 4:
        return _read_list(data, at, number, depth)
    if kind == 5:
        flat, at = _read_list(data, at, 2 * number, depth)
        keys = flat[::2]
        if not all(isinstance(key, int | str | bytes) for key in keys) or len(set(map(repr, keys))) < len(keys):
            raise ValueError("keys that are none, or twice the same")
        return dict(zip(keys, flat[1::2], strict=True)), at  # type: ignore[arg-type]
    if kind == 6:  # a tag says what the item is for
        return _read(data, at, depth + 1)
    return None, at


def _read_list(data: bytes, at: int, count: int, depth: int) -> tuple[list[Item], int]:
    if count > len(data) - at:
        raise ValueError("cut off")
    items = []
    for _ in range(count):
        item, at = _read(data, at, depth + 1)
        items.append(item)
    return items, at


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """Major type, number, and where the content begins."""
    first = data[at]
    kind, small = first >> 5, first & 31
    if small < 24:
        return kind, small, at + 1
    if small > 27:
        raise ValueError("an indefinite length")
    end = at + 1 + (1 << (small - 24))
    if end > len(data):
        raise ValueError("cut off")
    return kind, int.from_bytes(data[at + 1:end], "big"), end


def _damaged(what: str) -> NvrcError:
    return NvrcError("E_INITDATA_BINDING", f"CCA: its token cannot be read ({what})",
                     "use a kernel whose driver of this TEE is known to work")
