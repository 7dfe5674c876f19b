# SPDX-License-Identifier: Apache-2.0
"""Whether every NVSwitch of the VM confirms protected PCIe mode, which NVML tells for the whole machine only.

In that mode GPUs speak to each other over NVLink in the clear. What protects them is that the switches between them are
this VM's own, in the mode, and locked, so that nobody configures them again. NVIDIA's verifier asks for the same two
bits. A switch that is not asked, or not on the bus, vouches for nothing.
"""

from __future__ import annotations

from guest_cdi.lean.light import TYPE_CHECKING, Sequence
from nvrc.nvml.answers import SwitchTold
from nvrc.nvml.identity import is_bus_id, quoted
from nvrc.vocabulary.errors import NvrcError

if TYPE_CHECKING:
    from nvrc.vocabulary.errors import Code

CODE: Code = "E_CC_SWITCH"
LOCKED = 3
# NSCQ_DEVICE_TNVL_MODE_*
MODES = {-1: "unknown", 0: "off", 1: "on and not locked", 2: "failed", LOCKED: "on and locked"}
MOST_TOLD = 8   # of what is wrong, in one line


def check_switches(told: Sequence[SwitchTold], on_bus: Sequence[str]) -> None:
    """NvrcError unless the switches that answer are those of the bus, each once, in the mode and locked."""
    places = [switch.bdf for switch in told]
    wrong = [*_doubled(told), *(fault for switch in told if (fault := _fault(switch, on_bus))),
             *(f"{bdf} does not answer" for bdf in on_bus if bdf not in places)]
    if wrong:
        more = f"; and {len(wrong) - MOST_TOLD} more" if len(wrong) > MOST_TOLD else ""
        raise NvrcError(CODE, f"the NVSwitches do not confirm protected PCIe: {'; '.join(wrong[:MOST_TOLD])}{more}")


def check_alone(gpus: int) -> None:
    """NvrcError where there are GPUs that talk to each other, and no switch that could be asked."""
    if gpus > 1:
        raise NvrcError(CODE, f"{gpus} GPUs are in protected PCIe mode, and no NVSwitch is in this VM: what they say "
                              "to each other is not protected")


def _doubled(told: Sequence[SwitchTold]) -> list[str]:
    columns = (("bus id", [switch.bdf for switch in told if switch.bdf]),
               ("UUID", [switch.uuid.lower() for switch in told if switch.uuid]))
    return [f"{name} {quoted(value)} is listed {values.count(value)} times"
            for name, values in columns for value in dict.fromkeys(values) if values.count(value) > 1]


def _fault(switch: SwitchTold, on_bus: Sequence[str]) -> str:
    name = quoted(switch.bdf or switch.uuid)
    if switch.error:
        return f"{name}: {quoted(switch.error)}"
    if not switch.uuid or not is_bus_id(switch.bdf):
        return f"a switch has the UUID {quoted(switch.uuid)} and the bus id {quoted(switch.bdf)}"
    if switch.bdf not in on_bus:
        return f"{name} is not on the bus"
    if switch.mode != LOCKED:
        return f"{name} is in mode {MODES.get(switch.mode, switch.mode)}, required is {MODES[LOCKED]}"
    return ""
