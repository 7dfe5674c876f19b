# SPDX-License-Identifier: Apache-2.0
"""The hash tree and the disk around it; veritysetup itself agrees where it is installed."""

from __future__ import annotations

import hashlib
import io
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from nvrc_build.ground.errors import BuildError
from nvrc_build.output.disk import read_partition, read_partitions, write_disk
from nvrc_build.output.verity import BLOCK, Verity, derive_salt, hash_tree, parse_parameters

SALT = "ab" * 32
LINE = f"root_hash={'cd' * 32},salt={SALT},data_blocks=2,data_block_size=4096,hash_block_size=4096"


def data(blocks: int) -> io.BytesIO:
    return io.BytesIO(random.Random(blocks).randbytes(blocks * BLOCK))


@pytest.mark.parametrize(("blocks", "tree_blocks"), [(1, 0), (2, 1), (128, 1), (129, 3), (300, 4)])
def test_the_tree_has_as_many_blocks_as_the_data_need(blocks: int, tree_blocks: int) -> None:
    found, tree = hash_tree(data(blocks), SALT)
    assert (found.data_blocks, len(tree)) == (blocks, tree_blocks * BLOCK)


@pytest.mark.parametrize(("blocks", "root_hash"), [
    (2, "3ad2dfd0ac9964c1e9bf4dd15d6bf2a3886bd5ccb619dee649b0c17fc26eb731"),
    (129, "56071f1abd03e11da906e19dec45791d651142e220ab10eb1cc98fb5f3598b0d"),
    (300, "d39d61c6a260a3898ec01df9b0b0abf8b98065e31c6e1871a236a0bf8fd030a0"),
])
def test_the_root_hash_is_the_one_that_veritysetup_made(blocks: int, root_hash: str) -> None:
    """Also on a machine without it."""
    assert hash_tree(data(blocks), SALT)[0].root_hash == root_hash


def test_the_root_of_one_block_is_its_own_salted_hash() -> None:
    block = data(1).getvalue()
    assert hash_tree(io.BytesIO(block), SALT)[0].root_hash == hashlib.sha256(bytes.fromhex(SALT) + block).hexdigest()


def test_one_changed_bit_changes_the_root_hash() -> None:
    before, after = data(200), bytearray(data(200).getvalue())
    after[150 * BLOCK] ^= 1
    assert hash_tree(before, SALT)[0].root_hash != hash_tree(io.BytesIO(after), SALT)[0].root_hash


@pytest.mark.long
def test_a_tree_of_three_levels_has_the_root_that_veritysetup_made() -> None:
    found, tree = hash_tree(io.BytesIO(bytes(BLOCK) * (128 * 128 + 1)), SALT)
    assert (found.root_hash, len(tree)) == ("2fad3e8a5e996027d82ab63e36c1a52413988efc8398474da44660ce86badfe7", 132 * BLOCK)


def test_data_are_read_from_their_beginning(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(data(3).getvalue())
    with (tmp_path / "data").open("rb") as stream:
        stream.read()
        assert derive_salt(stream) == derive_salt(data(3))
        assert hash_tree(stream, SALT) == hash_tree(data(3), SALT)


def test_the_salt_follows_from_the_data() -> None:
    assert derive_salt(data(3)) == derive_salt(data(3)) != derive_salt(data(4))


@pytest.mark.parametrize("size", [0, 1, BLOCK + 1])
def test_data_that_are_no_whole_blocks_are_refused(size: int) -> None:
    with pytest.raises(BuildError):
        hash_tree(io.BytesIO(b"x" * size), SALT)


@pytest.mark.skipif(shutil.which("veritysetup") is None, reason="veritysetup is not installed")
@pytest.mark.parametrize("blocks", [2, 129, 300])
def test_veritysetup_makes_the_same_tree(tmp_path: Path, blocks: int) -> None:
    (tmp_path / "data").write_bytes(data(blocks).getvalue())
    found, tree = hash_tree(data(blocks), SALT)
    (tmp_path / "hash").touch()
    done = subprocess.run(["veritysetup", "format", "--no-superblock", "--salt", SALT, tmp_path / "data",
                           tmp_path / "hash"], capture_output=True, text=True, check=True)
    assert found.root_hash in done.stdout
    assert (tmp_path / "hash").read_bytes() == tree


def test_parameters_are_read_in_any_order_and_written_in_one() -> None:
    expected = Verity(root_hash="cd" * 32, salt=SALT, data_blocks=2)
    assert expected.parameters() == LINE
    assert parse_parameters(",".join(reversed(LINE.split(",")))) == expected
    assert expected.root_parameters() == (
        f'dm-mod.create="dm-verity,,,ro,0 16 verity 1 /dev/vda1 /dev/vda2 4096 4096 2 0 sha256 {"cd" * 32} {SALT}" '
        "root=/dev/dm-0 rootflags=ro rootfstype=erofs")
    assert "dm-verity,,,ro,0 8000 verity " in replace(expected, data_blocks=1000).root_parameters()
    assert expected.root_parameters("/dev/sda1", "/dev/sda2", "ext4").endswith(
        "root=/dev/dm-0 rootflags=data=ordered,errors=remount-ro ro rootfstype=ext4")


@pytest.mark.parametrize("line", ["", "root_hash=00", LINE.replace("data_blocks=2", "data_blocks=two"),
                                  LINE + ",extra=1", LINE + ",extra=1=2", LINE.replace("data_block_size=4096", "data_block_size=512")])
def test_parameters_of_another_form_are_refused(line: str) -> None:
    with pytest.raises(BuildError, match="verity parameters"):
        parse_parameters(line)


def test_a_disk_has_the_data_at_one_mebibyte_and_the_tree_behind_it(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(data(300).getvalue())
    found = write_disk(tmp_path / "data", tmp_path / "disk")
    first, second = read_partitions(tmp_path / "disk")
    assert (first.start, first.size, first.boot) == (1 << 20, 300 * BLOCK, True)
    assert (second.start, second.size, second.boot) == (3 << 20, 1 << 20, False)
    assert (tmp_path / "disk").stat().st_size == second.start + second.size
    read_partition(tmp_path / "disk", 1, tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == data(300).getvalue()
    read_partition(tmp_path / "disk", 2, tmp_path / "two")
    assert (tmp_path / "two").read_bytes().startswith(hash_tree(data(300), found.salt)[1])


def test_equal_data_make_equal_disks(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(data(5).getvalue())
    assert write_disk(tmp_path / "data", tmp_path / "a") == write_disk(tmp_path / "data", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_is_no_disk_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"short")
    with pytest.raises(BuildError, match="has no DOS partition table"):
        read_partitions(tmp_path / "x")
    (tmp_path / "data").write_bytes(data(2).getvalue())
    write_disk(tmp_path / "data", tmp_path / "disk")
    with pytest.raises(BuildError, match="has 2 partitions, number 3 is wanted"):
        read_partition(tmp_path / "disk", 3, tmp_path / "three")
    whole = (tmp_path / "disk").read_bytes()
    (tmp_path / "disk").write_bytes(whole[:(1 << 20) + 10])
    with pytest.raises(BuildError, match="ends inside partition 1"):
        read_partition(tmp_path / "disk", 1, tmp_path / "one")
