# SPDX-License-Identifier: Apache-2.0
"""Documents as text that every YAML reader takes for the same, and their publication."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fakes.cases import Case
from fakes.examples import times
from guest_cdi.lean.errors import CdiError
from guest_cdi.lean.yamltext import quote
from guest_cdi.render import document, publish, render, render_json, render_yaml
from guest_cdi.spec import (
    ContainerEdits,
    Device,
    DeviceNode,
    Hook,
    IntelRdt,
    Mount,
    NetDevice,
    Spec,
)

FULL = Spec(
    kind="nvidia.com/gpu",
    annotations=(("b", "2"), ("a", "1")),
    devices=(
        Device(name="1:0", annotations=(("x", "yes"),), container_edits=ContainerEdits(
            env=("A=1",), additional_gids=(44, 106),
            device_nodes=(DeviceNode(path="/dev/x", host_path="/y", type="c", major=195, minor=0, file_mode=0o660,
                                     permissions="rwm", uid=0, gid=0),))),
        Device(name="all", container_edits=ContainerEdits(device_nodes=(DeviceNode(path="/dev/x", minor=3),))),
    ),
    container_edits=ContainerEdits(
        net_devices=(NetDevice(host_interface_name="eth0", name="net1"),),
        hooks=(Hook(hook_name="createContainer", path="/h", args=("h", "--link", "a::b"), env=("E=",), timeout=0),),
        mounts=(Mount(host_path="/a", container_path="/b", options=("ro",), type="bind"),),
        intel_rdt=IntelRdt(clos_id="c", l3_cache_schema="l3", mem_bw_schema="mb", schemata=("s",),
                           enable_monitoring=True),
    ),
)

FULL_DOCUMENT = {
    "cdiVersion": "1.1.0",
    "kind": "nvidia.com/gpu",
    "annotations": {"a": "1", "b": "2"},
    "devices": [
        {"name": "1:0", "annotations": {"x": "yes"}, "containerEdits": {
            "env": ["A=1"],
            "deviceNodes": [{"path": "/dev/x", "hostPath": "/y", "type": "c", "major": 195, "fileMode": 432,
                             "permissions": "rwm", "uid": 0, "gid": 0}],
            "additionalGids": [44, 106]}},
        {"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/x", "minor": 3}]}},
    ],
    "containerEdits": {
        "netDevices": [{"hostInterfaceName": "eth0", "name": "net1"}],
        "hooks": [{"hookName": "createContainer", "path": "/h", "args": ["h", "--link", "a::b"], "env": ["E="],
                   "timeout": 0}],
        "mounts": [{"hostPath": "/a", "containerPath": "/b", "options": ["ro"], "type": "bind"}],
        "intelRdt": {"closID": "c", "l3CacheSchema": "l3", "memBwSchema": "mb", "schemata": ["s"],
                     "enableMonitoring": True},
    },
}

FULL_TEXT = """\
---
cdiVersion: 1.1.0
kind: nvidia.com/gpu
annotations:
    a: "1"
    b: "2"
devices:
    - name: "1:0"
      annotations:
        x: "yes"
      containerEdits:
        env:
            - A=1
        deviceNodes:
            - path: /dev/x
              hostPath: /y
              type: c
              major: 195
              fileMode: 432
              permissions: rwm
              uid: 0
              gid: 0
        additionalGids:
            - 44
            - 106
    - name: all
      containerEdits:
        deviceNodes:
            - path: /dev/x
              minor: 3
containerEdits:
    netDevices:
        - hostInterfaceName: eth0
          name: net1
    hooks:
        - hookName: createContainer
          path: /h
          args:
            - h
            - --link
            - a::b
          env:
            - E=
          timeout: 0
    mounts:
        - hostPath: /a
          containerPath: /b
          options:
            - ro
          type: bind
    intelRdt:
        closID: c
        l3CacheSchema: l3
        memBwSchema: mb
        schemata:
            - s
        enableMonitoring: true
