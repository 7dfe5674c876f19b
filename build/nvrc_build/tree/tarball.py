# SPDX-License-Identifier: Apache-2.0
"""A tree as a tar stream: how it is handed to mkfs without a folder, an account or a clock of this machine in it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from typing import IO

from nvrc_build.tree.tree import Entry, Kind

_TYPE = {Kind.FILE: tarfile.REGTYPE, Kind.FOLDER: tarfile.DIRTYPE, Kind.LINK: tarfile.SYMTYPE,
         Kind.NODE: tarfile.CHRTYPE}


def write_tar(entries: Iterable[Entry], stream: IO[bytes], mtime: int) -> None:
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(f".{entry.path}" if entry.path != "/" else "./")
            info.type, info.mode, info.mtime = _TYPE[entry.kind], entry.mode, mtime
            # How tar keeps extended attributes; values go through as they are, whatever bytes they have.
            info.pax_headers = {f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")
                                for name, value in entry.xattrs}
            info.linkname, (info.devmajor, info.devminor) = entry.target, entry.device
            data = entry.read() if entry.kind is Kind.FILE else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
