# SPDX-License-Identifier: Apache-2.0
"""Our verdict and our injection against the CDI reference library, on documents that nobody wrote by hand.

The Go program beside this file asks the library. It is built from Go's module cache; without Go, or with an empty
cache, the tests are skipped and say what to run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guest_cdi.discover.nics import NetworkFunction, describe_nics, make_node
from guest_cdi.host import LinuxHost
from guest_cdi.inject import inject, read_registry
from guest_cdi.lean.errors import CdiError
from guest_cdi.load import Data
from guest_cdi.oci import Config
from guest_cdi.render import render
from guest_cdi.validate import Checked, check_text

pytestmark = pytest.mark.long
HERE = Path(__file__).resolve().parent / "cdi"
PREPARE = f"cd {HERE.relative_to(HERE.parents[2])} && go mod download"
FIXED = settings(derandomize=True, max_examples=150, deadline=None, database=None,
                 suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])

# Where we refuse what the library takes, and why.
STRICTER = {
    "range": "the published schema bounds timeouts, and no kernel has negative device numbers",
    "annotation": "the library means to check annotations, but looks for them in a map of another type",
    "type": "null, a number for a text: the published schema and kata-agent refuse them",
    "quotes": "the same, from YAML",
}


class Reference:
    """The running Go program."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, layers: Sequence[Mapping[str, str]], names: Sequence[str] = (), config: Config | None = None) -> dict[str, Data]:
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {"layers": layers, "names": names, "config": config}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the reference program ended on {json.dumps(request)}"
        return json.loads(line)  # type: ignore[no-any-return]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=10)


@pytest.fixture(scope="session")
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    go = shutil.which("go")
    if go is None:
        pytest.skip("the reference library is Go, and go is not installed")
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in ("go.mod", "main.go"))).hexdigest()[:16]
    cache = getattr(request.config, "cache", None)     # absent under -p no:cacheprovider
    folder = cache.mkdir("cdi-reference") if cache else tmp_path_factory.mktemp("cdi-reference")
    program = folder / digest
    if not program.exists():
        environment = {**os.environ, "GOPROXY": "off", "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local"}
        done = subprocess.run([go, "build", "-o", f"{program}.new", "."], cwd=HERE, env=environment, capture_output=True,
                              text=True, check=False, timeout=300)
        if done.returncode != 0:
            pytest.skip(f"the reference library cannot be built without network; run once: {PREPARE}\n{done.stderr}")
        os.replace(f"{program}.new", program)
    running = Reference(program)
    yield running
    running.close()


# Documents that are right by construction; then, in most of them, one or two values or keys are made wrong.

def record(required: Mapping[str, st.SearchStrategy[Data]],
           optional: Mapping[str, st.SearchStrategy[Data]]) -> st.SearchStrategy[dict[str, Data]]:
    return st.fixed_dictionaries(dict(required), optional=dict(optional))


def pick(*values: Data) -> st.SearchStrategy[Data]:
    return st.sampled_from(values)


def some(item: st.SearchStrategy[Data], most: int, least: int = 0, *, unique: bool = False) -> st.SearchStrategy[Data]:
    return st.lists(item, min_size=least, max_size=most, unique_by=str if unique else None)


HOST_NODES = ("/dev/null", "/dev/zero", "/dev/full")
ENV = some(pick("A=b", "B=", "C=d=e", "A=z", "PATH=/x"), 3)
UINT32 = pick(0, 1, 1000, 2**32 - 1)
PATHS = pick("/a", "/a/b", "/a//b/", "//a", "/a/../b", "rel", "/", "/z/y/x")
NODE = record(
    {"path": pick(*HOST_NODES, "/dev/x")},
    {"hostPath": pick(*HOST_NODES, *HOST_NODES, "", "/dev/none", "/etc/passwd"), "type": pick("", "c", "c", "b", "p", "u"),
     "major": pick(0, 7), "minor": pick(0, 3), "fileMode": pick(0, 432, 2**32 - 1), "permissions": pick("", "r", "mm", "none"),
     "uid": UINT32, "gid": UINT32})
NET_DEVICE = pick({"hostInterfaceName": "eth0", "name": "a"}, {"hostInterfaceName": "eth1", "name": "b"})
HOOK = record(
    {"hookName": pick("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"), "path": pick("/h", "h")},
    {"args": some(pick("a", "", "ü"), 2), "env": ENV, "timeout": pick(0, 9)})
