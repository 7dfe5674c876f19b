# SPDX-License-Identifier: Apache-2.0
"""What an image is made of, for machines (manifest.json) and for people (the summary after a build)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from nvrc.vocabulary.paths import POLICY
from nvrc_build.declared.declared import Format, Image
from nvrc_build.job import Work
from nvrc_build.tree.assemble import weigh
from nvrc_build.tree.tree import Entry, Kind

VERSION = 1
# The slice of what an overlay found in the image below it.
BELOW = "image"


def write_manifest(image: Image, work: Work, parts: Mapping[str, str],
                   signing: Mapping[str, object] | None = None, modules: Mapping[str, object] | None = None) -> bytes:
    tree, packages = work.tree, work.packages
    used = {entry.origin.package for entry in tree}
    document: dict[str, object] = {
        "version": VERSION,
        "image": image.name,
        "format": image.format.value,
        "parts": dict(parts),
        "slices": {name: {"files": count, "bytes": size} for name, (count, size) in sorted(weigh(tree).items())},
        "packages": [{"name": row.name, "version": row.version, "arch": row.arch, "sha256": row.sha256}
                     for row in packages if row.name in used or row.name.startswith("linux-image-")],
        "files": [describe_entry(entry) for entry in tree],
    }
    if image.format is Format.DISK:
        document["filesystem"] = image.filesystem.value
    policy = tree.get(POLICY)
    document |= describe_policy([describe_entry(entry) for entry in tree],
                                *([policy.read()] if policy is not None and policy.kind is Kind.FILE else []))
    if signing is not None:
        document["module_signing"] = dict(signing)
    if modules:
        document["kernel_modules"] = dict(modules)
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def describe_policy(files: Iterable[Mapping[str, object]], *contents: bytes) -> dict[str, object]:
    """The policy that bounds the kernel command line, by the hash that report and console have; {} without one.

    Its text as well, where it is among `contents`: whoever writes a line for the image has it judged by that.
    """
    found = next((row for row in files if row["path"] == POLICY), None)
    if found is None:
        return {}
    known = {hashlib.sha256(data).hexdigest(): data.decode("utf-8", "replace") for data in contents}
    sha256 = str(found.get("sha256", ""))
    return {"policy": {"sha256": sha256, "slice": found["slice"],
                       **({"text": known[sha256]} if sha256 in known else {})}}


def describe_entry(entry: Entry) -> dict[str, object]:
    row: dict[str, object] = {
        "path": entry.path, "kind": entry.kind.value, "mode": f"{entry.mode:04o}", "owner": "0:0",
        "slice": entry.origin.slice,
    }
    if entry.origin.package:
        row["package"] = entry.origin.package
    if entry.sha256:
        row |= {"size": entry.size, "sha256": entry.sha256}
    if entry.target:
        row["target"] = entry.target
    if entry.xattrs:
        row["xattrs"] = {name: value.hex() for name, value in entry.xattrs}
    return row
