# SPDX-License-Identifier: Apache-2.0
"""What stands between Kata's runtime and a host that lacks KVM or vhost-vsock: arguments, configuration, the hybrid socket."""

from __future__ import annotations

import json
import socket
import sys
import tarfile
import threading
import tomllib
from pathlib import Path

import pytest

from nvrc_build.tree.tree import Origin, Tree
from nvrc_lab.agent import hybrid_vsock, syslog_sink
from nvrc_lab.agent.hybrid_vsock import read_request
from nvrc_lab.agent.kata_config import HostPrograms, to_toml, write_config
from nvrc_lab.agent.kata_host import run_program
from nvrc_lab.agent.kata_qemu import emulate, find_folder, is_machine, translate
from nvrc_lab.agent.pod_image import FOLDERS, NAME, write_image
from nvrc_lab.qemu.machine import TCG_CPU

# As Kata 4.1's Go runtime starts a machine, less what is of no interest here.
KATA = ("-name", "sandbox-x", "-machine", "q35,accel=kvm", "-cpu", "host,pmu=off", "-qmp",
        "unix:fd=3,server=on,wait=off", "-m", "1024M,slots=10,maxmem=24082M", "-chardev",
        "socket,id=charconsole0,path=/run/vc/vm/x/console.sock,server=on,wait=off")
MEMORY = ("-object", "memory-backend-file,id=dimm1,size=1024M,mem-path=/dev/shm,share=on", "-numa", "node,memdev=dimm1")


def option(words: tuple[str, ...], name: str) -> list[str]:
    return [words[place + 1] for place, word in enumerate(words) if word == name]


@pytest.mark.parametrize(("more", "objects", "numa"), [
    pytest.param((), ["memory-backend-memfd,id=shared,size=1024M,share=on"], ["node,memdev=shared"], id="no memory object"),
    pytest.param(MEMORY, ["memory-backend-memfd,id=dimm1,size=1024M,share=on"], ["node,memdev=dimm1"], id="a shared file")])
def test_a_machine_for_emulation_shares_its_memory(more: tuple[str, ...], objects: list[str], numa: list[str]) -> None:
    words = emulate((*KATA, *more))
    assert option(words, "-machine") == ["q35,accel=tcg"]
    assert option(words, "-cpu") == [TCG_CPU]
    assert (option(words, "-object"), option(words, "-numa")) == (objects, numa)
    assert words[words.index("-m") + 1] == "1024M,slots=10,maxmem=24082M", "the rest is the runtime's"


def test_the_interrupt_controller_of_kvm_goes() -> None:
    assert option(emulate(("-machine", "q35,accel=kvm,kernel_irqchip=split,nvdimm=on", "-m", "1M")), "-machine") == [
        "q35,accel=tcg,nvdimm=on"]


@pytest.mark.parametrize(("argv", "expected"), [
    pytest.param(KATA, True, id="a machine"), pytest.param(("-version",), False, id="a question")])
def test_what_is_a_machine(argv: tuple[str, ...], expected: bool) -> None:
    assert is_machine(argv) is expected


def test_the_folder_of_a_vm() -> None:
    assert find_folder(KATA) == Path("/run/vc/vm/x")
    with pytest.raises(ValueError, match="no socket"):
        find_folder(("-version",))


@pytest.mark.parametrize(("argv", "expected"), [
    pytest.param(("--fd=3", "--shared-dir=/a/b", "--cache=auto", "--thread-pool-size=1", "--announce-submounts", "--syslog"),
                 ("--fd=3", "-o", "source=/a/b", "-o", "cache=auto", "--thread-pool-size=1", "-o", "announce_submounts"), id="Kata's"),
    pytest.param(("--cache=never",), ("-o", "cache=none"), id="no cache")])
