# SPDX-License-Identifier: Apache-2.0
"""PID 1's dealings with the worker that holds NVIDIA's library: start it early, ask it within a deadline."""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Mapping
from nvrc.engine.facts import Facts
from nvrc.nvml.worker import Request, Value, Worker, start_worker
from nvrc.params.settings import Settings
from nvrc.vocabulary.errors import NvrcError

if TYPE_CHECKING:
    from guest_cdi.host import Host
    from nvrc.machine.system import System

SPARE_S = 5.0   # so that a request ends by its own deadline, which says more, and not by that of its step


def prepare_worker(system: System, facts: Facts, *, root: str = "/", host: Host | None = None) -> Worker:
    """Fork it before the driver attaches GPUs: it loads its code and reads the driver's directories meanwhile.

    Nothing of a GPU is touched until the first request. `root` and `host` are the machine that it looks at.
    """
    driver_root = facts.gpu_root or "/"

    def requests() -> Mapping[str, Request]:
        from nvrc.nvml.requests import make_requests

        return make_requests(driver_root, root=root, host=host)

    try:
        return start_worker(system, requests)
    except OSError as err:
        raise NvrcError("E_NVML_CRASH", f"the worker could not be forked: {err.strerror}",
                        "give the VM more memory") from err


def ask(facts: Facts, name: str, **given: Value) -> Value:
    assert facts.worker is not None  # noqa: S101 - `needs` puts the step that starts it before
    return facts.worker.ask(name, patience_s(facts), **given)


def settings_of(facts: Facts) -> Settings:
    assert facts.parameters is not None  # noqa: S101 - every step with GPUs comes after parameters
    return facts.parameters.settings


def patience_s(facts: Facts) -> float:
    """How long one request may take."""
    settings = settings_of(facts)
    gpus = len(facts.topology.gpus) if facts.topology else 0
    return settings.timeout_nvml_s + settings.timeout_per_gpu_s * gpus


def deadline_s(facts: Facts) -> float:
    """Of a step with one request."""
    return patience_s(facts) + SPARE_S


def usable(facts: Facts) -> tuple[int, ...]:
    """The numbers of the GPUs that answer."""
    return tuple(gpu.number for gpu in facts.gpus or () if not gpu.error)
