# SPDX-License-Identifier: Apache-2.0
"""An image's folder as an artefact of an OCI registry: pushed file by file, pulled by digest, checked as it arrives.

Nothing of a registry is believed: the manifest must have the digest that was asked for, each file the digest and size
that the manifest says, names are those of files in one folder, and sizes have limits before a byte is read. A folder
appears whole or not at all. Follows OCI's distribution specification 1.1 and image specification 1.1 (artefacts).
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nvrc.vocabulary.console import printable
from nvrc_build.ground import answers
from nvrc_build.ground.errors import BuildError, WrongCallError, reason

ARTIFACT = "application/vnd.nvrc.image.v1"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY, FILE = "application/vnd.oci.empty.v1+json", "application/vnd.nvrc.file.v1"
TITLE = "org.opencontainers.image.title"
MANIFEST_LIMIT, MOST_FILES = 1 << 20, 64
PIECE, TIMEOUT_S = 1 << 20, 60.0
SLOWEST = 1024  # bytes a second, once the timeout is over
_HUGE = 1 << 60
_ELSEWHERE = (301, 302, 303, 307, 308)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_REFERENCE = re.compile(r"(?P<host>[A-Za-z0-9.-]+(:[0-9]{1,5})?)/(?P<name>[a-z0-9]+([._/-][a-z0-9]+)*)"
                        r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?")
_LEAVE, _PUSH = "use a registry that keeps what it is given", "push it with: nvrc-image push"
_LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    host: str
    name: str
    tag: str
    digest: str

    def __str__(self) -> str:
        return f"{self.host}/{self.name}" + (f"@{self.digest}" if self.digest else f":{self.tag}")


def parse_reference(text: str) -> Reference:
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise WrongCallError(f"{text!a} is not a reference",
                             "write HOST[:PORT]/NAME:TAG or HOST[:PORT]/NAME@sha256:HEX")
    return Reference(host=found["host"], name=found["name"], tag=found["tag"] or "latest", digest=found["digest"] or "")


class Registry:
    """`credentials`: USER:PASSWORD for basic authentication, empty for none. Only loopback is spoken to without TLS.

    `timeout_s`: until an answer's head is there, until more comes, and until the speed of what comes is looked at."""

    def __init__(self, reference: Reference, credentials: str = "", context: ssl.SSLContext | None = None,
                 timeout_s: float = TIMEOUT_S) -> None:
        self._host, self._base = reference.host, f"/v2/{reference.name}"
        self._headers = {"User-Agent": "nvrc-image"}
        if credentials:
            self._headers["Authorization"] = "Basic " + base64.b64encode(credentials.encode()).decode()
        self._context, self._timeout_s = context, timeout_s
        self._is_plain = reference.host.partition(":")[0] in _LOOPBACK

    @contextmanager
    def ask(self, method: str, path: str, *, body: object = None, headers: Mapping[str, str] | None = None,
            good: tuple[int, ...] = (200,)) -> Iterator[http.client.HTTPResponse]:
        """One request on a connection of its own. BuildError for any other status, and what a connection may raise."""
        with closing(self._connect()) as connection, self._told(f"{method} {path}"):
            connection.request(method, path, body=body, headers={**self._headers, **(headers or {})})  # type: ignore[arg-type]
            answer = connection.getresponse()
            said = answer.read1(300) if answer.status not in (*good, *_ELSEWHERE) else b""
            if answer.status in _ELSEWHERE:
                raise BuildError(f"registry {self._host}: {method} {path}: it sends the reader elsewhere: "
                                 f"{answer.headers.get('Location', '')!a:.200}", "use a registry that answers itself")
            if answer.status not in good:
                raise BuildError(f"registry {self._host}: {method} {path}: {answer.status} "
                                 f"{printable(answer.reason, 80)} {said.decode('utf-8', 'replace').strip()!a}",
                                 "check the name and what the account may do")
            yield answer

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """In words; UnicodeError is of a host's name."""
        try:
            yield
        except (OSError, http.client.HTTPException, UnicodeError) as wrong:
            raise BuildError(f"registry {self._host}: {what}: {printable(reason(wrong), 300)}",
                             "check that the registry answers from here") from wrong

    def _connect(self) -> http.client.HTTPConnection:
        if self._is_plain:
            return answers.Plain(self._host, timeout=self._timeout_s)
        context = self._context or ssl.create_default_context()
        return answers.Secure(self._host, timeout=self._timeout_s, context=context)

    def has_blob(self, digest: str) -> bool:
        with self.ask("HEAD", f"{self._base}/blobs/{digest}", good=(200, 404)) as answer:
            return answer.status == 200

    def put_blob(self, path: Path, digest: str) -> None:
        if self.has_blob(digest):
            return
        with self.ask("POST", f"{self._base}/blobs/uploads/", headers={"Content-Length": "0"}, good=(202,)) as begun:
            told = begun.headers.get("Location", "")
        try:
            where = urlsplit(told)
        except ValueError:
            where = urlsplit("")
        if not where.path.startswith("/") or (where.netloc and where.netloc != self._host):
            raise BuildError(f"registry {self._host}: it sends the upload elsewhere: {told!a:.200}",
                             "use a registry that takes uploads itself")
        query = f"{where.query}&" if where.query else ""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        with path.open("rb") as stream, self.ask("PUT", f"{where.path}?{query}digest={digest}", body=stream,
                                                 headers=headers, good=(201,)):
            pass

    def put_manifest(self, tag: str, manifest: bytes) -> None:
        with self.ask("PUT", f"{self._base}/manifests/{tag}", body=manifest, headers={"Content-Type": MANIFEST},
                      good=(201,)):
            pass

    def get_manifest(self, digest: str) -> bytes:
        data = b"".join(self._pieces(f"{self._base}/manifests/{digest}", MANIFEST_LIMIT, {"Accept": MANIFEST}))
        if len(data) > MANIFEST_LIMIT or _sha256(data) != digest:
            raise BuildError(f"registry {self._host}: the manifest that it gave is not {digest}", _LEAVE)
        return data

    def get_blob(self, digest: str, size: int) -> Iterator[bytes]:
        """The pieces of a blob, no more than its size; the reader compares the digest."""
        for piece in self._pieces(f"{self._base}/blobs/{digest}", size, {}):
            size -= len(piece)
            if size < 0:
                raise BuildError(f"registry {self._host}: {digest} has more bytes than the manifest says", _LEAVE)
            yield piece

    def _pieces(self, path: str, limit: int, headers: Mapping[str, str]) -> Iterator[bytes]:
        """Up to one byte more than the limit, as they come, and no slower than is bearable."""
        begun, left = time.monotonic(), limit + 1
        with self.ask("GET", path, headers=headers) as answer:
            while left and (piece := answer.read1(min(PIECE, left))):
                left -= len(piece)
                spent = time.monotonic() - begun
                if spent > self._timeout_s and limit + 1 - left < spent * SLOWEST:
                    raise BuildError(f"registry {self._host}: {path}: {limit + 1 - left} bytes came in {spent:.0f} s",
                                     "use a registry that is reached faster")
                yield piece


