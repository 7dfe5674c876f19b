# SPDX-License-Identifier: Apache-2.0
"""Rules one by one, each with the place and the name it is reported under; and the files they come in."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.examples import times
from guest_cdi import schema, spec
from guest_cdi.load import Data, Finding, read_source
from guest_cdi.render import document
from guest_cdi.spec import ContainerEdits, Device, DeviceNode, Spec
from guest_cdi.validate import (
    EPILOG,
    VERSIONS,
    Arguments,
    check_document,
    check_files,
    check_text,
    main,
    run,
)
from guest_cdi.validate import (
    RULES as RULE_TABLE,
)

GOOD = """---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
    - name: "0"
      containerEdits:
        deviceNodes:
            - path: /dev/nvidia0
              major: 195
              fileMode: 432
              permissions: rwm
containerEdits:
    env:
        - NVIDIA_VISIBLE_DEVICES=void
    hooks:
        - hookName: createContainer
          path: /usr/bin/nvidia-cdi-hook
          args: [nvidia-cdi-hook, chmod]
          timeout: 0
    mounts:
        - hostPath: /lib/a
          containerPath: /lib/a
          options: [ro]
"""


def found(text: str, name: str = "a.yaml") -> list[tuple[str, str]]:
    return [(finding.place, finding.rule) for finding in check_text(name, text.encode()).findings]


def edits(text: str) -> str:
    """A document whose common edits are `text`, a YAML flow mapping."""
    return f"cdiVersion: 1.1.0\nkind: a.b/c\ndevices: [{{name: d, containerEdits: {{env: [A=b]}}}}]\ncontainerEdits: {text}\n"


def device(text: str, version: str = "1.1.0") -> str:
    return f"cdiVersion: {version}\nkind: a.b/c\ndevices: [{text}]\n"


def test_a_good_document_becomes_a_spec() -> None:
    checked = check_text("a.yaml", GOOD.encode())
    assert checked.findings == ()
    assert checked.spec is not None
    assert checked.spec.kind == "nvidia.com/gpu"
    assert checked.spec.devices == (Device(name="0", container_edits=ContainerEdits(device_nodes=(
        DeviceNode(path="/dev/nvidia0", major=195, file_mode=432, permissions="rwm"),))),)
    assert checked.spec.container_edits.hooks[0].timeout == 0


EVERYTHING = {
    "cdiVersion": "1.1.0", "kind": "a.b/c.d", "annotations": {"k": "v"},
    "devices": [{"name": "d", "annotations": {"x.y/z": "w"}, "containerEdits": {"intelRdt": {"schemata": ["L3:0=f"]}}}],
    "containerEdits": {
        "env": ["A=b"],
        "deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/b", "type": "c", "major": 1, "minor": 2, "fileMode": 0,
                         "permissions": "none", "uid": 0, "gid": 4294967295}],
        "netDevices": [{"hostInterfaceName": "eth0", "name": "n"}],
        "hooks": [{"hookName": "prestart", "path": "/h", "args": ["h"], "env": ["C=d"], "timeout": 3}],
        "mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["ro"], "type": "bind"}],
        "intelRdt": {"closID": "/", "l3CacheSchema": "a", "memBwSchema": "b", "schemata": ["s"], "enableMonitoring": True},
        "additionalGids": [0, 7],
    },
}


def test_every_field_survives_the_way_to_a_spec_and_back() -> None:
    checked = check_text("a.json", json.dumps(EVERYTHING).encode())
    assert checked.findings == ()
    assert checked.spec is not None
    assert document(checked.spec) == EVERYTHING


def test_keys_are_those_of_the_document_model() -> None:
    records = (schema.DEVICE, schema.EDITS, schema.DEVICE_NODE, schema.NET_DEVICE, schema.HOOK, schema.MOUNT,
               schema.INTEL_RDT)
    pairs = ((schema.DOCUMENT, spec.SPEC_KEYS), *zip(records, map(spec.keys_of, spec.PARTS), strict=True))
    for record, keys in pairs:
        assert set(record.keys) == {key for _, key in keys}


def test_every_version_a_document_can_need_is_known() -> None:
    assert {version for version, _ in spec.VERSION_RULES} | {spec.OLDEST_VERSION} <= set(VERSIONS)


def test_every_rule_has_a_case_and_is_listed() -> None:
    shown = {rule for _, expected in (*RULES.values(), *JSON_RULES.values()) for _, rule in expected}
    assert {name for name, _, _ in RULE_TABLE} == shown | {"read", "conflict"}     # those two have tests of their own


def test_the_page_lists_the_rules() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "guest-cdi-validate.md").read_text()
    rows = "".join(f"| `{name}` | {origin} | {meaning} |\n" for name, origin, meaning in RULE_TABLE)
    assert rows in page


D = "devices[0]"
RULES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    # what the reference schema checker accepts although no consumer does
    "unknown key": (GOOD.replace("permissions:", "permision:"), [(f"{D}.containerEdits.deviceNodes[0].permision", "unknown-key")]),
    "bad kind": (GOOD.replace("nvidia.com/gpu", "nvidia.com"), [("kind", "kind")]),
    "bad hook name": (GOOD.replace("createContainer", "createContainr"), [("containerEdits.hooks[0].hookName", "hook-name")]),
    "version too low": (GOOD.replace("0.5.0", "0.4.0"), [("cdiVersion", "version-low")]),
    # structure
    "not a mapping": ("[]", [("", "type")]),
    "null": ("~", [("", "type")]),
    "nothing there": ("{}", [("", "missing-key")] * 3),
    "no devices": ("cdiVersion: 0.5.0\nkind: a/b\ndevices: []", [("devices", "no-devices")]),
    "devices is a mapping": ("cdiVersion: 0.5.0\nkind: a/b\ndevices: {}", [("devices", "type")]),
    "device is text": (device("d"), [(D, "type")]),
    "device without edits": (device("{name: d}"), [(D, "missing-key")]),
    "edits are null": (device("{name: d, containerEdits: }"), [(f"{D}.containerEdits", "type")]),
    "empty edits": (device("{name: d, containerEdits: {}}"), [(f"{D}.containerEdits", "empty-edits")]),
    "empty lists are empty edits": (device("{name: d, containerEdits: {env: [], hooks: []}}"),
                                    [(f"{D}.containerEdits", "empty-edits")]),
    "an empty intelRdt is an edit": (device("{name: d, containerEdits: {intelRdt: {}}}"), []),
    "unknown top key": (GOOD + "x-note: hello\n", [("x-note", "unknown-key")]),
    "key of another case": (GOOD.replace("kind:", "Kind:"), [("", "missing-key"), ("Kind", "unknown-key")]),
    # names
    "empty name": (device("{name: '', containerEdits: {env: [A=]}}"), [(f"{D}.name", "device-name")]),
    "name with a slash": (device("{name: a/b, containerEdits: {env: [A=]}}"), [(f"{D}.name", "device-name")]),
    "name ends in a dash": (device("{name: a-, containerEdits: {env: [A=]}}"), [(f"{D}.name", "device-name")]),
    "name with an umlaut": (device("{name: gpü, containerEdits: {env: [A=]}}"), [(f"{D}.name", "device-name")]),
    "names with all allowed characters": (device("{name: a_-.:9, containerEdits: {env: [A=]}}"), []),
    "twice the same name": (device("{name: d, containerEdits: {env: [A=]}}, {name: d, containerEdits: {env: [A=]}}"),
                            [("devices[1].name", "duplicate-device")]),
    "kind starts with a digit": (GOOD.replace("nvidia.com/gpu", "3com/gpu"), [("kind", "kind")]),
    "kind with two slashes": (GOOD.replace("nvidia.com/gpu", "a/b/c"), [("kind", "kind")]),
    "class ends in a dot": (GOOD.replace("nvidia.com/gpu", "a/b."), [("kind", "kind"), ("cdiVersion", "version-low")]),
    # versions
    "unknown version": (GOOD.replace("0.5.0", "0.9.0"), [("cdiVersion", "version-unknown")]),
    "version older than any": (GOOD.replace("0.5.0", "0.2.0"), [("cdiVersion", "version-unknown")]),
    "version with a v": (GOOD.replace("0.5.0", "v0.5.0"), []),
    "version as a number": (GOOD.replace("0.5.0", "0.5"), [("cdiVersion", "quotes")]),
    "0.4.0 for a mount's type": (device("{name: d, containerEdits: {mounts: [{hostPath: a, containerPath: b, type: c}]}}", "0.3.0"),
                                 [("cdiVersion", "version-low")]),
    "0.5.0 for a node's hostPath": (device("{name: d, containerEdits: {deviceNodes: [{path: a, hostPath: b}]}}", "0.4.0"),
                                    [("cdiVersion", "version-low")]),
    "0.6.0 for a class with a dot": (GOOD.replace("nvidia.com/gpu", "nvidia.com/gpu.x"), [("cdiVersion", "version-low")]),
    "0.6.0 for an annotation": (GOOD + "annotations: {a: b}\n", [("cdiVersion", "version-low")]),
    "0.7.0 for gids": (device("{name: d, containerEdits: {additionalGids: [1]}}", "0.6.0"), [("cdiVersion", "version-low")]),
    "1.1.0 for net devices": (device("{name: d, containerEdits: {netDevices: [{hostInterfaceName: a, name: b}]}}", "1.0.0"),
                              [("cdiVersion", "version-low")]),
    "1.1.0 for empty schemata": (device("{name: d, containerEdits: {intelRdt: {schemata: []}}}", "1.0.0"),
                                 [("cdiVersion", "version-low")]),
    # values
    "env without a name": (edits("{env: ['=b']}"), [("containerEdits.env[0]", "env")]),
    "env without =": (edits("{env: [A=b, AB]}"), [("containerEdits.env[1]", "env")]),
    "env of a hook": (edits("{hooks: [{hookName: poststop, path: a, env: [x]}]}"), [("containerEdits.hooks[0].env[0]", "env")]),
    "hook without a path": (edits("{hooks: [{hookName: poststop}]}"), [("containerEdits.hooks[0]", "missing-key")]),
    "hook with an empty path": (edits("{hooks: [{hookName: poststop, path: ''}]}"),
                                [("containerEdits.hooks[0].path", "empty-path")]),
    "negative timeout": (edits("{hooks: [{hookName: poststop, path: a, timeout: -1}]}"),
                         [("containerEdits.hooks[0].timeout", "range")]),
    "mount without paths": (edits("{mounts: [{}]}"), [("containerEdits.mounts[0]", "missing-key")] * 2),
    "mount with empty paths": (edits("{mounts: [{hostPath: '', containerPath: ''}]}"),
                               [("containerEdits.mounts[0].hostPath", "empty-path"),
                                ("containerEdits.mounts[0].containerPath", "empty-path")]),
    "node type": (edits("{deviceNodes: [{path: a, type: x}]}"), [("containerEdits.deviceNodes[0].type", "node-type")]),
    "node permissions": (edits("{deviceNodes: [{path: a, permissions: rx}]}"),
                         [("containerEdits.deviceNodes[0].permissions", "permissions")]),
    "negative minor": (edits("{deviceNodes: [{path: a, minor: -1}]}"), [("containerEdits.deviceNodes[0].minor", "range")]),
    "uid too large": (edits("{deviceNodes: [{path: a, uid: 4294967296}]}"), [("containerEdits.deviceNodes[0].uid", "range")]),
    "mode as text": (edits("{deviceNodes: [{path: a, fileMode: '0660'}]}"),
                     [("containerEdits.deviceNodes[0].fileMode", "type")]),
    "major with a fraction": (edits("{deviceNodes: [{path: a, major: 1.0}]}"),
                              [("containerEdits.deviceNodes[0].major", "type")]),
    "a boolean is no integer": (edits("{additionalGids: [true]}"), [("containerEdits.additionalGids[0]", "type")]),
    "an integer is no boolean": (edits("{intelRdt: {enableMonitoring: 1}}"), [("containerEdits.intelRdt.enableMonitoring", "type")]),
    "negative gid": (edits("{additionalGids: [1, -1]}"), [("containerEdits.additionalGids[1]", "range")]),
    "net device twice": (edits("{netDevices: [{hostInterfaceName: a, name: b}, {hostInterfaceName: a, name: c}, "
                               "{hostInterfaceName: d, name: b}]}"),
                         [("containerEdits.netDevices[1].hostInterfaceName", "net-device"),
                          ("containerEdits.netDevices[2].name", "net-device")]),
    "net device without a name": (edits("{netDevices: [{hostInterfaceName: '', name: ''}]}"),
                                  [("containerEdits.netDevices[0].hostInterfaceName", "net-device"),
                                   ("containerEdits.netDevices[0].name", "net-device")]),
    "closID with a slash": (edits("{intelRdt: {closID: a/b}}"), [("containerEdits.intelRdt.closID", "clos-id")]),
    "closID ..": (edits("{intelRdt: {closID: ..}}"), [("containerEdits.intelRdt.closID", "clos-id")]),
    "closID too long": (edits(f"{{intelRdt: {{closID: {'a' * 4096}}}}}"), [("containerEdits.intelRdt.closID", "clos-id")]),
    "annotation key": (GOOD.replace("0.5.0", "0.6.0") + "annotations: {'a b': c, 'x/y/z': d, 'Ok.com/Name': e}\n",
                       [("annotations.a b", "annotation"), ("annotations.x/y/z", "annotation")]),
    "annotation value": (GOOD.replace("0.5.0", "0.6.0") + "annotations: {a: [b]}\n", [("annotations.a", "type")]),
    "annotations as a list": (GOOD + "annotations: []\n", [("annotations", "type")]),
    "too many annotations": (GOOD.replace("0.5.0", "0.6.0") + f"annotations: {{a: {'x' * 262144}}}\n",
                             [("annotations", "annotation")]),
    # YAML
    "bare 0": (GOOD.replace('"0"', "0"), [(f"{D}.name", "quotes")]),
    "bare 1:0": (GOOD.replace('"0"', "1:0"), [(f"{D}.name", "quotes")]),
    "bare yes": (GOOD.replace('"0"', "yes"), [(f"{D}.name", "quotes")]),
    "bare date": (GOOD.replace('"0"', "2024-01-02"), [(f"{D}.name", "quotes")]),
    "bare float": (GOOD.replace('"0"', "1.5"), [(f"{D}.name", "quotes")]),
    "bare null in a list": (edits("{env: [~]}"), [("containerEdits.env[0]", "quotes")]),
    "octal mode is a number": (edits("{deviceNodes: [{path: a, fileMode: 0660}]}"), []),
    "a key twice": (GOOD + "kind: b/c\n", [("kind", "duplicate-key")]),
    "a nested key twice": (GOOD.replace("major: 195", "major: 195\n              major: 196"),
                           [(f"{D}.containerEdits.deviceNodes[0].major", "duplicate-key")]),
    "a mapping as a key": ("{cdiVersion: 1.1.0, kind: a/b, devices: [{name: d, containerEdits: {env: [A=]}}], {a: b}: c}",
                           [("", "syntax")]),
    "merge keys are not CDI": (edits("{<<: {env: [A=b]}}"), [("containerEdits.<<", "unknown-key")]),
    "tags": (edits("{env: !!python/tuple [A=b]}"), [("containerEdits.env", "syntax"), ("containerEdits.env", "type")]),
    "a number that is tagged as one and is none": (edits("{additionalGids: [!!int x]}"),
                                                   [("containerEdits.additionalGids[0]", "type")]),
    "two documents": (GOOD + GOOD, [("", "syntax")]),
    "no YAML": ("a: [b", [("", "syntax")]),
    "control characters": ("a: \x01", [("", "syntax")]),
    "empty": ("", [("", "syntax")]),
    "only a comment": ("# nothing\n", [("", "syntax")]),
    "itself inside": ("&a {cdiVersion: *a}", [("", "syntax")]),
    "nested too deep": ("[" * 100 + "]" * 100, [("", "syntax")]),
    "aliases within reason": (GOOD.replace("NVIDIA_VISIBLE_DEVICES=void", "&x A=b\n        - *x"), []),
}


@pytest.mark.parametrize(("text", "expected"), RULES.values(), ids=list(RULES))
def test_rule(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text) == expected


JSON_RULES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "not JSON": ("{", [("", "syntax")]),
    "YAML in a JSON file": ("cdiVersion: 0.5.0", [("", "syntax")]),
    "a key twice": ('{"cdiVersion": "0.3.0", "kind": "a/b", "kind": "a/b", "devices": [{"name": "d", "containerEdits": '
                    '{"env": ["A="], "env": ["B="]}}]}', [("kind", "duplicate-key"), (f"{D}.containerEdits.env", "duplicate-key")]),
    "a number for a name": ('{"cdiVersion": "0.5.0", "kind": "a/b", "devices": [{"name": 0, "containerEdits": {"env": ["A="]}}]}',
                            [(f"{D}.name", "type")]),
    "null for a list": ('{"cdiVersion": "0.5.0", "kind": "a/b", "devices": [{"name": "d", "containerEdits": {"env": ["A="], '
                        '"hooks": null}}]}', [(f"{D}.containerEdits.hooks", "type")]),
    "NaN": ('{"cdiVersion": NaN}', [("", "syntax")]),
    "an endless number": ('{"cdiVersion": ' + "9" * 5000 + "}", [("", "syntax")]),
    "nested too deep": ("[" * 100_000, [("", "syntax")]),
    "as deep as YAML may be": ("[" * 65 + "]" * 65, [("", "type")]),
    "deeper": ("[" * 66 + "]" * 66, [("", "syntax")]),
    "deeper than Python calls itself": ("[" * 1200 + "]" * 1200, [("", "syntax")]),
}


@pytest.mark.parametrize(("text", "expected"), JSON_RULES.values(), ids=list(JSON_RULES))
def test_json_rule(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text, "a.json") == expected


@pytest.mark.long
def test_a_bomb_of_aliases_is_refused() -> None:
    levels = "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9))
    finding, = check_text("a.yaml", f"a0: &a0 [x]\n{levels}".encode()).findings
    assert finding.rule == "syntax" and "100000 values" in finding.message


LONG = "k" * 1100


@pytest.mark.parametrize(("name", "text", "says"), [
    pytest.param("a.json", "[" + "0," * 200_000 + "0]", "100000 values", id="values"),
    pytest.param("a.json", '{"\\"": [' + "{}," * 100_000 + "0]}", "100000 values", id="objects"),
    pytest.param("a.json", f'{{"{LONG}": {{"a": 0}}}}', "1024 characters of keys", id="keys"),
    pytest.param("a.yaml", f"{{? {LONG} : {{a: 0}}}}", "1024 characters of keys", id="keys of YAML"),
    pytest.param("a.yaml", f"---\n{LONG}:\n    a: 0\n", "mapping values are not allowed", id="keys of our own form"),
    pytest.param("a.yaml", f"x: &a {'k' * (1 << 18)}\nenv: [{'*a, ' * 64}]\n", "aliases make it larger than 16 MiB", id="an alias of a long text"),
    pytest.param("a.yaml", f"kind: {LONG}/b\n", "has 1102 characters; at most 1024 are possible", id="kind"),
])
def test_what_stands_for_more_than_the_file_is_refused(name: str, text: str, says: str) -> None:
    """Ten thousand values below a key of a megabyte took ten gigabytes, as each was called by all of its keys."""
    assert says in " ".join(str(finding) for finding in check_text(name, text.encode()).findings)


def test_a_text_may_have_any_number_of_commas() -> None:
    annotation = '{"cdiVersion": "0.6.0", "kind": "a/b", "annotations": {"a": "\\\\' + "[," * 101_000 + '"}, "devices": []}'
    assert found(annotation, "a.json") == [("devices", "no-devices")]


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 70, "- " * 70, "".join(f"{' ' * depth}a:\n" for depth in range(70))])
def test_nesting_is_bounded_before_anything_recurses(text: str) -> None:
    """PyYAML's composer in C has no limit of its own: a hundred thousand brackets brought the process down."""
    finding, = check_text("a.yaml", text.encode()).findings
    assert (finding.rule, "64 levels" in finding.message) == ("syntax", True)


