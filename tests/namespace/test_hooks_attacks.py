# SPDX-License-Identifier: Apache-2.0
"""Ways out of a container that go through mounts, namespaces and the environment, each tried on a naive hook first.

The classes: CVE-2024-0132 and CVE-2025-23359 (mounts onto links, and onto directories exchanged after the check),
CVE-2024-0135 (the machine's own program within the container's reach), CVE-2024-0136 (devices of the machine),
CVE-2024-0137 (network of the machine), CVE-2025-23266 (the container's variables in the hook's environment).
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from guest_cdi.hooks import ldconf, params
from guest_cdi.hooks.ldcache import update_cache
from guest_cdi.hooks.root import Root
from guest_cdi.lean import linux
from guest_cdi.lean.errors import CdiError
from namespace.hooks_cell import HOOK_COMMAND, build, in_cell, make_tree, mount_points

pytestmark = pytest.mark.namespace

PARAMS = b"ModifyDeviceFiles: 1\n"
COVERED = "/proc/version"
ROUNDS = 60


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    (tmp_path / "params").write_bytes(PARAMS)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/version").write_text("of the machine")
    return tmp_path / "outside"


def naive_cover(tree: Path, source: Path, window: Callable[[], None] = lambda: None) -> None:
    """Checks where the paths lead, then mounts by path."""
    scratch, covered = tree / "run/nvidia-ctk-hook", tree / "proc/version"
    scratch.mkdir(parents=True, exist_ok=True)
    window()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(scratch)], check=True)
    shutil.copy(source, scratch / "params")
    subprocess.run(["mount", "--bind", str(scratch / "params"), str(covered)], check=True)


def our_cover(tree: Path, source: Path) -> None:
    with Root(str(tree)) as root, suppress(OSError, CdiError):
        params.cover_params(root, str(source), COVERED)


def reached(outside: Path) -> list[str]:
    return [point for point in mount_points() if point.startswith(str(outside))] + sorted(os.listdir(outside))


HOSTILE_LINKS = {"scratch": "run", "covered": "proc"}


@pytest.mark.parametrize("name", HOSTILE_LINKS)
def test_mount_onto_a_link(tmp_path: Path, outside: Path, name: str) -> None:
    link = HOSTILE_LINKS[name]
    tree = make_tree(tmp_path, {other: None for other in HOSTILE_LINKS.values() if other != link})
    (tree / link).symlink_to(outside)
    (tree / "proc/version").touch() if link != "proc" else None

    def naive() -> None:
        naive_cover(tree, tmp_path / "params")
        assert reached(outside) != ["version"]

    def ours() -> None:
        if link != "proc":
            subprocess.run(["mount", "-t", "proc", "proc", str(tree / "proc")], check=True)
        our_cover(tree, tmp_path / "params")
        assert reached(outside) == ["version"]

    in_cell(naive)
    shutil.rmtree(outside / "nvidia-ctk-hook", ignore_errors=True)
    in_cell(ours)


def exchange_of(first: Path, second: Path) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)
    pair = os.fsencode(first), os.fsencode(second)

    def swap() -> None:
        assert libc.renameat2(-100, pair[0], -100, pair[1], 2) == 0
    return swap


@contextmanager
def swapping(swap: Callable[[], None]) -> Iterator[None]:
    """Exchanges again and again in another thread, at irregular times."""
    chance, done = random.Random(7), threading.Event()

    def work() -> None:
        while not done.wait(chance.random() * 0.002):
            swap()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_mount_onto_a_directory_exchanged_after_the_check(tmp_path: Path, outside: Path) -> None:
    tree = make_tree(tmp_path, {"run": None, "proc/version": ""})
    (tree / "evil").symlink_to(outside)
    (outside / "nvidia-ctk-hook").mkdir()
    swap = exchange_of(tree / "run", tree / "evil")

    def naive() -> None:
        naive_cover(tree, tmp_path / "params", window=swap)
        assert any(point.startswith(str(outside)) for point in mount_points())

    def ours() -> None:
        subprocess.run(["mount", "-t", "proc", "proc", str(tree / "proc")], check=True)
        with swapping(swap):
            for _ in range(ROUNDS):
                our_cover(tree, tmp_path / "params")
                with suppress(OSError):
                    linux.detach_mount(f"{tree}{COVERED}")
        assert reached(outside) == ["nvidia-ctk-hook", "version"]
        assert any("nvidia-ctk-hook" in point for point in mount_points())

    in_cell(naive)
    if (tree / "run").is_symlink():
        swap()
    in_cell(ours)


def test_configuration_directory_exchanged_while_the_cache_is_made(tmp_path: Path, outside: Path) -> None:
    tree = make_tree(tmp_path, {"proc": None, "etc": None})
    (tree / "evil").symlink_to(outside)
    swap = exchange_of(tree / "etc", tree / "evil")

    def is_made() -> bool:
        with Root(str(tree)) as root, suppress(OSError, CdiError):
            ldconf.configure(root, ("/opt/nv",), "x86_64")
            return True
        return False

    def body() -> None:
        assert is_made()
        swap()
        assert not is_made()
        swap()
        with swapping(swap):
            for _ in range(ROUNDS):
                is_made()
        assert reached(outside) == ["version"]

    in_cell(body)


@pytest.fixture(scope="module")
def spy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("hooks_spy.c", tmp_path_factory.mktemp("spy") / "ldconfig", "-static")


def naive_ldconfig(tree: Path, program: Path) -> None:
    """Brings the machine's ldconfig into the container by a bind mount, changes root, runs it with what is there."""
    (tree / "ldconfig").touch()
    subprocess.run(["mount", "--bind", str(program), str(tree / "ldconfig")], check=True)
    subprocess.run(["chroot", str(tree), "/ldconfig", "-C", "/etc/ld.so.cache"], check=True)


