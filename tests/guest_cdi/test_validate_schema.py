# SPDX-License-Identifier: Apache-2.0
"""What the published JSON schema refuses, we refuse: judged by jsonschema on documents damaged at random.

PUBLISHED states the facts of schema/schema.json and schema/defs.json of CDI 1.1.0 in this file's own words. It knows
types, required keys and ranges, and nothing of names, versions and unknown keys; see test_validate.py for those.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest
from jsonschema import Draft7Validator

from guest_cdi.load import Data
from guest_cdi.validate import check_document

TEXT: Data = {"type": "string"}
TEXTS: Data = {"type": "array", "items": TEXT}
INT64: Data = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
UINT32: Data = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}


def an_object(required: str, **properties: Data) -> dict[str, Data]:
    return {"type": "object", "required": list(required.split()), "properties": properties}


def array(items: Data) -> Data:
    return {"type": "array", "items": items}


ANNOTATIONS: Data = {"type": "object", "patternProperties": {".{1,}": TEXT}}
EDITS = an_object(
    "",
    env={"type": "array"},      # a slip of the schema: its items refer to nothing
    deviceNodes=array(an_object("path", path=TEXT, hostPath=TEXT, permissions=TEXT, type=TEXT, major=INT64, minor=INT64,
                                uid=UINT32, gid=UINT32)),
    netDevices=array(an_object("hostInterfaceName name", hostInterfaceName=TEXT, name=TEXT)),
    mounts=array(an_object("hostPath containerPath", hostPath=TEXT, containerPath=TEXT, options=TEXTS, type=TEXT)),
    hooks=array(an_object("hookName path", hookName=TEXT, path=TEXT, args=TEXTS, env=TEXTS, timeout=UINT32)),
    intelRdt=an_object("", closID=TEXT, l3CacheSchema=TEXT, memBwSchema=TEXT, schemata=TEXTS,
                       enableMonitoring={"type": "boolean"}),
    additionalGids=array(UINT32),
)
PUBLISHED = an_object(
    "cdiVersion kind devices", cdiVersion=TEXT, kind=TEXT, annotations=ANNOTATIONS, containerEdits=EDITS,
    devices=array(an_object("name containerEdits", name=TEXT, annotations=ANNOTATIONS, containerEdits=EDITS)),
)
SCHEMA = Draft7Validator(PUBLISHED)

WHOLE: dict[str, Data] = {
    "cdiVersion": "1.1.0", "kind": "a.b/c", "annotations": {"k": "v"},
    "devices": [{"name": "d", "annotations": {"k": "v"}, "containerEdits": {"env": ["A=b"]}}],
    "containerEdits": {
        "env": ["A=b"], "additionalGids": [7],
        "deviceNodes": [{"path": "/a", "hostPath": "/b", "type": "c", "major": 1, "minor": 2, "fileMode": 3, "permissions": "r",
                         "uid": 0, "gid": 1}],
        "netDevices": [{"hostInterfaceName": "e", "name": "n"}],
        "hooks": [{"hookName": "prestart", "path": "/h", "args": ["h"], "env": ["C=d"], "timeout": 3}],
        "mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["ro"], "type": "bind"}],
        "intelRdt": {"closID": "c", "l3CacheSchema": "a", "memBwSchema": "b", "schemata": ["s"], "enableMonitoring": True},
    },
}
VALUES: tuple[Data, ...] = (None, True, 0, -1, 2**32, 2**63, 1.5, "x", "", [], ["x"], [None], {}, {"x": "y"})


def containers(data: Data) -> Iterator[dict[str, Data] | list[Data]]:
    if isinstance(data, dict | list):
        yield data
        for child in data.values() if isinstance(data, dict) else data:
            yield from containers(child)


def damaged(seed: int) -> Data:
    """The whole document with one or two values replaced or removed."""
    rng = random.Random(seed)
    document: dict[str, Data] = json.loads(json.dumps(WHOLE))
    for _ in range(rng.randint(1, 2)):
        target = rng.choice([entry for entry in containers(document) if entry])
        if isinstance(target, list):
            target[rng.randrange(len(target))] = rng.choice(VALUES)
        elif rng.random() < 0.3:
            del target[rng.choice(sorted(target))]
        else:
            target[rng.choice(sorted(target))] = rng.choice(VALUES)
    return document


def test_the_whole_document_is_valid_to_both() -> None:
    assert list(SCHEMA.iter_errors(WHOLE)) == []
    assert check_document(WHOLE) == ()


def place_of(path: Iterator[str | int]) -> str:
    place = ""
    for part in path:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else part
    return place


@pytest.mark.long
@pytest.mark.parametrize("block", range(4))
def test_what_the_schema_refuses_is_found_at_the_same_place(block: int) -> None:
    refused = 0
    for seed in range(block * 250, block * 250 + 250):
        document = damaged(seed)
        places = {finding.place for finding in check_document(document)}
        for error in SCHEMA.iter_errors(document):
            refused += 1
            assert place_of(iter(error.absolute_path)) in places, f"seed {seed}: {error.message}: {json.dumps(document)}"
    assert refused > 150
