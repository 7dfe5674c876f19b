# SPDX-License-Identifier: Apache-2.0
"""Faults by name: what each does to the virtual hardware, the stand-ins and the image. A table; pure.

A fault never touches the product: it is a key of a function (lab_keys.c), a line for the stand-in programs (nvidia.c),
a directive for the stand-in NVML or NSCQ, a file that is missing, or a hand that breaks something at a given moment
(prober.c).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from nvrc_lab.scenario.hardware import MANAGEMENT_BUS, Placed, place_gpus
from nvrc_lab.scenario.values import Fault, Scenario

AGENT = "/usr/bin/kata-agent"
NOWHERE = "/lab/nothing"
PROGRAMS: Mapping[str, str] = {
    "nvidia-persistenced": "/usr/bin/nvidia-persistenced", "nv-fabricmanager": "/usr/bin/nv-fabricmanager",
    "nvlsm": "/usr/sbin/nvlsm", "nv-hostengine": "/usr/bin/nv-hostengine", "dcgm-exporter": "/usr/bin/dcgm-exporter",
}
# For a busy host, too; a hand whose machine is gone goes with it.
WAIT_MS = 120000
# A hand strikes when something has happened, never after so many milliseconds: on a busy host that is another phase.
# What has happened the init says itself: with this a daemon is up for the init, and the boot goes on.
GOES_ON: Mapping[str, str] = {
    "nvidia-persistenced": f"heard {WAIT_MS} nvrc: step persistenced ok",
    "nv-fabricmanager": f"heard {WAIT_MS} nvrc: step fabric ok",
    "nvlsm": f"await nv-fabricmanager {WAIT_MS}",  # one step starts both, one after the other
    "nv-hostengine": f"heard {WAIT_MS} nvrc: step dcgm ok", "dcgm-exporter": f"heard {WAIT_MS} nvrc: step dcgm ok",
}
BOOT_OVER = f"heard {WAIT_MS} nvrc: READY"
PERSISTENCED, PERSISTENCED_PID = "nvidia-persistenced", "/run/nvrc/nvidia-persistenced/nvidia-persistenced.pid"
MODULES = ("nvidia", "nvidia-uvm", "mlx5_core", "mlx5_ib")
# With this file /lab/init mounts /dev before the init and the hand start.
DEVICES_FIRST = "/lab/devtmpfs"
EARLY_CLIENT_DONE, NVML = "/lab/early-client", "/etc/nvml-mock.conf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What a scenario's faults come to. `scripts` are texts that may be executed; `links` replace files by links that
    lead nowhere; `without` names libraries; `parts` are parts of the kit that lie over all others.
    """

    keys: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    programs: tuple[str, ...] = ()
    nvml: tuple[str, ...] = ()
    nscq: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


Make = Callable[[Fault, Placed | None], Effects]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    about: str
    needs: tuple[str, ...]
    make: Make


def _gpu_key(key: str, text: str = "") -> Make:
    """`text` or the fault's value for one key of the GPU's function."""
    return lambda fault, gpu: Effects(keys={_bdf(gpu): {key: text or fault.value}})


def _bdf(gpu: Placed | None) -> str:
    assert gpu is not None  # the row needs a GPU, and check_fault has seen to it
    return gpu.bdf


def _program(word: str, *, fixed: str = "") -> Make:
    return lambda fault, _gpu: Effects(programs=(f"{fault.program}.{word}={fixed or fault.value}",))


def _nvml(verb: str) -> Make:
    return lambda fault, gpu: Effects(nvml=(" ".join(
        [verb, fault.call, *([f"gpu={gpu.index}"] if gpu else []), *([fault.value] if fault.value else [])]),))


def _missing_program(fault: Fault, _gpu: Placed | None) -> Effects:
    return Effects(links={PROGRAMS.get(fault.program, fault.program): NOWHERE})


# When a daemon is struck, by the word of scenarios: what the hand waits for. Before it is ready a program waits to be
# struck; at work on a GPU it is for as long as the GPU takes, which begins when its PID file is there.
PHASES: Mapping[str, Callable[[str], tuple[str, ...]]] = {
    "starting": lambda program: (f"await {program} {WAIT_MS}", "sleep 300"),
    "attaching": lambda _program: (f"wait {PERSISTENCED_PID} {WAIT_MS}", "sleep 1000"),
    "booting": lambda program: (GOES_ON[program],),
    "running": lambda _program: (BOOT_OVER,),
    "restarted": lambda program: (f"heard {WAIT_MS} nvrc: warn {program} was restarted",),
}
# The faults that strike so, by the signal. Nobody that is killed can say goodbye; SIGTERM ends all daemons with 0.
SIGNALS: Mapping[str, int] = {"program-killed": 9, "program-crashes": 11, "program-exits": 15}