def test_ldconfig_within_reach_of_the_container(tmp_path: Path, spy: Path) -> None:
    tree = make_tree(tmp_path, {"proc": None, "etc": None})
    program, network = f"inode {spy.stat().st_dev}:{spy.stat().st_ino}", f"net {os.readlink('/proc/self/ns/net')}"
    hostile = {"LD_PRELOAD": "", "LD_LIBRARY_PATH": "/evil"}

    def naive() -> None:
        subprocess.run(["mount", "-t", "proc", "proc", str(tree / "proc")], check=True)
        os.environ.update(hostile)
        naive_ldconfig(tree, spy)

    def ours() -> None:
        subprocess.run(["mount", "-t", "proc", "proc", str(tree / "proc")], check=True)
        os.environ.update(hostile)
        with Root(str(tree)) as root:
            update_cache((), str(spy), root)

    in_cell(naive, keep_network=True)
    seen = (tree / "spy").read_text().splitlines()
    (tree / "spy-disk").unlink()
    assert {program, network, "mknod done", "chroot done", "environment LD_LIBRARY_PATH=/evil"} <= set(seen)

    in_cell(ours, keep_network=True)
    seen = (tree / "spy").read_text().splitlines()
    assert not {program, network, "mknod done", "chroot done"} & set(seen)
    assert not [line for line in seen if line.startswith("environment")]
    assert not (tree / "spy-disk").exists()


def start_as_runtime(command: Sequence[str], hook_env: Sequence[str], container_env: Mapping[str, str], state: str) -> None:
    """As runc starts a createContainer hook: a hook without variables of its own inherits the container's."""
    own = dict(entry.partition("=")[::2] for entry in hook_env)
    subprocess.run(command, env=own or dict(container_env), input=state, text=True, check=True, timeout=60)


def test_library_preloaded_by_the_container(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, {})
    evil = build("hooks_preload.c", tree / "evil.so", "-shared", "-fPIC")
    mark = tmp_path / "mark"
    container_env = {"LD_PRELOAD": str(evil), "MARK": str(mark)}
    command = [*HOOK_COMMAND, "create-symlinks", "--link", "t::/l"]
    state = f'{{"root": "{tree}"}}'

    start_as_runtime(command, [], container_env, state)
    assert mark.exists()  # the loader runs it before any program can defend itself ...

    mark.unlink()
    start_as_runtime(command, ["NVIDIA_CTK_DEBUG=false"], container_env, state)
    assert not mark.exists()  # ... so the document gives each hook an environment of its own
    assert os.readlink(tree / "l") == "t"
