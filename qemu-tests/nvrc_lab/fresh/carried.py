# SPDX-License-Identifier: Apache-2.0
"""What a fresh root gets of this machine: the way to the network and to the package index, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOME = "/root"
# In every root made here, so that a fresh root inside a fresh root is noticed.
MARK = "etc/nvrc-fresh"
_NETWORK = ("etc/resolv.conf", "etc/hosts", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")
_OF_HOME = (".config/pip/pip.conf", ".pip/pip.conf")
_NAMED = ("PIP_CERT", "PIP_CONFIG_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
_PASSED = frozenset({"CI", "TERM", "NO_COLOR", *_NAMED, *(name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
                                                         for name in (upper, upper.lower()))})


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """Without settings of pip that name a place of this machine, such as a folder of wheels."""
    passed = {name: value for name, value in given.items()
              if name in _PASSED or (name.startswith("PIP_") and not value.startswith("/"))}
    return {"TERM": "dumb", **passed, "HOME": HOME, "PATH": PATH, "LANG": "C.UTF-8", "USER": "root"}


def carry(machine: Path, root: Path, given: Mapping[str, str]) -> None:
    """Copies of what links lead to, because that is not in there; who may read them stays as it is."""
    for source, target in _pairs(machine, root, given):
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copy(source, target)


def _pairs(machine: Path, root: Path, given: Mapping[str, str]) -> Iterator[tuple[Path, Path]]:
    named = {given.get(name, "").lstrip("/") for name in _NAMED if given.get(name, "").startswith("/")}
    yield from ((machine / name, root / name) for name in (*_NETWORK, *sorted(named)))
    home = given.get("HOME", HOME).lstrip("/")
    yield from ((machine / home / name, root / HOME.lstrip("/") / name) for name in _OF_HOME)
