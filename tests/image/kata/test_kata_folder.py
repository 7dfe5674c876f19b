# SPDX-License-Identifier: Apache-2.0
"""Kata reads every entry of a class's config.d as TOML: what is written there, and what is refused because of it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from nvrc_build.cli import main
from nvrc_build.ground.errors import BuildError
from nvrc_build.kata.folder import DROP_IN, check_folder, write_drop_in


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({
        "version": 1, "image": "nvidia", "format": "initrd", "parts": {}, "packages": [], "files": [{"path": path, "kind": "file", "mode": "0755", "slice": "x"}
                  for path in ("/init", "/usr/lib/libnvidia-ml.so.1.2")]}))
    for name in ("initrd", "vmlinuz"):
        (folder / name).write_text("")
    return folder


def test_the_folder_gets_toml_and_nothing_else(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config_d, pod = tmp_path / "config.d", tmp_path / "pod.yaml"
    config_d.mkdir()
    (config_d / "10-kata-deploy.toml").write_text("[runtime]\nenable_debug = false\n")
    assert main(["kata-config", str(image), "-d", str(config_d), "--pod", str(pod)]) == 0
    assert sorted(path.name for path in config_d.iterdir()) == ["10-kata-deploy.toml", DROP_IN]
    for path in config_d.iterdir():
        tomllib.loads(path.read_text())
    assert pod.read_text().startswith("apiVersion: v1\nkind: Pod\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.d", "image", "pod.yaml"]
    assert main(["kata-config", str(image), "-d", str(config_d)]) == 0  # a second time, over its own file
    capsys.readouterr()


@pytest.mark.parametrize(("name", "content", "said"), [
    ("pod.yaml", b"apiVersion: v1\n", "pod.yaml: not a drop-in by its name"),
    ("50-nvrc.toml~", b"[runtime]\n", "50-nvrc.toml~: not a drop-in by its name"),
    ("50-nvrc.toml.bak", b"[runtime]\n", "50-nvrc.toml.bak: not a drop-in by its name"),
    (".50-nvrc.toml.swp", b"b0VIM\0", ".50-nvrc.toml.swp: not a drop-in by its name"),
    (".hidden.toml", b"[runtime]\n", ".hidden.toml: not a drop-in by its name"),
    ("README", b"", "README: not a drop-in by its name"),
    ("60-x.toml", b"apiVersion: v1\n", "60-x.toml: cannot be read as TOML: "),
    ("60-x.toml", b"x = \"\xff\"\n", "60-x.toml: cannot be read as TOML: "),
    ("60-x.toml", b"#" * (1 << 20) + b"\n", "60-x.toml: has more than 1024 KiB"),
], ids=["pod", "backup", "bak", "swap-file", "hidden", "no-suffix", "not-toml", "not-text", "too-long"])
def test_a_folder_with_something_else_is_refused_with_its_name(tmp_path: Path, name: str, content: bytes,
                                                               said: str) -> None:
    config_d = tmp_path / "config.d"
    config_d.mkdir()
    (config_d / name).write_bytes(content)
    with pytest.raises(BuildError, match="has entries that break every pod of the class") as caught:
        write_drop_in(config_d, "")
    assert caught.value.findings[0].startswith(said)
    assert [path.name for path in config_d.iterdir()] == [name]


def test_folders_and_links_in_it_are_refused_too(tmp_path: Path) -> None:
    config_d = tmp_path / "config.d"
    (config_d / "old.toml").mkdir(parents=True)
    (config_d / "60-x.toml").symlink_to("/dev/null")
    with pytest.raises(BuildError) as caught:
        check_folder(config_d)
    assert caught.value.findings == ("60-x.toml: not a regular file; the Rust runtime refuses it",
                                     "old.toml: not a regular file; the Rust runtime refuses it")


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.d").write_text("")
    with pytest.raises(BuildError, match="is not a folder; give -d the class's"):
        write_drop_in(tmp_path / "config.d", "")


def test_the_pod_may_not_lie_in_the_folder(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config_d = tmp_path / "config.d"
    assert main(["kata-config", str(image), "-d", str(config_d), "--pod", str(config_d / "x" / ".." / "pod.toml")]) == 2
    assert "where Kata reads every file as TOML; give --pod a path in another folder" in capsys.readouterr().err
    assert not config_d.exists()
