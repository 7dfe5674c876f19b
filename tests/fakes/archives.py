# SPDX-License-Identifier: Apache-2.0
"""Debian packages and signed repositories made for a test, in the form that vendors publish: a folder with an index."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from nvrc_build.supply.archives import index_packages

Content = bytes | str  # a file, or a link when it is text


def make_package(folder: Path, name: str, version: str, files: Mapping[str, Content], *, depends: str = "") -> Path:
    """A real package; programs are those in bin/ and sbin/."""
    tree = folder / f".{name}_{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    fields = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: x <x@x.test>\nDescription: x\n"
    (tree / "DEBIAN/control").write_text(fields + (f"Depends: {depends}\n" if depends else ""))
    for path, content in files.items():
        file = tree / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            file.symlink_to(content)
        else:
            file.write_bytes(content)
            file.chmod(0o755 if file.parent.name in ("bin", "sbin") else 0o644)
    deb = folder / f"{name}_{version}_amd64.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, deb], check=True, capture_output=True)
    shutil.rmtree(tree)
    return deb


def make_key(home: Path) -> Path:
    """A key pair that lives below `home`; its public part, armoured, under a vendor's kind of name."""
    home.mkdir(mode=0o700)
    _gpg(home, "--quick-generate-key", "archive@x.test", "ed25519", "sign", "never")
    key = home / "key.pub"
    key.write_bytes(_gpg(home, "--armor", "--export"))
    return key


def sign(folder: Path, home: Path) -> None:
    """Packages, Release and InRelease at the top of the folder: what apt calls a flat repository."""
    index = index_packages(folder).replace("Filename: pool/", "Filename: ./").encode()
    (folder / "Packages").write_bytes(index)
    digest = hashlib.sha256(index).hexdigest()
    release = f"Date: Wed, 01 Jan 2025 00:00:00 UTC\nSuite: x\nSHA256:\n {digest} {len(index)} Packages\n"
    (folder / "Release").write_text(release)
    (folder / "InRelease").write_bytes(_gpg(home, "--clearsign", "--output", "-", str(folder / "Release")))


def _gpg(home: Path, *words: str) -> bytes:
    argv = ["gpg", "--homedir", str(home), "--batch", "--yes", "--no-tty", "--passphrase", "", "--pinentry-mode",
            "loopback", *words]
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def stop_agent(home: Path) -> None:
    """gpg leaves a process behind that serves its home."""
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False, capture_output=True)
