# SPDX-License-Identifier: Apache-2.0
"""The document for the real driver: valid, equal to the reference's where that is at hand, and enough for CUDA."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpu.gathered import Acceptance

pytestmark = pytest.mark.gpu

REFERENCE = os.environ.get("NVRC_NVIDIA_CTK", "") or shutil.which("nvidia-ctk") or ""
RUNTIME = shutil.which("crun") or shutil.which("runc") or ""
CUDA_CALL = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
assert cuda.cuInit(0) == 0, "cuInit"
count = ctypes.c_int()
assert cuda.cuDeviceGetCount(ctypes.byref(count)) == 0, "cuDeviceGetCount"
context, device = ctypes.c_void_p(), ctypes.c_int()
assert cuda.cuDeviceGet(ctypes.byref(device), 0) == 0, "cuDeviceGet"
assert cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device) == 0, "cuCtxCreate"
print("devices", count.value)
"""


def guest_cdi(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "guest_cdi", *words], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=120, check=False)


@pytest.fixture(scope="session")
def hook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our hooks under the name that runtimes know, for a machine that has none."""
    path = tmp_path_factory.mktemp("hook") / "nvidia-cdi-hook"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m guest_cdi hook "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="session")
def document(root: str, hook: Path, acceptance: Acceptance, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cdi") / "nvidia.yaml"
    place = ["--nvidia-cdi-hook-path", str(hook)] if root == "/" else ["--root", root]
    began_s = time.monotonic()
    done = guest_cdi("generate", "--output", str(path), *place)
    took_ms = round(1000 * (time.monotonic() - began_s), 1)
    text = path.read_text() if path.exists() else ""
    acceptance.facts["cdi"] = {"status": done.returncode, "stderr": done.stderr, "took_ms": took_ms, "document": text}
    assert done.returncode == 0, done.stderr
    return path


def test_the_document_is_valid(document: Path) -> None:
    done = guest_cdi("validate", str(document))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_writes_the_same(root: str, acceptance: Acceptance) -> None:
    if not REFERENCE or root != "/":
        pytest.skip("nvidia-ctk is not at hand (NVRC_NVIDIA_CTK), or this is a described machine")
    version = subprocess.run([REFERENCE, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    theirs = subprocess.run([REFERENCE, "cdi", "generate"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            timeout=120, check=True).stdout
    ours = guest_cdi("generate", "--compat", "nvidia-ctk").stdout
    changes = list(difflib.unified_diff(theirs.splitlines(), ours.splitlines(), "nvidia-ctk", "guest-cdi", n=1, lineterm=""))
    acceptance.facts["reference"] = {"version": version.strip(), "document": theirs, "differences": changes}
    assert changes == [], "\n".join(changes[:40])


def test_a_container_computes(root: str, acceptance: Acceptance, document: Path, tmp_path: Path) -> None:
    """The host's /usr read-only, an empty /etc, and what our document adds, hooks too; the program asks for a context."""
    if not RUNTIME or root != "/" or os.geteuid() != 0:
        pytest.skip("no crun or runc, not root, or a described machine")
    bundle = make_bundle(tmp_path / "bundle")
    injected = guest_cdi("inject", "--bundle", str(bundle), "--spec", str(document), "nvidia.com/gpu=all")
    assert injected.returncode == 0, injected.stderr
    began_s = time.monotonic()
    done = subprocess.run([RUNTIME, "run", "--bundle", str(bundle), f"nvrc-acceptance-{os.getpid()}"], capture_output=True,
                          stdin=subprocess.DEVNULL, text=True, timeout=120, check=False)
    acceptance.facts["container"] = {"runtime": RUNTIME, "status": done.returncode, "stdout": done.stdout,
                                     "stderr": done.stderr, "took_ms": round(1000 * (time.monotonic() - began_s), 1)}
    assert done.returncode == 0 and done.stdout.startswith("devices "), done.stderr[-400:]


def make_bundle(folder: Path) -> Path:
    rootfs = folder / "rootfs"
    for name in ("dev", "etc", "proc", "run", "sys", "tmp", "usr"):
        (rootfs / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (rootfs / name).symlink_to(f"usr/{name}")
    subprocess.run([RUNTIME, "spec"], cwd=folder, capture_output=True, check=True, timeout=30)
    spec = json.loads((folder / "config.json").read_text())
    spec["process"] |= {"terminal": False, "args": ["/usr/bin/python3", "-c", CUDA_CALL]}
    spec["root"] = {"path": "rootfs", "readonly": False}
    spec["mounts"].append({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]})
    (folder / "config.json").write_text(json.dumps(spec))
    return folder
