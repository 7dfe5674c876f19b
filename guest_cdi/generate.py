# SPDX-License-Identifier: Apache-2.0
"""Describes this machine's NVIDIA driver and GPUs as a CDI document.

The discoverers below are the whole of it, in the order in which their findings stand in the document. What this
module does not do: open NVML (nvml.py), write text or files (render.py), judge foreign documents (validate.py).
"""

from __future__ import annotations

import os

from guest_cdi.discover.driver import Driver, Found, check_userspace, find_library_dirs, find_version
from guest_cdi.discover.files import (
    PROGRAM_DIRS,
    find_firmware,
    find_programs,
    find_sockets,
    find_topology,
    locate_program,
)
from guest_cdi.discover.graphics import find_graphics
from guest_cdi.discover.hooks import NAMES as HOOK_NAMES
from guest_cdi.discover.hooks import UPDATE_APPLICATION_PROFILE, HookProgram, HookStyle, running_program
from guest_cdi.discover.libraries import find_libraries
from guest_cdi.discover.nodes import find_control_nodes, find_gpu, find_mig, read_mig_minors
from guest_cdi.discover.tree import Tree, clean
from guest_cdi.gpu import Nvml
from guest_cdi.host import Host, read_file
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.hookwords import HOOK_PROGRAM
from guest_cdi.lean.light import Callable, Iterator, Mapping, NamedTuple, dataclass, field, replace
from guest_cdi.merge import concatenate, merge_devices, tidy
from guest_cdi.naming import ALL, NONE, Strategy, Target, is_device_name, is_kind_part, name_device, select_targets
from guest_cdi.spec import ContainerEdits, Device, Spec
from guest_cdi.versions import CURRENT, Release

KERNEL_VERSION = "/proc/driver/nvidia/version"

# Tells any other injector in the container that its work is done.
COMMON_ENV = ("NVIDIA_VISIBLE_DEVICES=void",)
# A device with nothing to give; a device without edits would be invalid.
NONE_ENV = ("NVCT_EMPTY_DEVICE=",)


def find_application_profile(driver: Driver) -> Found:
    hooks = driver.hooks.write(UPDATE_APPLICATION_PROFILE) if driver.release.application_profile else ()
    return Found(edits=ContainerEdits(hooks=hooks))


