# SPDX-License-Identifier: Apache-2.0
"""The binding to NVIDIA's management library: one init, one walk over the GPUs, one shutdown.

NVIDIA's own nvidia-ml-py makes the calls. It asks the loader for libnvidia-ml.so.1 by name; a frozen interpreter's
loader does not know the directory of a driver extension, so the file is opened here by its path and handed over.
What fails for the whole machine is a CdiError; what fails for one GPU is that GPU's `error`, and the caller decides
whether the others are wanted. Does not look at files of the driver: nodes, minors of capabilities and the DRM tree
belong to the discoverers.
"""

# ruff: noqa: N802  (NVIDIA's names keep their spelling)
from __future__ import annotations

import ctypes
import os
from types import ModuleType, TracebackType

from guest_cdi.elf import ElfError, check_loadable
from guest_cdi.gpu import DISPLAY_ONLY, Gpu, Mig
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import Callable, Iterator, ParamSpec, Protocol, TypeVar, cast, lru_cache

P = ParamSpec("P")
T = TypeVar("T")

INVALID_ARGUMENT, NOT_SUPPORTED, NOT_FOUND = 2, 3, 6
# NVML_GPU_INSTANCE_PROFILE_{1,2,4,3}_SLICE_GFX
GRAPHICS_PROFILES = (0x0A, 0x0B, 0x0C, 0x11)

# What to do about a return code; other codes get the general advice of E_CDI_NVML or E_CDI_GPU.
REMEDIES = {
    4: "run as root, and check the owner and mode of /dev/nvidiactl and /dev/nvidia*",
    9: "load the nvidia module and create /dev/nvidiactl and /dev/nvidia* before asking NVML",
    13: "the library is older than the call; use the libnvidia-ml.so.1 of the running driver",
    15: "the GPU fell off the bus; read the kernel log for its Xid lines and reset it or restart the VM",
    16: "reset the GPU or restart the VM",
    18: "kernel module and user space are of different driver versions; install one version",
    999: "read the NVRM lines of the kernel log for the cause",
}


class _Handle(Protocol):
    """A device or an instance; nvidia-ml-py's pointer types say no more."""


class _PciInfo(Protocol):
    @property
    def busId(self) -> bytes | str: ...


class _ProfileInfo(Protocol):
    @property
    def id(self) -> int: ...


class _InstanceInfo(Protocol):
    @property
    def profileId(self) -> int: ...


class Library(Protocol):
    """The functions of nvidia-ml-py that are used, with the types it does not declare."""

    def nvmlInit(self) -> None: ...
    def nvmlShutdown(self) -> None: ...
    def nvmlSystemGetDriverVersion(self) -> str: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> _Handle: ...
    def nvmlDeviceGetName(self, device: _Handle) -> str: ...
    def nvmlDeviceGetUUID(self, device: _Handle) -> str: ...
    def nvmlDeviceGetMinorNumber(self, device: _Handle) -> int: ...
    def nvmlDeviceGetPciInfo(self, device: _Handle) -> _PciInfo: ...
    def nvmlDeviceGetMigMode(self, device: _Handle) -> list[int]: ...
    def nvmlDeviceGetMaxMigDeviceCount(self, device: _Handle) -> int: ...
    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: _Handle, index: int) -> _Handle: ...
    def nvmlDeviceGetGpuInstanceId(self, device: _Handle) -> int: ...
    def nvmlDeviceGetComputeInstanceId(self, device: _Handle) -> int: ...
    def nvmlDeviceGetGpuInstanceById(self, device: _Handle, gi: int) -> _Handle: ...
    def nvmlGpuInstanceGetInfo(self, instance: _Handle) -> _InstanceInfo: ...
    def nvmlDeviceGetGpuInstanceProfileInfo(self, device: _Handle, profile: int) -> _ProfileInfo: ...


class RefusedError(Exception):
    """A call that NVML answered with a code, or with bytes that are no text."""

    def __init__(self, call: str, code: int, name: str) -> None:
        super().__init__(f"{call} returned {name} ({code})" if name else f"{call} gave text that is not UTF-8")
        self.code = code

    @property
    def remedy(self) -> str:
        return REMEDIES.get(self.code, "")


def load(library: str) -> ModuleType:
    """nvidia-ml-py, bound to the library at this path."""
    import pynvml

    try:
        handle = open_library(library)
    except (OSError, ElfError) as err:
        raise CdiError("E_CDI_NVML_LIBRARY", f"{library} cannot be loaded: {err}") from err
    with pynvml.libLoadLock:
        pynvml.nvmlLib = handle
        # The module keeps the functions it looked up; those of another library would be called instead of these.
        pynvml._nvmlGetFunctionPointer_cache.clear()
    return pynvml  # type: ignore[no-any-return]


def open_library(path: str) -> ctypes.CDLL:
    """The shared library at this path; OSError or ElfError where it is none that this process can load."""
    with open(path, "rb", opener=_open_at_once) as stream:
        check_loadable(stream.fileno())
    return ctypes.CDLL(path)


