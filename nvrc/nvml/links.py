# SPDX-License-Identifier: Apache-2.0
"""NVLinks of each GPU, and what NVML says of each pair: peer access, and what lies between. Child side."""

from __future__ import annotations

from guest_cdi.discover.nodes import normalise_bus_id
from guest_cdi.lean.light import TYPE_CHECKING, Callable, Mapping
from guest_cdi.nvml import RefusedError, ask
from nvrc.nvml.answers import LinkCount, PairState, indices
from nvrc.nvml.session import FUNCTION_NOT_FOUND, INVALID_ARGUMENT, NOT_SUPPORTED, Session
from nvrc.nvml.worker import Value

if TYPE_CHECKING:
    from typing import ParamSpec

    P = ParamSpec("P")

_UNKNOWN = (NOT_SUPPORTED, INVALID_ARGUMENT, FUNCTION_NOT_FOUND)
MOST_LINKS = 36
NOT_TOLD = -1
# As in nvml.h: nvidia-ml-py has a tuple in the place of the first.
READ, WRITE, NVLINK = 0, 1, 2


def read_links(session: Session, given: Mapping[str, Value]) -> dict[str, object]:
    counts = [_count(session, number) for number in indices(given["gpus"])]
    return {"links": counts,
            "pairs": [_pair(session, one, other) for at, one in enumerate(counts) for other in counts[at + 1:]]}


def _count(session: Session, number: int) -> LinkCount:
    library, device = session.library, session.device(number)
    active, switched, peers = 0, 0, []
    for link in range(MOST_LINKS):
        state = _number(library.nvmlDeviceGetNvLinkState, device, link)
        if state == NOT_TOLD:
            break
        if state == library.NVML_FEATURE_ENABLED:
            active += 1
            kind = _number(library.nvmlDeviceGetNvLinkRemoteDeviceType, device, link)
            if kind == library.NVML_NVLINK_DEVICE_TYPE_GPU:
                peers.append(normalise_bus_id(_text(ask(library.nvmlDeviceGetNvLinkRemotePciInfo, device, link).busId)))
            else:
                switched += 1
    return LinkCount(number, active, switched, tuple(peers))


def _pair(session: Session, one: LinkCount, other: LinkCount) -> PairState:
    """Which have NVLink in common is asked of those only that both have some."""
    status = session.library.nvmlDeviceGetP2PStatus
    first, second = session.device(one.number), session.device(other.number)
    read, write = _number(status, first, second, READ), _number(status, first, second, WRITE)
    nvlink = _number(status, first, second, NVLINK) if one.active and other.active else NOT_TOLD
    return PairState(one.number, other.number, read, write, nvlink)


def _text(value: bytes | str) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


def _number(call: Callable[P, int], *arguments: P.args, **named: P.kwargs) -> int:
    try:
        return ask(call, *arguments, **named)
    except RefusedError as err:
        if err.code in _UNKNOWN:
            return NOT_TOLD
        raise