def test_names_from_a_file_cannot_write_to_the_terminal() -> None:
    shown = [str(finding) for finding in check_text("a.yaml", b'"\\e[2J\\n": 1\n').findings]
    assert any("\\x1b[2J\\n: no such key" in line for line in shown)
    assert all(line.isprintable() for line in shown)
    lone = [str(finding) for finding in check_text("a.json", b'{"\\ud800": 1}').findings]
    assert any("\\ud800: no such key" in line for line in lone)


def test_a_number_too_long_for_python_is_no_crash() -> None:
    for digits in ("9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 20000, "1" + ":1" * 5000):
        assert found(edits("{additionalGids: [" + digits + "]}")) == [("containerEdits.additionalGids[0]", "type")]


def test_all_mistakes_at_once_with_lines() -> None:
    text = GOOD.replace("createContainer", "x").replace("rwm", "q").replace("0.5.0", "0.4.0")
    findings = check_text("a.yaml", text.encode()).findings
    assert [(finding.line, finding.rule) for finding in findings] == [
        (11, "permissions"), (16, "hook-name"), (2, "version-low")]


MESSAGES = {
    GOOD.replace('"0"', "1:0"): 'a.yaml:5: devices[0].name: 1:0 without quotes is the integer 60 in YAML 1.1: write "1:0" '
                                "[quotes]",
    GOOD.replace('"0"', "0"): 'a.yaml:5: devices[0].name: 0 without quotes is the integer 0 in YAML 1.1: write "0" [quotes]',
    GOOD.replace("hookName", "hookname"): 'a.yaml:16: containerEdits.hooks[0].hookname: no such key; did you mean "hookName"? '
                                          "[unknown-key]",
    GOOD + "zzz: 1": "a.yaml:24: zzz: no such key; there are cdiVersion, kind, annotations, devices, containerEdits "
                     "[unknown-key]",
    GOOD.replace("0.5.0", "0.3.0"): "a.yaml:2: cdiVersion: 0.3.0 is too low: a device name that starts with a digit, or "
                                    "hostPath of a device node, needs 0.5.0 [version-low]",
    "a: [b": "a.yaml:2: while parsing a flow sequence did not find expected ',' or ']' [syntax]",
    GOOD.replace("195", "null"): "a.yaml:9: devices[0].containerEdits.deviceNodes[0].major: must be an integer, not null [type]",
}


@pytest.mark.parametrize(("text", "message"), MESSAGES.items())
def test_message(text: str, message: str) -> None:
    assert message in [str(finding) for finding in check_text("a.yaml", text.encode()).findings]


def test_a_rendered_spec_is_checked_in_memory() -> None:
    good = Spec(kind="a/b", devices=(Device(name="0", container_edits=ContainerEdits(env=("A=b",))),))
    bad = Spec(kind="a/b", devices=(Device(name="0", container_edits=ContainerEdits()),))
    assert check_document(plain(good)) == ()
    assert [finding.rule for finding in check_document(plain(bad))] == ["missing-key"]


def plain(made: Spec) -> Data:
    return json.loads(json.dumps(document(made)))  # type: ignore[no-any-return]


@settings(max_examples=times(4))
@given(st.binary(max_size=200), st.sampled_from(["a.json", "a.yaml"]))
def test_any_bytes_get_a_verdict(content: bytes, name: str) -> None:
    assert check_text(name, content).findings


@pytest.mark.long
@settings(max_examples=times(5))
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 12), st.text(alphabet="-:{}[]&*!|>'\"%@`#, \n\t0a~\x00\u2028\ud800", max_size=3))
def test_a_damaged_document_gets_a_verdict(start: int, length: int, put: str) -> None:
    """Whatever came of it is judged: valid with a Spec, or not with a reason, and never an exception."""
    checked = check_text("a.yaml", (GOOD[:start] + put + GOOD[start + length:]).encode(errors="surrogatepass"))
    assert (checked.spec is None) == bool(checked.findings)
    assert all(finding.rule in {name for name, _, _ in RULE_TABLE} for finding in checked.findings)


