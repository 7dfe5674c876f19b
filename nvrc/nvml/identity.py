# SPDX-License-Identifier: Apache-2.0
"""One identity per GPU: bus, nvidia-persistenced, NVIDIA's library and the CDI document must speak of the same GPUs.

A GPU is known by its bus id; number, UUID and minor must each belong to one GPU only. A library of another release, or
a damaged one, may list a GPU twice in place of another, which then nobody asked for its mode. Whether enough GPUs came
up is decided in count.py.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Mapping, NamedTuple, Sequence
from nvrc.hardware.gpu_files import Told
from nvrc.nvml.answers import NvmlGpu
from nvrc.params.table import asked
from nvrc.params.values import CountRule, GpuCount
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.gpu import name_place

if TYPE_CHECKING:
    from nvrc.vocabulary.errors import Code

CODE: Code = "E_GPU_IDENTITY"
LAST_MINOR = 253    # 254 and 255 of the same major are nvidia-modeset and nvidiactl
_HEX = frozenset("0123456789abcdef")


def check_identities(gpus: Sequence[NvmlGpu], told: Mapping[str, Told]) -> None:
    """NvrcError with every GPU that is listed twice, has no valid identity, or another one than the driver says."""
    most = max(len(gpus), len(told))
    wrong = [*_doubled(gpus), *(fault for gpu in gpus for fault in _faults(gpu, most)),
             *(fault for gpu in gpus if gpu.bdf in told for fault in _differences(gpu, told[gpu.bdf]))]
    if wrong:
        raise NvrcError(CODE, f"NVIDIA's library contradicts itself or the driver: {'; '.join(wrong)}")


def _doubled(gpus: Sequence[NvmlGpu]) -> list[str]:
    """GPUs that were refused count as well, as far as they are known."""
    columns = (
        ("GPU number", [str(gpu.number) for gpu in gpus]),
        ("bus id", [gpu.bdf for gpu in gpus if gpu.bdf]),
        ("UUID", [gpu.uuid.lower() for gpu in gpus if gpu.uuid]),
        ("minor", [str(gpu.minor) for gpu in gpus if gpu.minor >= 0]))
    return [f"{name} {quoted(value)} is listed {values.count(value)} times"
            for name, values in columns for value in dict.fromkeys(values) if values.count(value) > 1]


def _faults(gpu: NvmlGpu, most: int) -> list[str]:
    """What is wrong with one GPU. Of one that the library refused, what is not known yet may be missing."""
    is_open = bool(gpu.error)
    claims = (
        (0 <= gpu.number < most, "number", gpu.number),
        (is_bus_id(gpu.bdf) or (is_open and not gpu.bdf), "bus id", gpu.bdf),
        (is_uuid(gpu.uuid) or (is_open and not gpu.uuid), "UUID", gpu.uuid),
        (0 <= gpu.minor <= LAST_MINOR or (is_open and gpu.minor == -1), "minor", gpu.minor))
    return [f"GPU {gpu.number} has the invalid {name} {quoted(value) if isinstance(value, str) else value}"
            for is_right, name, value in claims if not is_right]


def _differences(gpu: NvmlGpu, told: Told) -> list[str]:
    rows = (("UUID", gpu.uuid, told.uuid),
            (f"the UUID {quoted(gpu.uuid)} and minor", str(gpu.minor) if gpu.minor >= 0 else "", told.minor))
    return [f"GPU {gpu.number} {gpu.bdf} has {name} {quoted(listed)}, the driver says {quoted(known)}"
            for name, listed, known in rows if listed and known and listed.lower() != known.lower()]


def is_bus_id(text: str) -> bool:
    """As sysfs spells it: 0000:41:00.0, with more digits for a domain that needs them."""
    domain, _, rest = text.partition(":")
    bus, _, place = rest.partition(":")
    device, _, function = place.partition(".")
    return 4 <= len(domain) <= 8 and _HEX.issuperset(domain) and _is_hex((bus, device, function), (2, 2, 1))


def is_uuid(text: str) -> bool:
    head, _, rest = text.partition("-")
    return head == "GPU" and _is_hex(tuple(rest.lower().split("-")), (8, 4, 4, 4, 12))


def _is_hex(parts: tuple[str, ...], sizes: tuple[int, ...]) -> bool:
    return tuple(map(len, parts)) == sizes and all(_HEX.issuperset(part) for part in parts)


def quoted(text: str) -> str:
    """Foreign text, short enough for a line that names several."""
    return ascii(text[:48])


class Sets(NamedTuple):
    """Bus ids of the GPUs that each part of the boot speaks of. `given` are those that containers can be given."""

    on_bus: frozenset[str]
    attached: frozenset[str]
    answering: frozenset[str]
    checked: frozenset[str]
    given: frozenset[str]

    @property
    def unchecked(self) -> tuple[str, ...]:
        """GPUs of the VM that are not in every set: nobody can vouch for them."""
        return tuple(sorted(self.on_bus - (self.attached & self.answering & self.checked & self.given)))


def check_sets(sets: Sets, rule: GpuCount, uuids: Mapping[str, str]) -> None:
    """NvrcError unless each GPU that containers can be given is on the bus, attached, answers and had its mode read.

    Unless fewer suffice, that has to hold for every GPU of the bus.
    """
    wanted = sets.given if rule.rule is CountRule.AT_LEAST else sets.on_bus | sets.given
    rows = (("not on the bus", sets.on_bus), ("not attached by nvidia-persistenced", sets.attached),
            ("not listed by NVIDIA's library", sets.answering), ("its confidential mode was not read", sets.checked),
            ("not in the CDI document", sets.given))
    wrong = [f"{', '.join(name_place(bdf, uuids.get(bdf, '')) for bdf in sorted(wanted - known))}: {text}"
             for text, known in rows if wanted - known]
    if not rule.holds(len(sets.given), len(sets.on_bus)):
        wrong.append(f"{len(sets.given)} of {len(sets.on_bus)} GPUs are left, {asked('gpus', rule)}")
    if wrong:
        raise NvrcError(CODE, f"the ready state would cover GPUs that were not checked: {'; '.join(wrong)}")
