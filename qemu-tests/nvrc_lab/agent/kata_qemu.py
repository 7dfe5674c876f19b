# SPDX-License-Identifier: Apache-2.0
"""QEMU and virtiofsd as Kata's Go runtime starts them, on a host without KVM, vhost-vsock or a virtiofsd of today.

The runtime is given a wrapper in the place of each. It changes what such a host cannot do and nothing else: emulation
and its processor for KVM's, memory that a process beside QEMU can share, the lab's vsock device behind a hybrid vsock.
The QEMU of Debian 12 comes with a virtiofsd whose options have other names.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from nvrc_lab.qemu.machine import TCG_CPU

VM_FOLDER = re.compile(r"(?P<folder>/[^,=]*)/(?:qmp|console|vhost-fs[^,/]*)\.sock")
HYBRID, DEVICE = "kata.hvsock", "vsock-device.sock"
_CACHE = {"never": "none"}


def emulate(argv: Sequence[str]) -> tuple[str, ...]:
    """The arguments of a machine for emulation. Whatever is not about KVM or memory stays as the runtime wrote it."""
    words = list(argv)
    is_shared = False
    for place, (option, value) in enumerate(pairwise(argv), 1):
        if option == "-machine":
            words[place] = re.sub(r",kernel_irqchip=[^,]*", "", value.replace("accel=kvm", "accel=tcg"))
        elif option == "-cpu":
            words[place] = TCG_CPU
        elif option == "-object" and value.startswith("memory-backend-"):
            words[place] = _shared_memory(_item(value, "id"), _item(value, "size"))
            is_shared = True
    if not is_shared:
        size = argv[argv.index("-m") + 1].partition(",")[0]
        words += ["-object", _shared_memory("shared", size), "-numa", "node,memdev=shared"]
    return tuple(words)


def _item(value: str, name: str) -> str:
    found = re.search(rf"(?:^|,){name}=([^,]*)", value)
    if found is None:
        raise ValueError(f"no {name} in {value!r}")
    return found[1]


def _shared_memory(ident: str, size: str) -> str:
    return f"memory-backend-memfd,id={ident},size={size},share=on"


def is_machine(argv: Sequence[str]) -> bool:
    """Or a question, such as -version."""
    return "-machine" in argv and "-m" in argv


def find_folder(argv: Sequence[str]) -> Path:
    """Where the runtime keeps the sockets of this VM."""
    for word in argv:
        if found := VM_FOLDER.search(word):
            return Path(found["folder"])
    raise ValueError("no socket of the runtime is named")


def translate(argv: Sequence[str]) -> tuple[str, ...]:
    """Options of today's virtiofsd in the words of QEMU's own."""
    words = ["-f", "-o", "sandbox=namespace"]
    for word in argv:
        name, _, value = word.partition("=")
        if name == "--shared-dir":
            words += ["-o", f"source={value}"]
        elif name == "--cache":
            words += ["-o", f"cache={_CACHE.get(value, value)}"]
        elif name == "--announce-submounts":
            words += ["-o", "announce_submounts"]
        elif name in ("--thread-pool-size", "--fd"):
            words.append(word)
    return tuple(words)


def run_qemu(program: str, argv: Sequence[str]) -> None:
    if not is_machine(argv):
        os.execv(program, [program, *argv])
    folder = find_folder(argv)
    device = folder / DEVICE
    beside = subprocess.Popen([sys.executable, "-m", "nvrc_lab.agent.hybrid_vsock", str(device), str(folder / HYBRID)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
    assert beside.stdout is not None
    beside.stdout.readline()
    words = [*emulate(argv), "-chardev", f"socket,id=hybrid,path={device}",
             "-device", "vhost-user-vsock-pci,chardev=hybrid"]
    os.execv(program, [program, *words])


def main(argv: Sequence[str] | None = None) -> int:
    kind, program, *words = sys.argv[1:] if argv is None else argv
    if kind == "qemu":
        run_qemu(program, words)
    os.execv(program, [program, *translate(words)])


if __name__ == "__main__":
    sys.exit(main())
