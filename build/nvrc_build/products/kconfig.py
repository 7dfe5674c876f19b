# SPDX-License-Identifier: Apache-2.0
"""Does the chosen kernel have what the image needs? Options by name, with the values that will do.

An image lists `kernel_options`, each "NAME" (built in or module), "NAME=y" or "NAME=n"; all that is missing is named.
"""

from __future__ import annotations

from collections.abc import Mapping

from nvrc_build.declared.declared import Image
from nvrc_build.ground.errors import BuildError


def missing_options(options: tuple[str, ...], config: Mapping[str, str]) -> tuple[str, ...]:
    found = []
    for option in options:
        name, _, wanted = option.partition("=")
        has = config.get(f"CONFIG_{name}", "n")
        if not (has == wanted if wanted else has in ("y", "m")):
            found.append(f"CONFIG_{name} is {has}, {wanted or 'y or m'} is needed")
    return tuple(found)


def check_kernel(image: Image, config: Mapping[str, str]) -> None:
    missing = missing_options(image.options, config)
    if missing:
        raise BuildError(f"the kernel of image {image.name} lacks {len(missing)} options",
                         "choose another kernel, or build one with these", findings=missing)
