# SPDX-License-Identifier: Apache-2.0
"""containerd's configuration with its imports, as far as Kata needs it: CDI, runtimes, annotations, version."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nvrc.preflight.host import Host, dig, rows, table
from nvrc.preflight.row import Judgement, bad, good, unknown, unused, warning

CONFIG = "/etc/containerd/config.toml"
# Of configuration version 3, and of 2.
CRI = ("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri")
NEEDED, FOR_EROFS = (2, 1), (2, 2)
PROGRAMS = ("/usr/bin/containerd", "/usr/local/bin/containerd", "/opt/kata/bin/containerd")
CDI = ("/var/run/cdi", "/etc/cdi")
KATA_DEPLOY = "/opt/kata/containerd/config.d"
NO_CONTAINERD = "no configuration of containerd on this host"


@dataclass(frozen=True, slots=True)
class Runtime:
    config: str
    is_rust: bool
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Config:
    documents: tuple[Mapping[str, object], ...]
    imports: tuple[str, ...]
    problems: tuple[str, ...]


def read_config(host: Host) -> Config:
    """The file and what it imports, later ones over earlier ones, each once."""
    documents, imports, problems = list[Mapping[str, object]](), list[str](), list[str]()
    todo, seen = [CONFIG], {CONFIG}
    for path in todo:  # which grows by what is imported
        document, wrong = host.toml(path)
        if wrong:
            problems.append(f"{path} {wrong}")
        if document is None:
            continue
        documents.append(document)
        for pattern in dict.fromkeys(map(str, rows(document.get("imports")))):
            imports.append(pattern)
            whole = pattern if pattern.startswith("/") else f"{path.rpartition('/')[0]}/{pattern}"
            new = [one for one in _matching(host, whole) if one not in seen]
            todo += new
            seen.update(new)
    return Config(tuple(documents), tuple(imports), tuple(problems))


def _matching(host: Host, pattern: str) -> list[str]:
    folder, _, name = pattern.rpartition("/")
    return [f"{folder}/{one}" for one in host.listing(folder) if fnmatch.fnmatchcase(one, name)]


def kata_runtimes(host: Host) -> Mapping[str, Runtime]:
    found: dict[str, Runtime] = {}
    for document in read_config(host).documents:
        for plugin in CRI:
            for name, row in table(dig(document, "plugins", plugin, "containerd", "runtimes")).items():
                if str(dig(row, "runtime_type")).startswith("io.containerd.kata"):
                    config = str(dig(row, "options", "ConfigPath") or "")
                    shim = str(dig(row, "runtime_path") or "")
                    found[name] = Runtime(config, "runtime-rs" in f"{config} {shim} {name}", table(row))
    return found


def judge_config(host: Host) -> Iterator[Judgement]:
    config = read_config(host)
    if not config.documents and not config.problems:
        yield unused(NO_CONTAINERD)
        return
    yield from (bad(problem) for problem in config.problems)
    if config.documents and not kata_runtimes(host):
        yield bad(f"containerd knows no runtime of Kata; {CONFIG} imports {', '.join(config.imports) or 'nothing'}")
    elif not config.problems:
        yield good(f"containerd knows {', '.join(kata_runtimes(host))}")


def judge_cdi(host: Host) -> Iterator[Judgement]:
    config = read_config(host)
    if not config.documents:
        yield unused(NO_CONTAINERD)
        return
    told = [value for value in _told(config, "enable_cdi") if isinstance(value, bool)]
    folders = [tuple(map(_folder, rows(value))) for value in _told(config, "cdi_spec_dirs") if value is not None]
    if folders and not {*folders[-1]} & {*CDI}:
        told_folders, ours = ", ".join(folders[-1]) or "nothing", " or ".join(CDI)
        yield bad(f"cdi_spec_dirs has {told_folders}; the node's documents are in {ours}")
        return
    version = version_of(host)
    if told:
        yield (
            good("enable_cdi = true")
            if told[-1]
            else bad("enable_cdi = false: devices of the pod never reach the runtime")
        )
    elif version is None:
        yield unknown("enable_cdi is not set, and the default depends on the version, which is unknown")
    else:
        yield (
            good("enable_cdi is on by default")
            if version >= (2, 0)
            else bad("enable_cdi is not set, and off by default before containerd 2.0")
        )


def _told(config: Config, key: str) -> Iterator[object]:
    return (dig(document, "plugins", plugin, key) for document in config.documents for plugin in CRI)


def _folder(path: object) -> str:
    """/run is /var/run."""
    place = str(path).rstrip("/")
    return f"/var{place}" if place.startswith("/run/") else place


def judge_annotations(host: Host) -> Iterator[Judgement]:
    found = kata_runtimes(host)
    if not found:
        yield unused("containerd knows no runtime of Kata")
        return
    is_good = True
    for name, one in found.items():
        if not any("io.katacontainers" in str(pattern) for pattern in rows(one.fields.get("pod_annotations"))):
            is_good = False
            yield warning(f"runtime {name} passes no io.katacontainers annotation of pods (pod_annotations)")
        if one.fields.get("privileged_without_host_devices") is not True:
            is_good = False
            yield warning(
                f"runtime {name} lacks privileged_without_host_devices = true: a privileged pod gets the host's devices"
            )
    if is_good:
        yield good(f"{len(found)} runtimes pass annotations and keep host devices back")


def version_of(host: Host) -> tuple[int, int] | None:
    told = str(dig(host.node, "status", "nodeInfo", "containerRuntimeVersion") or "")
    if not told.startswith("containerd://"):
        told = next((text for program in PROGRAMS if (text := host.version_of(program))), "")
    found = re.search(r"\bv?(\d{1,6})\.(\d{1,6})\.\d", told)
    return (int(found[1]), int(found[2])) if found else None


def judge_version(host: Host) -> Iterator[Judgement]:
    if not read_config(host).documents:
        yield unused(NO_CONTAINERD)
        return
    version = version_of(host)
    if version is None:
        yield unknown("containerd does not tell its version here; give --node")
        return
    text = ".".join(map(str, version))
    uses_erofs = [name for name, one in kata_runtimes(host).items() if one.fields.get("snapshotter") == "erofs"]
    if version < NEEDED:
        yield bad(f"containerd is {text}; Kata's GPU classes require 2.1 or newer")
    elif uses_erofs and version < FOR_EROFS:
        yield bad(f"containerd is {text}; the erofs snapshotter of {', '.join(uses_erofs)} requires 2.2 or newer")
    else:
        yield good(f"containerd is {text}")
