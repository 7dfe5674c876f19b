# SPDX-License-Identifier: Apache-2.0
"""A machine of probes: its console, and its end when it does not end by itself."""

from __future__ import annotations

import sys
import time

import pytest

from nvrc_lab.ground.errors import LabError
from nvrc_lab.run.probing import run_guest


def test_lines_come_without_the_kernels_time() -> None:
    assert run_guest((sys.executable, "-c", "print('[    1.500000] probe: say x\\r\\nplain')"), 60.0) == ["probe: say x", "plain", ""]


@pytest.mark.long
def test_one_that_stays_is_ended_and_its_last_lines_are_told() -> None:
    script = "import time; print('last words', flush=True); time.sleep(600)"
    started_s = time.monotonic()
    with pytest.raises(LabError, match=r"did not power off within 1\.5 s") as caught:
        run_guest((sys.executable, "-c", script), 1.5)
    assert "last words" in str(caught.value.hint)
    assert time.monotonic() - started_s >= 1.5
