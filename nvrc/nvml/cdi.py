# SPDX-License-Identifier: Apache-2.0
"""The CDI document of this guest, made by guest_cdi with the library that is open already. Child side.

Proved on an empty container before it is published, so that no container is the first to find out.
"""

from __future__ import annotations

from guest_cdi.discover.tree import Tree
from guest_cdi.generate import Generated, Options, generate
from guest_cdi.gpu import Gpu
from guest_cdi.lean.light import Mapping, Sequence
from guest_cdi.naming import Target
from guest_cdi.prove import prove
from guest_cdi.render import publish, render
from nvrc.nvml.answers import CdiMade
from nvrc.nvml.session import Session, describe
from nvrc.nvml.worker import Value
from nvrc.vocabulary import paths

HOOK = "bin/nvidia-cdi-hook"
_UUIDS = ("GPU-", "MIG-")


class _Known:
    """NVML with the GPUs read once, because what is left out must be told apart by the same list."""

    def __init__(self, version: str, gpus: tuple[Gpu, ...]) -> None:
        self.found = gpus
        self._version = version

    def driver_version(self) -> str:
        return self._version

    def gpus(self) -> Sequence[Gpu]:
        return self.found


def publish_document(session: Session, given: Mapping[str, Value]) -> CdiMade:
    """`keep_going`: leave out GPUs that have a fault instead of refusing the machine."""
    options = Options(driver_root=session.driver_root, dev_root="/", hook_path=_shipped_hook(session),
                      keep_going=given["keep_going"] is True)
    known = _Known(session.nvml.driver_version(), session.nvml.gpus())
    result = generate(session.host, known, options)
    prove(result.spec, session.host)
    publish(session.root.rstrip("/") + paths.CDI_SPEC, render(result.spec, "yaml"))
    return _summary(result, known.found)


def _shipped_hook(session: Session) -> str:
    """The extension's own program, if it has one; else empty, and the image is searched."""
    path = f"{session.driver_root.rstrip('/')}/{HOOK}"
    return path if session.driver_root != "/" and Tree(session.host).is_executable(path) else ""


def _summary(result: Generated, gpus: tuple[Gpu, ...]) -> CdiMade:
    common = result.spec.container_edits
    owners = {target.label: target.gpu.index for target in _targets(gpus)}
    faulty = {owners[entry.device] for entry in result.skipped}
    return CdiMade(
        version=result.spec.version, driver=result.driver_version,
        devices=sum(not device.name.startswith(_UUIDS) for device in result.spec.devices),
        nodes=len(common.device_nodes), mounts=len(common.mounts), hooks=len(common.hooks), missing=result.missing,
        left_out=tuple(f"{entry.device}: {entry.reason.what}" for entry in result.skipped),
        faulty=tuple(sorted(faulty)),
        gpus=tuple(describe(gpu).identity for gpu in gpus if gpu.index not in faulty),
    )


def _targets(gpus: tuple[Gpu, ...]) -> tuple[Target, ...]:
    return tuple(Target(gpu=gpu, mig=mig) for gpu in gpus for mig in (None, *gpu.migs))
