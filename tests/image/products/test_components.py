# SPDX-License-Identifier: Apache-2.0
"""Confidential guest components in the layout of Kata's archives: where things go, and what is found before a pod does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nvrc_build.ground.errors import BuildError
from nvrc_build.products.components import arrange, check

CONFIG = {"ociVersion": "1.0.2", "process": {"args": ["/pause"], "cwd": "/"}, "root": {"path": "rootfs"}}
PROVIDERS = {"key-providers": {"attestation-agent": {"ttrpc": "unix:///run/confidential-containers/cdh.sock"}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As Kata builds them, with the attester for NVIDIA's GPUs beside the plain one."""
    for name, text in {
        "usr/local/bin/attestation-agent": "plain", "usr/local/bin/attestation-agent-nv": "with libnvat",
        "usr/local/lib/libnvat.so.1.2": "library", "pause_bundle/rootfs/pause": "program",
        "pause_bundle/config.json": json.dumps(CONFIG), "etc/ocicrypt_config.json": json.dumps(PROVIDERS),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "usr/local/lib/libnvat.so.1").symlink_to("libnvat.so.1.2")
    return tmp_path


def test_katas_archive_becomes_the_layout_of_the_image(folder: Path) -> None:
    arrange(folder)
    check(folder)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    assert files == {
        "usr/local/bin/attestation-agent", "usr/lib/x86_64-linux-gnu/libnvat.so.1.2",
        "usr/lib/x86_64-linux-gnu/libnvat.so.1", "pause_bundle/rootfs/pause", "pause_bundle/config.json",
        "etc/ocicrypt_config.json"}
    assert (folder / "usr/local/bin/attestation-agent").read_text() == "with libnvat"
    assert (folder / "usr/lib/x86_64-linux-gnu/libnvat.so.1").read_text() == "library"


def test_what_is_arranged_already_stays(folder: Path) -> None:
    arrange(folder)
    before = sorted(path for path in folder.rglob("*"))
    arrange(folder)
    assert sorted(path for path in folder.rglob("*")) == before


@pytest.mark.parametrize(("path", "text", "expected"), [
    ("pause_bundle/config.json", "{", "/pause_bundle/config.json is missing or no JSON"),
    ("pause_bundle/config.json", "[]", "/pause_bundle/config.json is not an OCI configuration: it needs ociVersion, "
     "process.args, process.cwd and root.path"),
    ("pause_bundle/config.json", json.dumps({**CONFIG, "process": {"args": [], "cwd": "/"}}),
     "/pause_bundle/config.json is not an OCI configuration: it needs ociVersion, process.args, process.cwd and root.path"),
    ("pause_bundle/config.json", json.dumps({**CONFIG, "process": {"args": ["/other"], "cwd": "/"}}),
     "/pause_bundle/config.json starts /other, which /pause_bundle/rootfs does not have"),
    ("pause_bundle/config.json", json.dumps({**CONFIG, "process": {"args": ["/pause"], "cwd": "x"}}),
     "/pause_bundle/config.json: process.cwd 'x' is not absolute"),
    ("etc/ocicrypt_config.json", "", "/etc/ocicrypt_config.json names no key-providers"),
    ("etc/ocicrypt_config.json", json.dumps({"key-providers": {}}), "/etc/ocicrypt_config.json names no key-providers"),
    ("etc/ocicrypt_config.json", json.dumps({"key-providers": {"a": {"path": "/x"}}}),
     "/etc/ocicrypt_config.json: key provider 'a' has none of cmd, grpc, ttrpc, native"),
])
def test_what_the_agent_could_not_use_is_named(folder: Path, path: str, text: str, expected: str) -> None:
    (folder / path).write_text(text)
    with pytest.raises(BuildError, match="give --components as Kata builds them") as caught:
        check(folder)
    assert caught.value.findings == (expected,)


def test_all_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(BuildError) as caught:
        check(tmp_path)
    assert len(caught.value.findings) == 2
