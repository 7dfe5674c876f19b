# SPDX-License-Identifier: Apache-2.0
"""What Kata's runtime asks its agent for: messages of agent.proto, health.proto and oci.proto that a pod needs.

The numbers are those of the .proto files of Kata Containers 4.1; a container is described by an OCI configuration, as
the lab's bundle has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nvrc_lab.agent.protobuf import bytes_of, decode, encode, number_of, repeat, text_of
from nvrc_lab.agent.ttrpc import Client, RpcError

PORT = 1024
AGENT, HEALTH = "grpc.AgentService", "grpc.Health"
SERVING = 1
CHUNK = 4096
ROOTFS = "/lab/bundle/rootfs"
# What containerd gives an ordinary container.
CAPABILITIES = tuple(f"CAP_{word}" for word in (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"))
BOUNDING, EFFECTIVE, PERMITTED = 1, 2, 4
NAMESPACES = ("mount", "ipc", "uts", "network")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    target: str
    kind: str
    source: str
    options: tuple[str, ...] = ()


MOUNTS = (Mount(target="/proc", kind="proc", source="proc"),
          Mount(target="/dev", kind="tmpfs", source="tmpfs", options=("nosuid", "mode=755")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What the agent mounts for a container, or makes of a disk. `settings`: what Kata calls driver options."""

    driver: str
    source: str
    target: str
    kind: str = ""
    options: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container as the runtime describes it to the agent, which adds a PID namespace by itself.

    `in_pod`: without a network namespace of its own, as Kata's runtime has it, so that it reaches the guest's loopback.
    `passed`: PCI addresses of the host whose functions are the guest's to drive, as Kata's runtimes tell them of GPUs
    and NICs; without a place in the guest, as of a function that is not on the machine's first root bus.
    `blocks`: block devices by their path in the container, each with the guest's numbers.
    """

    name: str
    args: tuple[str, ...]
    env: tuple[str, ...] = ("PATH=/",)
    annotations: Mapping[str, str]
    cgroups_path: str
    shares_pids: bool = False
    root: str = ROOTFS
    mounts: tuple[Mount, ...] = ()
    storages: tuple[Storage, ...] = ()
    in_pod: bool = False
    passed: tuple[str, ...] = ()
    blocks: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    version: str
    is_init: bool


def encode_process(args: Sequence[str], env: Sequence[str]) -> bytes:
    root = repeat(3, [b""])  # a user with the numbers 0, which must be there
    capabilities = b"".join(repeat(kind, CAPABILITIES) for kind in (BOUNDING, EFFECTIVE, PERMITTED))
    return root + repeat(4, args) + repeat(5, env) + encode((6, "/"), (7, capabilities))


def encode_spec(container: Container) -> bytes:
    no_device = repeat(1, [encode((5, "rwm"))])
    linux = (encode((4, no_device), (5, container.cgroups_path))
             + repeat(6, [encode((1, kind)) for kind in NAMESPACES if not (container.in_pod and kind == "network")])
             + repeat(7, [encode((1, path), (2, "b"), (3, major), (4, minor), (5, 0o600))
                          for path, (major, minor) in container.blocks.items()]))
    return b"".join((
        encode((1, "1.0.2"), (2, encode_process(container.args, container.env)), (3, encode((1, container.root))),
               (4, "lab")),
        repeat(5, [encode((1, one.target), (2, one.source), (3, one.kind)) + repeat(4, one.options)
                   for one in (*MOUNTS, *container.mounts)]),
        repeat(7, [encode((1, key), (2, value)) for key, value in container.annotations.items()]),
        encode((8, linux)),
    ))


def encode_passed(number: int, address: str) -> bytes:
    """A function that the guest's own kernel drives; nothing of it is a device of the container's."""
    path = f"/dev/vfio/{number}"
    return encode((1, f"vfio{number}"), (2, "vfio-pci-gk"), (4, path)) + repeat(5, [f"{address}="])


def encode_storage(storage: Storage) -> bytes:
    return (encode((1, storage.driver)) + repeat(2, storage.settings) + encode((3, storage.source), (4, storage.kind))
            + repeat(5, storage.options) + encode((6, storage.target)))


class Agent:
    """The agent of one sandbox. `limit_s`: for each call, unless it waits for a container."""

    def __init__(self, client: Client, limit_s: float) -> None:
        self._client = client
        self._limit_s = limit_s

    def _ask(self, method: str, *fields: tuple[int, int | str | bytes], limit_s: float = 0.0) -> bytes:
        return self._client.call(AGENT, method, encode(*fields), limit_s or self._limit_s)

    def is_serving(self) -> bool:
        answer = self._client.call(HEALTH, "Check", b"", self._limit_s)
        return number_of(decode(answer), 1) == SERVING

    def details(self) -> Details:
        told = decode(bytes_of(decode(self._ask("GetGuestDetails")), 2))
        return Details(version=text_of(told, 1), is_init=bool(number_of(told, 2)))

    def set_address(self, device: str, mac: str, address: str, bits: int) -> None:
        told = encode((2, address), (3, str(bits)))
        interface = encode((1, device), (2, device)) + repeat(3, [told]) + encode((4, 1500), (5, mac))
        self._ask("UpdateInterface", (1, interface))

    def set_route(self, device: str, gateway: str) -> None:
        self._ask("UpdateRoutes", (1, repeat(1, [encode((2, gateway), (3, device))])))

    def set_policy(self, text: str) -> None:
        self._ask("SetPolicy", (1, text))

    def copy_file(self, path: str, data: bytes, mode: int) -> None:
        self._ask("CopyFile", (1, path), (2, len(data)), (3, mode), (4, 0o755), (8, data))

    def create_sandbox(self, name: str, *, shares_pids: bool = False, dns: Sequence[str] = ()) -> None:
        message = encode((1, "lab")) + repeat(2, dns) + encode((4, int(shares_pids)), (5, name))
        self._client.call(AGENT, "CreateSandbox", message, self._limit_s)

    def create(self, container: Container, *, limit_s: float = 0.0) -> None:
        message = (encode((1, container.name), (2, container.name))
                   + repeat(4, [encode_passed(number, address) for number, address in enumerate(container.passed)])
                   + repeat(5, [encode_storage(one) for one in container.storages])
                   + encode((6, encode_spec(container)), (7, int(container.shares_pids))))
        self._client.call(AGENT, "CreateContainer", message, limit_s or self._limit_s)

    def start(self, container: str) -> None:
        self._ask("StartContainer", (1, container))

    def execute(self, container: str, name: str, args: Sequence[str]) -> None:
        self._ask("ExecProcess", (1, container), (2, name), (4, encode_process(args, ("PATH=/",))))

    def kill(self, container: str, name: str, number: int) -> None:
        self._ask("SignalProcess", (1, container), (2, name), (3, number))

    def read_some(self, container: str, name: str, limit_s: float, *, method: str = "ReadStdout") -> bytes:
        """What a process says next; nothing at its end, which the agent tells by an error once the process is gone."""
        try:
            answer = self._ask(method, (1, container), (2, name), (3, CHUNK), limit_s=limit_s)
        except RpcError:
            return b""
        return bytes_of(decode(answer), 1)

    def read_output(self, container: str, name: str, limit_s: float, *, method: str = "ReadStdout") -> bytes:
        return b"".join(iter(lambda: self.read_some(container, name, limit_s, method=method), b""))

    def wait(self, container: str, name: str, limit_s: float) -> int:
        return number_of(decode(self._ask("WaitProcess", (1, container), (2, name), limit_s=limit_s)), 1)

    def remove(self, container: str) -> None:
        self._ask("RemoveContainer", (1, container), (2, 10))

    def destroy_sandbox(self) -> None:
        self._ask("DestroySandbox")
