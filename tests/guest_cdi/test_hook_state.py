# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from guest_cdi.hooks import state
from guest_cdi.lean.errors import CdiError


def root_of(value: object, state_file: str = "") -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return state.container_root(state_file, io.BytesIO(text))


def write_config(bundle: Path, value: object) -> dict[str, object]:
    (bundle / "config.json").write_text(json.dumps(value))
    return {"ociVersion": "1.0.2", "bundle": str(bundle)}


def test_relative_root_is_below_the_bundle(tmp_path: Path) -> None:
    assert root_of(write_config(tmp_path, {"root": {"path": "rootfs"}})) == f"{tmp_path}/rootfs"


def test_absolute_root_is_taken_as_it_is(tmp_path: Path) -> None:
    assert root_of(write_config(tmp_path, {"root": {"path": "/run/c/rootfs"}})) == "/run/c/rootfs"


def test_root_member_of_the_state_spares_the_config() -> None:
    assert root_of({"bundle": "/nowhere", "root": "/run/c/rootfs"}) == "/run/c/rootfs"
    assert root_of({"bundle": "/nowhere", "root": "rootfs"}) == "/nowhere/rootfs"


def test_state_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").write_text('{"root": "/r"}')
    assert root_of(b"not read", str(tmp_path / "state")) == "/r"


@pytest.mark.parametrize(("value", "said"), [
    (b"", "standard input is not JSON"),
    (b"\xff", "standard input is not JSON"),
    (b"[" * 100_000, "standard input is not JSON"),
    ([], "standard input is not a JSON object"),
    ({}, "names no bundle"),
    ({"bundle": 3}, "'bundle' of the OCI state is not a string"),
    ({"root": []}, "'root' of the OCI state is not a string"),
    ({"root": "rootfs"}, "'rootfs' is not an absolute path"),
    ({"bundle": "/nowhere-at-all"}, "'/nowhere-at-all/config.json' cannot be read"),
    ({"bundle": "/a\0b"}, "cannot be read"),
    ({"bundle": "/a\ud800"}, "cannot be read"),
])
def test_unusable_states(value: object, said: str) -> None:
    with pytest.raises(CdiError, match="E_CDI_HOOK_STATE") as caught:
        root_of(value)
    assert said in caught.value.what


@pytest.mark.parametrize(("config", "said"), [
    ({}, "has no root.path"),
    ({"root": "rootfs"}, "has no root.path"),
    ({"root": {"path": ""}}, "has no root.path"),
    ({"root": {"path": 1}}, "'path' of root in"),
    (1, "is not a JSON object"),
])
def test_unusable_configs(tmp_path: Path, config: object, said: str) -> None:
    with pytest.raises(CdiError) as caught:
        root_of(write_config(tmp_path, config))
    assert said in caught.value.what


def test_a_state_without_end_is_refused() -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            assert size == state.STATE_LIMIT_BYTES + 1
            return b" " * size

    with pytest.raises(CdiError, match="standard input is larger than 16 MiB"):
        state.container_root("", Endless())  # type: ignore[arg-type]