def _strike(fault: Fault, _gpu: Placed | None) -> Effects:
    held = (f"{fault.program}.hang=1",) if fault.value == "starting" else ()
    return Effects(programs=held, events=(*PHASES[fault.value](fault.program),
                                          f"kill {fault.program} {SIGNALS[fault.name]}"))


def _attach_later(_fault: Fault, gpu: Placed | None) -> Effects:
    return Effects(events=(BOOT_OVER, f"write /proc/lab-pci set {_bdf(gpu)} faults 1"))


def _early_client(_fault: Fault, _gpu: Placed | None) -> Effects:
    """nvidia-smi while nvidia-persistenced is still on its way: on a confidential GPU it takes the one attach."""
    return Effects(programs=(f"{PERSISTENCED}.after={EARLY_CLIENT_DONE}",),
                   events=(f"wait /proc/driver/nvidia/version {WAIT_MS}", "run /usr/bin/nvidia-smi -L",
                           f"write {EARLY_CLIENT_DONE} done"))


def _lost(_fault: Fault, gpu: Placed | None) -> Effects:
    """After the boot, when the agent runs already."""
    bdf = _bdf(gpu)
    return Effects(events=(BOOT_OVER, f"write /proc/lab-pci off {bdf}",
                           f"write /proc/nvidia-lab xid {bdf} 79 pid=0, name=, GPU has fallen off the bus."))


def _xid(fault: Fault, gpu: Placed | None) -> Effects:
    return Effects(events=(BOOT_OVER, f"write /proc/nvidia-lab xid {_bdf(gpu)} {fault.value} told by the lab"))


def _driver_line(fault: Fault, _gpu: Placed | None) -> Effects:
    return Effects(events=(f"wait /proc/nvidia-lab {WAIT_MS}", f"write /proc/nvidia-lab line {fault.value}"))


def _run_full(_fault: Fault, _gpu: Placed | None) -> Effects:
    return Effects(events=(f"wait /run/nvrc {WAIT_MS}", "shrink /run 256k", f"fill /run/lab-fill {WAIT_MS}"))


def _node_taken(fault: Fault, _gpu: Placed | None) -> Effects:
    """/dev is there before the init, and something else in the place of the node."""
    return Effects(texts={DEVICES_FIRST: ""}, events=(f"mount tmpfs {fault.value}",))


def _log_taken(_fault: Fault, _gpu: Placed | None) -> Effects:
    return Effects(texts={DEVICES_FIRST: ""}, events=("syslog",))


def _sysctls_hidden(_fault: Fault, _gpu: Placed | None) -> Effects:
    """/proc is there before the init, and nothing in one folder of it."""
    return Effects(events=("mount proc /proc", "mount tmpfs /proc/sys/fs"))


def _root_busy(_fault: Fault, _gpu: Placed | None) -> Effects:
    """The hand has it for as long as it lives."""
    return Effects(texts={"/lab/held": ""}, events=("hold /lab/held", f"sleep {WAIT_MS}"))


def _module(damage: str) -> Make:
    return lambda fault, _gpu: Effects(parts=(f"module@{fault.value}.{damage}",))


def _nic_key(key: str, text: str) -> Make:
    return lambda fault, _gpu: Effects(keys={f"nic {int(fault.value)}": {key: text}})


def _nvml_line(text: str, *when: str) -> Make:
    """NVIDIA's library says something else of the GPU from a moment of the boot on."""
    def make(fault: Fault, gpu: Placed | None) -> Effects:
        assert gpu is not None  # the row needs a GPU, and check_fault has seen to it
        waits = tuple(line.format(value=fault.value) for line in when)
        return Effects(events=(*waits, f"append {NVML} set gpu={gpu.index} {text}"))

    return make


def _silent_vpd(fault: Fault, _gpu: Placed | None) -> Effects:
    return Effects(keys={f"0000:{MANAGEMENT_BUS:02x}:{int(fault.value):02x}.0": {"vpd-error": "1"}})


