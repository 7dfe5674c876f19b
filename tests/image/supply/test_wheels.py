# SPDX-License-Identifier: Apache-2.0
"""Python packages of the frozen program: what a lock may say, and that nothing of it runs on the build machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from nvrc_build.ground.errors import BuildError
from nvrc_build.job import CHECKOUT
from nvrc_build.supply.wheels import _ROW, install, lock_path

HASH = "--hash=sha256:" + "0" * 64


def test_the_lock_of_this_checkout_has_names_versions_and_hashes() -> None:
    rows = lock_path(CHECKOUT).read_text().splitlines()
    assert rows
    assert all(_ROW.fullmatch(row) for row in rows)


@pytest.mark.parametrize("row", [
    "x==1", f"x>=1 {HASH}", f"x==1 {HASH[:-1]}", f"x @ file:///x-1.tar.gz {HASH}", f"./x-1.tar.gz {HASH}", "--index-url http://127.0.0.1:1/",
    "-r /etc/passwd", "--no-binary :all:", f"x==1 {HASH} --global-option=y", f"x==1 ; python_version>'3' {HASH}", f"x==1 {HASH} # \\",
])
def test_any_other_row_is_refused(tmp_path: Path, row: str) -> None:
    (tmp_path / "lock").write_text(f"# why\n{row}\n")
    with pytest.raises(BuildError, match="has rows that are not NAME==VERSION") as caught:
        install(tmp_path / "lock", tmp_path / "site")
    assert caught.value.findings == (row,)


def test_sources_by_an_address_are_not_built(tmp_path: Path) -> None:
    """pip did that, with all that says wheels only: setup.py ran, as whoever builds."""
    source, ran = tmp_path / "x-1.tar.gz", tmp_path / "ran"
    with tarfile.open(source, "w:gz") as tar:
        for name, text in (("x-1/setup.py", f"open({str(ran)!r}, 'w')"), ("x-1/PKG-INFO", "Metadata-Version: 2.1\nName: x\nVersion: 1\n")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    (tmp_path / "lock").write_text(f"x @ file://{source} --hash=sha256:{hashlib.sha256(source.read_bytes()).hexdigest()}\n")
    with pytest.raises(BuildError):
        install(tmp_path / "lock", tmp_path / "site")
    assert not ran.exists()
