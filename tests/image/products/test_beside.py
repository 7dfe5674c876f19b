# SPDX-License-Identifier: Apache-2.0
"""What of pyroute2 and psutil is laid into an image: without imports that serve nothing there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from nvrc.beside import spared
from nvrc_build.ground.errors import BuildError
from nvrc_build.products.beside import OURS, SPARED, spare


def source(name: str) -> str:
    package = importlib.util.find_spec(name.partition("/")[0])
    assert package is not None
    assert package.origin is not None
    return (Path(package.origin).parents[1] / name).read_text()


@pytest.mark.parametrize("name", SPARED)
def test_this_version_imports_what_is_spared(name: str) -> None:
    text = spare(source(name), name)
    assert not any(f"\n{line}\n" in text for line in SPARED[name])


def test_every_name_that_takes_a_place_is_there() -> None:
    words = {word.strip() for lines in SPARED.values() for ours in lines.values() for word in ours.removeprefix(OURS).split(",")}
    assert words == set(spared.__all__)
    assert all(hasattr(spared, word) for word in words)


def test_another_version_is_an_error() -> None:
    with pytest.raises(BuildError, match="has not one line 'import datetime'"):
        spare("import subprocess\n", "psutil/__init__.py")


def test_annotations_and_remarks_of_a_parser_do_nothing() -> None:
    assert spared.Any.__class_getitem__(int) is spared.Any
    assert isinstance(spared.TypeVar("T", bound=int), spared.Any)
    spared.logging.getLogger("x").warning("a message", spared.traceback.format_exc())