def push(files: list[Path], reference: Reference, registry: Registry) -> str:
    """The digest by which the artefact is pulled."""
    layers = []
    for path in files:
        digest = _sha256_of(path)
        registry.put_blob(path, digest)
        layers.append({"mediaType": FILE, "digest": digest, "size": path.stat().st_size,
                       "annotations": {TITLE: path.name}})
    with tempfile.NamedTemporaryFile() as empty:
        empty.write(b"{}")
        empty.flush()
        registry.put_blob(Path(empty.name), _sha256(b"{}"))
    config = {"mediaType": EMPTY, "digest": _sha256(b"{}"), "size": 2}
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ARTIFACT, "config": config, "layers": layers}
    manifest = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    registry.put_manifest(reference.tag, manifest)
    return _sha256(manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    name: str
    digest: str
    size: int


def pull(reference: Reference, registry: Registry, target: Path, limit: int,
         check: Callable[[Path], None] = lambda _folder: None) -> list[str]:
    """Into a folder that does not exist yet. `limit`: bytes of all files together. `check`: has the last word."""
    if os.path.lexists(target):
        raise WrongCallError(f"{target} exists already", "name a new folder")
    layers = read_layers(registry.get_manifest(reference.digest), limit)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for layer in layers:
            _save(registry, layer, work / layer.name)
        check(work)
        os.chmod(work, 0o755)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return [layer.name for layer in layers]


def _save(registry: Registry, layer: Layer, path: Path) -> None:
    found, size = hashlib.sha256(), 0
    with path.open("xb") as stream:
        for piece in registry.get_blob(layer.digest, layer.size):
            stream.write(piece)
            found.update(piece)
            size += len(piece)
    if f"sha256:{found.hexdigest()}" != layer.digest or size != layer.size:
        raise BuildError(f"{layer.name}: {size} bytes with sha256 {found.hexdigest()} came; the manifest says "
                         f"{layer.size} bytes, {layer.digest}", _LEAVE)


def read_layers(manifest: bytes, limit: int) -> list[Layer]:
    try:
        document = json.loads(manifest.decode())
        kinds = [(document.get("mediaType"), MANIFEST), (document.get("artifactType"), ARTIFACT),
                 *((row["mediaType"], FILE) for row in document["layers"])]
        layers = [Layer(name=row["annotations"][TITLE], digest=row["digest"], size=row["size"])
                  for row in document["layers"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as wrong:
        raise BuildError(f"the manifest is not one of an image: {reason(wrong)}", _PUSH) from wrong
    mistakes = [f"a type is {found!a:.90}, not {kind}" for found, kind in kinds if found != kind]
    mistakes += [f"{layer.name!a:.60} is not a plain file name" for layer in layers
                 if not isinstance(layer.name, str) or not _NAME.fullmatch(layer.name)]
    mistakes += [f"{layer.digest!a:.90} is not a digest, or {layer.size!a:.30} not a size" for layer in layers
                 if not isinstance(layer.digest, str) or not re.fullmatch(r"sha256:[0-9a-f]{64}", layer.digest)
                 or type(layer.size) is not int or not 0 <= layer.size < _HUGE]
    if not mistakes:
        if not 0 < len(layers) <= MOST_FILES or len({layer.name for layer in layers}) < len(layers):
            mistakes.append(f"it has {len(layers)} files (1 to {MOST_FILES} are possible), or one twice")
        if sum(layer.size for layer in layers) > limit:
            mistakes.append(f"its files have {sum(layer.size for layer in layers)} bytes together; "
                            f"at most {limit} are taken")
    if mistakes:
        raise BuildError(f"the manifest cannot be used: {'; '.join(mistakes)}", _PUSH)
    return layers


def _sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