def write(tmp_path: Path, name: str, text: str) -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_two_files_with_one_device_conflict(tmp_path: Path) -> None:
    first, second = write(tmp_path, "a.yaml", GOOD), write(tmp_path, "b.yaml", GOOD)
    one, two = check_files([first, second])
    assert one.findings == ()
    assert two.findings == (Finding(file=second, line=0, place="devices[0].name", rule="conflict",
                                    message=f"nvidia.com/gpu=0 is also defined by {first}; remove one of the two"),)


def test_a_name_of_another_kind_is_no_conflict(tmp_path: Path) -> None:
    other = GOOD.replace("nvidia.com/gpu", "nvidia.com/mig")
    assert [one.findings for one in check_files([write(tmp_path, "a.yaml", GOOD), write(tmp_path, "b.yaml", other)])] == [(), ()]


@pytest.mark.parametrize(("name", "text", "rule"), [
    ("a.json", json.dumps(EVERYTHING), None), ("a.JSON", GOOD, "syntax"), ("noname", json.dumps(EVERYTHING), None),
    ("noname", GOOD, None), ("a.yaml", json.dumps(EVERYTHING), None), ("a.yml", GOOD, None),
], ids=["json", "JSON is not YAML", "json by content", "yaml by content", "json inside yaml", "yml"])
def test_format_by_name_then_content(tmp_path: Path, name: str, text: str, rule: str | None) -> None:
    one, = check_files([write(tmp_path, name, text)])
    assert [finding.rule for finding in one.findings] == ([rule] if rule else [])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    fifo, large, latin = tmp_path / "fifo", tmp_path / "large.yaml", tmp_path / "latin.yaml"
    os.mkfifo(fifo)
    with large.open("wb") as stream:
        stream.truncate((16 << 20) + 1)
    latin.write_bytes(b"kind: \xff")
    paths = [str(tmp_path / "missing.yaml"), str(tmp_path), str(fifo), str(large), str(latin)]
    assert [str(one.findings[0]).removeprefix(f"{path}: ") for one, path in zip(check_files(paths), paths, strict=True)] == [
        "No such file or directory [read]", "Is a directory [read]", "not a regular file [read]",
        "larger than 16 MiB, which no CDI file is [read]", "byte 6 is not UTF-8 [syntax]",
    ]


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(EVERYTHING).encode())
    assert read_source(str(path)).data == EVERYTHING


