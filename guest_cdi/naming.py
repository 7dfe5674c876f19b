# SPDX-License-Identifier: Apache-2.0
"""Which devices a document offers, and what they are called.

A GPU in MIG mode is not offered as a whole: its MIG devices are. Index means NVML's index throughout.
"""

from __future__ import annotations

from guest_cdi.gpu import DISPLAY_ONLY, Gpu, Mig
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.light import Enum, Iterable, Iterator, Sequence, dataclass

ALL = "all"
NONE = "none"
LONGEST_NUMBER = 19
IN_KINDS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
IN_DEVICE_NAMES = IN_KINDS | {":"}


class Strategy(Enum):
    INDEX = "index"
    UUID = "uuid"
    TYPE_INDEX = "type-index"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A device to describe: a whole GPU, or one of its MIG devices."""

    gpu: Gpu
    mig: Mig | None = None

    @property
    def label(self) -> str:
        if self.mig is None:
            return f"GPU {self.gpu.index}" + (f" ({self.gpu.uuid})" if self.gpu.uuid else "")
        return f"MIG device {self.gpu.index}:{self.mig.index} ({self.mig.uuid})"


def name_device(target: Target, strategy: Strategy) -> str:
    gpu, mig = target.gpu, target.mig
    if strategy is Strategy.UUID:
        return gpu.uuid if mig is None else mig.uuid
    typed = strategy is Strategy.TYPE_INDEX
    if mig is None:
        return f"{'gpu' if typed else ''}{gpu.index}"
    return f"{'mig' if typed else ''}{gpu.index}:{mig.index}"


def select_targets(gpus: Sequence[Gpu], ids: Iterable[str], *, strict: bool) -> tuple[Target, ...]:
    """The devices that `ids` name: indices (1, 1:0), UUIDs, or all. Whole GPUs come first, as NVML lists them.

    A GPU with an error is a target as a whole, so that it is missed by nobody: what it would offer is not known.
    """
    wanted = tuple(ids)
    if ALL in wanted:
        return tuple(_list_all(gpus))
    known = {name: target for target in _list_known(gpus, strict)
             for name in (name_device(target, Strategy.INDEX), name_device(target, Strategy.UUID))}
    faulty = {str(gpu.index): Target(gpu=gpu) for gpu in gpus if gpu.error}
    found = {name: known.get(_canonical(name), faulty.get(_canonical(name).partition(":")[0])) for name in wanted}
    unknown = [name or repr(name) for name, target in found.items() if target is None]
    if unknown:
        raise CdiError("E_CDI_DEVICE_ID", f"no device {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
    targets = [target for name in wanted if (target := found[name]) is not None]
    doubled = next((target for target in targets if targets.count(target) > 1), None)
    if doubled is not None:
        raise CdiError("E_CDI_DEVICE_ID", f"{doubled.label} is named twice", "name each device once")
    return tuple(targets)


def _list_all(gpus: Sequence[Gpu]) -> Iterator[Target]:
    visible = [gpu for gpu in gpus if gpu.name not in DISPLAY_ONLY]
    yield from (Target(gpu=gpu) for gpu in visible if gpu.error or not gpu.mig_enabled)
    yield from (Target(gpu=gpu, mig=mig) for gpu in visible if not gpu.error for mig in gpu.migs)


def _list_known(gpus: Sequence[Gpu], strict: bool) -> Iterator[Target]:
    """The reference gives a GPU in MIG mode out whole when it is asked for it by name; that is too much to give."""
    yield from (Target(gpu=gpu) for gpu in gpus if gpu.error or not (strict and gpu.mig_enabled))
    yield from (Target(gpu=gpu, mig=mig) for gpu in gpus for mig in gpu.migs)


def _canonical(name: str) -> str:
    """Indices are numbers: 01 is 1."""
    parts = name.split(":")
    return ":".join(str(int(part)) for part in parts) if all(is_number(part) for part in parts) else name


def is_number(text: str) -> bool:
    """Of a device: no longer than anybody's, as int() takes no more than 4300 digits."""
    return len(text) <= LONGEST_NUMBER and text.isascii() and text.isdigit()


def is_device_name(name: str) -> bool:
    return _has_form(name, IN_DEVICE_NAMES) and name[0].isalnum()


def is_kind_part(name: str) -> bool:
    """A vendor or a class."""
    return _has_form(name, IN_KINDS) and name[0].isalpha()


def _has_form(name: str, allowed: frozenset[str]) -> bool:
    return allowed.issuperset(name) and name != "" and name[-1].isalnum()
