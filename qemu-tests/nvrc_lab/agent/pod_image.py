# SPDX-License-Identifier: Apache-2.0
"""A container image as one archive that `ctr images import` takes: what `docker save` writes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from nvrc_build.tree.tree import Entry, Kind

NAME = "lab.local/pod:1"
FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp")


def write_image(path: Path, programs: Mapping[str, Path], more: Iterable[Entry] = ()) -> None:
    """Each program lies in the root folder under its name; `more` are files and links of another root."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in FOLDERS:
            _add(tar, name, b"", mode=0o755, kind=tarfile.DIRTYPE)
        for name, program in programs.items():
            _add(tar, name, program.read_bytes(), mode=0o755)
        for entry in more:
            if entry.kind is Kind.LINK:
                _add(tar, entry.path.lstrip("/"), b"", kind=tarfile.SYMTYPE, target=entry.target)
            elif entry.kind is Kind.FILE:
                _add(tar, entry.path.lstrip("/"), entry.read(), mode=entry.mode)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/"]},
                         "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}).encode()
    ident = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": ident, "RepoTags": [NAME], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(path, mode="w") as tar:
        for name, data in (("layer.tar", layer.getvalue()), (ident, config), ("manifest.json", manifest)):
            _add(tar, name, data)


def _add(tar: tarfile.TarFile, name: str, data: bytes, *, mode: int = 0o644, kind: bytes = tarfile.REGTYPE,
         target: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.size, info.linkname = mode, kind, len(data), target
    tar.addfile(info, io.BytesIO(data))
