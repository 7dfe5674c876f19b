# SPDX-License-Identifier: Apache-2.0
"""kubelet: gates, timeouts and the socket that the runtime asks for the pod's devices. And the node's labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nvrc.preflight.host import Host, dig, table
from nvrc.preflight.row import Judgement, bad, good, unknown, unused, warning

CONFIGS = ("/var/lib/kubelet/config.yaml", "/etc/kubernetes/kubelet/config.json", "/etc/kubernetes/kubelet-config.yaml")
FLAGS = "/var/lib/kubelet/kubeadm-flags.env"
SOCKET = "/var/lib/kubelet/pod-resources/kubelet.sock"
PROGRAMS = ("/usr/bin/kubelet", "/usr/local/bin/kubelet")
NO_KUBELET = "no configuration of kubelet on this host"
GET, IMAGE_CLASS = "KubeletPodResourcesGet", "RuntimeClassInImageCriApi"
GET_SINCE = (1, 34)
LONG_S, DEFAULT_S = 20 * 60, 120
MOST_S = (1 << 63) * 1e-9
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "ns": 1e-9}
NO_NODE = "labels are known with --node only"


def read_config(host: Host) -> tuple[Mapping[str, object] | None, str]:
    for path in CONFIGS:
        document, wrong = host.yaml(path)
        if document is not None or wrong:
            return document, f"{path} {wrong}" if wrong else ""
    return None, ""


def gates(host: Host) -> Mapping[str, bool]:
    config, _wrong = read_config(host)
    told = {name: value for name, value in table(dig(config, "featureGates")).items() if isinstance(value, bool)}
    flags = re.search(r"--feature-gates=([\w=,]+)", host.text(FLAGS) or "")
    return {
        **told,
        **{
            name: value == "true"
            for name, _, value in (pair.partition("=") for pair in (flags[1] if flags else "").split(","))
            if value
        },
    }


def version_of(host: Host) -> tuple[int, int] | None:
    told = str(dig(host.node, "status", "nodeInfo", "kubeletVersion") or "")
    told = told or next((text for program in PROGRAMS if (text := host.version_of(program))), "")
    found = re.search(r"v(\d{1,6})\.(\d{1,6})\.\d", told)
    return (int(found[1]), int(found[2])) if found else None


def judge_get(host: Host) -> Iterator[Judgement]:
    config, wrong = read_config(host)
    if config is None:
        yield bad(wrong) if wrong else unused(NO_KUBELET)
        return
    told = table(config.get("featureGates")).items()
    if no_gates := ", ".join(f"{name} = {value!r}" for name, value in told if type(value) is not bool):
        yield bad(f"featureGates has {no_gates}; kubelet does not start with what is not true or false")
        return
    is_on, version = gates(host).get(GET), version_of(host)
    if is_on is not None:
        yield good(f"{GET} is on") if is_on else bad(f"{GET} is off: the runtime cannot ask which devices a pod has")
    elif version is None:
        yield unknown(f"{GET} is not set, and kubelet's version is unknown; it is on from 1.34")
    else:
        text = ".".join(map(str, version))
        yield (
            good(f"{GET} is on by default in {text}")
            if version >= GET_SINCE
            else bad(f"{GET} is off by default in {text}")
        )


def judge_image_class(host: Host) -> Iterator[Judgement]:
    if read_config(host)[0] is None:
        yield unused(NO_KUBELET)
    elif gates(host).get(IMAGE_CLASS):
        yield good(f"{IMAGE_CLASS} is on")
    else:
        yield warning(f"{IMAGE_CLASS} is off: images are unpacked for the default class, not for the pod's snapshotter")


def judge_timeout(host: Host) -> Iterator[Judgement]:
    config, _wrong = read_config(host)
    if config is None:
        yield unused(NO_KUBELET)
        return
    told = config.get("runtimeRequestTimeout")
    seconds = read_duration(str(told)) if told is not None else 0.0
    if seconds is None:
        yield bad(f"runtimeRequestTimeout = {told!r} is not a duration")
        return
    seconds = seconds or DEFAULT_S
    yield (
        good(f"runtimeRequestTimeout is {seconds:g} s")
        if seconds >= LONG_S
        else bad(f"runtimeRequestTimeout is {seconds:g} s; a VM with GPUs may take {LONG_S} s")
    )


def read_duration(text: str) -> float | None:
    """Go's form: 20m0s, 1h, 90s. It counts nanoseconds in 63 bits."""
    if text == "0":
        return 0.0
    if not re.fullmatch(r"([0-9]+(\.[0-9]+)?(h|ms|us|ns|m|s))+", text):
        return None
    parts = re.findall(r"([0-9]+(\.[0-9]+)?)(h|ms|us|ns|m|s)", text)
    seconds = sum(float(number) * _UNITS[unit] for number, _, unit in parts)
    return seconds if seconds < MOST_S else None


def judge_cpu_manager(host: Host) -> Iterator[Judgement]:
    config, _wrong = read_config(host)
    if config is None:
        yield unused(NO_KUBELET)
        return
    policy = str(config.get("cpuManagerPolicy") or "none")
    yield (
        good("cpuManagerPolicy is none")
        if policy == "none"
        else warning(
            f"cpuManagerPolicy is {policy}: kubelet and the runtime both pin, and vCPUs of VMs meet on one processor"
        )
    )


def judge_socket(host: Host) -> Iterator[Judgement]:
    if read_config(host)[0] is None and not host.exists("/var/lib/kubelet"):
        yield unused(NO_KUBELET)
    elif host.is_socket(SOCKET):
        yield good(f"{SOCKET} is a socket")
    elif host.exists(SOCKET) and not host.is_live:
        yield good(f"{SOCKET} exists (a copy keeps no sockets)")
    elif host.exists(SOCKET):
        yield bad(f"{SOCKET} is not a socket; the runtime silently takes annotations instead")
    else:
        yield bad(f"{SOCKET} is missing; the runtime silently takes annotations instead")


def judge_labels(host: Host) -> Iterator[Judgement]:
    labels = host.labels
    if labels is None:
        yield unknown(NO_NODE)
        return
    problems = []
    mode, state = labels.get("nvidia.com/cc.mode"), labels.get("nvidia.com/cc.mode.state")
    if state == "failed":
        problems.append("nvidia.com/cc.mode.state is failed: the mode could not be set")
    elif mode and state and mode != state:
        problems.append(f"nvidia.com/cc.mode is {mode}, nvidia.com/cc.mode.state is {state}: the switch is not over")
    ready = labels.get("nvidia.com/cc.ready.state")
    if state and ready and (ready == "true") != (state in ("on", "ppcie")):
        problems.append(f"nvidia.com/cc.ready.state is {ready} in mode {state}")
    workload = labels.get("nvidia.com/gpu.workload.config")
    if workload != "vm-passthrough":
        problems.append(
            f"nvidia.com/gpu.workload.config is {workload or 'not set'}; GPUs for VMs require vm-passthrough"
        )
    yield from (bad(problem) for problem in problems)
    if not problems:
        yield good("the node's labels agree with each other")
