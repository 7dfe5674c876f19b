# SPDX-License-Identifier: Apache-2.0
"""Trustee's key broker on loopback, with its verifier and reference values inside, for one test or file of tests.

The programs are others'; the folder that is given has `kbs` and `kbs-client`. Whoever reaches the port may administer
it, so it listens on loopback only, and what it keeps lies in a folder of the test.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nvrc_lab.ground.errors import LabError

START_S, CLIENT_S, LOOK_AGAIN_S = 60.0, 60.0, 0.1
CONFIG = """
[http_server]
sockets = ["127.0.0.1:{port}"]
insecure_http = true
worker_count = 2

[attestation_token]
insecure_header_jwk = true

[attestation_service]
type = "coco_as_builtin"

[attestation_service.attestation_token_broker]
duration_min = 5

[attestation_service.rvps_config]
type = "BuiltIn"

[admin]
authorization_mode = "InsecureAllowAll"

[storage_backend]
storage_type = "LocalFs"

[storage_backend.backends.local_fs]
dir_path = {folder}

[[plugins]]
name = "resource"
storage_backend_type = "kvstorage"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    programs: Path
    folder: Path
    port: int

    def ask(self, *words: str) -> str:
        """What its client prints."""
        argv = [str(self.programs / "kbs-client"), "--url", f"http://127.0.0.1:{self.port}", *words]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                              timeout=CLIENT_S, check=False)
        if done.returncode:
            raise LabError(f"kbs-client {' '.join(words)} exited with {done.returncode}: {done.stderr.strip()[-300:]}",
                           "see docs/conformance.md for the release that is known")
        return done.stdout

    def put(self, path: str, data: bytes) -> None:
        file = self.folder / "resource"
        file.write_bytes(data)
        self.ask("config", "set-resource", "--path", path, "--resource-file", str(file))

    def register(self, message: Mapping[str, str]) -> int:
        """A message of reference values, as `nvrc-image measure -o` writes it. The HTTP status."""
        where, body = f"http://127.0.0.1:{self.port}/kbs/v0/reference-value", json.dumps(message).encode()
        request = urllib.request.Request(where, data=body, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=CLIENT_S) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code


@contextlib.contextmanager
def open_broker(programs: Path, folder: Path) -> Iterator[Broker]:
    """Until the block ends. What it printed is in `folder`/kbs.log."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = folder / "store"
    store.mkdir()
    config = folder / "kbs.toml"
    config.write_text(CONFIG.format(port=port, folder=json.dumps(str(store))), encoding="utf-8")
    with (folder / "kbs.log").open("wb") as log:
        process = subprocess.Popen([str(programs / "kbs"), "--config-file", str(config)], cwd=folder,
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _await_port(process, port, folder / "kbs.log")
            yield Broker(programs=programs, folder=folder, port=port)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if (status := process.poll()) is not None:
            raise LabError(f"kbs exited with {status}", f"see {log}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(LOOK_AGAIN_S)
    raise LabError(f"kbs did not listen on port {port} within {START_S:g} s", f"see {log}")
