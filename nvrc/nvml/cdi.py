# SPDX-License-Identifier: Apache-2.0
"""The CDI document of this guest, made by guest_cdi with the library that is open already. Child side.

Proved on an empty container here, so that no container is the first to find out.
"""

from __future__ import annotations

from guest_cdi.discover.driver import find_version
from guest_cdi.discover.tree import Tree
from guest_cdi.generate import Generated, generate
from guest_cdi.gpu import Gpu
from guest_cdi.lean.light import Mapping, Sequence, replace
from guest_cdi.naming import Strategy, Target
from guest_cdi.prove import prove
from guest_cdi.render import document
from nvrc.nvml.answers import CdiMade
from nvrc.nvml.session import Session, describe
from nvrc.nvml.worker import Value

_UUIDS = ("GPU-", "MIG-")


class _Known:
    """NVML with the GPUs that the boot is about: what is left out must be told apart by the same list."""

    def __init__(self, version: str, gpus: tuple[Gpu, ...]) -> None:
        self.found = gpus
        self._version = version

    def driver_version(self) -> str:
        return self._version

    def gpus(self) -> Sequence[Gpu]:
        return self.found


def describe_document(session: Session, given: Mapping[str, Value]) -> dict[str, Value]:
    """`keep_going`: leave out GPUs that have a fault instead of refusing the machine.

    The document goes to PID 1 as plain data, which judges and publishes it.
    """
    options = session.options(keep_going=given["keep_going"] is True)
    known = _Known(session.nvml.driver_version(), session.gpus())
    result = generate(session.host, known, options, session.known)
    prove(result.spec, session.host)
    return {"made": _summary(result, known.found), "document": document(result.spec)}


def describe_promise(session: Session, given: Mapping[str, Value]) -> dict[str, Value]:
    """The document for GPUs that nobody has attached, so without a call of NVIDIA's library.

    It has index names only, which follow from the order on the bus, and no sockets: the daemons are yet to make them.
    """
    rows = given["gpus"]
    if not isinstance(rows, list):
        raise TypeError("no GPUs")
    gpus = tuple(Gpu(index=index, minor=minor, bus_id=bdf) for index, (bdf, minor) in enumerate(rows))
    version = find_version(Tree(session.host, session.driver_root))
    options = replace(session.options(), strategies=(Strategy.INDEX,), sockets=False)
    result = generate(session.host, _Known(version, gpus), options, session.known)
    prove(result.spec, session.host)
    return {"made": _summary(result, gpus), "document": document(result.spec)}


def _summary(result: Generated, gpus: tuple[Gpu, ...]) -> CdiMade:
    common = result.spec.container_edits
    owners = {target.label: target.gpu.index for target in _targets(gpus)} if result.skipped else {}
    faulty = tuple(owners[entry.device] for entry in result.skipped)
    return CdiMade(
        version=result.spec.version, driver=result.driver_version,
        devices=sum(not device.name.startswith(_UUIDS) for device in result.spec.devices),
        nodes=len(common.device_nodes), mounts=len(common.mounts), hooks=len(common.hooks), missing=result.missing,
        left_out=tuple(f"{entry.device}: {entry.reason.what}" for entry in result.skipped),
        faulty=faulty,
        gpus=tuple(describe(gpu).identity for gpu in gpus if gpu.index not in faulty),
    )


def _targets(gpus: tuple[Gpu, ...]) -> tuple[Target, ...]:
    return tuple(Target(gpu=gpu, mig=mig) for gpu in gpus for mig in (None, *gpu.migs))
