# SPDX-License-Identifier: Apache-2.0
"""Files that the caller brings: a kata-agent, confidential guest components. A path, or a URL with its sha256.

`PATH`, `PATH#sha256=HEX` or `URL#sha256=HEX` (http, https, file). What came from a URL gets its name in the cache only
once its hash is right, and is never fetched twice. An archive or a folder is laid out as its files shall lie in the
image.
"""

from __future__ import annotations

import re
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nvrc_build.ground.cache import Cache, digest
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.progress import Progress
from nvrc_build.ground.run import find, run
from nvrc_build.supply.apt import file_sha256
from nvrc_build.supply.extract import extract

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCHEMES = ("http", "https", "file")
_FORM = "give PATH, PATH#sha256=64 hexadecimal digits, or URL#sha256=..."
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A path or a URL, and the hash that what lies there must have: a URL has one always."""

    what: str
    path: Path | None = None
    url: str = ""
    sha256: str = ""


def parse_given(what: str, text: str) -> Given:
    if "://" not in text:
        path, mark, value = text.rpartition("#sha256=")
        if not mark:
            return Given(what=what, path=Path(text))
        if not _SHA256.fullmatch(value):
            raise BuildError(f"{what} {path}: {value!r} is not a sha256", _FORM)
        return Given(what=what, path=Path(path), sha256=value)
    url, _, fragment = text.partition("#")
    name, _, value = fragment.partition("=")
    if urlsplit(url).scheme not in _SCHEMES:
        raise BuildError(f"{what} {url}: only {', '.join(_SCHEMES)} can be fetched", _FORM)
    if name != "sha256" or not _SHA256.fullmatch(value):
        raise BuildError(f"{what} {url} has no hash, so anything could come from there", _FORM)
    return Given(what=what, url=url, sha256=value)


def check_given(given: Given) -> None:
    if given.path is not None and not given.path.exists():
        raise BuildError(f"{given.what} {given.path} does not exist", _FORM)


def open_given(given: Given, cache: Cache, progress: Progress) -> Path:
    """The file or folder itself; what a URL names comes from the cache when it was fetched before."""
    if given.path is not None:
        if given.sha256:
            _check_hash(given, given.path)
        return given.path
    made = cache.get("given", given.sha256, lambda out: _fetch(given, out / "file", progress))
    _check_hash(given, made / "file")
    return made / "file"


def _fetch(given: Given, target: Path, progress: Progress) -> None:
    try:
        with urllib.request.urlopen(given.url, timeout=60) as answer, target.open("wb") as out:
            total, done = int(answer.headers.get("Content-Length") or 0), 0
            while chunk := answer.read(_CHUNK):
                out.write(chunk)
                done += len(chunk)
                progress(f"{given.what} {done / 1e6:.0f} MB", done, max(total, done))
    except (urllib.error.URLError, TimeoutError, ConnectionError) as failed:
        reason = failed.reason if isinstance(failed, urllib.error.URLError) else failed
        raise BuildError(f"{given.what} {given.url} cannot be fetched: {reason}",
                         "check the address and the network, or give a local path") from failed
    _check_hash(given, target)


def _check_hash(given: Given, file: Path) -> None:
    """At every use: the cache's own digest was taken by whoever filled it."""
    found = file_sha256(file)
    if found != given.sha256:
        raise BuildError(f"{given.what} {given.url or given.path}: sha256 is {found}, {given.sha256} was given",
                         "find out why before you use it; then give the hash of what you want")


def identify(path: Path) -> str:
    """A digest of a file, or of every file, link and mode of a folder."""
    if path.is_file():
        return file_sha256(path)
    return digest(*(f"{file.relative_to(path)} {_state(file)}" for file in sorted(path.rglob("*"))))


def _state(file: Path) -> str:
    if file.is_symlink():
        return f"-> {file.readlink()}"
    return f"{file.stat().st_mode:o} {file_sha256(file)}" if file.is_file() else "folder"


def unpack(what: str, source: Path, target: Path) -> None:
    """A folder or a tar archive (plain, gz, xz, bz2, zst) into `target`; nothing may point out of it."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        return
    plain = target.with_name(f"{target.name}.tar")
    with source.open("rb") as stream:
        if stream.read(4) == b"\x28\xb5\x2f\xfd":
            run([find("zstd", "zstd"), "-q", "-d", "-f", source, "-o", plain], what=f"unpacking {source.name}")
            source = plain
    try:
        extract(what, source, target, absolute_links=True)
    finally:
        plain.unlink(missing_ok=True)
