# SPDX-License-Identifier: Apache-2.0
"""What the lab asks of a broker and of an agent for a confidential pod, with programs that stand in for others'."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.kata_agent import FakeAgent
from nvrc_lab.agent.kata_agent import MOUNTS, Agent, Container, Mount, Storage
from nvrc_lab.agent.key_broker import open_broker
from nvrc_lab.agent.protobuf import Fields, bytes_of, decode, number_of, text_of
from nvrc_lab.agent.ttrpc import Client
from nvrc_lab.ground.errors import LabError

ROOT = Path(__file__).resolve().parents[3]
KBS = """
import http.server, json, pathlib, sys, tomllib
config = tomllib.loads(pathlib.Path(sys.argv[2]).read_text())
host, port = config["http_server"]["sockets"][0].split(":")
assert host == "127.0.0.1" and pathlib.Path(config["storage_backend"]["backends"]["local_fs"]["dir_path"]).is_dir()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200 if self.path == "/kbs/v0/reference-value" and body["type"] == "sample" else 401)
        self.end_headers()
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"""
CLIENT = """
import sys
if "missing" in sys.argv:
    sys.exit("no such resource")
print(" ".join(sys.argv[3:]))
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, text in (("kbs", KBS), ("kbs-client", CLIENT)):
        (folder / name).write_text(f"#!{sys.executable}\n{text}")
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.long
def test_a_broker_serves_as_long_as_its_block_lasts(programs: Path, tmp_path: Path) -> None:
    work = tmp_path / "broker"
    work.mkdir()
    with open_broker(programs, work) as broker:
        broker.put("default/test/secret", b"42")
        assert (work / "resource").read_bytes() == b"42"
        assert broker.ask("config", "set-resource-policy", "--affirming") == "config set-resource-policy --affirming\n"
        assert broker.register({"version": "0.1.0", "type": "sample", "payload": "e30="}) == 200
        assert broker.register({"version": "0.1.0", "type": "other", "payload": ""}) == 401
        with pytest.raises(LabError, match="kbs-client missing exited with 1: no such resource"):
            broker.ask("missing")
    assert tomllib.loads((work / "kbs.toml").read_text())["admin"] == {"authorization_mode": "InsecureAllowAll"}


def test_a_broker_that_does_not_start_is_told(programs: Path, tmp_path: Path) -> None:
    (programs / "kbs").write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(LabError, match="kbs exited with 3"), open_broker(programs, tmp_path):
        pass


def asked(agent: FakeAgent, method: str) -> Fields:
    return agent.payload(method)


def test_a_network_a_policy_and_a_file_are_messages_of_katas_agent() -> None:
    """Numbers of agent.proto and types.proto, Kata Containers 4.1."""
    fake = FakeAgent({})
    agent = Agent(Client(fake), 5.0)
    agent.set_address("eth0", "52:54:00:6e:76:01", "10.0.2.15", 24)
    agent.set_route("eth0", "10.0.2.2")
    agent.create_sandbox("pod", dns=["nameserver 10.0.2.3"])
    agent.set_policy("package agent_policy")
    agent.execute("main", "exec", ["/show"])
    agent.copy_file("/run/kata-containers/shared/containers/x", b"#!", 0o100755)
    interface = decode(bytes_of(asked(fake, "UpdateInterface"), 1))
    address = decode(bytes_of(interface, 3))
    assert (text_of(interface, 1), text_of(interface, 2), number_of(interface, 4), text_of(interface, 5)) == (
        "eth0", "eth0", 1500, "52:54:00:6e:76:01")
    assert (number_of(address, 1), text_of(address, 2), text_of(address, 3)) == (0, "10.0.2.15", "24")
    route = decode(bytes_of(decode(bytes_of(asked(fake, "UpdateRoutes"), 1)), 1))
    assert (text_of(route, 1), text_of(route, 2), text_of(route, 3)) == ("", "10.0.2.2", "eth0")
    assert asked(fake, "CreateSandbox") == {1: (b"lab",), 2: (b"nameserver 10.0.2.3",), 5: (b"pod",)}
    assert text_of(asked(fake, "SetPolicy"), 1) == "package agent_policy"
    assert decode(bytes_of(asked(fake, "ExecProcess"), 4))[4] == (b"/show",)
    assert asked(fake, "CopyFile") == {1: (b"/run/kata-containers/shared/containers/x",), 2: (2,), 3: (0o100755,), 4: (0o755,), 8: (b"#!",)}


@pytest.mark.parametrize("in_pod", [True, False])
def test_a_container_with_an_encrypted_volume(in_pod: bool) -> None:
    fake = FakeAgent({})
    volume = Storage(driver="blk", source="/dev/vda", target="/run/x", kind="ext4", options=("rw",), settings=("encryption_key=ephemeral",))
    Agent(Client(fake), 5.0).create(Container(
        name="one", args=("/show",), annotations={}, cgroups_path="a:b:c", root="/run/kata-containers/one/rootfs", storages=(volume,),
        mounts=(Mount(target="/data", kind="bind", source="/run/x", options=("rbind",)),), in_pod=in_pod))
    message = asked(fake, "CreateContainer")
    assert decode(bytes_of(message, 5)) == {1: (b"blk",), 2: (b"encryption_key=ephemeral",), 3: (b"/dev/vda",), 4: (b"ext4",), 5: (b"rw",),
                                            6: (b"/run/x",)}
    spec = decode(bytes_of(message, 6))
    assert text_of(decode(bytes_of(spec, 3)), 1) == "/run/kata-containers/one/rootfs"
    assert len(spec[5]) == len(MOUNTS) + 1
    namespaces = [text_of(decode(one), 1) for one in decode(bytes_of(spec, 8))[6] if isinstance(one, bytes)]
    assert ("network" in namespaces) != in_pod


@pytest.fixture
def server() -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"kbs-secret-42" if self.path == "/cdh/resource/default/test/secret" else b"refused"
            self.send_response(200 if body != b"refused" else 401)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: object) -> None:
            pass

    httpd = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
    yield httpd.server_port
    httpd.shutdown()
    httpd.server_close()


@pytest.mark.long
def test_the_program_that_asks_the_loopback(tmp_path: Path, server: int) -> None:
    assert shutil.which("gcc")
    ask = tmp_path / "ask"
    subprocess.run(["gcc", "-static", "-O1", "-Wall", "-Werror", "-o", ask, ROOT / "qemu-tests/container/ask.c"], check=True)

    def told(path: str, port: int = server) -> str:
        return subprocess.run([ask, str(port), path], capture_output=True, text=True, check=False).stdout

    assert told("/cdh/resource/default/test/secret") == "ask: 200 kbs-secret-42\n"
    assert told("/aa/token") == "ask: 401 refused\n"
    assert told("/", 1) == "ask: connect: Connection refused\n"
