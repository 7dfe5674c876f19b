# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's library in the worker: opened once, at the first request that is about GPUs, and open until the worker ends.

Before that a session only reads files of the driver. Opening NVML opens /dev/nvidiactl and every GPU's node, which
would be the one attach that a confidential GPU allows if nvidia-persistenced did not hold it already.
"""

from __future__ import annotations

from types import ModuleType

from guest_cdi.discover.driver import find_version
from guest_cdi.discover.nodes import list_drm_nodes, normalise_bus_id
from guest_cdi.discover.tree import Tree
from guest_cdi.errors import CdiError
from guest_cdi.generate import Known, Options, read_files
from guest_cdi.gpu import Gpu
from guest_cdi.host import Host
from guest_cdi.lean.light import Iterable
from guest_cdi.locate import locate_nvml
from guest_cdi.nvml import OpenNvml, RefusedError, ask
from nvrc.nvml.answers import NvmlGpu

# A device or an instance; nvidia-ml-py's pointer types say no more.
Handle = object

HOOK = "bin/nvidia-cdi-hook"
INVALID_ARGUMENT, NOT_SUPPORTED, FUNCTION_NOT_FOUND = 2, 3, 13


class Session:
    """What the requests of one worker share. `driver_root` is where the driver lies, "/" for the image itself."""

    def __init__(self, host: Host, driver_root: str, root: str = "/") -> None:
        self.host = host
        self.driver_root = driver_root
        self.root = root
        self._nvml: OpenNvml | None = None
        self._devices: dict[int, Handle] = {}
        self._gpus: dict[int, Gpu] | None = None
        self._changed: set[int] = set()
        self.known: Known | None = None

    @property
    def nvml(self) -> OpenNvml:
        """The open library."""
        if self._nvml is None:
            library = locate_nvml(self.host, Options(driver_root=self.driver_root), self.root)
            opening = OpenNvml(library, has_drm=lambda bus_id: bool(list_drm_nodes(self.host, bus_id)))
            self._nvml = opening.__enter__()
        return self._nvml

    @property
    def library(self) -> ModuleType:
        """nvidia-ml-py, bound to the open library."""
        return self.nvml.module

    def gpus(self) -> tuple[Gpu, ...]:
        """guest_cdi's walk over the GPUs, made once: afterwards only those are read anew that have changed."""
        if self._gpus is None:
            self._gpus = {gpu.index: gpu for gpu in self.nvml.gpus()}
        else:
            self._gpus.update((index, self.nvml.gpu(index)) for index in sorted(self._changed))
        self._changed.clear()
        return tuple(self._gpus.values())

    def forget(self, changed: Iterable[int]) -> None:
        """What is known of these GPUs holds no longer: their instances are others."""
        self._changed.update(changed)

    def device(self, index: int) -> Handle:
        if index not in self._devices:
            self._devices[index] = ask(self.library.nvmlDeviceGetHandleByIndex, index)
        return self._devices[index]

    def serial(self, gpu: Gpu) -> str:
        """What is printed on the board, by which the host knows it; not all products have one."""
        try:
            return "" if gpu.error else ask(self.library.nvmlDeviceGetSerial, self.device(gpu.index))
        except RefusedError:
            return ""

    def warm(self) -> None:
        """Load the code and read the directories that later requests need, while the driver still attaches GPUs.

        That is the document's part that follows from the driver's files. It looks at no node, and at no socket that a
        daemon is yet to make. What is not there is for the request that needs it to report.
        """
        import pynvml  # noqa: F401

        try:
            version = find_version(Tree(self.host, self.driver_root))
            self.known = read_files(self.host, _NoGpus(version), self.options())
        except (CdiError, OSError):
            return

    def options(self, *, keep_going: bool = False) -> Options:
        return Options(driver_root=self.driver_root, dev_root="/", hook_path=self._shipped_hook(),
                       keep_going=keep_going)

    def _shipped_hook(self) -> str:
        """The extension's own program, if it has one; else empty, and the image is searched."""
        path = f"{self.driver_root.rstrip('/')}/{HOOK}"
        return path if self.driver_root != "/" and Tree(self.host).is_executable(path) else ""


class _NoGpus:
    """NVML of a machine whose driver has a version and no GPU yet."""

    def __init__(self, version: str) -> None:
        self._version = version

    def driver_version(self) -> str:
        return self._version

    def gpus(self) -> tuple[Gpu, ...]:
        return ()


def describe(gpu: Gpu, serial: str = "") -> NvmlGpu:
    bdf = normalise_bus_id(gpu.bus_id) if gpu.bus_id else ""
    return NvmlGpu(gpu.index, bdf, gpu.uuid, gpu.name, gpu.minor, gpu.error or "", serial)
