# SPDX-License-Identifier: Apache-2.0
"""Files that the caller brings: a kata-agent, confidential guest components. A path, or a URL with its sha256.

`PATH`, `PATH#sha256=HEX` or `URL#sha256=HEX` (http, https, file). What has a hash is taken from the cache, where it has
its name only once its hash is right: nothing that happens to a file afterwards gets into an image, and nothing is
fetched twice. An archive or a folder is laid out as its files shall lie in the image.
"""

from __future__ import annotations

import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nvrc_build.ground.answers import open_url
from nvrc_build.ground.cache import Cache, digest
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.progress import Progress
from nvrc_build.ground.run import find, save
from nvrc_build.supply.apt import file_sha256
from nvrc_build.supply.extract import MOST_BYTES, check_folder, extract
from nvrc_build.supply.room import Room, require_room

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCHEMES = ("http", "https", "file")
_FORM = "give PATH, PATH#sha256=64 hexadecimal digits, or URL#sha256=..."
_CHUNK = 1 << 20
_PATIENCE_S, _SLOWEST = 60.0, 1024  # bytes a second, once the patience is over


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
    if given.path is None or given.path.is_file():
        return
    if not given.path.exists():
        raise BuildError(f"{given.what} {given.path} does not exist", _FORM)
    if given.sha256 or not given.path.is_dir():
        raise BuildError(f"{given.what} {given.path} is not a file{'' if given.sha256 else ' and not a folder'}", _FORM)


def open_given(given: Given, cache: Cache, progress: Progress) -> Path:
    """The file or folder itself; what has a hash comes from the cache, and may be there already."""
    check_given(given)
    if given.path is not None and not given.sha256:
        return given.path
    made = cache.get("given", given.sha256, lambda out: _fetch(given, out / "file", progress))
    _check_hash(given, made / "file")
    return made / "file"


def _fetch(given: Given, target: Path, progress: Progress) -> None:
    if given.path is not None:
        shutil.copyfile(given.path, target)
    else:
        _download(given, target, progress)
    _check_hash(given, target)


def _download(given: Given, target: Path, progress: Progress, *, most_bytes: int = MOST_BYTES,
              patience_s: float = _PATIENCE_S) -> None:
    """No answer is too odd for words, and none goes on without an end."""
    parts = urlsplit(given.url)
    if parts.scheme == "file" and not Path(urllib.request.url2pathname(parts.path)).is_file():
        raise _unfetched(given, "it is not a file")
    try:
        with open_url(given.url, patience_s) as answer, target.open("wb") as out:
            told, done, begun = answer.headers.get("Content-Length") or "", 0, time.monotonic()
            total = int(told) if told.isdecimal() else 0
            while chunk := answer.read1(_CHUNK):
                out.write(chunk)
                done += len(chunk)
                spent = time.monotonic() - begun
                if done > most_bytes or (spent > patience_s and done < spent * _SLOWEST):
                    raise _unfetched(given, f"{done} bytes came in {spent:.0f} s, and no end")
                progress(f"{given.what} {done / 1e6:.0f} MB", done, max(total, done))
    except urllib.error.URLError as failed:
        raise _unfetched(given, failed.reason) from failed
    except (TimeoutError, ConnectionError, http.client.HTTPException, ValueError) as failed:
        raise _unfetched(given, f"{type(failed).__name__}: {str(failed).strip()}") from failed


def _unfetched(given: Given, why: object) -> BuildError:
    return BuildError(f"{given.what} {given.url} cannot be fetched: {why}",
                      "check the address and the network, or give a local path")


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
    require_room(f"folder {path}", path, Room())
    return digest(*(f"{file.relative_to(path)} {_state(file)}" for file in sorted(path.rglob("*"))))


def check_unchanged(what: str, path: Path, identity: str) -> None:
    """After it was copied: it is kept under what it was before."""
    if identify(path) != identity:
        raise BuildError(f"{what} {path} was changed while it was read", "run the build again when it is whole")


def _state(file: Path) -> str:
    if file.is_symlink():
        return f"-> {file.readlink()}"
    return f"{file.stat().st_mode:o} {file_sha256(file)}" if file.is_file() else "folder"


def unpack(what: str, source: Path, target: Path, identity: str) -> None:
    """A folder or a tar archive (plain, gz, xz, bz2, zst) into `target`; nothing may point out of it.

    `identity`: what it was when somebody asked, and still has to be.
    """
    if source.is_dir():
        check_folder(what, source)
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        _unpack_archive(what, source, target)
    check_unchanged(what, source, identity)


def _unpack_archive(what: str, source: Path, target: Path) -> None:
    plain = target.with_name(f"{target.name}.tar")
    try:
        with source.open("rb") as stream:
            is_zstd = stream.read(4) == b"\x28\xb5\x2f\xfd"
        if is_zstd:
            save([find("zstd", "zstd"), "-q", "-d", "-c", source], plain, MOST_BYTES, what=f"unpacking {source.name}")
            source = plain
        extract(what, source, target, absolute_links=True)
    finally:
        plain.unlink(missing_ok=True)
