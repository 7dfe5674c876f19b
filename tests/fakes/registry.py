# SPDX-License-Identifier: Apache-2.0
"""A small registry on loopback: blobs and manifests of the OCI distribution specification, kept in memory.

It conforms where it is asked: uploads in one piece, digests compared, what a manifest names must be there. A test may make
it lie.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_BLOB = re.compile(r"/v2/(?P<name>[a-z0-9/._-]+)/blobs/(?P<digest>sha256:[0-9a-f]{64})")
_UPLOAD = re.compile(r"/v2/(?P<name>[a-z0-9/._-]+)/blobs/uploads/(?P<id>[0-9]*)")
_MANIFEST = re.compile(r"/v2/(?P<name>[a-z0-9/._-]+)/manifests/(?P<reference>[A-Za-z0-9._:-]+)")


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Registry:
    """`lies`: what is given in the place of a digest's content. `location`: where uploads are sent instead of here."""

    password: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    lies: dict[str, bytes] = field(default_factory=dict)
    location: str = ""
    puts: int = 0

    def __post_init__(self) -> None:
        registry = self

        class Handler(_Handler):
            store = registry

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    store: Registry

    def log_message(self, *_words: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        with suppress(ConnectionError):  # who has read enough hangs up
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def _is_refused(self) -> bool:
        import base64

        wanted = "Basic " + base64.b64encode(self.store.password.encode()).decode()
        if self.store.password and self.headers.get("Authorization") != wanted:
            self._answer(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}')
            return True
        return False

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self._is_refused():
            return
        if self.path == "/v2/":
            self._answer(200, b"{}")
            return
        for pattern, store, key in ((_BLOB, self.store.blobs, "digest"), (_MANIFEST, self.store.manifests, "reference")):
            if (found := pattern.fullmatch(self.path)) and found[key] in store:
                told = {"Content_Type": MANIFEST_TYPE, "Docker_Content_Digest": sha256(store[found[key]])} if store is self.store.manifests else {}
                self._answer(200, self.store.lies.get(found[key], store[found[key]]), **told)
                return
        self._answer(404, b'{"errors":[{"code":"BLOB_UNKNOWN"}]}')

    def do_POST(self) -> None:
        if self._is_refused():
            return
        found = _UPLOAD.fullmatch(self.path)
        if found is None:
            self._answer(404)
            return
        self._answer(202, Location=self.store.location or f"/v2/{found['name']}/blobs/uploads/1?state=x")

    def do_PUT(self) -> None:
        if self._is_refused():
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        where = urlsplit(self.path)
        if _UPLOAD.fullmatch(where.path):
            (digest,) = parse_qs(where.query)["digest"]
            if sha256(body) != digest:
                self._answer(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
                return
            self.store.blobs[digest] = body
            self.store.puts += 1
            self._answer(201)
            return
        found = _MANIFEST.fullmatch(where.path)
        document = json.loads(body)
        named = [document["config"], *document["layers"]]
        if found is None or not all(len(self.store.blobs.get(row["digest"], b"?")) == row["size"] for row in named):
            self._answer(404, b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}')
            return
        self.store.manifests[found["reference"]] = self.store.manifests[sha256(body)] = body
        self._answer(201)