COMMON: tuple[Callable[[Driver], Found], ...] = (
    find_control_nodes,
    find_graphics,
    find_libraries,
    find_sockets,
    find_topology,
    find_firmware,
    find_programs,
    find_application_profile,
)
# Of these, what follows from the driver's own files, which are the same before a GPU is attached and after.
OF_FILES = (find_graphics, find_libraries, find_firmware, find_programs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a caller may choose; the defaults are the reference's."""

    driver_root: str = "/"
    dev_root: str = ""                          # empty: the driver root
    hook_path: str = ""                         # empty: searched
    ldconfig_path: str = ""
    hook_style: HookStyle = HookStyle.AUTO
    running_program: str = field(default_factory=running_program)   # of this machine; empty where it is no hook program
    strategies: tuple[Strategy, ...] = (Strategy.INDEX, Strategy.UUID)
    device_ids: tuple[str, ...] = (ALL,)
    vendor: str = "nvidia.com"
    kind_class: str = "gpu"
    library_search_paths: tuple[str, ...] = ()
    config_search_paths: tuple[str, ...] = ()
    data_dirs: tuple[str, ...] = ("/usr/local/share", "/usr/share")
    disabled_hooks: frozenset[str] = frozenset()
    enabled_hooks: frozenset[str] = frozenset()
    all_device: bool = True
    strict: bool = True                         # the checks and searches that the reference does not have
    keep_going: bool = False                    # leave out the GPUs that have a fault and describe the others
    release: Release = CURRENT
    explicit_libraries: bool = False
    sockets: bool = True
    node_gids: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    device: str
    reason: CdiError


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    spec: Spec
    driver_version: str
    skipped: tuple[Skipped, ...] = ()
    missing: tuple[str, ...] = ()


class Known(NamedTuple):
    """An open driver, and what its files say, under the options that it was asked with."""

    driver: Driver
    found: Mapping[Callable[[Driver], Found], Found]


def read_files(host: Host, nvml: Nvml, options: Options) -> Known:
    """The part of a document that needs no GPU, for a later `generate` with the same options."""
    driver = open_driver(host, nvml, options)
    return Known(driver, {discover: discover(driver) for discover in OF_FILES})


def generate(host: Host, nvml: Nvml, options: Options | None = None, known: Known | None = None) -> Generated:
    """The document for this machine. A failure is a CdiError, and then there is no document at all."""
    options = options or Options()
    if known is not None and known.driver.version != _tell_version(nvml, known.driver.tree):
        known = None
    driver = replace(known.driver, sockets=options.sockets) if known else open_driver(host, nvml, options)
    targets = () if NONE in options.device_ids else select_targets(nvml.gpus(), options.device_ids,
                                                                   strict=options.strict)
    earlier = known.found if known else {}
    found = tuple(earlier[discover] if discover in earlier else discover(driver) for discover in COMMON)
    common = _build_common(found, driver.hooks)
    described, skipped = _describe_targets(driver, targets, options)
    spec = _assemble(common, described, skipped, options)
    missing = dict.fromkeys(name for part in (*found, *(part for _, part in described)) for name in part.missing)
    return Generated(spec=spec, driver_version=driver.version, skipped=skipped, missing=tuple(missing))


def open_driver(host: Host, nvml: Nvml, options: Options) -> Driver:
    tree = Tree(host, options.driver_root, strict=options.strict, search_paths=options.library_search_paths)
    version = _tell_version(nvml, tree)
    if options.strict:
        check_root(tree)
        _check_kernel(host, version)
        check_userspace(tree, version)
    return make_driver(host, options, version, tree)


def make_driver(host: Host, options: Options, version: str = "", tree: Tree | None = None) -> Driver:
    """Without a version there are no libraries and no hooks: for documents of nodes alone."""
    tree = tree or Tree(host, options.driver_root, strict=options.strict, search_paths=options.library_search_paths)
    own_configs = options.config_search_paths
    machine = os.uname()
    return Driver(
        tree=tree,
        version=version,
        hooks=_find_hook_program(host, options) if version else HookProgram(path="", is_combined=False),
        library_dirs=find_library_dirs(tree, version, options.release) if version else (),
        dev_root=clean(options.dev_root or options.driver_root),
        release=options.release,
        config_dirs=own_configs or ("/etc", *options.data_dirs),
        config_tree=Tree(host, "/", strict=options.strict) if own_configs else None,
        machine=machine.machine,
        kernel_release=machine.release,
        explicit_libraries=options.explicit_libraries,
        sockets=options.sockets,
        node_gids=options.node_gids,
    )


def _tell_version(nvml: Nvml, tree: Tree) -> str:
    try:
        return nvml.driver_version()
    except CdiError:
        if tree.strict:
            raise
        return find_version(tree)


def check_root(tree: Tree) -> None:
    root = tree.root or "/"
    try:
        tree.host.scan(root)
    except OSError as err:
        raise CdiError("E_CDI_DRIVER_ROOT", f"{root}: {err.strerror}") from err


def _check_kernel(host: Host, version: str) -> None:
    """The kernel module answers for itself where its file exists; user space of another version cannot work with it."""
    try:
        text = read_file(host, KERNEL_VERSION).decode(errors="replace")
    except OSError:
        return
    loaded = _parse_kernel_version(text)
    if loaded is not None and loaded != version:
        raise CdiError("E_CDI_DRIVER_MISMATCH", f"{KERNEL_VERSION} says {loaded}, but the user space is {version}")


def _parse_kernel_version(text: str) -> str | None:
    """The first word of the first line that is digits and dots, e.g. in "... Kernel Module  580.95.05  Tue ..."."""
    words = text.partition("\n")[0].split()
    return next((word for word in words if "." in word and word.replace(".", "").isdigit()), None)


def _find_hook_program(host: Host, options: Options) -> HookProgram:
    tree = Tree(host, strict=options.strict)
    path = options.hook_path
    if not path.startswith("/"):
        name = path or HOOK_PROGRAM
        fallback = "/usr/bin/nvidia-ctk" if name == "nvidia-ctk" else f"/usr/bin/{HOOK_PROGRAM}"
        found = locate_program(tree, name)
        if options.strict and options.hook_path and found is None:
            raise CdiError("E_CDI_HOOK_PATH", f"there is no program {name} in {', '.join(PROGRAM_DIRS)}")
        path = found or fallback
    program = HookProgram(path=path, ldconfig_path=options.ldconfig_path, disabled=options.disabled_hooks,
                          enabled=options.enabled_hooks, is_combined=_is_combined(host, path, options))
    # Runtimes only log a missing hook, and CUDA in the container then fails with a message that leads astray.
    if options.strict and any(map(program.wants, HOOK_NAMES)) and not tree.is_executable(path):
        raise CdiError("E_CDI_HOOK_PATH", f"{path} is not an executable file")
    return program


def _is_combined(host: Host, path: str, options: Options) -> bool:
    """Another maker's program of that name takes "run" for a hook it does not know, and reports success."""
    if not options.strict or options.hook_style is HookStyle.SEPARATE:
        return False
    if options.hook_style is HookStyle.COMBINED:
        return True
    try:
        return options.running_program != "" and host.resolve(path) == os.path.realpath(options.running_program)
    except OSError:
        return False


def _build_common(found: tuple[Found, ...], program: HookProgram) -> ContainerEdits:
    edits = concatenate(part.edits for part in found)
    edits = tidy(replace(edits, env=(*edits.env, *COMMON_ENV)))
    return replace(edits, hooks=program.combine(edits.hooks))


def _describe_targets(driver: Driver, targets: tuple[Target, ...],
                      options: Options) -> tuple[list[tuple[Target, Found]], tuple[Skipped, ...]]:
    minors = read_mig_minors(driver.tree.host) if any(target.mig for target in targets) else {}
    described: list[tuple[Target, Found]] = []
    skipped: list[Skipped] = []
    for target in targets:
        try:
            described.append((target, _describe(driver, target, minors)))
        except CdiError as err:
            if not options.keep_going:
                raise
            skipped.append(Skipped(device=target.label, reason=err))
    return described, tuple(skipped)


def _describe(driver: Driver, target: Target, minors: Mapping[str, int]) -> Found:
    if target.gpu.error is not None:
        raise CdiError("E_CDI_GPU", f"{target.label}: {target.gpu.error}")
    if target.mig is None:
        return find_gpu(driver, target.gpu)
    return find_mig(driver, target.gpu, target.mig, minors)


def _assemble(common: ContainerEdits, described: list[tuple[Target, Found]], skipped: tuple[Skipped, ...],
              options: Options) -> Spec:
    devices = sorted(_name_devices(described, common, options), key=lambda device: device.name)
    if not devices:
        reasons = "; ".join(str(entry.reason) for entry in skipped)
        raise CdiError("E_CDI_NO_GPU", f"no usable GPU is left: {reasons}" if reasons else "NVML lists no usable GPU")
    if options.all_device and NONE not in options.device_ids and all(device.name != ALL for device in devices):
        devices.append(Device(name=ALL, container_edits=merge_devices(devices, common)))
        devices.sort(key=lambda device: device.name)
    _check_names(devices, options)
    return Spec(kind=f"{options.vendor}/{options.kind_class}", devices=tuple(devices), container_edits=common)


def _name_devices(described: list[tuple[Target, Found]], common: ContainerEdits, options: Options) -> Iterator[Device]:
    if NONE in options.device_ids:
        yield Device(name=NONE, container_edits=ContainerEdits(env=NONE_ENV))
    for target, found in described:
        edits = tidy(found.edits, common)
        for strategy in options.strategies:
            yield Device(name=name_device(target, strategy), container_edits=edits)


def _check_names(devices: list[Device], options: Options) -> None:
    names = [device.name for device in devices]
    bad = next((name for name in names if not is_device_name(name) or names.count(name) > 1), None)
    if bad is not None:
        raise CdiError("E_CDI_INVALID", f"device name {bad!r} is not unique or not allowed",
                       "check --device-name-strategy, and the UUIDs that nvidia-smi -L lists")
    for part in (options.vendor, options.kind_class):
        if not is_kind_part(part):
            raise CdiError("E_CDI_USAGE", f"{part!r} cannot be part of a CDI kind",
                           "start with a letter, end with a letter or digit, use - _ . between")
