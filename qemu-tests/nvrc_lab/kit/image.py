# SPDX-License-Identifier: Apache-2.0
"""The image that a machine boots: the factory's lab profile, or files that the caller names; and an agent put on top.

An agent goes into a second archive behind the first: the kernel unpacks both in order, so its file wins
(Documentation/driver-api/early-userspace/buffer-format.rst). The image itself is never changed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nvrc.vocabulary.paths import AGENT
from nvrc_lab.ground.errors import LabError

PROFILE = "lab"
_ELF_X86_64 = (b"\x7fELF\x02\x01", b"\x3e\x00")


@dataclass(frozen=True, slots=True, kw_only=True)
class BootFiles:
    kernel: Path
    initrd: Path


def build_image(profile: str = PROFILE, *, agent: Path | None = None, wait_s: float | None = None,
                options: Sequence[str] = ()) -> BootFiles:
    """Ask the factory, which does nothing when nothing changed. Its progress goes to our standard error.

    `options`: further words of the command.
    `wait_s`: how long to wait for another build that makes the same thing; None: as long as that takes.
    """
    argv = [sys.executable, "-m", "nvrc_build", "build", profile, "--json",
            *(["--agent", str(agent)] if agent else []), *([f"--wait={wait_s:g}"] if wait_s is not None else []),
            *options]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"the image {profile!r} could not be built", f"see above; by itself: nvrc-image build {profile}")
    return read_answer(done.stdout)


def read_answer(text: str) -> BootFiles:
    try:
        answer: object = json.loads(text)
    except ValueError:
        answer = None
    match answer:
        case {"kernel": str(kernel), "initrd": str(initrd)}:
            return BootFiles(kernel=Path(kernel), initrd=Path(initrd))
    raise LabError("the image factory did not answer with a kernel and an initrd", f"see its answer: {text[:200]!r}")


def check_files(files: BootFiles) -> None:
    for name, path in (("kernel", files.kernel), ("initrd", files.initrd)):
        if not path.is_file():
            raise LabError(f"the {name} {path} is not a file", f"name an existing one with --{name}")


def check_agent(agent: Path) -> None:
    """A program for this guest is an ELF file for x86-64; there is no shell to run anything else."""
    try:
        with agent.open("rb") as stream:
            head = stream.read(20)
    except OSError as err:
        raise LabError(f"the agent {agent} cannot be read ({err.strerror})", "give the path of a program") from err
    if not head.startswith(_ELF_X86_64[0]) or head[18:20] != _ELF_X86_64[1]:
        raise LabError(f"the agent {agent} is not an x86-64 ELF program",
                       "give a kata-agent built for x86_64 (static, or "
                       "with its libraries in the image)")


def put_agent(files: BootFiles, agent: Path, folder: Path) -> BootFiles:
    # The factory's modules take longer to load than all of the lab; only this path needs them.
    from nvrc_build.tree.tree import Origin, Tree  # noqa: PLC0415
    from nvrc_lab.kit.archives import join_archives  # noqa: PLC0415

    check_agent(agent)
    tree = Tree()
    tree.add_file(AGENT, agent, Origin(slice="agent given to the lab"), mode=0o755)
    folder.mkdir(parents=True, exist_ok=True)
    initrd = folder / "initrd-with-agent"
    join_archives([files.initrd], tree, initrd)
    return BootFiles(kernel=files.kernel, initrd=initrd)
