# SPDX-License-Identifier: Apache-2.0
"""The small JSON reader beside the standard library's."""

from __future__ import annotations

import json
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest_cdi.lean.jsonvalue import read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))


@given(VALUES, st.sampled_from(["", " ", "\r\n\t"]), st.booleans())
def test_what_json_writes_is_read(value: object, blanks: str, is_ascii: bool) -> None:
    text = blanks + json.dumps(value, ensure_ascii=is_ascii) + blanks
    assert read_json(text.encode("utf-8", "surrogatepass" if "\\ud" in text else "strict")) == json.loads(text)


def finite(text: str) -> float:
    if not isfinite(number := float(text)):
        raise ValueError(text)
    return number


@given(st.binary(max_size=40) | st.text(alphabet='[]{}",:0123456789.eE+-tfn\\u \n', max_size=30).map(str.encode))
def test_what_json_refuses_is_refused(data: bytes) -> None:
    try:
        expected = json.loads(data.decode("utf-8"), parse_constant=pytest.fail, parse_float=finite)
    except ValueError:
        with pytest.raises(ValueError):
            read_json(data)
    except pytest.fail.Exception:
        pass
    else:
        assert read_json(data) == expected


@pytest.mark.parametrize(("data", "what"), [
    (b"", "no JSON value at character 0"), (b"  \n", "no JSON value at character 0"), (b"[1,", "no JSON value at character 3"),
    (b"{} x", "more text after the value: 'x'"), (b"NaN", "NaN is not a JSON number"), (b"[-Infinity]", "-Infinity is not a JSON number"),
    (b"[" * 100_000, "nested too deeply"), (b"\xff", "can't decode byte"), (b'"\x01"', "Invalid control character"),
    (b"\xef\xbb\xbf{}", "no JSON value"), (b"[-1e999]", "-1e999 is out of the range"), (b"1" + b"0" * 400 + b".5", "out of the range"),
])
def test_each_refusal_in_words(data: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        read_json(data)
