# SPDX-License-Identifier: Apache-2.0
"""Which devices there are and what they are called."""

from __future__ import annotations

import pytest

from guest_cdi.gpu import Gpu, Mig
from guest_cdi.lean.errors import CdiError
from guest_cdi.naming import Strategy, Target, is_device_name, is_kind_part, name_device, select_targets

WHOLE = Gpu(index=0, uuid="GPU-a", minor=0)
MIG = Mig(index=2, uuid="MIG-b2", gi=1, ci=0)
SPLIT = Gpu(index=1, uuid="GPU-b", minor=5, mig_enabled=True, mig_capable=True, migs=(MIG,))
DISPLAY = Gpu(index=2, uuid="GPU-c", minor=6, name="NVIDIA DGX Display")
EMPTY = Gpu(index=3, uuid="GPU-d", minor=7, mig_enabled=True, mig_capable=True)
GPUS = (WHOLE, SPLIT, DISPLAY, EMPTY)


@pytest.mark.parametrize(("strategy", "whole", "part"), [
    (Strategy.INDEX, "0", "1:2"), (Strategy.TYPE_INDEX, "gpu0", "mig1:2"), (Strategy.UUID, "GPU-a", "MIG-b2"),
])
def test_names(strategy: Strategy, whole: str, part: str) -> None:
    assert name_device(Target(gpu=WHOLE), strategy) == whole
    assert name_device(Target(gpu=SPLIT, mig=MIG), strategy) == part


def select(*ids: str, strict: bool = True) -> list[str]:
    return [name_device(target, Strategy.INDEX) for target in select_targets(GPUS, ids, strict=strict)]


@pytest.mark.parametrize(("ids", "wanted"), [
    (("all",), ["0", "1:2"]),
    (("0", "all"), ["0", "1:2"]),
    (("0",), ["0"]),
    (("1:2", "0"), ["1:2", "0"]),
    (("01:02",), ["1:2"]),
    (("GPU-a",), ["0"]),
    (("MIG-b2",), ["1:2"]),
])
def test_selection(ids: tuple[str, ...], wanted: list[str]) -> None:
    assert select(*ids) == wanted


@pytest.mark.parametrize("name", ["9", "GPU-x", "gpu0", "1:0", "1:x", "", "0:", "1" * 5000])
def test_an_unknown_device_is_an_error_that_lists_the_known(name: str) -> None:
    with pytest.raises(CdiError, match=r"there are: .*GPU-a.*1:2") as caught:
        select("0", name)
    assert caught.value.code == "E_CDI_DEVICE_ID"


def test_a_split_gpu_is_not_given_out_whole() -> None:
    assert select("1", strict=False) == ["1"]
    with pytest.raises(CdiError, match="no device 1;"):
        select("1")


def test_a_device_named_twice_is_an_error() -> None:
    with pytest.raises(CdiError, match=r"GPU 0 \(GPU-a\) is named twice"):
        select("0", "GPU-a")


LOST = Gpu(index=5, uuid="GPU-e", mig_enabled=True, error="lost")


@pytest.mark.parametrize("ids", [("all",), ("5",), ("5:2",), ("GPU-e",)])
def test_a_gpu_with_an_error_is_not_overlooked(ids: tuple[str, ...]) -> None:
    targets = select_targets((WHOLE, LOST), ids, strict=True)
    assert targets[-1] == Target(gpu=LOST)


def test_a_machine_without_gpus_says_so() -> None:
    assert select_targets((), ("all",), strict=True) == ()
    with pytest.raises(CdiError, match="there are: none"):
        select_targets((), ("0",), strict=True)


@pytest.mark.parametrize(("target", "label"), [
    (Target(gpu=WHOLE), "GPU 0 (GPU-a)"),
    (Target(gpu=Gpu(index=4)), "GPU 4"),
    (Target(gpu=SPLIT, mig=MIG), "MIG device 1:2 (MIG-b2)"),
])
def test_labels_for_messages(target: Target, label: str) -> None:
    assert target.label == label


@pytest.mark.parametrize(("name", "device", "kind"), [
    ("0", True, False), ("1:0", True, False), ("gpu0", True, True), ("GPU-a_b.c", True, True), ("a", True, True),
    ("nvidia.com", True, True), ("-a", False, False), ("a-", False, False), ("a:", False, False), ("a/b", False, False),
    ("", False, False), ("ä", False, False), ("a b", False, False), ("a:b", True, False),
])
def test_syntax(name: str, device: bool, kind: bool) -> None:
    assert is_device_name(name) is device
    assert is_kind_part(name) is kind