def _open_at_once(path: str, flags: int) -> int:
    """A FIFO of that name must not stop a boot."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


@lru_cache(maxsize=64)
def code_name(code: int) -> str:
    """The name of a return code, from nvidia-ml-py's own constants. Searched once: GPUs refuse the same questions."""
    import pynvml

    names = (name for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_") and value == code)
    return next(names, "an unknown code")


def ask(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Make one call of nvidia-ml-py; RefusedError names it."""
    try:
        return call(*arguments, **named)
    except UnicodeDecodeError as err:
        raise RefusedError(call.__name__, -1, "") from err
    except Exception as err:
        import pynvml  # not before a call has failed: a boot makes hundreds, and few do

        if not isinstance(err, pynvml.NVMLError):
            raise
        raise RefusedError(call.__name__, err.value, code_name(err.value)) from err


class OpenNvml:
    """NVML between init and shutdown, as `with OpenNvml(path) as nvml`. Satisfies gpu.Nvml.

    `module` is nvidia-ml-py, bound to the library, for calls that are made nowhere here.
    """

    __slots__ = ("_has_drm", "_library", "_path", "module")

    def __init__(self, library: str, *, has_drm: Callable[[str], bool] = lambda _: False) -> None:
        """`has_drm` tells by bus id whether the GPU has DRM nodes; only then are MIG profiles asked for graphics."""
        self._path = library
        self._has_drm = has_drm
        self.module = load(library)
        self._library = cast(Library, self.module)

    def __enter__(self) -> OpenNvml:
        self._ask_all(self._library.nvmlInit)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            ask(self._library.nvmlShutdown)
        except RefusedError:
            # Nothing that was read depends on it, and an error on its way out must not be replaced by this one.
            pass

    def driver_version(self) -> str:
        return self._ask_all(self._library.nvmlSystemGetDriverVersion)

    def gpus(self) -> tuple[Gpu, ...]:
        """Every GPU that can do more than display, in NVML's order."""
        count = self._ask_all(self._library.nvmlDeviceGetCount)
        found = (self.gpu(index) for index in range(count))
        return tuple(gpu for gpu in found if gpu.name not in DISPLAY_ONLY)

    def _ask_all(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        try:
            return ask(call, *arguments, **named)
        except RefusedError as err:
            raise CdiError("E_CDI_NVML", f"{err} in {self._path}", err.remedy) from err

    def gpu(self, index: int) -> Gpu:
        told: dict[str, object] = {}
        try:
            for name, value in self._facts(index):
                told[name] = value
        except RefusedError as err:
            told["error"] = f"{err}; {err.remedy}" if err.remedy else str(err)
        return Gpu(index=index, **told)  # type: ignore[arg-type]  # names and types are those of the fields

    def _facts(self, index: int) -> Iterator[tuple[str, object]]:
        """One field after the other: a failing call leaves those before it."""
        library = self._library
        device = ask(library.nvmlDeviceGetHandleByIndex, index)
        name = ask(library.nvmlDeviceGetName, device)
        yield "name", name
        if name in DISPLAY_ONLY:
            return
        bus_id = _text(ask(library.nvmlDeviceGetPciInfo, device).busId)
        yield "bus_id", bus_id
        yield "uuid", ask(library.nvmlDeviceGetUUID, device)
        yield "minor", ask(library.nvmlDeviceGetMinorNumber, device)
        mode = self._mig_mode(device)
        yield "mig_capable", mode is not None
        yield "mig_enabled", mode == 1
        if mode is not None:
            yield "migs", tuple(self._migs(device, bus_id))

    def _mig_mode(self, device: _Handle) -> int | None:
        """None for a GPU that has no MIG."""
        try:
            return ask(self._library.nvmlDeviceGetMigMode, device)[0]
        except RefusedError as err:
            if err.code == NOT_SUPPORTED:
                return None
            raise

    def _migs(self, device: _Handle, bus_id: str) -> Iterator[Mig]:
        for index in range(ask(self._library.nvmlDeviceGetMaxMigDeviceCount, device)):
            try:
                handle = ask(self._library.nvmlDeviceGetMigDeviceHandleByIndex, device, index)
            except RefusedError as err:
                if err.code in {NOT_FOUND, INVALID_ARGUMENT}:   # an index with no device at present
                    continue
                raise
            yield self._mig(device, handle, index, bus_id)

    def _mig(self, device: _Handle, handle: _Handle, index: int, bus_id: str) -> Mig:
        gi = ask(self._library.nvmlDeviceGetGpuInstanceId, handle)
        return Mig(
            index=index,
            uuid=ask(self._library.nvmlDeviceGetUUID, handle),
            gi=gi,
            ci=ask(self._library.nvmlDeviceGetComputeInstanceId, handle),
            gfx=self._has_drm(bus_id) and self._is_graphics(device, gi),
        )

    def _is_graphics(self, device: _Handle, gi: int) -> bool:
        """Is the profile of the GPU instance one of those with the graphics attribute?"""
        instance = ask(self._library.nvmlDeviceGetGpuInstanceById, device, gi)
        wanted = ask(self._library.nvmlGpuInstanceGetInfo, instance).profileId
        return any(self._profile_id(device, profile) == wanted for profile in GRAPHICS_PROFILES)

    def _profile_id(self, device: _Handle, profile: int) -> int | None:
        """None for a profile that this GPU, or its driver, does not have."""
        try:
            return ask(self._library.nvmlDeviceGetGpuInstanceProfileInfo, device, profile).id
        except RefusedError as err:
            if err.code in {NOT_SUPPORTED, INVALID_ARGUMENT}:
                return None
            raise


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
