# SPDX-License-Identifier: Apache-2.0
"""What PID 1 lets into the CDI document that its worker describes: all that ours has, and nothing that leads elsewhere."""

from __future__ import annotations

import stat
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fakes.gpu_guest import MakeGuest
from fakes.system import FakeSystem
from guest_cdi.hooks import arguments
from nvrc.machine.privileges import WORKER
from nvrc.machine.system import Node
from nvrc.nvml.document import HOOKS, check_document
from nvrc.nvml.worker import Worker
from nvrc.steps import cdi
from nvrc.vocabulary.errors import NvrcError

ROOTS = Path(__file__).parents[2] / "roots"
EXTENSION = "/run/kata-extensions/gpu"
HOOK = {"hookName": "createContainer", "path": f"{EXTENSION}/bin/nvidia-cdi-hook", "env": ["NVIDIA_CTK_DEBUG=false"],
        "args": ["nvidia-cdi-hook", "update-ldcache", "--folder", "/usr/lib"]}
MOUNT = {"hostPath": f"{EXTENSION}/usr/lib/libcuda.so.1", "containerPath": "/usr/lib/libcuda.so.1",
         "options": ["ro", "nosuid", "nodev", "rbind", "rprivate"]}
GOOD = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu",
        "devices": [{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0", "major": 195, "permissions": "rwm"}]}}],
        "containerEdits": {"env": ["NVIDIA_VISIBLE_DEVICES=void"], "deviceNodes": [{"path": "/dev/nvidiactl", "major": 195, "minor": 255}],
                           "mounts": [MOUNT], "hooks": [HOOK], "additionalGids": [44]}}


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    found = FakeSystem(str(tmp_path))
    found.nodes |= {"/dev/nvidia0": Node(stat.S_IFCHR | 0o666, 195, 0), "/dev/nvidiactl": Node(stat.S_IFCHR | 0o666, 195, 255),
                    "/dev/nvidia-disk": Node(stat.S_IFBLK | 0o660, 8, 0)}
    return found


def test_a_document_of_ours_is_one(system: FakeSystem) -> None:
    assert check_document(system, GOOD) == GOOD


@pytest.mark.parametrize("name", ["extension-drm-gid", "extension-mig", "monolith", "cache-only", "host-graphics"])
def test_every_document_that_the_generator_is_known_to_make_is_one(system: FakeSystem, name: str) -> None:
    """But for roots that no guest has: a driver below another folder, and the older hook program."""
    text = (ROOTS / name / "expected.yaml").read_text().replace("/usr/local/bin/nvidia-ctk", "/usr/bin/nvidia-cdi-hook")
    document = yaml.safe_load(text)
    rows = [node for edits in (document["containerEdits"], *(device["containerEdits"] for device in document["devices"]))
            for node in edits.get("deviceNodes", [])]
    for row in rows:
        system.nodes[row.get("hostPath", row["path"])] = Node(stat.S_IFCHR, row.get("major", 195), row.get("minor", 0))
    for hook in document["containerEdits"].get("hooks", []):
        hook["args"] = ["nvidia-cdi-hook", *hook["args"][1:]]
    check_document(system, document)


@pytest.mark.parametrize("words", [
    "disable-device-node-modification", "create-symlinks --link --container-spec::/x", "update-ldcache --ldconfig-path=/sbin/ldconfig",
    "run create-symlinks --link x::/y --link a::/b -- enable-cuda-compat --host-driver-version=595.58.03 -- update-ldcache --folder /x",
])
def test_what_a_hook_may_be_told(system: FakeSystem, words: str) -> None:
    check_document(system, {**GOOD, "containerEdits": {"hooks": [{**HOOK, "args": ["nvidia-cdi-hook", *words.split(" ")]}]}})


def test_the_options_of_hooks_are_all_but_the_one_that_leads_elsewhere() -> None:
    """A document names what the program has; by the OCI state in a file it would work in any folder."""
    assert {hook.name: {f"--{option.name}" for option in hook.options} for hook in arguments.HOOKS} == {
        name: set(options) for name, options in HOOKS.items()}
    assert not any(f"--{arguments.STATE.name}" in options for options in HOOKS.values())


def edit(**edits: object) -> Mapping[str, object]:
    return {**GOOD, "containerEdits": edits}


@pytest.mark.parametrize(("document", "words"), [
    pytest.param([], "the document is not a mapping", id="a list"),
    pytest.param({**GOOD, "kind": "nvidia.com/x"}, "of the kind 'nvidia.com/x'", id="another kind"),
    pytest.param({**GOOD, "annotations": {}}, "the document has 'annotations'", id="a key more"),
    pytest.param(edit(intelRdt={"closID": "x"}), "an edit has 'intelRdt'", id="an edit of another sort"),
    pytest.param(edit(env=["LD_PRELOAD=/x"]), "the variable 'LD_PRELOAD=/x'", id="a loader's variable"),
    pytest.param(edit(env=["NVIDIA_X=1\nLD_PRELOAD=/x"]), "the variable 'NVIDIA_X=1", id="two variables"),
    pytest.param(edit(additionalGids=[0]), "the group '0'", id="root's group"),
    pytest.param(edit(additionalGids=[True]), "the group 'True'", id="no number"),
    pytest.param(edit(deviceNodes=[{"path": "/dev/mem"}]), "the node '/dev/mem'", id="memory"),
    pytest.param(edit(deviceNodes=[{"path": "/dev/nvidia0", "hostPath": "/dev/vda"}]), "the node '/dev/vda' as '/dev/nvidia0'",
                 id="a disk under a GPU's name"),
    pytest.param(edit(deviceNodes=[{"path": "/dev/nvidia0", "major": 1, "minor": 1}]), "as 1:1, which it is not", id="memory's numbers"),
    pytest.param(edit(deviceNodes=[{"path": "/dev/nvidia0", "minor": 1}]), "as 195:1, which it is not", id="another's minor"),
    pytest.param(edit(deviceNodes=[{"path": "/dev/nvidia9"}]), "which it is not", id="a node that is not there"),
    pytest.param(edit(deviceNodes=[{"path": "/dev/nvidia-disk"}]), "as 8:0, which it is not", id="a block device"),
    pytest.param(edit(deviceNodes=[{"path": "/dev/nvidia0", "type": "b"}]), "the node '/dev/nvidia0'", id="as a block device"),
    pytest.param(edit(deviceNodes=[{"path": "/dev/nvidia/../mem"}]), "the node '/dev/nvidia/../mem'", id="a node by a detour"),
    pytest.param(edit(mounts=[{**MOUNT, "hostPath": "/"}]), "the mount of '/'", id="the root"),
    pytest.param(edit(mounts=[{**MOUNT, "hostPath": "/run/kata-containers/x"}]), "the mount of '/run/kata-containers/x'", id="a container"),
    pytest.param(edit(mounts=[{**MOUNT, "hostPath": "/proc"}]), "the mount of '/proc'", id="proc"),
    pytest.param(edit(mounts=[{**MOUNT, "hostPath": "/dev/vda"}]), "the mount of '/dev/vda'", id="a disk"),
    pytest.param(edit(mounts=[{**MOUNT, "hostPath": "/usr/../run/nvrc"}]), "the mount of '/usr/../run/nvrc'", id="a detour"),
    pytest.param(edit(mounts=[{**MOUNT, "type": "proc"}]), "the mount of", id="another type"),
    pytest.param(edit(mounts=[{**MOUNT, "options": ["rw"]}]), "with the options 'rw'", id="writable"),
    pytest.param(edit(mounts=[{**MOUNT, "options": ["ro", "exec"]}]), "with the options 'ro,exec'", id="an option more"),
    pytest.param(edit(mounts=["x"]), "an item of mounts is not a mapping", id="no mount"),
    pytest.param(edit(hooks=[{**HOOK, "path": "/bin/sh"}]), "the hook '/bin/sh'", id="another program"),
    pytest.param(edit(hooks=[{**HOOK, "path": "/run/cdi/nvidia-cdi-hook"}]), "the hook '/run/cdi/nvidia-cdi-hook'", id="from elsewhere"),
    pytest.param(edit(hooks=[{**HOOK, "path": "/run/kata-extensions/../cdi/nvidia-cdi-hook"}]), "the hook", id="by a detour"),
    pytest.param(edit(hooks=[{**HOOK, "timeout": 0}]), "the hook", id="no time"),
    pytest.param(edit(hooks=[{**HOOK, "timeout": 61}]), "the hook", id="more time than a hook may have"),
    pytest.param(edit(hooks=[{**HOOK, "hookName": "prestart"}]), "the hook", id="another moment"),
    pytest.param(edit(hooks=[{**HOOK, "args": ["sh", "-c", "x"]}]), "with 'sh -c x'", id="another name"),
    *(pytest.param(edit(hooks=[{**HOOK, "args": ["nvidia-cdi-hook", *words.split(" ")]}]), "the hook", id=name) for name, words in (
        ("in another folder of the guest", "create-symlinks --container-spec /x/state.json --link /x::/y"),
        ("in another folder, in one word", "create-symlinks --link /x::/y --container-spec=/x/state.json"),
        ("in another folder, with one dash", "create-symlinks -container-spec /x/state.json --link /x::/y"),
        ("in another folder, by the second of two", "run disable-device-node-modification -- chmod --container-spec /x --mode 777"),
        ("a word before the hook", "--debug create-symlinks --link /x::/y"),
        ("no hook", "run"), ("an unknown hook", "create-container --link /x::/y"), ("no value", "create-symlinks --link"),
        ("an option of another hook", "chmod --folder /x"), ("help", "create-symlinks --help x"), ("a word", "chmod x"),
        ("an ldconfig of a daemon's", "update-ldcache --ldconfig-path /run/nvidia-fabricmanager/ldconfig"),
        ("an ldconfig by a detour", "update-ldcache --ldconfig-path=/usr/../proc/self/exe"))),
    pytest.param(edit(hooks=[{**HOOK, "args": ["nvidia-cdi-hook"]}]), "the hook", id="nothing to do"),
    pytest.param(edit(hooks=[{**HOOK, "args": ["nvidia-cdi-hook", "chmod", 7]}]), "the hook", id="a number among the words"),
    pytest.param(edit(hooks=[{**HOOK, "env": ["LD_PRELOAD=/x"]}]), "the hook", id="a variable for the hook"),
    pytest.param(edit(hooks=[{**HOOK, "umask": 63}]), "an item of hooks has 'umask'", id="a key of a hook"),
    pytest.param({**GOOD, "devices": [{"name": "0", "containerEdits": {"hooks": [{**HOOK, "path": "/bin/sh"}]}}]}, "the hook '/bin/sh'",
                 id="in a device"),
    pytest.param({**GOOD, "devices": [{"name": "0", "containerEdits": {"additionalGids": [1]}},
                                      {"name": "1", "containerEdits": {"additionalGids": [True]}}]}, "the group 'True'",
                 id="in a device, and equal to what another has"),
    pytest.param(edit(env=["X=1"] * 500), "; and 496 more", id="no end of them"),
])
def test_what_containers_must_not_have(system: FakeSystem, document: object, words: str) -> None:
    with pytest.raises(NvrcError) as caught:
        check_document(system, document)
    assert caught.value.code == "E_NVML_DOCUMENT"
    assert words in caught.value.what
    assert caught.value.what.isprintable() and len(caught.value.what) < 1000


class Looking(FakeSystem):
    """One that remembers which nodes were looked at."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.looked: list[str] = []

    def find_node(self, path: str) -> Node | None:
        self.looked.append(path)
        return super().find_node(path)


def test_a_node_is_looked_at_once_whatever_the_number_of_names_for_its_device(tmp_path: Path) -> None:
    system = Looking(str(tmp_path))
    system.nodes |= {path: Node(stat.S_IFCHR | 0o666, 195, minor)
                     for path, minor in (("/dev/nvidia0", 0), ("/dev/nvidia1", 1), ("/dev/nvidiactl", 255))}
    rows = [{"path": f"/dev/nvidia{minor}", "major": 195, "minor": minor} for minor in range(2)]
    named = (("0", rows[:1]), ("GPU-0", rows[:1]), ("1", rows[1:]), ("GPU-1", rows[1:]), ("all", rows))
    check_document(system, {**GOOD, "devices": [{"name": name, "containerEdits": {"deviceNodes": nodes}} for name, nodes in named]})
    assert sorted(system.looked) == ["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl"]


def test_what_is_right_as_a_node_is_judged_again_as_a_mount(system: FakeSystem) -> None:
    row = {"path": "/dev/nvidiactl", "major": 195, "minor": 255}
    with pytest.raises(NvrcError, match="an item of mounts has 'path'"):
        check_document(system, {**GOOD, "containerEdits": {"deviceNodes": [row], "mounts": [row]}})


@pytest.mark.long
def test_many_devices_are_judged_in_no_more_than_their_share_of_time(system: FakeSystem) -> None:
    """As many as fit into an answer. By comparing each with all before it they would take PID 1 minutes."""
    few, many = (_judge_s(system, count) for count in (5_000, 40_000))
    assert many < 40 * few


def _judge_s(system: FakeSystem, count: int) -> float:
    devices = [{"name": str(at), "containerEdits": {"additionalGids": [at + 1]}} for at in range(count)]
    began_s = time.process_time()
    check_document(system, {**GOOD, "devices": devices})
    return time.process_time() - began_s


json = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["devices", "containerEdits", "hooks", "mounts", "env", "deviceNodes", "path", "x"]), inner, max_size=3))


@given(json)
def test_whatever_a_worker_describes_is_judged(tmp_path_factory: pytest.TempPathFactory, document: object) -> None:
    with pytest.raises(NvrcError, match="must not have"):
        check_document(FakeSystem(str(tmp_path_factory.getbasetemp() / "any-document")), document)


class Liar(Worker):
    """Answers what it was given to say."""

    said: object = None

    def ask(self, name: str, deadline_s: float, **given: object) -> object:
        return self.said


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(("document", "code"), [
    ({**GOOD, "containerEdits": {"hooks": [{**HOOK, "path": "/usr/bin/sh"}]}}, "E_NVML_DOCUMENT"), (None, "E_NVML_CRASH")])
def test_a_worker_that_was_taken_over_publishes_nothing(gpu_guest: MakeGuest, document: object, code: str) -> None:
    guest = gpu_guest()
    facts = guest.boot(2)
    answer = facts.worker.ask("cdi", 20, keep_going=False) if facts.worker else {}
    assert isinstance(answer, dict) and answer["document"]["kind"] == "nvidia.com/gpu"
    liar = Liar(guest.system, -1, -1, -1)
    liar.said = {"made": answer["made"], **({"document": document} if document else {})}
    with pytest.raises(NvrcError) as caught:
        cdi.run(guest.system, replace(facts, worker=liar))
    assert caught.value.code == code
    assert not (guest.root / "run/cdi/nvidia.yaml").exists()


def test_the_worker_has_no_folder_of_its_own_to_write_a_document_to() -> None:
    assert WORKER.view is not None and WORKER.view.own == ()
