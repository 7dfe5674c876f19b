# SPDX-License-Identifier: Apache-2.0
"""What an image was made of: an in-toto statement with a SLSA provenance, from the manifest that its build wrote.

The statement's subjects are all files of the image's folder, so a signature over it covers kernel, root, manifest,
SBOMs and measurements at once. It has no time of its own: the same image gives the same bytes. Follows in-toto's
Statement v1 and SLSA's provenance v1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from nvrc import __version__
from nvrc.vocabulary.console import printable
from nvrc_build.ground.errors import BuildError, reason
from nvrc_build.papers.inventory import read_document
from nvrc_build.supply.apt import file_sha256

STATEMENT = "provenance.intoto.json"
SIGNATURE = f"{STATEMENT}.sig"
STATEMENT_TYPE, PREDICATE_TYPE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
BUILD_TYPE = "tag:nvrc,2026:image-build/v1"
SIZE_LIMIT = 8 << 20
MANIFEST = "manifest.json"


def make_statement(folder: Path, builder: str) -> bytes:
    """Of an image in its folder, whose parts must be those of its manifest."""
    manifest = _manifest(folder)
    strange = sorted(path.name for path in folder.iterdir() if not is_own(path))
    if strange:
        raise BuildError(f"{folder}: {', '.join(map(printable, strange))}: only files are signed",
                         "move what is not a file out of the folder")
    digests = {path.name: file_sha256(path) for path in image_files(folder)}
    check_parts(folder, digests)
    subjects = [{"name": name, "digest": {"sha256": digest}} for name, digest in digests.items()]
    document = {
        "_type": STATEMENT_TYPE, "subject": subjects, "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {name: manifest[name] for name in ("image", "format") if name in manifest},
                "resolvedDependencies": [_dependency(row) for row in _rows(manifest)],
            },
            "runDetails": {"builder": {"id": builder, "version": {"nvrc-image": __version__}}},
        },
    }
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def is_own(path: Path) -> bool:
    """A file of the folder itself: a link may lead to any file of this machine, or to one without an end."""
    return path.is_file() and not path.is_symlink()


def refuse_links(folder: Path) -> None:
    """Of an image whose files go elsewhere."""
    if links := sorted(printable(path.name) for path in folder.iterdir() if path.is_symlink()):
        raise BuildError(f"{folder}: {', '.join(links)}: a link may lead to any file of this machine",
                         "put the files in the place of their links")


def image_files(folder: Path) -> list[Path]:
    """Everything in the folder but the statement and its signature."""
    return sorted(path for path in folder.iterdir() if is_own(path) and path.name not in (STATEMENT, SIGNATURE))


def read_subjects(statement: bytes, origin: str) -> dict[str, str]:
    """Names and SHA-256 digests that a statement is about; BuildError where it is none of ours."""
    try:
        document = json.loads(statement)
        kinds = (document["_type"], document["predicateType"], document["predicate"]["buildDefinition"]["buildType"])
        rows = [(row["name"], row["digest"]["sha256"]) for row in document["subject"]]
    except (ValueError, KeyError, TypeError, RecursionError) as wrong:
        raise BuildError(f"{origin} is not a statement about an image: {reason(wrong)}",
                         "write it with: nvrc-image sign") from wrong
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE, BUILD_TYPE):
        raise BuildError(f"{origin} is a statement of another kind: {', '.join(map(str, kinds))}",
                         "write it with: nvrc-image sign")
    names = [name for name, _digest in rows]
    are_texts = all(isinstance(one, str) for row in rows for one in row)
    if not are_texts or len(set(names)) < len(names) or MANIFEST not in names:
        raise BuildError(f"{origin} names a file twice, or has no {MANIFEST}", "write it with: nvrc-image sign")
    return dict(rows)


def compare_files(folder: Path, subjects: Mapping[str, str]) -> tuple[str, ...]:
    """What differs between a folder and what was signed, a line each."""
    there = {path.name: path for path in folder.iterdir() if path.name not in (STATEMENT, SIGNATURE)}
    lost = [f"{printable(name)}: is signed and missing" for name in sorted(subjects.keys() - there.keys())]
    strange = [f"{printable(name)}: exists and is not signed" for name in sorted(there.keys() - subjects.keys())]
    lost += [f"{name}: is signed and is not a file" for name in sorted(subjects.keys() & there.keys())
             if not is_own(there[name])]
    both = sorted(name for name in subjects.keys() & there.keys() if is_own(there[name]))
    found = {name: file_sha256(there[name]) for name in both}
    return (*lost, *strange, *(f"{name}: signed as sha256 {printable(subjects[name])}, found {found[name]}"
                               for name in both if subjects[name] != found[name]))


def check_parts(folder: Path, digests: Mapping[str, str]) -> None:
    """An image that was changed after its build is not signed."""
    parts = _manifest(folder).get("parts")
    rows = parts if isinstance(parts, dict) else {}
    wrong = [str(name) for name, value in rows.items() if digests.get(str(name)) != value]
    if wrong:
        raise BuildError(f"{folder}: {', '.join(sorted(wrong))} differs from {MANIFEST}", "build the image again")


def _manifest(folder: Path) -> dict[str, object]:
    try:
        document = json.loads(read_document(folder / MANIFEST))
    except (OSError, ValueError, RecursionError) as wrong:
        raise BuildError(f"{folder / MANIFEST} cannot be read: {reason(wrong)}", "build the image first") from wrong
    if not isinstance(document, dict):
        raise BuildError(f"{folder / MANIFEST} is not a manifest of an image", "build the image again")
    return document


def _rows(manifest: Mapping[str, object]) -> Iterable[Mapping[str, object]]:
    packages = manifest.get("packages")
    return [row for row in packages if isinstance(row, dict)] if isinstance(packages, list) else []


def _dependency(row: Mapping[str, object]) -> Mapping[str, object]:
    name, version, arch = (str(row.get(key, "")) for key in ("name", "version", "arch"))
    uri = f"pkg:deb/debian/{name}@{version}" + (f"?arch={arch}" if arch else "")
    found: dict[str, object] = {"name": name, "uri": uri}
    return {**found, "digest": {"sha256": str(row["sha256"])}} if row.get("sha256") else found