"""


def test_every_field_of_the_document() -> None:
    assert document(FULL) == FULL_DOCUMENT
    assert list(document(FULL)) == list(FULL_DOCUMENT)


def test_what_two_names_have_in_common_is_written_once() -> None:
    edits = ContainerEdits(device_nodes=(DeviceNode(path="/dev/nvidia0"),))
    union = ContainerEdits(device_nodes=(*edits.device_nodes, DeviceNode(path="/dev/nvidia1")))
    devices = tuple(Device(name=name, container_edits=of) for name, of in (("0", edits), ("GPU-0", edits), ("all", union)))
    rows = document(Spec(kind="nvidia.com/gpu", devices=devices))["devices"]
    assert isinstance(rows, list)
    first, second, every = [row["containerEdits"] for row in rows if isinstance(row, dict)]
    assert isinstance(first, dict) and isinstance(every, dict)
    assert first is second
    one, all_nodes = first["deviceNodes"], every["deviceNodes"]
    assert isinstance(one, list) and isinstance(all_nodes, list)
    assert all_nodes[0] is one[0]


def test_yaml() -> None:
    assert render_yaml(FULL) == FULL_TEXT
    assert yaml.safe_load(FULL_TEXT) == FULL_DOCUMENT


def test_json() -> None:
    assert json.loads(render_json(FULL)) == FULL_DOCUMENT
    assert yaml.safe_load(render_json(FULL)) == FULL_DOCUMENT


def test_empty_edits_are_left_out() -> None:
    spec = Spec(kind="a/b", devices=(Device(name="x", container_edits=ContainerEdits(env=("A=1",))),))
    assert "containerEdits" not in document(spec)


def test_a_value_that_no_field_has_is_refused() -> None:
    spec = Spec(kind="a/b", devices=(), container_edits=ContainerEdits(
        mounts=(Mount(host_path=3.5, container_path="/a"),)))      # type: ignore[arg-type]
    with pytest.raises(TypeError, match="host_path holds a float"):
        document(spec)


def with_text(text: str) -> Spec:
    edits = ContainerEdits(env=(text,), mounts=(Mount(host_path=text, container_path="/c", options=(text,)),))
    return Spec(kind="a/b", devices=(Device(name=text, container_edits=edits, annotations=((text, text),)),))


TRAPS = ["0", "1:0", "190:20:30", "1.5", "1e3", ".5", ".inf", "-.inf", "+1", "-1", "0x1f", "0o17", "0b1", "1_000", "yes",
         "No", "ON", "off", "y", "N", "true", "null", "~", "=", "<<", "2024-01-01", "2024-01-01 10:00:00", "", " a", "a ",
         "a: b", "a:", ":a", "a #b", "#a", "- a", "-", "--", "---", "...", "&a", "*a", "!a", "|", ">", "%a", "@a", "`a",
         "{a}", "[a]", "a,b", "'a'", '"a"', "a\nb", "a\tb", "a\\b", "a\x00b", "a\x7fb", "a\x85b", "a\u2028b", "\ufeffa",
         "ü", "\U0001f600", "\ue000", "1.2.3", "580.95.05", "../libx.so::/a", ".hidden", "--link", "-x", "+x", "a=b",
         "/dev/dri/by-path/pci-0000:1a:00.0-card", "1.", "12e03", "-0", "0.", "685_230.15", "?a", "? a"]


@pytest.mark.long
def test_no_text_is_mistaken_for_something_else() -> None:
    """YAML 1.1, as PyYAML reads it, gives back the very strings."""
    for text in TRAPS:
        with Case(text):
            spec = with_text(text)
            assert yaml.safe_load(render_yaml(spec)) == json.loads(json.dumps(document(spec)))


@pytest.mark.long
@settings(max_examples=times(7))
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
       | st.from_regex(r"[-+.0-9:_exbo]{1,8}", fullmatch=True))
@example("0:0")
def test_any_text_comes_back(text: str) -> None:
    spec = with_text(text)
    assert yaml.safe_load(render_yaml(spec)) == document(spec)


@settings(max_examples=times(4))
@given(st.text(max_size=8))
def test_rendering_is_text_or_a_clear_error(text: str) -> None:
    try:
        render(with_text(text), "yaml").decode()
    except CdiError as err:
        assert err.code == "E_CDI_NAME_ENCODING"
        assert any(0xD800 <= ord(char) < 0xE000 for char in text)


def test_a_name_that_is_no_text_is_named() -> None:
    with pytest.raises(CdiError, match=r"/lib/lib\\xff.so") as caught:
        render(with_text(os.fsdecode(b"/lib/lib\xff.so")), "yaml")
    assert caught.value.code == "E_CDI_NAME_ENCODING"


def test_quotes_escape_what_they_must() -> None:
    assert quote('a"\\\n\x01\u200b\U000e0001') == '"a\\"\\\\\\n\\x01\\u200b\\U000e0001"'


def test_nothing_heavy_is_imported_for_yaml() -> None:
    """A process of its own, because this one has them all."""
    code = ("import sys; before = set(sys.modules); import guest_cdi.generate, guest_cdi.render;"
            "print(sorted({'yaml', 'json', 'argparse', 'logging', 'pynvml', 'pathlib', 'tempfile', 'subprocess', 'ctypes'}"
            " & (set(sys.modules) - before)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.getcwd())
    assert done.stdout == "[]\n"


# Publication

def test_publishes_with_mode_0644_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "run/cdi/nvidia.yaml"
    umask = os.umask(0o077)
    try:
        publish(str(target), b"first")
        publish(str(target), b"second")
    finally:
        os.umask(umask)
    assert target.read_bytes() == b"second"
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert [path.name for path in target.parent.iterdir()] == ["nvidia.yaml"]


def test_a_relative_name_is_in_the_working_directory(tmp_path: Path) -> None:
    code = "from guest_cdi.render import publish; publish('x.yaml', b'x')"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={"PYTHONPATH": os.getcwd()})
    assert [path.name for path in tmp_path.iterdir()] == ["x.yaml"]


class FaultyDisk:
    """The real calls, with one of them failing; what was called is kept."""

    def __init__(self, fault: int | None = None, reason: int = errno.ENOSPC, short: int | None = None) -> None:
        self.calls: list[str] = []
        self.fault = fault
        self.reason = reason
        self.short = short
        self.names_at_rename: list[str] = []

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) - 1 == self.fault:
            raise OSError(self.reason, os.strerror(self.reason))

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        self._call("open")
        return os.open(path, flags, mode)

    def write(self, fd: int, data: bytes, /) -> int:
        self._call("write")
        return os.write(fd, data[:self.short])

    def fchmod(self, fd: int, mode: int) -> None:
        self._call("fchmod")
        os.fchmod(fd, mode)

    def fsync(self, fd: int) -> None:
        self._call("fsync")
        os.fsync(fd)

    def close(self, fd: int) -> None:
        os.close(fd)
        self._call("close")

    def replace(self, src: str, dst: str) -> None:
        self._call("replace")
        self.names_at_rename = os.listdir(os.path.dirname(src))
        os.replace(src, dst)

    def unlink(self, path: str) -> None:
        self._call("unlink")
        os.unlink(path)

    def makedirs(self, name: str, mode: int = 0o777, exist_ok: bool = False) -> None:
        self._call("makedirs")
        os.makedirs(name, mode, exist_ok)


STEPS = ["makedirs", "open", "write", "fchmod", "fsync", "close", "replace", "open", "fsync", "close"]


def test_the_order_of_publication(tmp_path: Path) -> None:
    disk = FaultyDisk()
    publish(str(tmp_path / "nvidia.yaml"), b"text", disk)
    assert disk.calls == STEPS
    assert not any(name.endswith((".yaml", ".json")) for name in disk.names_at_rename)


def test_a_disk_that_writes_little_by_little(tmp_path: Path) -> None:
    publish(str(tmp_path / "nvidia.yaml"), b"0123456789", disk := FaultyDisk(short=3))
    assert (tmp_path / "nvidia.yaml").read_bytes() == b"0123456789"
    assert disk.calls.count("write") == 4


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("fault", range(STEPS.index("replace") + 1), ids=lambda step: f"{step}-{STEPS[step]}")
def test_a_failure_at_any_step_leaves_the_old_document(fault: int, reason: int, tmp_path: Path) -> None:
    target = tmp_path / "nvidia.yaml"
    target.write_bytes(b"old")
    with pytest.raises(CdiError, match=os.strerror(reason)) as caught:
        publish(str(target), b"new", FaultyDisk(fault, reason))
    assert caught.value.code == "E_CDI_PUBLISH"
    assert str(target) in caught.value.what
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["nvidia.yaml"]


@pytest.mark.parametrize("fault", range(STEPS.index("replace") + 1, len(STEPS)))
def test_a_failure_after_the_rename_is_told_with_the_new_document_whole(fault: int, tmp_path: Path) -> None:
    target = tmp_path / "nvidia.yaml"
    with pytest.raises(CdiError):
        publish(str(target), b"new", FaultyDisk(fault, errno.EIO))
    assert target.read_bytes() == b"new"


def test_a_scratch_file_that_cannot_be_removed_hides_nothing(tmp_path: Path) -> None:
    class Gone(FaultyDisk):
        def unlink(self, path: str) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with pytest.raises(CdiError, match="No space left on device"):
        publish(str(tmp_path / "nvidia.yaml"), b"new", Gone(STEPS.index("write")))
    assert not any(path.suffix in (".yaml", ".json") for path in tmp_path.iterdir())


def test_a_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    """A real refusal by the kernel, in a process of its own."""
    code = ("import resource, signal; from guest_cdi.render import publish; from guest_cdi.lean.errors import CdiError\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
            "try: publish('nvidia.yaml', b'x' * 100)\n"
            "except CdiError as err: print(err.code)")
    (tmp_path / "nvidia.yaml").write_text("old")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": os.getcwd()}, check=True,
                          capture_output=True, text=True)
    assert done.stdout == "E_CDI_PUBLISH\n"
    assert [path.name for path in tmp_path.iterdir()] == ["nvidia.yaml"]
    assert (tmp_path / "nvidia.yaml").read_text() == "old"
