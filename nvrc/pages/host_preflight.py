# SPDX-License-Identifier: Apache-2.0
"""The page about the preflight, from its rows. Off the boot path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from nvrc.preflight.rows import ROWS

TEXT = """\
`nvrc doctor --host` reads a Kata host and says which condition for pods with GPUs is missing there, before a pod
fails. It writes nothing, wakes no device, needs none of NVIDIA's programs, and starts no program but containerd,
kubelet and QEMU with `--version`. As another user than root it says which rows it could not judge.

```sh
nvrc doctor --host                                        # this host
kubectl get node NODE -o json | nvrc doctor --host --node -     # with its labels and versions
nvrc doctor --host --json                                 # every row with its state, reason, remedy and command
nvrc doctor --host --root DIR                 # a copy of another host's /sys, /proc, /dev, /etc, /opt and /var
```

All that it knows it reads from files, so that a copy of a host is judged like the host itself. psutil and pyroute2,
which know the machine they run on and no other, are used by the [agent in the VM](metrics.md) alone.

A row is *good*, *bad*, a *warning*, *unknown* (what it reads is missing or may not be read), or *unused* (nothing on
this host depends on it). Exit status 1 if a row is bad or a warning, or the machine is not a Kata host, which takes
one line.

Classes are those that containerd names, each as its runtime merges it: the base file and every entry of `config.d` in
the order of names. Go sets fields of `[runtime]`, `[hypervisor.X]` and `[agent.X]` whole; Rust merges tables,
replaces the rest, and takes regular files only. A GPU's mode is read from its registers, only while it is awake: a
sleeping GPU is left asleep, and its mode is unknown.
"""


def render_preflight(table: Callable[[Sequence[str], Iterable[Sequence[str]]], list[str]]) -> str:
    """`table` makes one of its head and its rows."""
    rows = [(f"`{row.name}`", row.asks, _code(row.reads), row.reason, row.remedy, f"`{row.command}`") for row in ROWS]
    return "\n".join([
        "# Preflight of a host", "",
        "<!-- Written by `python -m nvrc.pages.reference`; edit the table in nvrc/preflight/rows.py instead. -->", "",
        TEXT, "## The rows", "",
        *table(("row", "asks whether", "reads", "because", "remedy", "command"), rows)]) + "\n"


def _code(reads: str) -> str:
    return f"`{reads}`" if "/" in reads and " " not in reads else reads