def test_command_says_what_is_valid(tmp_path: Path) -> None:
    path, out = write(tmp_path, "a.yaml", GOOD), io.StringIO()
    assert run(Arguments(files=[path], json=False), out) == 0
    assert out.getvalue() == f"{path}: valid: nvidia.com/gpu with 0\n"


def test_command_says_what_is_not(tmp_path: Path) -> None:
    path, out = write(tmp_path, "a.yaml", GOOD.replace("rwm", "q")), io.StringIO()
    assert run(Arguments(files=[path], json=False), out) == 1
    assert out.getvalue() == f'{path}:11: devices[0].containerEdits.deviceNodes[0].permissions: "q" must be made of r, w ' \
        "and m, or be none [permissions]\n"


def test_command_in_json(tmp_path: Path) -> None:
    good, bad, out = write(tmp_path, "a.yaml", GOOD), write(tmp_path, "b.yaml", "{"), io.StringIO()
    assert run(Arguments(files=[good, bad], json=True), out) == 1
    first, second = json.loads(out.getvalue())["files"]
    assert first == {"file": good, "valid": True, "kind": "nvidia.com/gpu", "devices": ["0"], "findings": []}
    assert (second["valid"], second["kind"], second["devices"]) == (False, None, [])
    assert [(finding["line"], finding["rule"]) for finding in second["findings"]] == [(2, "syntax")]


@pytest.mark.parametrize(("argv", "status"), [([], 2), (["--help"], 0), (["--jsn", "x"], 2)])
def test_usage(argv: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == status
    said = capsys.readouterr()
    assert EPILOG in said.out if status == 0 else "usage: guest-cdi validate" in said.err


def test_main(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([write(tmp_path, "a.yaml", GOOD)]) == 0
    assert capsys.readouterr().out.endswith("valid: nvidia.com/gpu with 0\n")


@pytest.mark.long
@pytest.mark.parametrize("text", [
    pytest.param("{" + "".join(f'"k{number}": 0, ' for number in range(30_000)) + '"k0": 1}', id="keys"),
    pytest.param(json.dumps({"cdiVersion": "1.1.0", "kind": "a.b/c", "devices": [{"name": "a", "containerEdits": {"netDevices": [
        {"hostInterfaceName": f"a{number}", "name": f"b{number}"} for number in range(30_000)]}}]}), id="network-devices"),
])
def test_a_large_document_takes_no_square_of_time(text: str) -> None:
    """A document may have 16 MiB; 200 KB of keys took five seconds, and eighty times as many take the square of it."""
    started = time.process_time()
    check_text("a.json", text.encode())
    assert time.process_time() - started < 8
