# SPDX-License-Identifier: Apache-2.0
"""Edits applied to an OCI configuration, rule by rule; where devices come from; and the command."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from guest_cdi.host import FileInfo
from guest_cdi.inject import (
    EPILOG,
    Arguments,
    Registry,
    build_registry,
    inject,
    main,
    read_registry,
    resolve,
    run,
)
from guest_cdi.lean.errors import CdiError
from guest_cdi.load import Data
from guest_cdi.oci import Config, apply_edits
from guest_cdi.prove import prove
from guest_cdi.spec import ContainerEdits, Device, DeviceNode, Hook, IntelRdt, Mount, NetDevice, Spec
from guest_cdi.validate import Checked, check_text

NODES = {
    "/dev/char": FileInfo(stat.S_IFCHR | 0o660, 195, 3, 0),
    "/dev/block": FileInfo(stat.S_IFBLK | 0o600, 8, 1, 0),
    "/dev/fifo": FileInfo(stat.S_IFIFO | 0o644, 0, 0, 0),
    "/dev/file": FileInfo(stat.S_IFREG | 0o644, 0, 0, 0),
    "/dev/link": FileInfo(stat.S_IFLNK | 0o777, 0, 0, 0),
}


def lstat(path: str) -> FileInfo:
    if path not in NODES:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return NODES[path]


def apply(config: Config, **edits: object) -> Config:
    return apply_edits(ContainerEdits(**edits), config, lstat)  # type: ignore[arg-type]


def node(**values: object) -> tuple[DeviceNode, ...]:
    return (DeviceNode(**{"path": "/dev/char", **values}),)  # type: ignore[arg-type]


def rule(kind: str, major: int, minor: int, access: str | None = "rwm") -> Config:
    made: Config = {"allow": True, "type": kind, "major": major, "minor": minor}
    return made | {"access": access} if access else made


CHAR: Config = {"path": "/dev/char", "type": "c", "major": 195, "minor": 3, "fileMode": 0o660}
CHAR_RULE = rule("c", 195, 3)
DEVICES: dict[str, tuple[tuple[DeviceNode, ...], Sequence[Data], Sequence[Data] | None]] = {
    "everything from the host": (node(), [CHAR], [CHAR_RULE]),
    "another path in the container": (node(path="/dev/x", host_path="/dev/char"), [CHAR | {"path": "/dev/x"}], [CHAR_RULE]),
    "the document's mode counts": (node(file_mode=0), [CHAR | {"fileMode": 0}], [CHAR_RULE]),
    "the document's owner counts, root too": (node(uid=0, gid=5), [CHAR | {"uid": 0, "gid": 5}], [CHAR_RULE]),
    "a major without a type keeps minor 0": (node(major=7), [CHAR | {"major": 7, "minor": 0}], [rule("c", 7, 0)]),
    "a minor without a major is not kept": (node(minor=9), [CHAR], [CHAR_RULE]),
    "a type without a major is filled": (node(type="c"), [CHAR], [CHAR_RULE]),
    "type and major are enough": (node(type="b", major=7, minor=2),
                                  [{"path": "/dev/char", "type": "b", "major": 7, "minor": 2, "fileMode": 0o660}], [rule("b", 7, 2)]),
    "a described node need not exist": (node(path="/dev/none", type="c", major=7),
                                        [{"path": "/dev/none", "type": "c", "major": 7, "minor": 0}], [rule("c", 7, 0)]),
    "nor be one": (node(path="/dev/file", type="c", major=7, file_mode=1),
                   [{"path": "/dev/file", "type": "c", "major": 7, "minor": 0, "fileMode": 1}], [rule("c", 7, 0)]),
    "block": (node(path="/dev/block"), [{"path": "/dev/block", "type": "b", "major": 8, "minor": 1, "fileMode": 0o600}],
              [rule("b", 8, 1)]),
    "a FIFO has no number and no rule": (node(path="/dev/fifo"),
                                         [{"path": "/dev/fifo", "type": "p", "major": 0, "minor": 0, "fileMode": 0o644}], None),
    "a FIFO need not exist": (node(path="/dev/none", type="p"), [{"path": "/dev/none", "type": "p", "major": 0, "minor": 0}], None),
    "u has no rule": (node(type="u", major=7), [CHAR | {"type": "u", "major": 7, "minor": 0}], None),
    "read only": (node(permissions="r"), [CHAR], [rule("c", 195, 3, "r")]),
    "no permission": (node(permissions="none"), [CHAR], [rule("c", 195, 3, None)]),
    "twice the same node": (node() * 2, [CHAR], [CHAR_RULE] * 2),
}


@pytest.mark.parametrize(("nodes", "devices", "rules"), DEVICES.values(), ids=list(DEVICES))
def test_device_node(nodes: tuple[DeviceNode, ...], devices: Sequence[Data], rules: Sequence[Data] | None) -> None:
    expected: Config = {"devices": list(devices)}
    if rules:
        expected["resources"] = {"devices": list(rules)}
    assert apply({}, device_nodes=nodes) == {"linux": expected}


def test_a_node_belongs_to_the_containers_user() -> None:
    config = apply({"process": {"user": {"uid": 1000, "gid": 0}}}, device_nodes=node())
    assert config["linux"] == {"devices": [CHAR | {"uid": 1000}], "resources": {"devices": [CHAR_RULE]}}


def test_a_node_replaces_one_of_its_path() -> None:
    present: list[Data] = [{"path": "/dev/a"}, {"path": "/dev/char", "uid": 9}, {"path": "/dev/b"}]
    assert devices_of(apply({"linux": {"devices": present}}, device_nodes=node())) == [{"path": "/dev/a"}, {"path": "/dev/b"}, CHAR]


def test_of_two_present_nodes_the_second_gives_its_place() -> None:
    present: list[Data] = [{"path": "/dev/char", "uid": 8}, {"path": "/dev/a"}, {"path": "/dev/char", "uid": 9}, {"path": "/dev/b"}]
    assert devices_of(apply({"linux": {"devices": present}}, device_nodes=node())) == [{"path": "/dev/a"}, CHAR, {"path": "/dev/b"}]


def devices_of(config: Config) -> Data:
    linux = config["linux"]
    assert isinstance(linux, dict)
    return linux["devices"]


BAD_NODES = {
    "missing": (node(path="/dev/none"), "device node /dev/none: No such file or directory"),
    "missing on the host": (node(host_path="/dev/none"), "device node /dev/none: No such file or directory"),
    "a file": (node(path="/dev/file"), "device node /dev/file: is not a device node"),
    "a link": (node(path="/dev/link"), "device node /dev/link: is not a device node"),
    "another type": (node(type="b"), 'device node /dev/char: the document says type "b", the host has "c"'),
    "all at once": (node(path="/dev/none") + node(type="b"),
                    'device node /dev/none: No such file or directory; device node /dev/char: the document says type "b", '
                    'the host has "c"'),
}


@pytest.mark.parametrize(("nodes", "what"), BAD_NODES.values(), ids=list(BAD_NODES))
def test_unusable_node(nodes: tuple[DeviceNode, ...], what: str) -> None:
    with pytest.raises(CdiError) as raised:
        apply({}, device_nodes=nodes)
    assert (raised.value.code, raised.value.what) == ("E_CDI_INJECT", what)


ENV = {
    "appended": (["A=1"], ("B=2",), ["A=1", "B=2"]),
    "replaced in its place": (["A=1", "B=2"], ("A=3",), ["A=3", "B=2"]),
    "the last of two present counts": (["A=1", "A=2"], ("A=3",), ["A=1", "A=3"]),
    "the last edit counts": ([], ("A=1", "A=2"), ["A=2"]),
    "a value may have =": ([], ("A=b=c",), ["A=b=c"]),
    "a present name without a value": (["A"], ("A=1",), ["A=1"]),
}


@pytest.mark.parametrize(("present", "edits", "expected"), ENV.values(), ids=list(ENV))
def test_env(present: list[Data], edits: tuple[str, ...], expected: list[Data]) -> None:
    assert apply({"process": {"env": present}}, env=edits) == {"process": {"env": expected}}


def mount(path: str, **values: object) -> Mount:
    return Mount(host_path="/h", container_path=path, **values)  # type: ignore[arg-type]


def test_mounts_are_sorted_by_depth_and_keep_their_order() -> None:
    present: list[Data] = [{"destination": "/proc"}, {"destination": "/z/y/x"}, {"destination": "/"}, {}]
    config = apply({"mounts": present}, mounts=(mount("/b//c/"), mount("/b/../a"), mount("//y"), mount("/x/w/v/u")))
    mounts = config["mounts"]
    assert isinstance(mounts, list)
    assert [entry.get("destination", "") for entry in mounts if isinstance(entry, dict)] == [
        "", "/proc", "/", "/b/../a", "//y", "/b//c/", "/z/y/x", "/x/w/v/u"]


def test_a_mount_replaces_the_first_of_its_very_path() -> None:
    present: list[Data] = [{"destination": "/a", "source": "1"}, {"destination": "/a", "source": "2"}, {"destination": "/a/"}]
    config = apply({"mounts": present}, mounts=(mount("/a", type="bind", options=("ro",)),))
    assert config["mounts"] == [{"destination": "/a", "source": "2"}, {"destination": "/a/"},
                                {"destination": "/a", "source": "/h", "type": "bind", "options": ["ro"]}]


def test_nothing_of_another_shape_is_replaced() -> None:
    present: list[Data] = [{"destination": ["/a"]}, "/a", None, {"destination": "/a"}]
    config = apply({"mounts": present}, mounts=(mount("/a"), mount("/a"), mount("/b")))
    assert config["mounts"] == ["/a", None, {"destination": ["/a"]}, *({"destination": path, "source": "/h"} for path in ("/a", "/b"))]


@pytest.mark.long
def test_thousands_of_mounts_and_nodes_take_no_square_of_time() -> None:
    started = time.process_time()
    apply({}, mounts=tuple(mount(f"/m{number}") for number in range(20_000)),
          device_nodes=tuple(replace(node()[0], path=f"/dev/n{number}", host_path="/dev/char") for number in range(20_000)))
    assert time.process_time() - started < 8


def test_without_mounts_nothing_is_sorted() -> None:
    present: list[Data] = [{"destination": "/a/b"}, {"destination": "/a"}]
    assert apply({"mounts": present}, env=("A=1",))["mounts"] == present


@pytest.mark.parametrize(("kind", "options", "added"), [
    ("", ("bind",), ["idmap"]), ("", ("ro", "rbind"), ["ridmap"]), ("bind", (), ["idmap"]), ("tmpfs", (), []),
    ("bind", ("rbind", "ridmap"), []), ("", ("rbind", "idmap"), []), ("", ("rbind", "bind"), ["idmap"]),
], ids=str)
def test_bind_mounts_are_mapped_in_a_user_namespace(kind: str, options: tuple[str, ...], added: list[str]) -> None:
    mounts = (mount("/a", type=kind, options=options),)
    for namespaces, expected in (([{"type": "user"}], [*options, *added]), ([{"type": "mount"}, 3], list(options)), (None, list(options))):
        config = apply({"linux": {"namespaces": namespaces}}, mounts=mounts)["mounts"]  # type: ignore[dict-item]
        assert isinstance(config, list) and isinstance(config[0], dict)
        assert config[0].get("options", []) == expected


def test_hooks_go_to_their_lists() -> None:
    names = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    hooks = tuple(Hook(hook_name=name, path="/h", args=("h", name)) for name in names)
    config = apply({"hooks": {"prestart": [{"path": "/old"}]}}, hooks=(*hooks, Hook(hook_name="poststop", path="/p", env=("A=b",), timeout=0)))
    expected: dict[str, list[Data]] = {name: [{"path": "/h", "args": ["h", name]}] for name in names}
    expected["prestart"].insert(0, {"path": "/old"})
    expected["poststop"].append({"path": "/p", "env": ["A=b"], "timeout": 0})
    assert config == {"hooks": expected}


def test_groups_are_added_once_and_root_never() -> None:
    config = apply({"process": {"user": {"uid": 1, "additionalGids": [5]}}}, additional_gids=(0, 5, 7, 7))
    assert config == {"process": {"user": {"uid": 1, "additionalGids": [5, 7]}}}


def test_only_groups_of_root_change_nothing() -> None:
    assert apply({}, additional_gids=(0,)) == {}


def test_intel_rdt_and_net_devices() -> None:
    rdt = IntelRdt(clos_id="c", schemata=("L3:0=f",), enable_monitoring=True)
    net = (NetDevice(host_interface_name="eth0", name="a"), NetDevice(host_interface_name="eth1", name="b"))
    assert apply({"linux": {"netDevices": {"eth0": {}}, "intelRdt": {"closID": "old"}}}, intel_rdt=rdt, net_devices=net) == {
        "linux": {"intelRdt": {"closID": "c", "schemata": ["L3:0=f"], "enableMonitoring": True},
                  "netDevices": {"eth0": {"name": "a"}, "eth1": {"name": "b"}}}}


def test_what_no_edit_is_about_stays_and_the_given_configuration_too() -> None:
    given: Config = {"ociVersion": "1.0.2", "x-own": [1], "process": {"env": ["A=1"], "args": ["sh"]}}
    before = json.dumps(given)
    assert apply(given, env=("A=2",)) == {"ociVersion": "1.0.2", "x-own": [1], "process": {"env": ["A=2"], "args": ["sh"]}}
    assert json.dumps(given) == before


@pytest.mark.parametrize(("config", "key"), [({"process": 1}, "process"), ({"process": {"env": {}}}, "env")])
def test_a_configuration_of_another_shape_is_refused(config: Config, key: str) -> None:
    with pytest.raises(CdiError, match=f'"{key}" of the OCI configuration must be'):
        apply(config, env=("A=1",))


# Where devices come from.

def spec(kind: str = "v.com/c", devices: tuple[str, ...] = ("a", "b")) -> Spec:
    return Spec(kind=kind, container_edits=ContainerEdits(env=("COMMON=1",), intel_rdt=IntelRdt(clos_id="common")),
                devices=tuple(Device(name=name, container_edits=ContainerEdits(env=(f"D_{name}=1",))) for name in devices))


def layer(*specs: Spec) -> list[Checked]:
    return [Checked(file=f"{index}.yaml", spec=made, findings=()) for index, made in enumerate(specs)]


def test_common_edits_come_once_before_the_first_device_of_a_document() -> None:
    registry = build_registry([layer(spec(), spec("w.com/c"))])
    edits = resolve(registry, ["v.com/c=b", "w.com/c=a", "v.com/c=a", "v.com/c=b"])
    assert edits.env == ("COMMON=1", "D_b=1", "COMMON=1", "D_a=1", "D_a=1", "D_b=1")
    assert edits.intel_rdt == IntelRdt(clos_id="common")


def test_unresolvable_names_are_listed_together_with_what_there_is() -> None:
    with pytest.raises(CdiError) as raised:
        resolve(build_registry([layer(spec())]), ["v.com/c=a", "v.com/c=z", "a"])
    assert raised.value.what == "unresolvable CDI devices: v.com/c=z, a"
    assert raised.value.hint == "use one that the documents have: v.com/c=a, v.com/c=b"


def test_nothing_there() -> None:
    with pytest.raises(CdiError, match="no device at all"):
        resolve(Registry(devices={}), ["a"])


def test_a_later_directory_has_precedence() -> None:
    registry = build_registry([layer(spec()), [Checked(file="high.yaml", spec=spec(devices=("a",)), findings=())]])
    assert {name: entry.file for name, entry in registry.devices.items()} == {"v.com/c=a": "high.yaml", "v.com/c=b": "0.yaml"}


def test_two_files_of_one_directory_conflict() -> None:
    registry = build_registry([layer(spec(), spec(devices=("b", "c")))])
    assert set(registry.devices) == {"v.com/c=a", "v.com/c=c"}
    with pytest.raises(CdiError, match=r"v.com/c=b \(defined by both 0.yaml and 1.yaml\)"):
        resolve(registry, ["v.com/c=b"])


def test_a_conflict_below_bars_the_name_above() -> None:
    registry = build_registry([layer(spec(), spec()), layer(spec())])
    assert registry.devices == {}


def document(name: str, env: str = "A=b") -> str:
    return json.dumps({"cdiVersion": "0.3.0", "kind": "v.com/c", "devices": [{"name": name, "containerEdits": {"env": [env]}}]})


def test_directories_are_read_as_engines_do(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(document("a"))
    (tmp_path / "b.yaml").write_text(document("b"))
    (tmp_path / "broken.yaml").write_text("{")
    for ignored in ("c.yml", "d.JSON", "e.json.tmp", "f"):
        (tmp_path / ignored).write_text(document("z"))
    (tmp_path / "sub.yaml").mkdir()
    registry = read_registry([], [str(tmp_path / "missing"), str(tmp_path)])
    assert list(registry.devices) == ["v.com/c=a", "v.com/c=b"]
    assert [finding.file for finding in registry.findings] == [str(tmp_path / "broken.yaml")]


def test_a_directory_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CdiError) as raised:
        read_registry([], [str(tmp_path / "file")])
    assert (raised.value.code, raised.value.what) == ("E_CDI_READ", f"{tmp_path}/file: Not a directory")


def test_a_named_document_must_be_valid(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(CdiError) as raised:
        read_registry([str(tmp_path / "a.json")], [])
    assert raised.value.code == "E_CDI_INVALID"
    assert raised.value.what.count("[missing-key]") == 3


# A document about to be published.

class FakeHost:
    """Nodes of the table above; every other path is an executable file, except those below /missing."""

    def lstat(self, path: str) -> FileInfo:
        return lstat(path)

    def stat(self, path: str) -> FileInfo:
        if path.startswith("/missing"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return FileInfo(stat.S_IFREG | (0o644 if path.startswith("/plain") else 0o755))

    def resolve(self, path: str) -> str:
        raise NotImplementedError(path)

    read_link = resolve

    def scan(self, path: str) -> dict[str, object]:
        raise NotImplementedError(path)

    def open(self, path: str) -> int:
        raise NotImplementedError(path)


def proposal(**edits: object) -> Spec:
    return Spec(kind="v.com/c", devices=(Device(name="a", container_edits=ContainerEdits(device_nodes=node())),),
                container_edits=ContainerEdits(**edits))  # type: ignore[arg-type]


def test_a_document_that_injects_is_proved() -> None:
    prove(proposal(mounts=(mount("/a"),), hooks=(Hook(hook_name="poststop", path="/h"),)), FakeHost())  # type: ignore[arg-type]


def test_everything_that_would_not_inject_is_told_at_once() -> None:
    made = proposal(device_nodes=node(path="/dev/none"), mounts=(Mount(host_path="/missing/m", container_path="/m"),),
                    hooks=(Hook(hook_name="poststop", path="/missing/h"), Hook(hook_name="poststop", path="/plain/h")))
    with pytest.raises(CdiError) as raised:
        prove(made, FakeHost())  # type: ignore[arg-type]
    assert raised.value.what.split("; ") == [
        "device node /dev/none: No such file or directory", "mount source /missing/m: No such file or directory",
        "hook /missing/h: No such file or directory", "hook /plain/h: is not executable"]


# The command.

@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    made = tmp_path / "bundle"
    made.mkdir()
    (made / "config.json").write_text('{"ociVersion": "1.0.2", "process": {"env": ["A=1"]}}')
    (made / "config.json").chmod(0o600)
    (tmp_path / "spec.json").write_text(document("a", "A=ü"))
    return made


def call(bundle: Path, *names: str, **changed: object) -> tuple[int, str, str]:
    given = Arguments(bundle=str(bundle), specs=[str(bundle.parent / "spec.json")], names=list(names))
    out, err = io.StringIO(), io.StringIO()
    return run(replace(given, **changed), out, err), out.getvalue(), err.getvalue()  # type: ignore[arg-type]


def test_the_bundle_is_changed_in_place_and_keeps_its_mode(bundle: Path) -> None:
    assert call(bundle, "v.com/c=a") == (0, "", "")
    path = bundle / "config.json"
    assert json.loads(path.read_text()) == {"ociVersion": "1.0.2", "process": {"env": ["A=ü"]}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(bundle) == ["config.json"]


def test_a_dry_run_prints_and_changes_nothing(bundle: Path) -> None:
    before = (bundle / "config.json").read_bytes()
    status, out, err = call(bundle, "v.com/c=a", dry_run=True)
    assert (status, err) == (0, "")
    assert json.loads(out)["process"] == {"env": ["A=ü"]}
    assert (bundle / "config.json").read_bytes() == before


def test_invalid_documents_of_a_directory_are_told(bundle: Path) -> None:
    (bundle.parent / "bad.json").write_text("[]")
    status, _, err = call(bundle, "v.com/c=a", specs=[], spec_dirs=[str(bundle.parent)])
    assert status == 0
    assert err == f"guest-cdi: warning: left out {bundle.parent}/bad.json: must be a mapping, not a list [type]\n"


def test_a_failure_leaves_the_bundle_alone(bundle: Path) -> None:
    before = (bundle / "config.json").read_bytes()
    status, out, err = call(bundle, "v.com/c=a", "v.com/c=b")
    assert (status, out) == (1, "")
    assert err == "guest-cdi: error: unresolvable CDI devices: v.com/c=b (E_CDI_INJECT): use one that the documents have: v.com/c=a\n"
    assert (bundle / "config.json").read_bytes() == before


def test_a_failure_in_json(bundle: Path) -> None:
    _, _, err = call(bundle, "x", json=True)
    assert json.loads(err)["code"] == "E_CDI_INJECT"


# json reads it and the copy does not: since Python 3.12 both go deeper, the copy by a frame less for each level.
DEEP = 900 if sys.version_info < (3, 12) else 1200


@pytest.mark.parametrize(("content", "said"), [
    (None, "No such file or directory"), ("{", "is not JSON"), ("[]", "must hold an object"), ("[" * 100_000, "is not JSON"),
    ('{"a":' * DEEP + "1" + "}" * DEEP, "nested too deep"), ('{"a": NaN}', "NaN is not a JSON value"),
    ('{"a": 1e999}', "a number in it is out of range"), ('{"a": [' + "0," * 200_000 + "0]}", "has more than 100000 values"),
    ('{"a": "\xff"}', "is not JSON"),
    ('{"a": "' + "x" * (16 << 20) + '"}', "not a regular file of at most 16 MiB"),
], ids=["missing", "not JSON", "a list", "too deep", "too deep to copy", "no number", "an endless number", "too many values", "not UTF-8", "too large"])
def test_a_bundle_that_cannot_be_used(bundle: Path, content: str | None, said: str) -> None:
    (bundle / "config.json").unlink()
    if content is not None:
        (bundle / "config.json").write_text(content, encoding="latin-1")
    status, _, err = call(bundle, "v.com/c=a")
    assert status == 1
    assert f"{bundle}/config.json" in err and said in err and "E_CDI_BUNDLE" in err


def test_a_fifo_as_configuration_does_not_block(bundle: Path) -> None:
    (bundle / "config.json").unlink()
    os.mkfifo(bundle / "config.json")
    status, _, err = call(bundle, "v.com/c=a")
    assert (status, "not a regular file" in err) == (1, True)


def test_text_that_is_no_unicode_is_not_printed(bundle: Path) -> None:
    (bundle / "config.json").write_text('{"process": {"env": ["B=\\ud800"]}}')
    status, out, err = call(bundle, "v.com/c=a", dry_run=True)
    assert (status, out) == (1, "")
    assert "a text in it is not Unicode (E_CDI_BUNDLE)" in err


def test_text_that_cannot_be_written_leaves_no_scratch_file(bundle: Path) -> None:
    (bundle / "config.json").write_text('{"process": {"env": ["B=\\ud800"]}}')
    status, _, err = call(bundle, "v.com/c=a")
    assert status == 1
    assert "a text in it is not Unicode" in err
    assert os.listdir(bundle) == ["config.json"]


def test_a_bundle_that_cannot_be_written_stays_as_it_was(bundle: Path) -> None:
    room = 4090 - len(f"{bundle}/config.json")      # the file has a path that the kernel takes, a longer one has not
    deep = bundle / "/".join(["d" * 200] * (room // 201) + ["e" * (room % 201 - 1)])
    deep.mkdir(parents=True)
    (bundle / "config.json").rename(deep / "config.json")
    before = (deep / "config.json").read_bytes()
    status, _, err = call(deep, "v.com/c=a", specs=[str(bundle.parent / "spec.json")])
    assert status == 1
    assert "could not be written: File name too long" in err
    assert (deep / "config.json").read_bytes() == before


@pytest.mark.parametrize(("argv", "status"), [([], 2), (["--help"], 0), (["--bundle", "x"], 2)])
def test_usage(argv: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == status
    said = capsys.readouterr()
    assert EPILOG in said.out if status == 0 else "usage: guest-cdi inject" in said.err


def test_main(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec_path = str(bundle.parent / "spec.json")
    assert main(["--bundle", str(bundle), "--spec", spec_path, "--dry-run", "v.com/c=a"]) == 0
    assert '"A=ü"' in capsys.readouterr().out


def test_inject_is_resolve_and_apply() -> None:
    checked = check_text("a.json", document("a").encode())
    assert inject(build_registry([[checked]]), ["v.com/c=a"], {}, lstat) == {"process": {"env": ["A=b"]}}