MOUNT = record(
    {"hostPath": PATHS, "containerPath": PATHS},
    {"options": some(pick("ro", "bind", "rbind", "idmap", "ridmap"), 3), "type": pick("", "bind", "tmpfs")})
INTEL_RDT = record({}, {
    "closID": pick("a", "/", "", "c" * 4095), "l3CacheSchema": pick("L3"), "memBwSchema": pick("MB"),
    "schemata": some(pick("L3:0=f"), 1), "enableMonitoring": st.booleans()})
EDIT_KEYS: dict[str, st.SearchStrategy[Data]] = {
    "deviceNodes": some(NODE, 3), "netDevices": some(NET_DEVICE, 2, unique=True), "hooks": some(HOOK, 3), "mounts": some(MOUNT, 5),
    "intelRdt": INTEL_RDT, "additionalGids": some(pick(0, 44, 45, 2**32 - 1), 3)}
EDITS = record({}, {"env": ENV, **EDIT_KEYS})
DEVICE_EDITS = record({"env": some(pick("A=b", "N=1"), 3, 1)}, EDIT_KEYS)
ANNOTATIONS = record({}, {"a": pick("", "v"), "x.y/z": pick("v")})
DEVICE = record({"name": pick("0", "1:0", "gpu0", "all", "b.c", "d_e-f"), "containerEdits": DEVICE_EDITS}, {"annotations": ANNOTATIONS})


def documents(kinds: st.SearchStrategy[Data], versions: st.SearchStrategy[Data]) -> st.SearchStrategy[dict[str, Data]]:
    devices = st.lists(DEVICE, min_size=1, max_size=3, unique_by=lambda device: str(device["name"]))
    return record({"cdiVersion": versions, "kind": kinds, "devices": devices.map(list[Data])}, {"containerEdits": EDITS, "annotations": ANNOTATIONS})


# What a value of this key must not be, or where it changes which version is needed.
FLAWS: dict[str, tuple[Data, ...]] = {
    "cdiVersion": ("0.2.0", "2.0.0", "vv1.1.0", "", "1.1", "v1.0.0"),
    "kind": ("", "v", "/c", "v/", "1v/c", "v/c-", "a/b/c", "v /c", "v/c.d"),
    "annotations": ({"a b": ""}, {"": "v"}),
    "devices": ([],),
    "name": ("", "-a", "a-", "a/b", "ü", "0"),
    "containerEdits": ({}, {"env": []}),
    "env": (["=x"], ["A"], [""]),
    "path": ("",), "hostPath": ("", "/x"), "containerPath": ("",), "hostInterfaceName": ("", "eth0"),
    "type": ("x", "c"), "permissions": ("x", "rx", "rwmx"), "hookName": ("x", "", "Prestart"),
    "major": (-1, 2**63, 1.5), "minor": (-1, 2**63), "fileMode": (-1, 2**32), "uid": (-1, 2**32), "gid": (-1, 2**32, 0.5),
    "timeout": (-1,), "additionalGids": ([-1], [2**32]), "closID": (".", "..", "a/b", "a\nb", "c" * 4096), "schemata": ([],),
}
OTHER: dict[str, Data] = {"add": "v", "null": None, "list": ["x"], "text": "x", "number": 3}
FLAW = st.tuples(st.integers(0, 60), st.integers(0, 9), st.sampled_from(["flaw", "flaw", "flaw", "drop", "add", "null", "list", "text", "number"]))


def damage(document: Data, place: int, which: int, how: str) -> None:
    places = [(entry, key) for entry in walk(document) if isinstance(entry, dict) for key in sorted(entry)
              if how != "flaw" or key in FLAWS]
    target, key = places[place % len(places)]
    if how == "drop":
        del target[key]
    elif how == "flaw":
        target[key] = FLAWS[key][which % len(FLAWS[key])]
    else:
        target["x-" + key if how == "add" else key] = OTHER[how]


def walk(data: Data) -> Iterator[Data]:
    yield data
    children = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    for child in children:
        yield from walk(child)


