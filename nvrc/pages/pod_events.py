# SPDX-License-Identifier: Apache-2.0
"""docs/pod-events.md, written from the tables. `python -m nvrc.pages.pod_events` prints it. Off the boot path."""

from __future__ import annotations

import sys

from guest_cdi.lean.errors import CODES as CDI_CODES
from nvrc.pid1.ending import ENDING
from nvrc.vocabulary.console import refusal
from nvrc.vocabulary.errors import CODES, FailureCode
from nvrc.vocabulary.trouble import Trouble

EVENT, MESSAGE, NOTHING = "event", "termination message", "nothing"

# Where a code is seen that does not end a boot, or may also come later; all others are events of the pod.
ELSEWHERE = {
    "E_AGENT_EXIT": (EVENT, "without a sandbox; later the runtime reports that the agent's connection closed"),
    "E_AGENT_STOP": (NOTHING, "the VM was told to stop"),
    "E_SERVICE_LOST": (f"{EVENT}, {MESSAGE}", "an event before the first sandbox; a message later, with nvrc.strict; "
                                              "otherwise the VM runs on, degraded"),
    "E_GPU_LOST": (NOTHING, "the VM runs on, degraded: nvrc status in the VM, and the console"),
    "E_GPU_FAULT": (NOTHING, "the VM runs on, degraded: nvrc status in the VM, and the console"),
    "E_DCGM": (EVENT, "with nvrc.strict; otherwise the boot goes on, degraded"),
}

_HEAD = """\
# What the pod says

<!-- Written by `python -m nvrc.pages.pod_events`; edit nvrc/vocabulary/errors.py and nvrc/pid1/ending.py instead. -->

A VM that cannot start its agent says why where a pod's author looks. `kubectl describe pod` shows it as an event,
some seconds after the failure and with an unmodified Kata runtime:

    Warning  FailedCreatePodSandBox  kubelet  Failed to create pod sandbox: rpc error: code = Unknown desc = failed to
    create containerd task: failed to create shim task: Failed to Check if grpc server is working: rpc error: code =
    FailedPrecondition desc = guest init: E_GPU_ATTACH in step persistenced: 1 of 2 GPUs attached; GPU 0000:41:00.0
    failed to attach (hint: read the kernel's NVRM lines for that bus id; reset the GPU from the host)

What comes before `guest init:` is the runtime's and containerd's, and differs between their versions. What follows is
one line of printable ASCII, at most 1 KiB: `guest init: CODE in step STEP: what happened (hint: what to do)`. Match
on the code.

## How it gets there

Kata's runtime dials port 1024 of the VM's vsock until an agent answers, for up to `dial_timeout` (20 minutes in some
runtime classes). When a boot has failed, and also when the agent has ended without ever having had a sandbox, PID 1
listens there in the agent's place. Every request is answered with the status FAILED_PRECONDITION and that line. The
VM ends as soon as the runtime has the answer and has closed its connection, and after `nvrc.timeout.farewell` seconds
at the latest. `nvrc.farewell=off` switches it off.

Of a request only the ten bytes of its header are read. Sizes, connections, answers and time are bounded, and nothing
that is sent is interpreted. A failure so early that the vsock driver is not loaded loads it first, unless module
loading is locked. A VM without a vsock device ends without waiting.

## The order of a failing machine

"""

_LATER = """\

Each is done whatever became of the one before. Daemons stop before the farewell, because the runtime ends the VM as
soon as it has its answer.

## After the hand-over

A failure that PID 1 decides itself while containers run is written to their termination messages: `E_SERVICE_LOST`
with `nvrc.strict`, an error in PID 1, or with `nvrc.agent.early` whatever ends the boot beside them. `kubectl describe
pod` shows it as `Message:` below `Last State: Terminated`. This takes a runtime that shares the file of
`/dev/termination-log` with the VM, as Kata's Go runtime does with virtio-fs. A message that the container wrote is
never changed, links are not followed, and a file system that does not answer costs three seconds. What only degrades
the VM is not written there: the container still runs, and the message is its own. `nvrc.farewell=off` switches this
off as well.

## What is lost

Nothing relies on what follows the agent's end. Kata's Go runtime kills the VM as soon as its connection to the agent
closes:

- **The agent ends or is killed under containers.** The container ends with status 255 and the runtime says that the
  connection was closed. The console's `FATAL code=E_AGENT_EXIT` may or may not be read before the VM is killed.
- **An orderly stop.** The runtime kills the VM some 30 ms after the sandbox was destroyed. `END`, the stop of the
  daemons and the last report are often not seen. PID 1 leaves it `nvrc.timeout.host_end` (2 s) for that before it
  powers off itself, because a VM that ends first makes the runtime's own clean-up fail.
- **A kernel that panics, or an image that does not start.** No program is left to answer. The runtime waits for its
  whole `dial_timeout`: set it to 120 in the runtime's configuration. To see the console in containerd's log, set
  `enable_debug = true` in the sections `[hypervisor.qemu]` and `[runtime]` and containerd's level to debug.

## Confidential VMs

The farewell is on by default there, too. It tells the host nothing that the console has not told it: the same verdict
goes to the serial console, which the host reads. A host could also withhold or invent the line; attestation does not
rely on it. To let the host learn nothing, fix it in [policy](policy.md) and leave the
console out:

```toml
[pin]
nvrc.farewell = "off"
```

A pin holds even for a command line that is refused as a whole. Where the command line or the policy cannot be read at
all, the defaults hold: on, for 10 seconds.

## What each code says

"""


def render() -> str:
    ending = (f"| {number} | {row.name} | {row.tells} |" for number, row in enumerate(ENDING, 1))
    of_cdi = (FailureCode(*row)._replace(step="cdi") for row in CDI_CODES if row.step in ("any", "generate", "inject"))
    codes = (*CODES, *of_cdi)
    return "\n".join([
        _HEAD + "| | name | what is done |", "| --- | --- | --- |", *ending, _LATER
        + "Text in angle brackets stands for what is particular to the case. Who acts: see "
        "[failure-codes.md](failure-codes.md).", "",
        "| code | shown as | what `kubectl describe` says |", "| --- | --- | --- |", *map(_row, codes),
    ]) + "\n"


def _row(row: FailureCode) -> str:
    where, note = ELSEWHERE.get(row.code, (EVENT, ""))
    step = "<step>" if row.step == "any" else row.step
    said = refusal(Trouble(code=row.code, step=step, what=f"<{row.meaning}>", hint=row.remedy))
    text = note if where == NOTHING else f"`{said}`" + (f"<br>({note})" if note else "")
    return f"| `{row.code}` | {where} | {text} |"


if __name__ == "__main__":
    sys.stdout.write(render())
