# SPDX-License-Identifier: Apache-2.0
"""From plain data to a Spec.

Judges nothing: schema.py says what is of the wrong type, and here it becomes the empty value, so that the rules
between values can still be told about the rest of the document.
"""

from __future__ import annotations

from guest_cdi import spec as cdi
from guest_cdi.lean.light import Callable, Mapping, Sequence, TypeVar
from guest_cdi.load import Data
from guest_cdi.spec import ContainerEdits, Spec, keys_of

T = TypeVar("T")


def to_spec(data: Data) -> Spec:
    return _record(Spec, as_mapping(data))


def _record(kind: type[T], data: Mapping[str, Data]) -> T:
    """Every field by the reader of its annotation, which is text."""
    hints = kind.__annotations__
    return kind(**{name: READERS[hints[name]](data.get(key)) for name, key in keys_of(kind)})


def _records(kind: type[T]) -> Callable[[Data], tuple[T, ...]]:
    return lambda data: tuple(_record(kind, as_mapping(entry)) for entry in as_sequence(data))


def _edits(data: Data) -> ContainerEdits:
    return _record(ContainerEdits, as_mapping(data))


def _intel_rdt(data: Data) -> cdi.IntelRdt | None:
    return _record(cdi.IntelRdt, data) if isinstance(data, dict) else None


def as_mapping(data: Data) -> Mapping[str, Data]:
    return data if isinstance(data, dict) else {}


def as_sequence(data: Data) -> Sequence[Data]:
    return data if isinstance(data, list) else ()


def _text(data: Data) -> str:
    return data if isinstance(data, str) else ""


def _integer(data: Data) -> int | None:
    return data if isinstance(data, int) else None


def _annotations(data: Data) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in as_mapping(data).items() if isinstance(value, str))


READERS: Mapping[str, Callable[[Data], object]] = {
    "str": _text,
    "int": lambda data: _integer(data) or 0,
    "int | None": _integer,
    "bool": lambda data: data is True,
    "tuple[str, ...]": lambda data: tuple(entry for entry in as_sequence(data) if isinstance(entry, str)),
    "tuple[int, ...]": lambda data: tuple(entry for entry in as_sequence(data) if isinstance(entry, int)),
    "tuple[tuple[str, str], ...]": _annotations,
    "ContainerEdits": _edits,
    "IntelRdt | None": _intel_rdt,
    **{f"tuple[{kind.__name__}, ...]": _records(kind)
       for kind in (cdi.Device, cdi.DeviceNode, cdi.NetDevice, cdi.Hook, cdi.Mount)},
}
