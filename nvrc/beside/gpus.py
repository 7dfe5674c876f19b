# SPDX-License-Identifier: Apache-2.0
"""GPUs as NVIDIA's library tells them: what is asked, in a process of its own, and the samples made of the answers.

A call that the library lacks or refuses leaves its value out. A GPU that refuses its handle is `up 0`. Nothing is set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType

from nvrc.beside.families import Sample

MHZ, MILLI = 1_000_000, 1000
FABRIC = {0: "unsupported", 1: "not-started", 2: "in-progress", 3: "completed"}
MOST_LINKS = 18  # of an NVLink generation, as nvml.h has it
# "Not available", as NVML says it in a number of 32 bits and of 64.
NO_VALUE = (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
Answer = Mapping[str, object]


def read_machine(nvml: ModuleType) -> Answer:
    """Everything at once, as JSON can say it. Runs in the child."""
    cc = _ask(nvml, "nvmlSystemGetConfComputeState")
    return {
        "driver": _ask(nvml, "nvmlSystemGetDriverVersion"),
        "ready": _ask(nvml, "nvmlSystemGetConfComputeGpusReadyState"),
        "cc": getattr(cc, "ccFeature", None),
        "gpus": [_read_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())],
    }


def _ask(nvml: ModuleType, name: str, *arguments: object) -> object:
    """None for a call that the library lacks or refuses."""
    try:
        return getattr(nvml, name)(*arguments)
    except (nvml.NVMLError, AttributeError, UnicodeDecodeError):
        return None


def _read_gpu(nvml: ModuleType, index: int) -> Answer:
    device = _ask(nvml, "nvmlDeviceGetHandleByIndex", index)
    if device is None:
        return {"index": index, "up": False}

    def ask(name: str, *arguments: object) -> object:
        return _ask(nvml, name, device, *arguments)

    pci, memory, used = (
        ask("nvmlDeviceGetPciInfo"),
        ask("nvmlDeviceGetMemoryInfo"),
        ask("nvmlDeviceGetUtilizationRates"),
    )
    return {
        "index": index,
        "up": ask("nvmlDeviceGetUUID") is not None,
        "uuid": ask("nvmlDeviceGetUUID"),
        "bus_id": _text(getattr(pci, "busId", None)),
        "serial": ask("nvmlDeviceGetSerial"),
        "name": ask("nvmlDeviceGetName"),
        "graphics": ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_GRAPHICS),
        "sm": ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        "memory": ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
        "power": ask("nvmlDeviceGetPowerUsage"),
        "limit": ask("nvmlDeviceGetEnforcedPowerLimit"),
        "temperature": ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        "total": getattr(memory, "total", None),
        "used": getattr(memory, "used", None),
        "free": getattr(memory, "free", None),
        "utilisation": getattr(used, "gpu", None),
        "corrected": ask("nvmlDeviceGetTotalEccErrors", nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, nvml.NVML_VOLATILE_ECC),
        "uncorrected": ask(
            "nvmlDeviceGetTotalEccErrors", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        ),
        "links": [state for link in range(MOST_LINKS) if (state := ask("nvmlDeviceGetNvLinkState", link)) is not None],
        "fabric": _fabric(nvml, device),
    }


def _fabric(nvml: ModuleType, device: object) -> object:
    import ctypes

    info = nvml.c_nvmlGpuFabricInfo_t()
    if _ask(nvml, "nvmlDeviceGetGpuFabricInfo", device, ctypes.byref(info)) is None:
        return None
    return info.state


def _text(value: object) -> object:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


def place_of(gpu: Answer) -> tuple[str, str, str]:
    """The labels of a GPU. NVML writes a bus id with a domain of eight digits."""
    bus_id = str(gpu.get("bus_id") or "").lower()
    return str(gpu.get("uuid") or ""), bus_id[4:] if len(bus_id) == 16 else bus_id, str(gpu.get("serial") or "")


def of_gpus(answer: Answer) -> Iterator[Sample]:
    for name, value in (("nvrc_gpus_ready", answer.get("ready")), ("nvrc_cc_feature", answer.get("cc"))):
        if isinstance(value, int):
            yield Sample(name, value != 0)
    gpus = answer.get("gpus")
    for gpu in gpus if isinstance(gpus, list) else ():
        place = place_of(gpu)
        yield Sample("nvrc_gpu_up", bool(gpu.get("up")), place)
        yield Sample("nvrc_gpu_info", 1, (*place, str(gpu.get("name") or ""), str(answer.get("driver") or "")))
        yield from _of_gpu(gpu, place)


def _of_gpu(gpu: Answer, place: tuple[str, str, str]) -> Iterator[Sample]:
    for key, family, factor, more in (
        ("graphics", "nvrc_gpu_clock_hertz", MHZ, ("graphics",)),
        ("sm", "nvrc_gpu_clock_hertz", MHZ, ("sm",)),
        ("memory", "nvrc_gpu_clock_hertz", MHZ, ("memory",)),
        ("power", "nvrc_gpu_power_watts", 1 / MILLI, ()),
        ("limit", "nvrc_gpu_power_limit_watts", 1 / MILLI, ()),
        ("temperature", "nvrc_gpu_temperature_celsius", 1, ()),
        ("utilisation", "nvrc_gpu_utilisation_ratio", 1 / 100, ()),
        ("total", "nvrc_gpu_memory_bytes", 1, ("total",)),
        ("used", "nvrc_gpu_memory_bytes", 1, ("used",)),
        ("free", "nvrc_gpu_memory_bytes", 1, ("free",)),
        ("corrected", "nvrc_gpu_ecc_errors_total", 1, ("corrected",)),
        ("uncorrected", "nvrc_gpu_ecc_errors_total", 1, ("uncorrected",)),
    ):
        value = gpu.get(key)
        if isinstance(value, int) and 0 <= value < NO_VALUE[-1] and value not in NO_VALUE:
            yield Sample(family, value * factor, (*place, *more))
    links = gpu.get("links")
    if isinstance(links, list) and links:
        yield Sample("nvrc_gpu_nvlinks_up", sum(state == 1 for state in links), place)
        yield Sample("nvrc_gpu_nvlinks_down", sum(state != 1 for state in links), place)
    state = gpu.get("fabric")
    if isinstance(state, int) and state in FABRIC:
        for number, word in FABRIC.items():
            yield Sample("nvrc_gpu_fabric_state", number == state, (*place, word))
