# SPDX-License-Identifier: Apache-2.0
"""Which program this is: one line with version and hash, the same from PID 1's file as from a checkout.

The hash is the SHA-256 of the list of the program's files, `<sha256>  <relative path>` per line and sorted by path, as
`sha256sum` prints it. The files are the one that runs (/proc/self/exe) and those of the bundle beside it: below
`_internal` in a frozen program, the package's sources in a checkout. So in the folder of the frozen program `nvrc`

    find nvrc _internal -type f -o -type l | LC_ALL=C sort | xargs sha256sum | sha256sum

gives the same value.
"""

from __future__ import annotations

import hashlib
import os

from guest_cdi.lean.light import Iterator
from nvrc import __version__

EXECUTABLE = "/proc/self/exe"
UNKNOWN = "unknown"
_CHUNK = 1 << 20


def identity_line(sha256: str) -> str:
    return f"NVRC version={__version__} sha256={sha256}"


def program_hash(executable: str, bundle: str, suffix: str = "") -> str:
    """Hash of the executable and of the files below `bundle` that end in `suffix`; `unknown` if one is unreadable."""
    try:
        launcher = os.path.realpath(executable, strict=True)
        folder = os.path.dirname(launcher)
        files = {os.path.basename(launcher): launcher}
        for path in _files_below(bundle, suffix):
            inside = os.path.commonpath([folder, path]) == folder
            files[os.path.relpath(path, folder if inside else os.path.dirname(bundle))] = path
        listing = "".join(f"{_file_hash(files[name])}  {name}\n" for name in sorted(files))
    except OSError:
        return UNKNOWN
    return hashlib.sha256(os.fsencode(listing)).hexdigest()


def _files_below(folder: str, suffix: str) -> Iterator[str]:
    for parent, _, names in os.walk(folder, onerror=_refuse):
        yield from (os.path.join(parent, name) for name in names if name.endswith(suffix))


def _refuse(error: OSError) -> None:
    raise error


def _file_hash(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()
