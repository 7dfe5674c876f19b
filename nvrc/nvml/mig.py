# SPDX-License-Identifier: Apache-2.0
"""Cuts GPUs into MIG instances by the names of the driver's own profiles. Child side.

Per GPU: the mode, then its GPU instances in the order of the command line with one compute instance that fills each,
then a listing that must show exactly those. What is there already stays; anything else is removed first. Where each
instance lies is worked out for all of them beforehand: the driver places one at a time, and 3g first may take the only
place of 4g. Follows "GPU Instance Management" of NVIDIA's MIG user guide.
"""

from __future__ import annotations

import ctypes
from types import ModuleType

from guest_cdi.lean.light import Iterator, Mapping, NamedTuple, Sequence
from guest_cdi.nvml import RefusedError, ask, code_name
from nvrc.nvml.answers import MigMade
from nvrc.nvml.session import INVALID_ARGUMENT, NOT_SUPPORTED, Handle, Session
from nvrc.nvml.worker import Value

_NOT_THIS_ONE = frozenset({NOT_SUPPORTED, INVALID_ARGUMENT})


class _LayoutError(Exception):
    """Why this GPU cannot have its part of the layout."""


class _Profile(NamedTuple):
    name: str           # without the "MIG " that the driver puts before it
    id: int
    slices: int
    room: int           # how many instances of it a GPU, or a GPU instance, can have at most


class _Place(NamedTuple):
    """Slices of memory that an instance can have."""

    start: int
    size: int

    @property
    def mask(self) -> int:
        return ((1 << self.size) - 1) << self.start


class _Instance(NamedTuple):
    handle: Handle
    profile: _Profile


def make_layout(session: Session, given: Mapping[str, Value]) -> list[MigMade]:
    """`gpus`: pairs of a GPU's number and the profiles it gets; no profile is MIG off."""
    made: list[MigMade] = []
    for index, names in _pairs(given["gpus"]):
        try:
            made.append(MigMade(index, names, _shape(session.library, session.device(index), names), ""))
        except RefusedError as err:
            made.append(MigMade(index, (), True, f"{err}; {err.remedy}" if err.remedy else str(err)))
        except _LayoutError as err:
            made.append(MigMade(index, (), True, str(err)))
    session.forget(row.number for row in made if row.changed)
    return made


def _pairs(value: Value) -> Iterator[tuple[int, tuple[str, ...]]]:
    if not isinstance(value, Sequence):
        raise TypeError(f"not a list of pairs: {value!r}")
    for index, names in value:
        yield int(index), tuple(map(str, names))


def _shape(nvml: ModuleType, device: Handle, names: tuple[str, ...]) -> bool:
    """Whether anything had to be changed."""
    mode = _read_mode(nvml, device)
    if not names:
        return mode is not None and _switch_off(nvml, device, mode)
    if mode is None:
        raise _LayoutError("this GPU has no MIG")
    if mode == nvml.NVML_DEVICE_MIG_DISABLE:
        _switch(nvml, device, nvml.NVML_DEVICE_MIG_ENABLE)
    profiles = _gpu_profiles(nvml, device)
    wanted = [_find(profiles, name) for name in names]
    if mode == nvml.NVML_DEVICE_MIG_ENABLE and _listing(nvml, device, profiles) == sorted(names):
        return False
    _clear(nvml, device, profiles)
    for profile, place in zip(wanted, _plan(nvml, device, wanted), strict=True):
        _create(nvml, device, profile, place)
    found = _listing(nvml, device, profiles)
    if found != sorted(names):
        raise _LayoutError(f"made {', '.join(names)}, but the driver lists {', '.join(found) or 'none'}")
    return True


def _read_mode(nvml: ModuleType, device: Handle) -> int | None:
    """The current mode, None for a GPU that has no MIG."""
    try:
        current, _pending = ask(nvml.nvmlDeviceGetMigMode, device)
    except RefusedError as err:
        if err.code == NOT_SUPPORTED:
            return None
        raise
    return int(current)


def _switch_off(nvml: ModuleType, device: Handle, mode: int) -> bool:
    if mode == nvml.NVML_DEVICE_MIG_DISABLE:
        return False
    _clear(nvml, device, _gpu_profiles(nvml, device))
    _switch(nvml, device, nvml.NVML_DEVICE_MIG_DISABLE)
    return True


def _switch(nvml: ModuleType, device: Handle, mode: int) -> None:
    """Change the mode now. Before Hopper it takes effect with the next reset only, which a guest cannot do."""
    word = "on" if mode else "off"
    activation = ask(nvml.nvmlDeviceSetMigMode, device, mode)
    if activation != nvml.NVML_SUCCESS:
        raise _LayoutError(f"MIG {word} is pending: nvmlDeviceSetMigMode requires a reset of the GPU first "
                           f"({code_name(activation)}); set the mode on the host before the VM starts")
    current, pending = ask(nvml.nvmlDeviceGetMigMode, device)
    if current != mode:
        raise _LayoutError(f"MIG was switched {word}, but nvmlDeviceGetMigMode says mode {current}, pending {pending}")


