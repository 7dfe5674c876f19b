# SPDX-License-Identifier: Apache-2.0
"""OCI runtimes of the distribution start a container with our hooks in its config.json.

The container's program needs a library that only its cache leads to, and only through a link: it prints the answer
when both hooks did their work in the right place, and does not start without them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from namespace.hooks_cell import HOOK_COMMAND, build, in_cell, make_tree

pytestmark = pytest.mark.namespace

LINKS = ("create-symlinks", "--link", "libprobe.so.1.2::/opt/nv/libprobe.so.1")
OTHERS = (("enable-cuda-compat", "--host-driver-version=595.58.03"), ("disable-device-node-modification",),
          ("update-application-profile",), ("chmod", "--mode=755", "--path=/opt"))
CACHE = ("update-ldcache", "--folder", "/opt/nv")
SEPARATE = (LINKS, OTHERS[0], CACHE, *OTHERS[1:])
COMBINED = (("run", *LINKS, "--", *OTHERS[0], "--", *CACHE, "--", *OTHERS[1], "--", *OTHERS[2], "--", *OTHERS[3]),)


def library_files(program: Path) -> list[str]:
    """The loader and the C library that the program needs."""
    printed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    return [word for line in printed.splitlines() for word in line.split() if word.startswith("/") and "probe" not in word]


def write_config(top: Path, tree: Path, hooks: Sequence[Sequence[str]], *, readonly: bool) -> Path:
    config = {
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/probe"], "cwd": "/", "env": ["PATH=/"], "noNewPrivileges": True},
        "root": {"path": tree.name, "readonly": readonly},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                   {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}],
        "hooks": {"createContainer": [
            {"path": HOOK_COMMAND[0], "args": [*HOOK_COMMAND, *hook], "env": ["NVIDIA_CTK_DEBUG=false"]} for hook in hooks]},
        "annotations": {"run.oci.hooks.stderr": str(top / "hooks.log")},
        "linux": {"namespaces": [{"type": name} for name in ("pid", "mount", "ipc", "uts", "network")]},
    }
    (top / "config.json").write_text(json.dumps(config))
    return top


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A container whose program needs libprobe.so.1."""
    tree = make_tree(tmp_path, dict.fromkeys(("dev", "etc", "opt/nv", "proc", "run", "sys", "tmp")))
    library = build("hooks_probe_library.c", tree / "opt/nv/libprobe.so.1.2", "-shared", "-fPIC", "-Wl,-soname,libprobe.so.1")
    build("hooks_probe.c", tree / "probe", str(library))
    for name in library_files(tree / "probe"):
        (tree / name.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, tree / name.lstrip("/"))
    return tmp_path


def crun(bundle: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("crun")
    if program is None:
        pytest.skip("no crun")
    # crun refuses a machine with both generations of cgroups; in the cell there is one.
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"], check=True)
    name = f"hooks-{os.urandom(6).hex()}"
    return subprocess.run([program, f"--root={bundle}/state", "--cgroup-manager=disabled", "run", f"--bundle={bundle}", name],
                          capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("hooks", [SEPARATE, COMBINED], ids=["separate", "combined"])
def test_crun_runs_the_hooks(bundle: Path, hooks: Sequence[Sequence[str]]) -> None:
    write_config(bundle, bundle / "c", hooks, readonly=False)

    def body() -> None:
        done = crun(bundle)
        assert (done.returncode, done.stdout) == (0, "answer 42\n"), done.stderr + (bundle / "hooks.log").read_text()

    in_cell(body)
    assert os.readlink(bundle / "c/opt/nv/libprobe.so.1") == "libprobe.so.1.2"


def test_a_root_that_crun_sealed_before_the_hooks_is_named(bundle: Path) -> None:
    write_config(bundle, bundle / "c", COMBINED, readonly=True)

    def body() -> None:
        assert crun(bundle).returncode != 0
        said = (bundle / "hooks.log").read_text()
        assert "create-symlinks: /opt/nv/libprobe.so.1: Read-only file system (E_CDI_HOOK): start the container with" in said
        assert "update-ldcache: /etc/ld.so.conf: Read-only file system" in said

    in_cell(body)


def test_without_the_hooks_the_container_does_not_start(bundle: Path) -> None:
    write_config(bundle, bundle / "c", (), readonly=False)

    def body() -> None:
        done = crun(bundle)
        assert done.returncode == 127
        assert "libprobe.so.1: cannot open shared object file" in done.stderr

    in_cell(body)


def test_a_failing_hook_stops_crun(bundle: Path) -> None:
    (bundle / "c/etc/ld.so.conf").mkdir()
    write_config(bundle, bundle / "c", (CACHE,), readonly=False)

    def body() -> None:
        done = crun(bundle)
        assert done.returncode != 0
        assert "/etc/ld.so.conf: not a regular file (E_CDI_HOOK): " in (bundle / "hooks.log").read_text()

    in_cell(body)


def runc(bundle: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("runc")
    if program is None:
        pytest.skip("no runc")
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"], check=True)
    name = f"hooks-{os.urandom(6).hex()}"
    return subprocess.run([program, f"--root={bundle}/state", "run", f"--bundle={bundle}", name],
                          capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("readonly", [False, True], ids=["writable", "read-only"])
def test_runc_runs_the_hooks(bundle: Path, readonly: bool) -> None:
    write_config(bundle, bundle / "c", COMBINED, readonly=readonly)

    def body() -> None:
        done = runc(bundle)
        assert (done.returncode, done.stdout) == (0, "answer 42\n"), done.stderr

    in_cell(body)


def hands_variables(bundle: Path) -> bool:
    """Whether a hook without variables gets the container's: runc of Debian 13 does so, later ones do not."""
    write_config(bundle, bundle / "c", (), readonly=False)
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["env"].append("HANDED=yes")
    config["hooks"]["createContainer"] = [{"path": "/bin/sh", "args": ["sh", "-c", f"echo $HANDED > {bundle}/handed"]}]
    (bundle / "config.json").write_text(json.dumps(config))
    in_cell(lambda: runc(bundle))
    return (bundle / "handed").read_text() == "yes\n"


@pytest.mark.parametrize("is_naive", [True, False], ids=["naive", "ours"])
def test_runc_hands_the_variables_of_the_container_to_a_hook_without_its_own(bundle: Path, is_naive: bool) -> None:
    """CVE-2025-23266: the working directory of the hook is the container's root, so the container names its own file."""
    if is_naive and not hands_variables(bundle):
        pytest.skip("this runc gives a hook without variables none")
    build("hooks_preload.c", bundle / "c/evil.so", "-shared", "-fPIC")
    write_config(bundle, bundle / "c", SEPARATE, readonly=False)
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["env"] += ["LD_PRELOAD=/proc/self/cwd/evil.so", f"MARK={bundle}/mark"]
    for hook in config["hooks"]["createContainer"] if is_naive else ():
        del hook["env"]
    (bundle / "config.json").write_text(json.dumps(config))
    in_cell(lambda: runc(bundle))
    assert os.readlink(bundle / "c/opt/nv/libprobe.so.1") == "libprobe.so.1.2"
    assert (bundle / "mark").exists() is is_naive