FAULTS: Mapping[str, Row] = {
    "attach-fails": Row(about="the GPU takes its time and then does not attach", needs=("gpu",),
                        make=_gpu_key("faults", "attach")),
    "attach-hangs": Row(about="an attach returns only when its process is killed; no other GPU attaches meanwhile",
                        needs=("gpu",), make=_gpu_key("faults", "hang")),
    "attach-slow": Row(about="the GPU takes `value` ms to attach", needs=("gpu", "value"), make=_gpu_key("attach_ms")),
    "attach-spent": Row(about="the GPU was attached before this machine started: a confidential one cannot be again",
                        needs=("gpu",), make=_gpu_key("state", "1")),
    "probe-refused": Row(about="the driver refuses the GPU when it loads", needs=("gpu",),
                         make=_gpu_key("faults", "probe")),
    "chip-unknown": Row(about="the GPU's register that names the chip reads `value` (hexadecimal); for NVIDIA's driver",
                        needs=("gpu", "value"), make=_gpu_key("boot42")),
    "nvlink-waits": Row(about="the GPU attaches only with NVLink disabled", needs=("gpu",),
                        make=_gpu_key("faults", "nvlink")),
    "vpd-silent": Row(about="management function number `value` does not answer for its VPD", needs=("value",),
                      make=_silent_vpd),
    "nic-vpd-silent": Row(about="network function number `value` does not answer for its VPD", needs=("value",),
                          make=_nic_key("vpd-error", "1")),
    "nic-no-driver": Row(about="the driver refuses network function number `value`", needs=("value",),
                         make=_nic_key("faults", "probe")),
    "nic-no-gid": Row(about="the port of network function number `value` has no GID", needs=("value",),
                      make=_nic_key("faults", "gid")),
    "fabric-slow": Row(about="the GPU is registered with the NVLink fabric `value` ms after nvidia-persistenced is up",
                       needs=("gpu", "value"),
                       make=_nvml_line("fabric=completed", GOES_ON[PERSISTENCED], "sleep {value}")),
    "fabric-lost": Row(about="the GPU leaves the NVLink fabric after the boot", needs=("gpu",),
                       make=_nvml_line("fabric=in-progress", BOOT_OVER)),
    "early-client": Row(about="a program opens the GPUs before nvidia-persistenced does", needs=(), make=_early_client),
    "program-slow": Row(about="the program waits `value` ms first", needs=("program", "value"),
                        make=_program("slow_ms")),
    "program-fails": Row(about="the program complains and ends with status `value`", needs=("program", "value"),
                         make=_program("fail")),
    "program-lies": Row(about="the program prints `value` as an error and ends with 0", needs=("program", "value"),
                        make=_program("lie")),
    "program-hangs": Row(about="the program never makes progress", needs=("program",),
                         make=_program("hang", fixed="1")),
    "program-floods": Row(about="the program sends `value` lines to syslog first", needs=("program", "value"),
                          make=_program("flood")),
    "program-crashes": Row(about="the daemon dies of SIGSEGV; `value` as of `program-killed`",
                           needs=("program", "value"), make=_strike),
    "program-exits": Row(about="the daemon ends with 0; `value` as of `program-killed`", needs=("program", "value"),
                         make=_strike),
    "program-killed": Row(about="the daemon is killed: before it is ready (`starting`), once it is ready and the boot "
                                "goes on (`booting`), once the agent runs (`running`), once it was restarted "
                                "(`restarted`), or while it works on a GPU (`attaching`)",
                          needs=("program", "value"), make=_strike),
    "attach-fails-later": Row(about="from after the boot on the GPU does not attach again", needs=("gpu",),
                              make=_attach_later),
    "program-missing": Row(about="the image lacks the program", needs=("program",), make=_missing_program),
    "no-marker": Row(about="the fabric manager never says that it started", needs=(),
                     make=lambda _fault, _gpu: Effects(programs=("nv-fabricmanager.no_marker=1",))),
    "no-cfg-library": Row(about="nvidia-persistenced does not find libnvidia-cfg.so.1", needs=(),
                          make=lambda _fault, _gpu: Effects(programs=("nvidia-persistenced.no_cfg=1",))),
    "no-netconfig": Row(about="nvidia-persistenced does not find /etc/netconfig", needs=(),
                        make=lambda _fault, _gpu: Effects(programs=("nvidia-persistenced.no_rpc=1",))),
    "agent-missing": Row(about="there is no agent in the image", needs=(),
                         make=lambda _fault, _gpu: Effects(links={AGENT: NOWHERE})),
    "agent-not-executable": Row(about="the agent is a file without execute permission", needs=(),
                                make=lambda _fault, _gpu: Effects(texts={AGENT: "no program\n"})),
    "agent-no-program": Row(about="the agent may be executed and is not an ELF program", needs=(),
                            make=lambda _fault, _gpu: Effects(scripts={AGENT: "no program\n"})),
    "log-taken": Row(about="another program has bound /dev/log before the init does", needs=(), make=_log_taken),
    "sysctls-hidden": Row(about="an empty file system covers the kernel's switches for files, /proc/sys/fs", needs=(),
                          make=_sysctls_hidden),
    "loopback-gone": Row(about="there is no network interface of the name lo", needs=(),
                         make=lambda _fault, _gpu: Effects(events=("rename lo elsewhere",))),
    "node-taken": Row(about="in the place of the device node `value` there is a folder", needs=("value",),
                      make=_node_taken),
    "root-busy": Row(about="a program holds a file of the root open for writing", needs=(), make=_root_busy),
    "file-missing": Row(about="the image lacks the file `value`", needs=("value",),
                        make=lambda fault, _gpu: Effects(links={fault.value: NOWHERE})),
    "part-missing": Row(about="the driver's files lack those whose path has `value` in it", needs=("value",),
                        make=lambda fault, _gpu: Effects(without=(fault.value,))),
    "nvml-fails": Row(about="NVML's function `call` returns the code `value`", needs=("call", "value"),
                      make=_nvml("fail")),
    "nvml-hangs": Row(about="NVML's function `call` never returns", needs=("call",), make=_nvml("hang")),
    "nvml-crashes": Row(about="NVML's function `call` dies of SIGSEGV", needs=("call",), make=_nvml("crash")),
    "nvml-slow": Row(about="NVML's function `call` takes `value` ms longer", needs=("call", "value"),
                     make=_nvml("delay")),
    "nscq-says": Row(about="NVIDIA's library for NVSwitches obeys `value` (qemu-tests/standins/nscq/README.md)",
                     needs=("value",), make=lambda fault, _gpu: Effects(nscq=(fault.value,))),
    "gpu-lost": Row(about="the GPU falls off the bus after the boot", needs=("gpu",), make=_lost),
    "xid": Row(about="the driver reports Xid `value` for the GPU after the boot", needs=("gpu", "value"), make=_xid),
    "run-full": Row(about="there is no room left below /run from the moment it is mounted", needs=(), make=_run_full),
    "module-missing": Row(about="modules.dep lists the kernel module `value`, and its file does not exist",
                          needs=("value",), make=_module("missing")),
    "module-other-kernel": Row(about="the kernel module `value` was built for a kernel of another release",
                               needs=("value",), make=_module("other-kernel")),
    "module-other-config": Row(about="the kernel module `value` was built for another configuration of this kernel",
                               needs=("value",), make=_module("other-config")),
    "module-bad-signature": Row(about="the signature of the kernel module `value` is garbage", needs=("value",),
                                make=_module("bad-signature")),
    "module-lacks-symbol": Row(about="the kernel module `value` needs a symbol that this driver does not have",
                               needs=("value",), make=_module("lacks-symbol")),
    "modules-must-be-signed": Row(about="the kernel takes signed modules only, and those of the driver are not",
                                  needs=(), make=lambda _fault, _gpu: Effects(texts={"/lab/enforce": ""})),
    "driver-says": Row(about="the driver prints the line `value` as it loads", needs=("value",), make=_driver_line),
}


def collect_effects(scenario: Scenario) -> Effects:
    """All faults of a scenario together; keys of one GPU's function are joined where the key takes a list."""
    gpus = place_gpus(scenario.machine)
    total = Effects()
    for fault in scenario.faults:
        total = _join(total, FAULTS[fault.name].make(fault, None if fault.gpu is None else gpus[fault.gpu]))
    return total


def _join(one: Effects, other: Effects) -> Effects:
    keys = {bdf: dict(words) for bdf, words in one.keys.items()}
    for bdf, words in other.keys.items():
        known = keys.setdefault(bdf, {})
        for key, value in words.items():
            known[key] = f"{known[key]}+{value}" if key == "faults" and key in known else value
    merged = {row.name: (*getattr(one, row.name), *getattr(other, row.name)) for row in fields(Effects)
              if row.name in ("programs", "nvml", "nscq", "events", "without", "parts")}
    return Effects(keys=keys, texts={**one.texts, **other.texts},
                   scripts={**one.scripts, **other.scripts}, links={**one.links, **other.links}, **merged)
