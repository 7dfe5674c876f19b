# SPDX-License-Identifier: Apache-2.0
"""Damage to a kernel module file: each changes what the kernel looks at, and nothing else of the file."""

from __future__ import annotations

import struct

import pytest

from nvrc.hardware.module_failure import find_vermagic
from nvrc_lab.ground.errors import LabError
from nvrc_lab.scenario.module_damage import DAMAGES, OTHER_RELEASE

GOOD = b"".join((
    b"\x7fELF", struct.pack("<Q", 0xABCD), b"module_layout\0", b"license=GPL\0",
    b"vermagic=6.12.117+deb13-cloud-amd64 SMP preempt mod_unload modversions \0", b"name=uvm\0",
    b"\0nvUvmInterfaceRegisterUvmCallbacks\0",
))


def test_each_damage_changes_the_file_and_only_a_signature_its_length() -> None:
    for name, damage in DAMAGES.items():
        bad = damage(GOOD)
        assert bad != GOOD
        assert (len(bad) == len(GOOD)) is (name != "bad-signature"), name


def test_another_kernel() -> None:
    bad = DAMAGES["other-kernel"](GOOD)
    assert find_vermagic(bad) == f"{OTHER_RELEASE} SMP mod_unload modversions "
    assert bad.endswith(GOOD[GOOD.index(b"name=uvm"):])


def test_another_configuration_has_another_checksum() -> None:
    assert struct.unpack_from("<Q", DAMAGES["other-config"](GOOD), 4) == (0xABCC,)


def test_a_signature_says_how_long_it_is() -> None:
    bad = DAMAGES["bad-signature"](GOOD)
    mark = b"~Module signature appended~\n"
    assert bad.endswith(mark)
    (length,) = struct.unpack(">I", bad[-len(mark) - 4:-len(mark)])
    assert len(bad) == len(GOOD) + length + 12 + len(mark)


def test_a_symbol_that_the_module_does_not_take_cannot_be_renamed() -> None:
    with pytest.raises(LabError, match="takes no symbol of nvidia"):
        DAMAGES["lacks-symbol"](b"no such thing")