def texts() -> st.SearchStrategy[tuple[str, str]]:
    """A document as a file: name and content, in JSON or in YAML."""
    def write(document: dict[str, Data], harm: list[tuple[int, int, str]], as_yaml: bool) -> tuple[str, str]:
        copy: Data = json.loads(json.dumps(document))
        for one in harm:
            damage(copy, *one)
        if as_yaml:
            return "a.yaml", yaml.safe_dump(copy, sort_keys=False, allow_unicode=True)
        return "a.json", json.dumps(copy)

    versions = pick("1.1.0", "1.1.0", "v1.1.0", "1.0.0", "0.7.0", "0.6.0", "0.5.0", "0.4.0", "0.3.0")
    made = documents(pick("v.com/c", "v/c.d", "w.com/c_1"), versions)
    return st.builds(write, made, st.lists(FLAW, max_size=2), st.booleans())


def check_verdict(ours: Checked, theirs: Data, text: str) -> None:
    rules = {finding.rule for finding in ours.findings}
    if theirs:
        assert rules, f"only the reference refuses it: {theirs}\n{text}"
    else:
        assert rules <= set(STRICTER), f"only we refuse it: {[str(finding) for finding in ours.findings]}\n{text}"


def verdict(answer: Mapping[str, Data], name: str) -> Data:
    layers = answer["verdicts"]
    assert isinstance(layers, list) and isinstance(layers[0], dict)
    return layers[0][name]


@FIXED
@given(file=texts())
def test_verdicts_agree(reference: Reference, file: tuple[str, str]) -> None:
    name, text = file
    check_verdict(check_text(name, text.encode()), verdict(reference.ask([{name: text}]), name), text)


FIXED_TEXTS = {
    "unknown key": "cdiVersion: 0.3.0\nkind: a/b\nx: 1\ndevices: [{name: d, containerEdits: {env: [A=b]}}]",
    "key twice": "cdiVersion: 0.3.0\nkind: a/b\nkind: a/b\ndevices: [{name: d, containerEdits: {env: [A=b]}}]",
    "two documents": "cdiVersion: 0.3.0\nkind: a/b\ndevices: [{name: d, containerEdits: {env: [A=b]}}]\n---\n{}",
    "bare 0": "cdiVersion: 0.5.0\nkind: a/b\ndevices: [{name: 0, containerEdits: {env: [A=b]}}]",
    "empty": "",
    "a list": "[]",
    "no YAML": "a: [",
}


@pytest.mark.parametrize("text", FIXED_TEXTS.values(), ids=list(FIXED_TEXTS))
def test_verdicts_on_broken_text(reference: Reference, text: str) -> None:
    ours = check_text("a.yaml", text.encode())
    theirs = verdict(reference.ask([{"a.yaml": text}]), "a.yaml")
    if text == FIXED_TEXTS["two documents"]:
        assert theirs == "" and [finding.rule for finding in ours.findings] == ["syntax"]   # kata-agent refuses it, too
    else:
        check_verdict(ours, theirs, text)


# Containers: what an engine would have in config.json before.

USER = record({"uid": pick(0, 1000), "gid": pick(0, 1000)}, {"additionalGids": some(pick(1, 44), 2, 1)})
PROCESS = record({"user": USER, "cwd": pick("/")}, {"env": some(pick("A=1", "PATH=/bin", "A=2"), 3, 1)})
PRESENT_NODE = record({"path": pick("/dev/null", "/dev/x", "/dev/y"), "type": pick("c"), "major": pick(9), "minor": pick(9)}, {})
LINUX = record({}, {"devices": some(PRESENT_NODE, 4, 1), "namespaces": some(record({"type": pick("user", "mount")}, {}), 2, 1)})
CONFIG = record({"ociVersion": pick("1.0.2")}, {
    "process": PROCESS, "linux": LINUX, "mounts": some(record({"destination": pick("/a", "/a/b/c", "/proc", "/")}, {}), 4, 1)})
BROKEN: dict[str, Data] = {}


