# SPDX-License-Identifier: Apache-2.0
"""Bills of materials: valid by the projects' own validators, whole, and equal for equal images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from nvrc import __version__
from nvrc_build.papers.bill import Component
from nvrc_build.papers.papers import own_components
from nvrc_build.papers.sbom import write_cyclonedx, write_spdx
from nvrc_build.products.products import AWAIT, FIRST

Writer = Callable[[str, Sequence[Component], Path, int], None]
# Names as the packages' own papers have them: with plus signs, blanks, dots; none at all; an epoch and a tilde.
COMPONENTS = (
    Component(kind="deb", name="libc6", version="2.41-12+deb13u5", arch="amd64", sha256="ab" * 32,
              licences=("GPL-2+", "LGPL-2.1+", "public domain (see file)")),
    Component(kind="deb", name="libnvidia-ml1", version="1:550.163.01~rc1-2", arch="amd64", sha256="cd" * 32, licences=()),
    Component(kind="pypi", name="pyroute2", version="0.9.4", arch="", sha256="", licences=("Apache-2.0",)),
)


@pytest.mark.long
def test_both_bills_are_valid_by_their_own_libraries(tmp_path: Path) -> None:
    write_spdx("lab", COMPONENTS, tmp_path / "spdx.json", 0)
    write_cyclonedx("lab", COMPONENTS, tmp_path / "cdx.json", 0)
    assert validate_full_spdx_document(parse_file(str(tmp_path / "spdx.json"))) == []
    text = (tmp_path / "cdx.json").read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    # The validator can say no.
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text.replace('"libc6"', "7")) is not None


@pytest.mark.long
def test_both_bills_name_every_component_with_version_licence_and_hash(tmp_path: Path) -> None:
    write_spdx("lab", COMPONENTS, tmp_path / "spdx.json", 0)
    write_cyclonedx("lab", COMPONENTS, tmp_path / "cdx.json", 0)
    spdx, cdx = (json.loads((tmp_path / name).read_text(encoding="utf-8")) for name in ("spdx.json", "cdx.json"))
    versions = {row.name: row.version for row in COMPONENTS}
    assert {row["name"]: row["version"] for row in cdx["components"]} == versions
    assert {row["name"]: row["versionInfo"] for row in spdx["packages"] if row["name"] != "lab"} == versions
    assert {row["name"] for row in spdx["hasExtractedLicensingInfos"]} == {
        "GPL-2+", "LGPL-2.1+", "public domain (see file)", "Apache-2.0"}
    purls = {row["purl"] for row in cdx["components"]}
    assert purls == {row["externalRefs"][0]["referenceLocator"] for row in spdx["packages"] if row["name"] != "lab"}
    assert any(purl.startswith("pkg:deb/debian/libc6@2.41-12") for purl in purls), purls
    assert {row["name"]: row["hashes"][0]["content"] for row in cdx["components"] if "hashes" in row} == {
        "libc6": "ab" * 32, "libnvidia-ml1": "cd" * 32}


def test_the_bills_name_this_projects_own_programs_with_their_licence(tmp_path: Path) -> None:
    (tmp_path / FIRST).parent.mkdir(parents=True)
    for path in (FIRST, AWAIT):
        (tmp_path / path).write_bytes(Path(path).name.encode())
    rows = {row.name: row for row in own_components(tmp_path)}
    assert sorted(rows) == ["nvrc", "nvrc-await", "nvrc-first"]
    assert {row.licences for row in rows.values()} == {("Apache-2.0",)}
    assert rows["nvrc-first"].purl == f"pkg:generic/nvrc-first@{__version__}"
    assert rows["nvrc-first"].sha256 == "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"
    write_spdx("lab", tuple(rows.values()), tmp_path / "spdx.json", 0)
    assert validate_full_spdx_document(parse_file(str(tmp_path / "spdx.json"))) == []


@pytest.mark.long
@pytest.mark.parametrize("write", [write_spdx, write_cyclonedx], ids=["spdx", "cyclonedx"])
def test_equal_images_have_equal_bills_and_others_another_name(tmp_path: Path, write: Writer) -> None:
    for name, components in (("a", COMPONENTS), ("b", COMPONENTS), ("c", COMPONENTS[:2])):
        write("lab", components, tmp_path / name, 1735689600)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    known = {json.loads((tmp_path / name).read_text()).get(key) for name in ("a", "c")
             for key in ("serialNumber", "documentNamespace")}
    assert len(known - {None}) == 2