def _gpu_profiles(nvml: ModuleType, device: Handle) -> tuple[_Profile, ...]:
    """Those that this GPU has; the numbers in between belong to other GPUs."""
    found = []
    for number in range(nvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            info = ask(nvml.nvmlDeviceGetGpuInstanceProfileInfo, device, number)
        except RefusedError as err:
            if err.code not in _NOT_THIS_ONE:
                raise
        else:
            found.append(_Profile(_plain_name(info.name), info.id, info.sliceCount, info.instanceCount))
    return tuple(found)


def _plain_name(name: bytes | str) -> str:
    text = name.decode(errors="replace") if isinstance(name, bytes) else name
    return text.removeprefix("MIG ")


def _find(profiles: tuple[_Profile, ...], name: str) -> _Profile:
    for profile in profiles:
        if profile.name == name:
            return profile
    raise _LayoutError(f"no profile {name}; this GPU has {', '.join(profile.name for profile in profiles)}")


def _plan(nvml: ModuleType, device: Handle, wanted: list[_Profile]) -> tuple[_Place, ...]:
    places = {profile: _places(nvml, device, profile) for profile in wanted}
    plan = arrange([places[profile] for profile in wanted])
    if plan is None:
        rows = (f"{profile.name} at {', '.join(str(place.start) for place in found)}"
                for profile, found in places.items())
        raise _LayoutError(f"these do not fit side by side; memory slices where they can begin: {'; '.join(rows)}")
    return plan


def arrange(places: Sequence[Sequence[_Place]], used: int = 0) -> tuple[_Place, ...] | None:
    """One place each so that none overlap, the first of them for the first instance if that is possible at all."""
    if not places:
        return ()
    for place in places[0]:
        if not place.mask & used:
            rest = arrange(places[1:], used | place.mask)
            if rest is not None:
                return (place, *rest)
    return None


def _places(nvml: ModuleType, device: Handle, profile: _Profile) -> tuple[_Place, ...]:
    call, count = nvml.nvmlDeviceGetGpuInstancePossiblePlacements, ctypes.c_uint()
    ask(call, device, profile.id, None, ctypes.byref(count))
    rows = (nvml.c_nvmlGpuInstancePlacement_t * count.value)()
    ask(call, device, profile.id, rows, ctypes.byref(count))
    return tuple(_Place(row.start, row.size) for row in rows[:count.value])


def _create(nvml: ModuleType, device: Handle, profile: _Profile, place: _Place) -> None:
    """A GPU instance, and a compute instance that is all of it."""
    where = ctypes.byref(nvml.c_nvmlGpuInstancePlacement_t(*place))
    instance = ask(nvml.nvmlDeviceCreateGpuInstanceWithPlacement, device, profile.id, where)
    filling = next((row for row in _compute_profiles(nvml, instance) if row.slices == profile.slices), None)
    if filling is None:
        raise _LayoutError(f"no compute profile of {profile.slices} slices fills {profile.name}")
    ask(nvml.nvmlGpuInstanceCreateComputeInstance, instance, filling.id)


def _compute_profiles(nvml: ModuleType, instance: Handle) -> Iterator[_Profile]:
    shared = nvml.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED
    for number in range(nvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
        try:
            info = ask(nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo, instance, number, shared)
        except RefusedError as err:
            if err.code not in _NOT_THIS_ONE:
                raise
        else:
            yield _Profile("", info.id, info.sliceCount, info.instanceCount)


def _clear(nvml: ModuleType, device: Handle, profiles: tuple[_Profile, ...]) -> None:
    for instance in _gpu_instances(nvml, device, profiles):
        for compute in _compute_instances(nvml, instance.handle):
            ask(nvml.nvmlComputeInstanceDestroy, compute.handle)
        ask(nvml.nvmlGpuInstanceDestroy, instance.handle)


def _listing(nvml: ModuleType, device: Handle, profiles: tuple[_Profile, ...]) -> list[str]:
    """The names of the instances there are, with a remark on those that one compute instance does not fill."""
    found = []
    for handle, profile in _gpu_instances(nvml, device, profiles):
        slices = [compute.profile.slices for compute in _compute_instances(nvml, handle)]
        found.append(profile.name if slices == [profile.slices] else f"{profile.name} (not filled by one)")
    return sorted(found)


def _gpu_instances(nvml: ModuleType, device: Handle, profiles: tuple[_Profile, ...]) -> Iterator[_Instance]:
    for profile in profiles:
        handles, count = (nvml.c_nvmlGpuInstance_t * profile.room)(), ctypes.c_uint()
        ask(nvml.nvmlDeviceGetGpuInstances, device, profile.id, handles, ctypes.byref(count))
        yield from (_Instance(handle, profile) for handle in handles[:count.value])


def _compute_instances(nvml: ModuleType, instance: Handle) -> Iterator[_Instance]:
    for profile in _compute_profiles(nvml, instance):
        handles, count = (nvml.c_nvmlComputeInstance_t * profile.room)(), ctypes.c_uint()
        ask(nvml.nvmlGpuInstanceGetComputeInstances, instance, profile.id, handles, ctypes.byref(count))
        yield from (_Instance(handle, profile) for handle in handles[:count.value])