def test_options_of_an_older_virtiofsd(argv: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert translate(argv) == ("-f", "-o", "sandbox=namespace", *expected)


def test_the_input_of_a_program_does_not_end_before_the_program() -> None:
    look = "import select; print(select.select([0], [], [], 0)[0])"
    assert run_program([sys.executable, "-c", look], 60).output == "[]\n", "neither data nor an end"


@pytest.mark.parametrize(("sent", "port"), [
    pytest.param(b"CONNECT 1024\nrest", 1024, id="a port, and what is for the guest"),
    pytest.param(b"CONNECT\n", None, id="no port"), pytest.param(b"CONNECT -1\n", None, id="no number"),
    pytest.param(b"HELLO 1\n", None, id="another word"), pytest.param(b"x" * 100, None, id="too long"), pytest.param(b"CONN", None, id="cut off")])
def test_a_request_for_a_port(sent: bytes, port: int | None) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        if port is None:
            with pytest.raises(ValueError, match="no request"):
                read_request(ours)
        else:
            assert read_request(ours) == port
            assert ours.recv(10) == b"rest"


def test_a_configuration_is_the_class_and_a_drop_in(tmp_path: Path) -> None:
    of_class = tmp_path / "configuration-x.toml"
    of_class.write_text('[hypervisor.qemu]\nkernel = "/theirs"\n')
    (tmp_path / "to/config.d").mkdir(parents=True)
    (tmp_path / "to/config.d/50-nvrc.toml").write_text("[runtime]\n")
    programs = HostPrograms(qemu=Path("/w/qemu"), virtiofsd=Path("/w/virtiofsd"))
    file = write_config(tmp_path / "to", of_class, programs, {"hypervisor.qemu": {"kernel": '/our "own"'}, "agent.kata": {"dial_timeout": 7}})
    assert file.read_text() == of_class.read_text()
    assert sorted(path.name for path in (tmp_path / "to/config.d").iterdir()) == ["50-nvrc.toml", "90-lab.toml"]
    read = tomllib.loads((tmp_path / "to/config.d/90-lab.toml").read_text())
    assert read["hypervisor"]["qemu"]["path"] == "/w/qemu"
    assert read["hypervisor"]["qemu"]["kernel"] == '/our "own"'
    assert (read["agent"]["kata"], read["runtime"]) == ({"dial_timeout": 7}, {"enable_debug": True})


def test_values_of_every_kind() -> None:
    assert tomllib.loads(to_toml({"a.b": {"t": True, "n": 3, "s": "\\", "l": ["x", "y"]}})) == {
        "a": {"b": {"t": True, "n": 3, "s": "\\", "l": ["x", "y"]}}}


def test_an_image_of_static_programs(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    more, origin = Tree(), Origin(slice="test")
    more.add_file("/usr/sbin/tool", b"tool", origin, mode=0o755)
    more.add_link("/sbin", "usr/sbin", origin)
    write_image(tmp_path / "image.tar", {"show": program}, more)
    with tarfile.open(tmp_path / "image.tar") as tar:
        (manifest,) = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        assert manifest["RepoTags"] == [NAME]
        config = json.loads(tar.extractfile(manifest["Config"]).read())  # type: ignore[union-attr]
        with tarfile.open(fileobj=tar.extractfile(manifest["Layers"][0])) as layer:
            assert layer.getnames() == [*FOLDERS, "show", "sbin", "usr/sbin/tool"]
            assert layer.getmember("sbin").linkname == "usr/sbin"
            assert layer.getmember("usr/sbin/tool").mode == 0o755
            assert layer.getmember("show").mode == 0o755
    assert len(config["rootfs"]["diff_ids"]) == 1


def test_the_hybrid_socket_passes_both_ways() -> None:
    class Guest:
        """A port that echoes until it has heard `end`."""

        def __init__(self) -> None:
            self.ours, self.theirs = socket.socketpair()

        def connect(self, port: int, limit_s: float) -> Guest:
            if port != 1024:
                raise TimeoutError
            return self

        def sendall(self, data: bytes) -> None:
            self.theirs.sendall(data.upper())

        def receive_some(self) -> bytes:
            return self.ours.recv(100)

        def close(self) -> None:
            self.theirs.shutdown(socket.SHUT_WR)

    listener = socket.socket(socket.AF_INET)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    guest = Guest()
    threading.Thread(target=hybrid_vsock.serve, args=(guest, listener), daemon=True).start()
    with socket.create_connection(listener.getsockname(), timeout=10) as client:
        client.sendall(b"CONNECT 1025\n")
        assert client.recv(100) == b"", "nobody listens there"
    with socket.create_connection(listener.getsockname(), timeout=10) as client:
        client.sendall(b"CONNECT 1024\nhello")
        said = b""
        while len(said) < len(hybrid_vsock.OK) + 5:
            said += client.recv(100)
        assert said == hybrid_vsock.OK + b"HELLO"
    listener.shutdown(socket.SHUT_RDWR)
    for one in (listener, guest.ours, guest.theirs):
        one.close()


def test_a_syslog_is_written_into_a_file(tmp_path: Path) -> None:
    with syslog_sink.listen(tmp_path / "log") as sink, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client, \
            (tmp_path / "file").open("wb") as file:
        for text in (b"<30>kata: one", b"<30>kata: two\n"):
            client.sendto(text, str(tmp_path / "log"))
            syslog_sink.take(sink, file.fileno())
    assert (tmp_path / "file").read_text() == "<30>kata: one\n<30>kata: two\n"
