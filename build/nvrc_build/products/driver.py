# SPDX-License-Identifier: Apache-2.0
"""A GPU driver's kernel modules from a source package: unpack, edit as declared, compile, strip, sign.

Compiled in the pinned compile root against the headers of the image's kernel. The signing key is made in the sandbox's
memory for one run and is gone with it; only the certificate stays. Signed bytes therefore differ from key to key: the
digests before signing are kept beside them, and those are equal wherever the same inputs are built.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from nvrc_build.declared.declared import Driver
from nvrc_build.declared.parts import Edit
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import clean_env, run
from nvrc_build.sandbox.sandbox import sandbox_argv
from nvrc_build.supply import compile as compiler
from nvrc_build.supply.apt import file_sha256
from nvrc_build.supply.extract import extract

_RECIPES = Path(__file__).parent / "recipes"
_MAGIC = b"~Module signature appended~\n"


def build_driver(driver: Driver, package: Path, out: Path, *, root: Path, jobs: int,
                 headers: Path | None = None) -> None:
    """Leave the signed modules in `out`, with signing.x509 and unsigned.sha256. `headers`: instead of the root's."""
    source = out / "source"
    _unpack(find_source(driver, package), driver.folder, source)
    for edit in driver.edits:
        apply_edit(source / edit.file, edit)
    built = _compile(source, driver.modules, root=root, jobs=jobs, headers=headers)
    for path in built:
        path.rename(out / path.name)
    shutil.rmtree(source)
    modules = [out / path.name for path in built]
    (out / "unsigned.sha256").write_text(
        "".join(f"{file_sha256(path)}  {path.name}\n" for path in modules), encoding="ascii")
    sign(modules, out, root=root)


def find_source(driver: Driver, package: Path) -> Path:
    """The one path of the package that the declaration's pattern matches: a release may be in its name."""
    found = sorted(package.glob(driver.source.lstrip("/")))
    if len(found) != 1:
        raise BuildError(f"driver {driver.name}: {len(found)} paths of package {driver.package} match {driver.source}",
                         "correct source in the driver's declaration")
    return found[0]


def _unpack(archive: Path, folder: str, target: Path) -> None:
    if archive.is_dir():
        shutil.copytree(archive / folder, target, symlinks=True)
        return
    extract("the driver's source", archive, target.with_suffix(".all"))
    (target.with_suffix(".all") / folder).rename(target)
    shutil.rmtree(target.with_suffix(".all"))


def apply_edit(path: Path, edit: Edit) -> None:
    """Exactly one place must match: a source that has moved on is an error, never a silent no-op."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.count(edit.find) != 1:
        raise BuildError(f"edit of {edit.file}: {text.count(edit.find)} places match {edit.find!r}",
                         "correct or drop the edit in rootfs/drivers")
    path.write_text(text.replace(edit.find, edit.replace), encoding="utf-8")


def _compile(source: Path, modules: Sequence[str], *, root: Path, jobs: int,
             headers: Path | None) -> tuple[Path, ...]:
    built_against = Path("/src") if headers else compiler.headers_path(root)
    common = str(built_against).replace("/build", "/source")
    argv = sandbox_argv(root, [
        "/usr/bin/make", "-C", "/out", f"-j{jobs}", "modules", f"CC={compiler.CC}", "ARCH=x86_64",
        f"SYSSRC={common}", f"SYSOUT={built_against}", "IGNORE_CC_MISMATCH=1", f"NV_KERNEL_MODULES={' '.join(modules)}",
        "KBUILD_BUILD_USER=nvrc", "KBUILD_BUILD_HOST=build", "KBUILD_BUILD_TIMESTAMP=@0",
    ], env=clean_env(), read_only={"/src": headers} if headers else {}, writable={"/out": source})
    run(argv, what="building the driver's kernel modules", timeout_s=1500)
    built = tuple(source / f"{name}.ko" for name in modules)
    strip = ["/usr/bin/strip", "--strip-debug", "--enable-deterministic-archives",
             *(f"/out/{path.name}" for path in built)]
    run(sandbox_argv(root, strip, env=clean_env(), writable={"/out": source}), what="strip")
    return built


def sign(modules: Sequence[Path], out: Path, *, root: Path) -> None:
    kbuild = next((root / "usr/lib").glob("linux-kbuild-*/scripts/sign-file"), None)
    if kbuild is None:
        raise BuildError("the compile root has no sign-file",
                         "add linux-kbuild, which its kernel headers package should bring")
    argv = sandbox_argv(root, [
        "/usr/bin/make", "--silent", "-f", "/src/sign.mk", f"SIGN_FILE=/{kbuild.relative_to(root)}",
        f"MODULES={' '.join(f'/out/{path.name}' for path in modules)}",
    ], env=clean_env(), read_only={"/src": _RECIPES}, writable={"/out": out})
    run(argv, what="signing modules")
    unsigned = [path.name for path in modules if not is_signed(path)]
    if unsigned:
        raise BuildError(f"modules without signature after signing: {', '.join(unsigned)}")


def is_signed(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-len(_MAGIC), 2)
        return stream.read() == _MAGIC
