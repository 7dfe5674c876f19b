# SPDX-License-Identifier: Apache-2.0
"""Bills of materials beside an image: SPDX 2.3 and CycloneDX 1.6, by those projects' own libraries.

Time stamps and identifiers are derived from the content, so equal images have equal bills. Importing this costs half a
second, which a build that changes nothing need not pay: import it where it is used.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component as Part
from cyclonedx.model.component import ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from license_expression import get_spdx_licensing  # type: ignore[import-untyped]
from packageurl import PackageURL
from spdx_tools.spdx.model.actor import Actor, ActorType
from spdx_tools.spdx.model.checksum import Checksum, ChecksumAlgorithm
from spdx_tools.spdx.model.document import CreationInfo, Document
from spdx_tools.spdx.model.extracted_licensing_info import ExtractedLicensingInfo
from spdx_tools.spdx.model.package import ExternalPackageRef, ExternalPackageRefCategory, Package
from spdx_tools.spdx.model.relationship import Relationship, RelationshipType
from spdx_tools.spdx.model.spdx_no_assertion import SpdxNoAssertion
from spdx_tools.spdx.writer.json.json_writer import write_document_to_file

from nvrc_build.ground.cache import digest
from nvrc_build.papers.bill import Component

_TOOL = "nvrc-image"


def _identity(image: str, components: Sequence[Component]) -> uuid.UUID:
    return uuid.UUID(hex=digest(image, *map(repr, components))[:32], version=5)


def _licence_id(name: str) -> str:
    return "LicenseRef-" + re.sub(r"[^A-Za-z0-9.-]+", "-", name.replace("+", "-or-later")).strip("-")


def write_spdx(image: str, components: Sequence[Component], path: Path, epoch: int) -> None:
    licensing = get_spdx_licensing()
    top = "SPDXRef-image"
    packages = [Package(top, image, SpdxNoAssertion(), files_analyzed=False)]
    relations = [Relationship("SPDXRef-DOCUMENT", RelationshipType.DESCRIBES, top)]
    for number, row in enumerate(components, start=1):
        ids = [_licence_id(name) for name in row.licences]
        packages.append(Package(
            f"SPDXRef-{number}", row.name, SpdxNoAssertion(), version=row.version, files_analyzed=False,
            checksums=[Checksum(ChecksumAlgorithm.SHA256, row.sha256)] if row.sha256 else [],
            license_declared=licensing.parse(" AND ".join(ids)) if ids else SpdxNoAssertion(),
            external_references=[ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", row.purl)]))
        relations.append(Relationship(top, RelationshipType.CONTAINS, f"SPDXRef-{number}"))
    names = {_licence_id(name): name for row in components for name in row.licences}
    document = Document(
        CreationInfo("SPDX-2.3", "SPDXRef-DOCUMENT", image, f"urn:uuid:{_identity(image, components)}",
                     [Actor(ActorType.TOOL, _TOOL)], datetime.fromtimestamp(epoch, UTC).replace(tzinfo=None)),
        packages=packages, relationships=relations,
        extracted_licensing_info=[
            ExtractedLicensingInfo(key, f"Named {name!r} in the package's own copyright file.", name)
            for key, name in sorted(names.items())])
    write_document_to_file(document, str(path), validate=True)


def write_cyclonedx(image: str, components: Sequence[Component], path: Path, epoch: int) -> None:
    parts = [Part(name=row.name, version=row.version, type=ComponentType.LIBRARY, bom_ref=row.purl,
                  purl=PackageURL.from_string(row.purl),
                  licenses=[DisjunctiveLicense(name=name) for name in row.licences],
                  hashes=[HashType(alg=HashAlgorithm.SHA_256, content=row.sha256)] if row.sha256 else [])
             for row in components]
    top = Part(name=image, type=ComponentType.OPERATING_SYSTEM, bom_ref="image")
    bom = Bom(serial_number=_identity(image, components), components=parts, metadata=BomMetaData(
        component=top, timestamp=datetime.fromtimestamp(epoch, UTC)))
    bom.register_dependency(top, parts)
    path.write_text(JsonV1Dot6(bom).output_as_string(indent=1) + "\n", encoding="utf-8")
