# SPDX-License-Identifier: Apache-2.0
"""nvrc.cc.key_rotation: before the ready state, read back, and what a driver that refuses it comes to."""

from __future__ import annotations

import pytest

from fakes.gpu_guest import CONFIDENTIAL, MakeGuest
from nvrc.vocabulary.errors import NvrcError

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]
SET, READY = "nvmlSystemSetConfComputeKeyRotationThresholdInfo", "nvmlSystemSetConfComputeGpusReadyState"


def test_the_threshold_is_set_before_the_gpus_are_ready(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.cc.key_rotation=55 nvrc.smi.srs=1", keys="cc=on", text=CONFIDENTIAL)
    facts = guest.boot()
    names = guest.mock.names()
    assert names.index(SET) < names.index(READY)
    assert facts.ready is not None and "; key rotation at 55 bits; at 100.0 s; read back: ready" in facts.ready.why


@pytest.mark.parametrize(("text", "words"), [
    (f"{CONFIDENTIAL} ready=on", "nvmlSystemSetConfComputeKeyRotationThresholdInfo"),
    (f"{CONFIDENTIAL}\nfail nvmlSystemSetConfComputeKeyRotationThresholdInfo 3", "nvmlSystemSetConfComputeKeyRotationThresholdInfo"),
], ids=["already ready", "old driver"])
def test_a_driver_that_refuses_ends_the_boot(gpu_guest: MakeGuest, text: str, words: str) -> None:
    with pytest.raises(NvrcError, match=words) as caught:
        gpu_guest("nvrc.cc.key_rotation=60", keys="cc=on", text=text).boot()
    assert caught.value.code == "E_KEY_ROTATION"


def test_a_threshold_that_does_not_read_back(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.cc.key_rotation=60", keys="cc=on", text=f"{CONFIDENTIAL}\nfail {SET} 0")
    with pytest.raises(NvrcError) as caught:
        guest.boot()
    assert caught.value.code == "E_KEY_ROTATION"
    assert caught.value.what.startswith("set to 60, but nvmlSystemGetConfComputeKeyRotationThresholdInfo says ")


def test_what_is_no_number_never_reaches_the_library(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest(keys="cc=on", text=CONFIDENTIAL)
    with pytest.raises(NvrcError):
        guest.start().ask("keys", 10, advantage="60")
    assert SET not in guest.mock.names()


@pytest.mark.parametrize("strict", [False, True])
def test_without_confidential_mode_it_is_a_note(gpu_guest: MakeGuest, strict: bool) -> None:
    guest = gpu_guest(f"nvrc.cc.key_rotation=60 nvrc.strict={int(strict)}")
    if strict:
        with pytest.raises(NvrcError, match="there is no confidential mode, no key to rotate"):
            guest.boot()
        return
    assert any("nvrc.cc.key_rotation=60 is asked for" in one.what for one in guest.boot().warnings)
    assert SET not in guest.mock.names()
