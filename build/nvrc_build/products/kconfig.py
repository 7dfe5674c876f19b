# SPDX-License-Identifier: Apache-2.0
"""Does the image's kernel have what the image needs? Options by name, with the values that will do.

An image lists `kernel_options`, each "NAME" (built in, or a module whose file is in the image), "NAME=y", "NAME=m" (a
module, wherever its file is) or "NAME=n"; all that is missing is named. Which file an option makes is said by
nvrc/vocabulary/needs.py: an option that is in no row there has to be built in, or asked for as "=m".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from nvrc.vocabulary.needs import modules_of
from nvrc_build.declared.declared import Compression, Format, Image
from nvrc_build.ground.errors import BuildError
from nvrc_build.products.kernel import module_name
from nvrc_build.tree.tree import Entry

UNPACKS: Mapping[Compression, tuple[str, ...]] = {
    Compression.LZ4: ("RD_LZ4=y",), Compression.ZSTD: ("RD_ZSTD=y",), Compression.STORED: (),
}


def modules_in(tree: Iterable[Entry]) -> frozenset[str]:
    """The modules whose files are in an image."""
    names = (entry.path.rpartition("/")[2] for entry in tree if entry.path.startswith("/usr/lib/modules/"))
    return frozenset(module_name(name) for name in names if ".ko" in name)


def missing_options(options: tuple[str, ...], config: Mapping[str, str],
                    modules: Collection[str] = ()) -> tuple[str, ...]:
    found = (_missing(*option.partition("=")[::2], config, modules) for option in options)
    return tuple(text for text in found if text)


def _missing(name: str, wanted: str, config: Mapping[str, str], modules: Collection[str]) -> str:
    has = config.get(f"CONFIG_{name}", "n")
    if wanted:
        return "" if has == wanted else f"CONFIG_{name} is {has}, {wanted} is needed"
    if has == "n":
        return f"CONFIG_{name} is n, y or m is needed"
    makes = modules_of(name)
    if has == "y" or any(module in modules for module in makes):
        return ""
    if not makes:
        return f"CONFIG_{name} is m, and no need is known that brings its module: ask for {name}=y or {name}=m"
    return f"CONFIG_{name} is m, and the image has no module {' or '.join(makes)}: serve a need that has it"


def check_kernel(image: Image, config: Mapping[str, str], modules: Collection[str]) -> None:
    unpacks = UNPACKS[image.compression] if image.format is Format.INITRD else ()
    missing = missing_options((*image.options, *unpacks), config, modules)
    if missing:
        raise BuildError(f"the kernel of image {image.name} lacks {len(missing)} options",
                         "serve the needs that bring them, choose another kernel, or build one with these",
                         findings=missing)
