# SPDX-License-Identifier: Apache-2.0
"""The pod's initdata: found among the disks, unpacked, and held against what the TEE was started with.

Outside of a TEE it is worth as much as the command line: the host gives both. In one the digest decides, and it decides
for what is missing as well: a host that keeps the disk back, or attaches another pod's, gets no boot. A TEE whose
report cannot be read is believed to have none, but under `nvrc.strict`: the questions of SEV-SNP pass through the host,
who may drop them. The agent reads the disk again by itself and takes the first that it finds, partitions included, so a
second one is refused here.
"""

from __future__ import annotations

from guest_cdi.lean.light import Callable, NamedTuple
from nvrc.confidential.tee import NONCE, Tee, find_tee, read_bound
from nvrc.extensions.disks import BLOCK, disk_names, partition_names
from nvrc.hardware.modules import Modules
from nvrc.machine.patience import DISK_ANSWER_S, run_within
from nvrc.machine.system import Files, System
from nvrc.machine.wait import OverdueError
from nvrc.params.initdata import HEADER, Initdata, is_initdata, packed_size, read_initdata, unpack_disk
from nvrc.params.module_options import ModuleOption
from nvrc.params.policy import TOPOLOGY, Policy
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.trouble import Trouble, remark

_DRIVERS = ("virtio_blk", "virtio_scsi", "sd_mod")
_RANDOM = "/dev/urandom"


class Found(NamedTuple):
    """`confirmed_by`: the TEE's value that has the digest; empty outside of a TEE."""

    initdata: Initdata
    disk: str
    confirmed_by: str

    @property
    def topology(self) -> str:
        """The machine that the host has, for NCCL; empty where the pod does not say."""
        return self.initdata.entries.get(TOPOLOGY, "")

    def told(self) -> str:
        how = f"as {self.confirmed_by} has it" if self.confirmed_by else "not in a TEE"
        return f"initdata {self.initdata.algorithm}={self.initdata.digest.hex()} of {self.disk}, {how}"


def find_initdata(system: System, policy: Policy, options: tuple[ModuleOption, ...],
                  mount_optional: Callable[[System], None], *, is_strict: bool = False, answer_s: float = DISK_ANSWER_S,
                  ) -> tuple[Found | None, tuple[Trouble, ...]]:
    """What the pod gave, and what there is to remark. `mount_optional` mounts configfs once the kernel has it."""
    modules = Modules(system, options=options)
    disk, packed = _search_patiently(system, modules, answer_s)
    tee = find_tee(system)
    if not disk:
        return None, _miss(system, modules, tee, mount_optional, required=policy.requires_initdata, is_strict=is_strict)
    initdata = read_initdata(unpack_disk(packed))
    if tee is not None:
        bound = _ask(system, modules, tee, mount_optional)
        if bound != initdata.bound(tee.size):
            raise NvrcError("E_INITDATA_BINDING", f"{tee.name}: {tee.field} is {bound.hex()}, and the digest "
                            f"({initdata.algorithm}) of the initdata of {disk} is {initdata.bound(tee.size).hex()}")
    return Found(initdata, disk, tee.field if tee else ""), tuple(map(remark, modules.remarks))


def _search_patiently(system: System, modules: Modules, answer_s: float) -> tuple[str, bytes]:
    """A disk that does not answer would keep PID 1 in the kernel for ever."""
    asked: list[str] = []
    try:
        return run_within(answer_s, lambda: _search(system, modules, asked))
    except OverdueError as err:
        raise NvrcError("E_INITDATA", f"initdata: {asked[-1]} does not answer within {answer_s:g} s",
                        "find on the host the disk of the VM that does not answer, or detach it") from err


def _search(system: System, modules: Modules, asked: list[str]) -> tuple[str, bytes]:
    """The one disk or partition that has initdata, and the content; empty where there is none."""
    for driver in _DRIVERS:
        asked.append(f"a disk of the driver {driver}")
        modules.load_if_there(driver)
    found = [name for name in _places(system) if is_initdata(_read_asked(system, name, HEADER, asked))]
    if len(found) > 1:
        raise NvrcError("E_INITDATA", f"initdata: the disks {', '.join(found)} all have it; one may",
                        "find who attaches the second one: the runtime attaches one")
    if not found:
        return "", b""
    size = packed_size(_read_asked(system, found[0], HEADER, asked))
    return found[0], _read_asked(system, found[0], size, asked)


def _places(system: Files) -> tuple[str, ...]:
    """Where the agent looks: every disk, and every partition of one."""
    return tuple(name for disk in disk_names(system) for name in (disk, *partition_names(system, disk)))


def _miss(system: System, modules: Modules, tee: Tee | None, mount_optional: Callable[[System], None], *,
          required: bool, is_strict: bool) -> tuple[Trouble, ...]:
    """No disk: what the TEE and the policy say to that."""
    if required:
        raise NvrcError("E_INITDATA", "initdata: no disk has it, and the image's policy requires it",
                        "give the pod the annotation io.katacontainers.config.hypervisor.cc_init_data")
    if tee is None:
        return tuple(map(remark, modules.remarks))
    try:
        bound = _ask(system, modules, tee, mount_optional)
    except NvrcError as err:
        if not isinstance(err.__cause__, OSError):
            raise  # it says something, which is wrong
        doubt = f"PID 1 could not determine whether initdata was taken away: {err.what}"
        if is_strict:
            raise NvrcError(err.code, doubt, err.hint) from err
        return *map(remark, modules.remarks), remark(doubt)
    if any(bound):
        raise NvrcError("E_INITDATA_BINDING", f"{tee.name}: {tee.field} is {bound.hex()}, and no disk has initdata")
    return tuple(map(remark, modules.remarks))


def _ask(system: System, modules: Modules, tee: Tee, mount_optional: Callable[[System], None]) -> bytes:
    for module in tee.modules:
        try:
            modules.load_if_there(module)
        except NvrcError as err:
            modules.remarks.append(err.what)
    mount_optional(system)
    return read_bound(system, tee, system.read(_RANDOM, NONCE))


def _read_asked(system: Files, name: str, limit: int, asked: list[str]) -> bytes:
    """Of a disk; one that cannot be read, such as an empty drive, has no initdata."""
    asked.append(f"disk {name}")
    try:
        return system.read(f"/dev/{name}", limit)
    except OSError as err:
        if limit <= HEADER:
            return b""
        raise NvrcError("E_INITDATA", f"initdata: disk {name}: {err.strerror}", path=f"{BLOCK}/{name}") from err
