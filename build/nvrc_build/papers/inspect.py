# SPDX-License-Identifier: Apache-2.0
"""An image for people: what went in and what it weighs, slice by slice, with the heaviest files."""

from __future__ import annotations

import posixpath

from nvrc.vocabulary.paths import POLICY
from nvrc.vocabulary.terminal import UNLIMITED, lay_table
from nvrc_build.papers.inventory import Inventory
from nvrc_build.papers.treemap import megabytes

_TOP_FILES = 10


def summarise(image: Inventory, width: int = UNLIMITED) -> str:
    weights = image.weights()
    total = sum(size for _, size in weights.values())
    lines = [f"{image.image} ({image.format}): {megabytes(total)} unpacked, {len(image.packages)} packages", ""]
    longest = 30 if not width else max(4, min(30, width - 48))
    rows = [("slice".ljust(24), " files", "      size", "share")]
    for name, (count, size) in weights.items():
        bar = "#" * round(longest * size / total) if total else ""
        rows.append((name, f"{count:>6}", f"{megabytes(size):>10}", bar))
    for part in sorted(image.parts):
        path = image.folder / part
        if path.is_file():
            rows.append((f"part {part}", "", f"{megabytes(path.stat().st_size):>10}", image.parts[part][:16]))
    lines += [f"  {line}" for line in lay_table(rows, width and width - 2, has_heads=True)]
    policy = image.files.get(POLICY)
    lines.append("  policy of the kernel command line: "
                 + (f"sha256 {policy.sha256} ({policy.slice})" if policy is not None else "none"))
    if image.modules:
        lines.append(f"  signatures of kernel modules: {image.modules}")
    if image.signing:
        lines.append(f"  driver modules have a key of this build: under module.sig_enforce=1 {image.signing}")
    return "\n".join(lines) + "\n"


def tabulate(image: Inventory) -> str:
    """Weights by slice as a Markdown table, each with its heaviest files; what a document about an image shows."""
    lines = [f"| slice of `{image.image}` | files | MB | heaviest |", "|---|---|---|---|"]
    weights = image.weights()
    for name, (count, size) in weights.items():
        files = sorted((file for file in image.files.values() if file.slice == name),
                       key=lambda file: (-file.size, file.path))[:3]
        heaviest = ", ".join(f"{posixpath.basename(file.path)} {file.size / 1e6:.1f}" for file in files
                             if file.size >= 50_000)
        lines.append(f"| {name} | {count} | {size / 1e6:.1f} | {heaviest} |")
    total = sum(size for _, size in weights.values())
    lines.append(f"| **unpacked** | {sum(count for count, _ in weights.values())} | **{total / 1e6:.1f}** | |")
    lines += [f"| **{part}** | | **{(image.folder / part).stat().st_size / 1e6:.1f}** | |"
              for part in ("initrd", "disk.img") if (image.folder / part).is_file()]
    return "\n".join(lines) + "\n"


def list_heaviest(image: Inventory, width: int = UNLIMITED) -> str:
    files = sorted(image.files.values(), key=lambda file: (-file.size, file.path))[:_TOP_FILES]
    rows = [(f"{megabytes(file.size):>10}", f"{file.path}  ({file.slice}, {file.package or 'declared'})")
            for file in files]
    return "".join(f"  {line}\n" for line in lay_table(rows, width and width - 2)) if rows else ""
