# SPDX-License-Identifier: Apache-2.0
"""A tree into the file a virtual machine boots from. The packers are pinned tools, run in the tools root."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from pathlib import Path

from nvrc_build.cpio import write_cpio
from nvrc_build.run import clean_env, run
from nvrc_build.sandbox import sandbox_argv
from nvrc_build.tarball import write_tar
from nvrc_build.tree import Entry

# Within 3 % of level 19 on the lab image in a tenth of the time; a rebuild must stay quick.
ZSTD_LEVEL = 9
# Kata's own builder uses these; every guest kernel that has EROFS can read the result.
EROFS_OPTIONS = ("-zlz4hc", "-Enoinline_data", "-b4096")


def write_initrd(entries: Iterable[Entry], path: Path, *, tools: Path, epoch: int) -> None:
    raw = path.with_name(f"{path.name}.cpio")
    with raw.open("wb") as stream:
        for chunk in write_cpio(entries, epoch):
            stream.write(chunk)
    _run(tools, ["/usr/bin/zstd", "-q", "-f", f"-{ZSTD_LEVEL}", "-T2", "--no-check",
                 f"/out/{raw.name}", "-o", f"/out/{path.name}"], path.parent)
    raw.unlink()


def write_erofs(entries: Iterable[Entry], path: Path, *, tools: Path, epoch: int) -> None:
    """The UUID is derived from the content: equal trees give equal file systems."""
    raw = path.with_name(f"{path.name}.tar")
    with raw.open("wb") as stream:
        write_tar(entries, stream, epoch)
    with raw.open("rb") as stream:
        identity = uuid.UUID(bytes=hashlib.file_digest(stream, "sha256").digest()[:16], version=5)
    _run(tools, ["/usr/bin/mkfs.erofs", "--quiet", *EROFS_OPTIONS, "--tar=f", f"-T{epoch}", "--all-time",
                 f"-U{identity}", f"/out/{path.name}", f"/out/{raw.name}"], path.parent)
    raw.unlink()


def read_erofs(path: Path, target: Path, *, tools: Path) -> None:
    """Unpack a file system; it is checked on the way."""
    target.mkdir()
    _run(tools, ["/usr/bin/fsck.erofs", f"--extract=/out/{target.name}", "--overwrite", f"/out/{path.name}"],
         path.parent)


def _run(tools: Path, argv: list[str], folder: Path) -> None:
    run(sandbox_argv(tools, argv, env=clean_env(), writable={"/out": folder}), what=argv[0].rpartition("/")[2])
