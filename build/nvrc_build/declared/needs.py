# SPDX-License-Identifier: Apache-2.0
"""What an image serves, and what the programs of its slices cannot do without: one must have the other."""

from __future__ import annotations

from nvrc_build.declared.declared import Declarations, Image, Layout
from nvrc_build.declared.toml import Findings


def check_needs(declared: Declarations, findings: Findings) -> None:
    """An image with a kernel of its own serves what its slices need of it; else it has a host's, with all built in."""
    for image in declared.images:
        where = f"images/{image.name}.toml serves"
        if image.serves and not _has_kernel(image):
            findings.add(where, "is for root images with a kernel; this one has no modules to load")
        for row in declared.slices_of(image) if _has_kernel(image) else ():
            for name in row.kernel_needs:
                if name not in image.serves:
                    findings.add(where, f"lacks {name!r}, which slice {row.name!r} needs")


def _has_kernel(image: Image) -> bool:
    return bool(image.kernel) and image.layout is Layout.ROOT
