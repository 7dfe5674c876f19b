# SPDX-License-Identifier: Apache-2.0
"""A manifest.json read back into values: what inspect, diff, overlay and the trust documents work from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nvrc.vocabulary.nearmiss import closest
from nvrc_build.ground.errors import BuildError, WrongCallError, reason
from nvrc_build.output.verity import ROOT_FLAGS, parse_parameters
from nvrc_build.papers.manifest import VERSION

_HUGE = 1 << 60
MOST_BYTES = 64 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_PARTS = ("disk.img", "initrd", "vmlinuz", "verity.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    path: str
    kind: str
    mode: str
    slice: str
    package: str
    size: int
    sha256: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    image: str
    format: str
    filesystem: str
    parts: Mapping[str, str]
    packages: Mapping[str, str]
    files: Mapping[str, File]
    # What the image's kernel makes of the driver modules under module.sig_enforce=1; empty without a driver.
    signing: str
    modules: str
    folder: Path
    # The text of its policy for the kernel command line; empty without one, or where an overlay brought another.
    policy: str = ""

    def weights(self) -> dict[str, tuple[int, int]]:
        """Files and bytes by slice, heaviest first."""
        totals: dict[str, tuple[int, int]] = {}
        for file in self.files.values():
            if file.kind == "file":
                count, size = totals.get(file.slice, (0, 0))
                totals[file.slice] = (count + 1, size + file.size)
        return dict(sorted(totals.items(), key=lambda item: (-item[1][1], item[0])))


def read_document(path: Path) -> str:
    """A paper of an image, of any maker: read into memory, and so of a size that papers have. OSError or ValueError."""
    with path.open("rb") as stream:
        data = stream.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
    return data.decode()


def find_manifest(name: str, images: Path) -> Path:
    """A manifest, the folder of an image or one of its parts, or the name of an image below `images`."""
    given = Path(name)
    if given.is_file() and given.name in _PARTS:
        given = given.parent
    for path in (given, given / "manifest.json", images / name / "manifest.json"):
        if path.is_file():
            return path
    near = closest(name, (path.parent.name for path in images.glob("*/manifest.json")))
    raise WrongCallError(f"there is no image {name!r}", (f"did you mean {near}? Else " if near else "")
                         + "give a name in out/images, a folder with a manifest.json, or one")


def read_parameters(image: Inventory) -> str:
    """The line of verity.txt, checked."""
    path = image.folder / "verity.txt"
    try:
        line = read_document(path).strip()
    except (OSError, ValueError) as wrong:
        raise BuildError(f"{path} cannot be read: {reason(wrong)}", "build the image again") from wrong
    parse_parameters(line)
    return line


def read_inventory(path: Path) -> Inventory:
    try:
        document = json.loads(read_document(path))
        if document["version"] != VERSION:
            raise BuildError(f"{path} has version {document['version']}, {VERSION} is known", "build the image again")
        return Inventory(
            image=_name(document["image"]), format=_plain(document["format"]), folder=path.parent,
            filesystem=_filesystem(document.get("filesystem", "erofs")),
            parts={_part(name): _plain(value) for name, value in document["parts"].items()},
            packages={_plain(row["name"]): _plain(row["version"]) for row in document["packages"]},
            files={_plain(row["path"]): _file(row) for row in document["files"]},
            signing=_plain(document.get("module_signing", {}).get("with_module_sig_enforce", "")),
            policy=_policy(document, path),
            modules=_signatures(document.get("kernel_modules", {})),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as wrong:
        raise BuildError(f"{path} is not a manifest of an image: {reason(wrong)}", "build the image again") from wrong


def _plain(value: object) -> str:
    """As a terminal and a table get it."""
    text = str(value)
    if not text.isprintable():
        raise ValueError(f"{text[:90]!a} is not one line of text")
    return text


def _name(value: object) -> str:
    """It is a folder on nodes, and stands in lines for a shell."""
    name = str(value)
    if not NAME.fullmatch(name):
        raise ValueError(f"image {name[:90]!a} is not a name of letters, digits and ._+-")
    return name


def _filesystem(value: object) -> str:
    if not isinstance(value, str) or value not in ROOT_FLAGS:
        raise ValueError(f"filesystem {str(value)[:90]!a} is not one of {', '.join(ROOT_FLAGS)}")
    return value


def _part(name: str) -> str:
    if "/" in name or name == "..":
        raise ValueError(f"part {name[:90]!a} is not a file beside it")
    return _plain(name)


def _policy(document: Mapping[str, Mapping[str, object]], path: Path) -> str:
    """Held to the hash of the file in the image, which is what the guest will judge by."""
    row = document.get("policy", {})
    text = str(row.get("text", ""))
    if "text" in row and hashlib.sha256(text.encode()).hexdigest() != row.get("sha256"):
        raise BuildError(f"{path} has the text of another policy than the image's", "build the image again")
    return text


def _signatures(row: Mapping[str, object]) -> str:
    return _plain(f"{row['signatures']} ({row['why']})") if row else ""


def _file(row: Mapping[str, object]) -> File:
    size = row.get("size", 0)
    if not isinstance(size, int) or not 0 <= size < _HUGE:
        raise ValueError(f"size {size!a:.30} is not one of a file")
    return File(path=_plain(row["path"]), kind=_plain(row["kind"]), mode=_plain(row["mode"]),
                slice=_plain(row["slice"]), package=_plain(row.get("package", "")), size=size,
                sha256=_plain(row.get("sha256", "")), target=_plain(row.get("target", "")))
