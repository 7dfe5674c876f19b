# SPDX-License-Identifier: Apache-2.0
"""An overlaid disk as an image of its own: a folder with all that a built one has, so that every command takes it.

Manifest and bills of materials are those of the image below with what the overlay did to them. A disk without papers
gets papers that say what can be seen of it: every file, and no package.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nvrc_build.after.overlay import Overlaid, overlay
from nvrc_build.after.provenance import refuse_links
from nvrc_build.ground.errors import BuildError, WrongCallError, reason
from nvrc_build.ground.exchange import exchange
from nvrc_build.papers import manifest as report
from nvrc_build.papers.bill import Component
from nvrc_build.papers.inventory import NAME, read_document, read_inventory
from nvrc_build.supply.apt import file_sha256

# Beside the disk, and equally true of the new one.
_KEPT = ("vmlinuz", "signing.x509", "unsigned.sha256")
_SBOM = "sbom.cdx.json"
# What is seen of an entry of a disk: of equal ones the row of the image below says more.
_SEEN = ("kind", "mode", "sha256", "target", "xattrs")

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What is below: a disk, and its papers as far as it has them."""

    disk: Path
    manifest: Path | None

    @property
    def name(self) -> str:
        return self.manifest.parent.resolve().name if self.manifest is not None else self.disk.name


def overlay_image(base: Base, folder: Path, target: Path, *, tools: Path, epoch: int) -> Overlaid:
    """The finished folder takes `target`'s place in one step; on any error nothing is left of it."""
    if not NAME.fullmatch(target.name):
        raise WrongCallError(f"{target.name!a} is not a name of an image", "use letters, digits and ._+-")
    if target.exists() and not (target / "manifest.json").is_file():
        raise WrongCallError(f"{target} exists and is not an image",
                             "give -o a new folder, or that of an image to replace")
    if base.manifest is not None:
        refuse_links(base.manifest.parent)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        done = overlay(base.disk, folder, fresh / "disk.img", tools=tools, epoch=epoch)
        _write_papers(base, done, fresh, target.name, epoch)
        fresh.chmod(0o755)
        if target.exists():
            exchange(fresh, target)
        else:
            fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return done


def _write_papers(base: Base, done: Overlaid, out: Path, name: str, epoch: int) -> None:
    from nvrc_build.papers import sbom  # noqa: PLC0415 - its libraries take half a second to load

    (out / "verity.txt").write_text(f"{done.verity.parameters()}\n", encoding="ascii")
    below: Row = {}
    if base.manifest is not None:
        read_inventory(base.manifest)  # which looks at every row
        below = _read_json(base.manifest)
        for part in _KEPT:
            if (base.manifest.parent / part).is_file():
                shutil.copyfile(base.manifest.parent / part, out / part)
    components = list_components(base, done, name)
    sbom.write_spdx(name, components, out / "sbom.spdx.json", epoch)
    sbom.write_cyclonedx(name, components, out / _SBOM, epoch)
    parts = {path.name: file_sha256(path) for path in sorted(out.iterdir())}
    document = write_manifest(below, done, name, parts)
    document["overlay"] = {"image": base.name, "disk_sha256": file_sha256(base.disk), "changes": list(done.changes)}
    (out / "manifest.json").write_bytes(json.dumps(document, indent=1, sort_keys=True).encode() + b"\n")


def write_manifest(below: Row, done: Overlaid, name: str, parts: Mapping[str, str]) -> dict[str, object]:
    """What the overlay left as it was keeps its row, and with it slice and package."""
    known = {row["path"]: row for row in _rows(below, "files")}
    files = [_same_or_new(known.get(row["path"]), row) for row in done.rows]
    weights: dict[str, dict[str, int]] = {}
    for row in files:
        if row["kind"] == "file":
            weight = weights.setdefault(str(row["slice"]), {"files": 0, "bytes": 0})
            size = row["size"]
            weight["files"] += 1
            weight["bytes"] += size if isinstance(size, int) else 0
    used = {row.get("package") for row in files}
    packages = [row for row in _rows(below, "packages")
                if row["name"] in used or str(row["name"]).startswith("linux-image-")]
    document: dict[str, object] = {"version": report.VERSION, "image": name, "format": "disk", "parts": dict(parts),
                                   "filesystem": done.filesystem, "slices": weights, "packages": packages,
                                   "files": files, **report.describe_policy(files, _policy_of(below))}
    return document | ({"module_signing": below["module_signing"]} if "module_signing" in below else {})


def _policy_of(below: Row) -> bytes:
    """The text of the policy of the image below; an overlay that brings another one keeps no text."""
    row = below.get("policy", {})
    return str(row.get("text", "")).encode() if isinstance(row, dict) else b""


def _same_or_new(known: Row | None, row: Row) -> Row:
    is_same = known is not None and all(known.get(key) == row.get(key) for key in _SEEN)
    return known if known is not None and is_same else row


def list_components(base: Base, done: Overlaid, name: str) -> tuple[Component, ...]:
    """Those of the image below, and the overlay as one more."""
    changed = Component(kind="generic", name=f"{name}-overlay", version=done.verity.root_hash[:16], arch="",
                        licences=(), sha256="")
    path = base.manifest.parent / _SBOM if base.manifest is not None else None
    if path is None or not path.is_file():
        disk = Component(kind="generic", name=base.name, version="unknown", arch="", licences=(),
                         sha256=file_sha256(base.disk))
        return tuple(sorted((disk, changed)))
    try:
        return tuple(sorted((*map(_component, _rows(_read_json(path), "components")), changed)))
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise BuildError(f"{path} is not a bill of an image: {reason(wrong)}", "build the image again") from wrong


def _component(row: Row) -> Component:
    from packageurl import PackageURL  # noqa: PLC0415 - of the build extra, like sbom

    purl = PackageURL.from_string(str(row["purl"]))
    licences = tuple(str(one["license"]["name"]) for one in _rows(row, "licenses") if isinstance(one["license"], dict))
    hashes = [str(one["content"]) for one in _rows(row, "hashes")]
    qualifiers = purl.qualifiers if isinstance(purl.qualifiers, dict) else {}
    return Component(kind=purl.type, name=str(row["name"]), version=str(row["version"]), licences=licences,
                     arch=str(qualifiers.get("arch", "")), sha256=hashes[0] if hashes else "")


def _rows(document: Row, name: str) -> Sequence[Row]:
    rows = document.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BuildError(f"{name} of the image below is not a list of tables", "build the image again")
    return rows


def _read_json(path: Path) -> Row:
    try:
        document = json.loads(read_document(path))
    except (OSError, ValueError, RecursionError) as wrong:
        raise BuildError(f"{path} cannot be read: {reason(wrong)}", "build the image again") from wrong
    if not isinstance(document, dict):
        raise BuildError(f"{path} is not a document of an image", "build the image again")
    return document
