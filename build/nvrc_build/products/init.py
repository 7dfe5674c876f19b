# SPDX-License-Identifier: Apache-2.0
"""The frozen init as a product, in steps that are kept by what each reads: a changed line is compiled, and looked at by
PyInstaller only if it is an import.

What a step makes follows from what is given to it alone; so the program is the same whether its steps are of today or
of weeks ago, and two builds that share nothing make equal bytes (tests/image/test_image_build.py).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from nvrc_build.ground.cache import digest, digest_files
from nvrc_build.job import ENGINE, EPOCH, Job, Work
from nvrc_build.products import freeze
from nvrc_build.products.freeze import BINDING, INCLUDED
from nvrc_build.supply import compile as compiler
from nvrc_build.supply import supply, wheels

PLACE = "usr/lib/nvrc"
_WORD = re.compile(r"\w+")


def _code(*names: str) -> str:
    return digest_files(tuple(ENGINE / name for name in names), ENGINE)


def make_site(job: Job) -> Path:
    lock = wheels.lock_path(job.checkout)
    return job.cache.get("site", digest(lock.read_bytes()), lambda out: wheels.install(lock, out))


def make_init(job: Job, _work: Work) -> Path:
    files, base = freeze.source_files(job.checkout), freeze.source_folder(job.checkout)
    tools, root, site = supply.root(job.supply, "tools"), supply.root(job.supply, "compile"), make_site(job)
    code = _code(*(f"products/{name}.py" for name in ("init", "freeze", "outline", "prune")), "supply/compile.py")
    movable = job.image.is_confidential
    key = digest(digest_files(files, base), tools.name, root.name, site.name, code, str(movable))

    def make(out: Path) -> None:
        sources = freeze.read_sources(job.checkout)
        sources = {**sources, BINDING: _binding(job, site, sources)}
        found, work = _find_modules(job, tools, site, sources), out / "parts"
        work.mkdir()
        freeze.write_parts(sources, tools, root, found, out=work)
        objects = []
        for source in sorted(work.glob("*.c")):
            objects.append(source.with_suffix(".o"))
            shutil.copyfile(_compile(job, root, source, is_movable=movable) / "program", objects[-1])
        program = compiler.link_launcher(objects, work, root=root, is_movable=movable)
        shutil.copytree(found / "lib-dynload", out / PLACE / "_internal/lib-dynload")
        program.rename(out / PLACE / "nvrc")
        shutil.copyfile(found / "modules.txt", out / "modules.txt")
        shutil.rmtree(work)

    return job.cache.get("freeze", key, make)


def _binding(job: Job, site: Path, sources: Mapping[str, str]) -> str:
    """Pruned anew when the program names more or less of it."""
    whole = (site / BINDING).read_text(encoding="utf-8")
    named = set(_WORD.findall(whole)).intersection(word for text in sources.values() for word in _WORD.findall(text))
    key = digest(site.name, *sorted(named), _code("products/init.py", "products/freeze.py", "products/prune.py"))

    def make(out: Path) -> None:
        (out / BINDING).write_text(freeze.prune_binding(whole, sources), encoding="utf-8")

    return (job.cache.get("binding", key, make) / BINDING).read_text(encoding="utf-8")


def _find_modules(job: Job, tools: Path, site: Path, sources: Mapping[str, str]) -> Path:
    outlines = freeze.outline_all(sources)
    key = digest(*(word for name in sorted(outlines) for word in (name, outlines[name])), tools.name, site.name,
                 _code("products/freeze.py"))

    def make(out: Path) -> None:
        freeze.find_modules(outlines, tools, site, out=out, epoch=EPOCH)

    return job.cache.get("modules-found", key, make)


def _compile(job: Job, root: Path, source: Path, *, is_movable: bool) -> Path:
    """The object file of one source, which is given what it includes and nothing else."""
    given = (source, *(source.with_name(name) for name in INCLUDED), *source.parent.glob(f"{source.stem}.bin"))
    key = digest(digest_files(given, source.parent), root.name, str(is_movable), _code("supply/compile.py"))

    def make(out: Path) -> None:
        folder = out / "source"
        folder.mkdir()
        for path in given:
            shutil.copyfile(path, folder / path.name)
        compiler.compile_part(folder / source.name, out, root=root, is_movable=is_movable)
        shutil.rmtree(folder)

    return job.cache.get(f"object-{source.stem}", key, make)
