# SPDX-License-Identifier: Apache-2.0
"""A tree as a tar stream: how it is handed to mkfs without a folder, an account or a clock of this machine in it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from typing import IO

from nvrc_build.tree import Entry, Kind

_TYPE = {Kind.FILE: tarfile.REGTYPE, Kind.FOLDER: tarfile.DIRTYPE, Kind.LINK: tarfile.SYMTYPE,
         Kind.NODE: tarfile.CHRTYPE}


def write_tar(entries: Iterable[Entry], stream: IO[bytes], mtime: int) -> None:
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(f".{entry.path}" if entry.path != "/" else "./")
            info.type, info.mode, info.mtime = _TYPE[entry.kind], entry.mode, mtime
            info.linkname, (info.devmajor, info.devminor) = entry.target, entry.device
            data = entry.read() if entry.kind is Kind.FILE else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
