# SPDX-License-Identifier: Apache-2.0
"""An image for people: what went in and what it weighs, slice by slice, with the heaviest files."""

from __future__ import annotations

import posixpath

from nvrc_build.papers.inventory import Inventory
from nvrc_build.papers.treemap import megabytes

_TOP_FILES = 10


def summarise(image: Inventory) -> str:
    weights = image.weights()
    total = sum(size for _, size in weights.values())
    lines = [f"{image.image} ({image.format}): {megabytes(total)} unpacked, {len(image.packages)} packages", ""]
    lines += [f"  {'slice':<24} {'files':>6} {'size':>10}  share"]
    for name, (count, size) in weights.items():
        bar = "#" * round(30 * size / total) if total else ""
        lines.append(f"  {name:<24} {count:>6} {megabytes(size):>10}  {bar}")
    for part in sorted(image.parts):
        path = image.folder / part
        if path.is_file():
            lines.append(f"  part {part:<19} {'':>6} {megabytes(path.stat().st_size):>10}  {image.parts[part][:16]}")
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


def list_heaviest(image: Inventory) -> str:
    files = sorted(image.files.values(), key=lambda file: (-file.size, file.path))[:_TOP_FILES]
    return "".join(f"  {megabytes(file.size):>10}  {file.path}  ({file.slice}, {file.package or 'declared'})\n"
                   for file in files)
