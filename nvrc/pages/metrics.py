# SPDX-License-Identifier: Apache-2.0
"""The page about metrics, from the table of families. Off the boot path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from nvrc.beside.families import FAMILIES

TEXT = """\
A VM serves metrics of itself when its command line asks for them: `nvrc.metrics=9400` (a port; off without the
parameter). They are at `http://POD-ADDRESS:9400/metrics`, in Prometheus's text format 0.0.4, because a port of the
guest is a port of its pod. All containers of the pod, and all programs that reach its address, can read them.

```yaml
metadata:
  annotations: {prometheus.io/scrape: "true", prometheus.io/port: "9400"}
```

They come from a process of its own, `nvrc-metrics`, which PID 1 starts when the machine is ready, confines
([privileges](privileges.md)) and restarts a few times like any helper. It is the slice `metrics` of an image
(0.6 MB), which all images with an agent have but the confidential ones: their policy denies the parameter, and who
builds one with metrics adds the slice and allows it. Where the process cannot be started, or ends for good, the VM is
degraded by `E_METRICS`, and nothing else happens.

NVIDIA's library is asked every 15 seconds by another process, which is killed when it does not answer within 10; what
it told last is served with its age. A value that a source does not give is left out and never 0. Labels of a GPU are
its UUID (`gpu`), its bus id in the guest, and its serial number, by which the host knows the board.

A page is the same for all who ask within half a second, so a flood of scrapes costs PID 1 two answers a second. Of
links 256 are told at most. Numbers with which NVML says "not available" are left out.

Both processes together add 23.2 MB to the memory of a VM, with two GPUs as with eight: proportional set sizes in the
lab, where a page that several processes have counts for each by its part, after scrapes; a test holds them below 25 MB.
NVIDIA's own library takes 0.6 MB more than the lab's stand-in: libnvidia-ml.so.550.163.01, loaded and started
(nvmlInit, which finds no driver) by these processes of an image; what it takes for GPUs that it finds comes on top.
Starting, it writes zeros over a table of 14 MB, which the process gives back; the stand-in does the same in that test.
Both took 0.04 % of a core for eight GPUs that were scraped every 15 seconds (three minutes, the stand-in, the build
machine's own processor).

Alerts and a dashboard on these names: [fleet](fleet.md).
"""


def render_metrics(table: Callable[[Sequence[str], Iterable[Sequence[str]]], list[str]]) -> str:
    """`table` makes one of its head and its rows."""
    rows = [(f"`{row.name}`", row.kind, " ".join(f"`{label}`" for label in row.labels), row.help) for row in FAMILIES]
    return "\n".join([
        "# Metrics", "",
        "<!-- Written by `python -m nvrc.pages.reference`; edit the table in nvrc/beside/families.py instead. -->", "",
        TEXT, "## The table", "", *table(("name", "type", "labels", "what it is"), rows)]) + "\n"
