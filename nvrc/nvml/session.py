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
from guest_cdi.generate import Options, generate
from guest_cdi.gpu import Gpu
from guest_cdi.host import Host
from guest_cdi.locate import locate_nvml
from guest_cdi.nvml import OpenNvml, ask
from nvrc.nvml.answers import NvmlGpu

# A device or an instance; nvidia-ml-py's pointer types say no more.
Handle = object

INVALID_ARGUMENT, NOT_SUPPORTED, FUNCTION_NOT_FOUND = 2, 3, 13


class Session:
    """What the requests of one worker share. `driver_root` is where the driver lies, "/" for the image itself."""

    def __init__(self, host: Host, driver_root: str, root: str = "/") -> None:
        self.host = host
        self.driver_root = driver_root
        self.root = root
        self._nvml: OpenNvml | None = None
        self._devices: dict[int, Handle] = {}

    @property
    def nvml(self) -> OpenNvml:
        """The open library, with guest_cdi's walk over the GPUs."""
        if self._nvml is None:
            library = locate_nvml(self.host, Options(driver_root=self.driver_root), self.root)
            opening = OpenNvml(library, has_drm=lambda bus_id: bool(list_drm_nodes(self.host, bus_id)))
            self._nvml = opening.__enter__()
        return self._nvml

    @property
    def library(self) -> ModuleType:
        """nvidia-ml-py, bound to the open library."""
        import pynvml

        assert self.nvml is not None  # noqa: S101 - asking for it opens it
        return pynvml  # type: ignore[no-any-return]

    def device(self, index: int) -> Handle:
        if index not in self._devices:
            self._devices[index] = ask(self.library.nvmlDeviceGetHandleByIndex, index)
        return self._devices[index]

    def warm(self) -> None:
        """Load the code and read the directories that later requests need, while the driver still attaches GPUs.

        Describes the machine as if it had no GPU, which looks at files only, and at no socket that a daemon is yet to
        make: the host remembers directories. What is not there is for the request that needs it to report.
        """
        import pynvml  # noqa: F401

        try:
            version = find_version(Tree(self.host, self.driver_root))
            generate(self.host, _NoGpus(version), Options(driver_root=self.driver_root, dev_root="/", sockets=False))
        except (CdiError, OSError):
            return


class _NoGpus:
    """NVML of a machine whose driver has a version and no GPU yet."""

    def __init__(self, version: str) -> None:
        self._version = version

    def driver_version(self) -> str:
        return self._version

    def gpus(self) -> tuple[Gpu, ...]:
        return ()


def describe(gpu: Gpu) -> NvmlGpu:
    bdf = normalise_bus_id(gpu.bus_id) if gpu.bus_id else ""
    return NvmlGpu(gpu.index, bdf, gpu.uuid, gpu.name, gpu.minor, gpu.error or "")
