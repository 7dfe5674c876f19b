# SPDX-License-Identifier: Apache-2.0
"""Which image a scenario boots: the lab's own, or the one with NVIDIA's own driver for scenarios of `driver: real`.

Those run NVIDIA's open kernel modules, nvidia-persistenced and libnvidia-ml on virtual functions. The modules load and
bind; no GPU ever attaches, because nobody imitates its system processor. So the tier proves two things: that loading,
numbers and nodes fit the real driver, and that a GPU which does not attach is told from one that does, although
nvidia-persistenced ends with 0 and opens its socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.places import Places
from nvrc_lab.kit import standins
from nvrc_lab.kit.image import BootFiles, build_image
from nvrc_lab.scenario.values import REAL, Scenario

PROFILE = "nvidia"


def image_for(scenarios: Sequence[Scenario], places: Places, *, agent: Path | None = None,
              wait_s: float | None = None) -> BootFiles:
    """One image serves all machines of a command. Compiling the real driver takes minutes, once.

    `agent`: a real one, for which the factory finds libraries and writes the policy that it reads.
    """
    real = [one.name for one in scenarios if one.driver == REAL]
    if not real:
        return build_image(agent=agent, wait_s=wait_s)
    if len(real) < len(scenarios):
        others = next(one.name for one in scenarios if one.driver != REAL)
        raise LabError(f"{real[0]} needs the image {PROFILE}, {others} the lab's", "run them one by one")
    return build_image(PROFILE, agent=agent or standin_agent(places), wait_s=wait_s)


def standin_agent(places: Places) -> Path:
    """The factory puts no stand-in into an image for real use unless it is asked to."""
    return standins.build_program(standins.open_workshop(places), "agent")