@st.composite
def requests(draw: st.DrawFn) -> tuple[list[dict[str, dict[str, Data]]], list[str]]:
    """Directories of documents, and names that they mostly have."""
    document = documents(pick("v.com/c", "v.com/c", "w.com/c"), pick("1.1.0"))
    layers = draw(st.lists(st.dictionaries(st.sampled_from(["a.json", "b.json"]), document, min_size=1), min_size=1, max_size=2))
    if draw(st.integers(0, 4)) == 0:
        layers[0]["broken.json"] = BROKEN
    known = [f"{made['kind']}={device['name']}" for layer in layers for made in layer.values()
             for device in walk(made.get("devices")) if isinstance(device, dict) and "containerEdits" in device]
    names = draw(st.lists(st.sampled_from(known), min_size=1, max_size=3))
    if draw(st.integers(0, 5)) == 0:
        names.insert(draw(st.integers(0, len(names))), draw(st.sampled_from(["0", "x/y=0"])))
    return layers, names


def normal(config: Config) -> Config:
    """The library's types write what OCI demands of a process although nothing was said of it; nothing else differs."""
    result: Config = json.loads(json.dumps(config))
    process = result.get("process")
    if isinstance(process, dict):
        user = process.setdefault("user", {})
        assert isinstance(user, dict)
        for holder, key, value in ((user, "uid", 0), (user, "gid", 0), (process, "cwd", "")):
            holder.setdefault(key, value)
    return result


@FIXED
@given(request=requests(), config=CONFIG)
def test_injections_agree(reference: Reference, request: tuple[list[dict[str, dict[str, Data]]], list[str]], config: Config) -> None:
    layers, names = request
    written = [{name: json.dumps(document) if document else "{" for name, document in layer.items()} for layer in layers]
    theirs = reference.ask(written, names, config)
    with TemporaryDirectory() as root:
        directories = []
        for index, layer in enumerate(written):
            directory = Path(root, str(index))
            directory.mkdir()
            directories.append(str(directory))
            for name, text in layer.items():
                (directory / name).write_text(text)
        registry = read_registry([], directories)
    try:
        ours = inject(registry, names, config, LinuxHost().lstat)
    except CdiError as err:
        assert theirs["error"], f"only we fail: {err}"
        unresolved = theirs["unresolved"] or []
        assert isinstance(unresolved, list)
        assert all(str(name) in err.what for name in unresolved)
    else:
        assert not theirs["error"], "only the reference fails"
        assert isinstance(theirs["config"], dict)
        assert normal(ours) == normal(theirs["config"])


@pytest.mark.parametrize(("name", "nodes"), [
    ("nvidia.com/nic=0", ["/dev/infiniband/uverbs1", "/dev/infiniband/rdma_cm"]), ("nvidia.com/nic=1", []),
    ("nvidia.com/ib=mlx5_1", ["/dev/infiniband/uverbs1", "/dev/infiniband/rdma_cm"]),
    ("nvidia.com/ib=all", ["/dev/infiniband/uverbs1", "/dev/infiniband/rdma_cm"]),
])
def test_documents_of_nics_inject_as_they_do_there(reference: Reference, tmp_path: Path, name: str, nodes: list[str]) -> None:
    """Nodes have their numbers, so neither side looks for a file: this machine has no such adapter."""
    for bdf in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "sys/bus/pci/devices" / bdf).mkdir(parents=True)
    functions = [NetworkFunction("0000:02:00.0"),
                 NetworkFunction("0000:01:00.0", "mlx5_1", make_node("/dev/infiniband/uverbs1", 231, 193))]
    specs = describe_nics(LinuxHost(str(tmp_path)), functions, make_node("/dev/infiniband/rdma_cm", 231, 90))
    layer = {f"{spec.kind.partition('/')[2]}.yaml": render(spec, "yaml").decode() for spec in specs}
    theirs = reference.ask([layer], [name], {"ociVersion": "1.0.2"})
    assert [theirs["error"], *(verdict(theirs, file) for file in layer)] == ["", "", ""]
    folder = tmp_path / "cdi"
    folder.mkdir()
    for file, text in layer.items():
        (folder / file).write_text(text)
    ours = inject(read_registry([], [str(folder)]), [name], {"ociVersion": "1.0.2"}, LinuxHost().lstat)
    assert isinstance(theirs["config"], dict)
    assert normal(ours) == normal(theirs["config"])
    devices = ours.get("linux", {})
    assert isinstance(devices, dict)
    assert [node["path"] for node in walk(devices) if isinstance(node, dict) and "path" in node] == nodes
