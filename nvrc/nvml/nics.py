# SPDX-License-Identifier: Apache-2.0
"""The CDI documents of NICs, made from what PID 1 found out about them. Child side, in a worker of its own.

No library of NVIDIA's is opened: a machine without GPUs has NICs as well.
"""

from __future__ import annotations

from guest_cdi.discover.nics import NODES, NetworkFunction, describe_nics, make_node
from guest_cdi.errors import CdiError
from guest_cdi.host import Host, LinuxHost
from guest_cdi.lean.light import Mapping
from guest_cdi.prove import prove
from guest_cdi.render import publish, render
from guest_cdi.spec import DeviceNode
from nvrc.nvml.worker import Request, Value
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError


def make_requests(root: str = "/", host: Host | None = None) -> Mapping[str, Request]:
    described = host or LinuxHost(root)

    def request(given: Mapping[str, Value]) -> Value:
        try:
            return publish_documents(described, root, given)
        except CdiError as err:
            raise NvrcError(err.code, err.what, err.hint) from err

    return {"nics": request}


def publish_documents(host: Host, root: str, given: Mapping[str, Value]) -> list[str]:
    """The kinds that were published. `functions`: rows of bus id, RDMA device, node's name, major and minor."""
    match given:
        case {"functions": list(rows), "common": common}:
            functions = [_function(row) for row in rows]
            communication = None if common is None else _node(common)
        case _:
            raise TypeError(f"no functions: {ascii(given)[:80]}")
    made = describe_nics(host, functions, communication)
    for spec in made:
        prove(spec, host)
        folder = f"{root.rstrip('/')}{paths.CDI_FOLDER}"
        publish(f"{folder}/nvidia-{spec.kind.partition('/')[2]}.yaml", render(spec, "yaml"))
    return [spec.kind for spec in made]


def _function(row: object) -> NetworkFunction:
    match row:
        case [str(bdf), str(rdma), None]:
            return NetworkFunction(bdf, rdma)
        case [str(bdf), str(rdma), node]:
            return NetworkFunction(bdf, rdma, _node(node))
    raise TypeError(f"not a function: {ascii(row)[:80]}")


def _node(row: object) -> DeviceNode:
    match row:
        case [str(name), int(major), int(minor)]:
            return make_node(f"{NODES}/{name}", major, minor)
    raise TypeError(f"not a node: {ascii(row)[:80]}")
