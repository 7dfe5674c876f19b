# SPDX-License-Identifier: Apache-2.0
"""The steps that use NVIDIA's library, with the real worker and the stand-in library: what a boot finds, does, records."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import nvrc
from fakes.gpu_guest import CONFIDENTIAL, GpuGuest, MakeGuest
from fakes.trouble import told
from nvrc.nvml.judge import Mode
from nvrc.nvml.readiness import Outcome
from nvrc.report import findings
from nvrc.steps import cc_check, cdi, gpu_settings, ready_state
from nvrc.vocabulary.errors import NvrcError

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]

def failure(guest: GpuGuest) -> NvrcError:
    with pytest.raises(NvrcError) as caught:
        guest.boot()
    return caught.value


def test_a_plain_boot(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest()
    facts = guest.boot()
    assert facts.gpus is not None and facts.confidential is not None and facts.cdi is not None and facts.ready is not None
    assert [(gpu.number, gpu.bdf, gpu.minor, gpu.error) for gpu in facts.gpus] == [
        (0, "0000:1a:00.0", 1, ""), (1, "0000:1b:00.0", 0, "")]
    assert facts.confidential == (Mode.OFF, "NVML: not supported on this machine")
    assert (facts.cdi.devices, facts.cdi.driver, facts.cdi.left_out) == (3, "580.95.05", ())
    assert (facts.ready.outcome, facts.ready.accepts) == (Outcome.NOT_APPLICABLE, True)
    assert facts.warnings == ()
    made = findings.record_cdi(facts)
    assert made is not None and facts.cdi is not None
    assert (made.devices, made.driver, made.left_out) == (facts.cdi.devices, facts.cdi.driver, ())
    confidential, ready = findings.record_confidential(facts), findings.record_ready(facts)
    assert confidential is not None and confidential.mode == "off"
    assert ready is not None and (ready.outcome, ready.accepts) == ("not applicable", True)
    document = yaml.safe_load(guest.text("/run/cdi/nvidia.yaml"))
    assert [device["name"] for device in document["devices"]][:2] == ["0", "1"]
    assert [step.tell(facts) for step in (gpu_settings, cc_check)] == ["2 GPUs", "off"]
    assert cdi.tell(facts).startswith("3 devices, ")
    assert ready_state.tell(facts) == "not applicable: no confidential mode, no ready state"


def test_before_the_first_request_nothing_of_a_gpu_is_touched(gpu_guest: MakeGuest) -> None:
    """The library is not even loaded: it would write its log at the first call, and map its file."""
    guest = gpu_guest()
    worker = guest.start()
    with pytest.raises(NvrcError, match="'nothing'"):
        worker.ask("nothing", 10)  # answered after the warming up
    assert guest.mock.calls() == []
    with open(f"/proc/{worker.pid}/maps") as maps:
        assert guest.mock.library not in maps.read()
    guest.boot(1)
    with open(f"/proc/{worker.pid}/maps") as maps:
        assert guest.mock.library in maps.read()
    assert guest.mock.names()[0] == "nvmlInitWithFlags"


def test_the_library_is_opened_once_for_the_whole_boot(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.smi.pl=500 nvrc.mig=all:1g.10gb nvrc.smi.srs=1", keys="cc=on", text=CONFIDENTIAL)
    guest.boot()
    assert guest.mock.names().count("nvmlInitWithFlags") == 1
    assert {call.pid for call in guest.mock.calls()} == {guest.facts.worker and guest.facts.worker.pid}


@pytest.mark.parametrize(("shipped", "hook"), [
    (True, "/run/kata-extensions/gpu/bin/nvidia-cdi-hook"), (False, "/usr/bin/nvidia-cdi-hook")])
def test_driver_and_hook_of_an_extension(gpu_guest: MakeGuest, shipped: bool, hook: str) -> None:
    guest = gpu_guest(extension="/run/kata-extensions/gpu", shipped_hook=shipped)
    guest.boot()
    document = yaml.safe_load(guest.text("/run/cdi/nvidia.yaml"))
    assert {entry["path"] for entry in document["containerEdits"]["hooks"]} == {hook}
    assert document["containerEdits"]["mounts"][0]["hostPath"].startswith("/run/kata-extensions/gpu/usr/lib")
    assert document["devices"][0]["containerEdits"]["deviceNodes"][0]["path"] == "/dev/nvidia1"


def test_a_missing_node_is_refused_with_advice_that_suits_a_boot(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest()
    guest.lose_node("/dev/nvidia0")
    caught = failure(guest)
    assert caught.code == "E_CDI_GPU_NODE"
    assert "nvrc.gpus=min:N" in caught.hint
    assert not (guest.root / "run/cdi/nvidia.yaml").exists()


def test_a_gpu_without_a_node_is_left_out_where_fewer_suffice(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.gpus=min:1")
    guest.lose_node("/dev/nvidia0")
    facts = guest.boot()
    assert facts.cdi is not None and facts.cdi.faulty == (1,) and facts.cdi.devices == 2
    assert any(text.startswith("E_CDI_GPU_NODE not in the CDI document: GPU 1") for text in told(facts.warnings))


def test_a_gpu_without_a_node_counts_as_down(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.gpus=min:2")
    guest.lose_node("/dev/nvidia0")
    caught = failure(guest)
    assert caught.code == "E_GPU_COUNT"
    assert caught.what.startswith("1 of 2 GPUs can be given to containers, nvrc.gpus=min:2; GPU 1 ")


@pytest.mark.parametrize(("cmdline", "on_bus", "text", "code", "words"), [
    ("", 3, "", "E_GPU_COUNT", "2 of 3 GPUs answer, nvrc.gpus=all; not listed: 0000:1c:00.0"),
    ("nvrc.gpus=2", 3, "", "E_GPU_COUNT", "not listed: 0000:1c:00.0"),
    ("nvrc.gpus=3", 2, "", "E_GPU_COUNT", "2 of 2 GPUs answer, nvrc.gpus=3"),
    ("nvrc.gpus=min:3", 8, "", "E_GPU_COUNT", "2 of 8"),
    ("", 1, "", "E_GPU_COUNT", "lists 0000:1b:00.0 (GPU-00000000-0000-4000-8000-000000000001), which the scan of the bus did not see"),
    ("", 2, "fail nvmlDeviceGetName gpu=1 15", "E_GPU_NVML", "GPU 1: nvmlDeviceGetName returned NVML_ERROR_GPU_IS_LOST (15)"),
    ("nvrc.gpus=min:2", 2, "fail nvmlDeviceGetUUID gpu=0 999", "E_GPU_NVML", "GPU 0 0000:1a:00.0: nvmlDeviceGetUUID"),
])
def test_gpus_that_did_not_come_up(  # noqa: PLR0917 - a row of the table
    gpu_guest: MakeGuest, cmdline: str, on_bus: int, text: str, code: str, words: str,
) -> None:
    caught = failure(gpu_guest(cmdline, on_bus=on_bus, text=text))
    assert caught.code == code
    assert words in caught.what


def test_a_number_that_the_vm_does_not_have_is_for_the_pod_to_correct(gpu_guest: MakeGuest) -> None:
    advice = "pass as many GPUs to the VM as nvrc.gpus says, or correct it"
    assert failure(gpu_guest("nvrc.gpus=3", on_bus=2)).hint == advice
    assert failure(gpu_guest("nvrc.gpus=3", on_bus=3)).hint != advice


def test_a_gpu_less_where_fewer_suffice(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.gpus=min:1", gpus=3, on_bus=4, text="fail nvmlDeviceGetName gpu=1 15")
    facts = guest.boot()
    assert told(facts.warnings)[:3] == (
        "E_GPU_NVML GPU 1 is left out: nvmlDeviceGetName returned NVML_ERROR_GPU_IS_LOST (15); the GPU fell off the bus; read the "
        "kernel log for its Xid lines and reset it or restart the VM",
        "E_GPU_NVML NVIDIA's library does not list 0000:1b:00.0", "E_GPU_NVML NVIDIA's library does not list 0000:1d:00.0")
    assert told(facts.warnings)[-1] == "GPU numbers in CDI names count the 3 GPUs that the driver lists, not the 4 of the VM"
    assert facts.cdi is not None and facts.cdi.devices == 3
    document = yaml.safe_load(guest.text("/run/cdi/nvidia.yaml"))
    assert [device["name"] for device in document["devices"]][:2] == ["0", "2"]


def test_a_socket_that_a_daemon_made_after_the_warming_up_is_in_the_document(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest()
    worker = guest.start()
    with pytest.raises(NvrcError):
        worker.ask("nothing", 10)
    (guest.root / "run/nvidia-persistenced").mkdir(exist_ok=True)
    os.mknod(guest.root / "run/nvidia-persistenced/socket", stat.S_IFSOCK | 0o666)
    guest.boot()
    document = yaml.safe_load(guest.text("/run/cdi/nvidia.yaml"))
    assert "/run/nvidia-persistenced/socket" in [mount["hostPath"] for mount in document["containerEdits"]["mounts"]]


def test_no_library(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest()
    (guest.root / "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1").unlink()
    assert failure(guest).code == "E_NVML_LIBRARY"


def test_a_library_of_another_version(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest(text="driver 570.1")
    caught = failure(guest)
    assert caught.code == "E_CDI_DRIVER_MISMATCH"
    assert "570.1" in caught.what and "580.95.05" in caught.what


def test_a_driver_without_files_is_for_the_request_to_report(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest()
    (guest.root / "usr/lib/x86_64-linux-gnu/libcuda.so.580.95.05").unlink()
    assert failure(guest).code == "E_CDI_LIBCUDA"


FIRST_REQUESTS = """
import sys
sys.path[:0] = [sys.argv[1]]
from nvrc.nvml.requests import make_requests
requests = make_requests("/", root=sys.argv[2])
given = {"gpus": {}, "settings": {"gpus": (0, 1), "power_limit_w": 500}, "cc": {"gpus": (0, 1)}, "certificates": {"gpus": (0, 1)}, "mig": {"gpus": ()},
         "fabric": {"gpus": (0, 1)}, "links": {"gpus": (0, 1)},
         "switches": {}, "cdi": {"keep_going": False}, "promise": {"gpus": [("0000:1a:00.0", 1)]},
         "keys": {"advantage": 60}, "ready": {"ready": None}}
assert given.keys() == requests.keys()
for name, words in given.items():
    before = set(sys.modules)
    try:
        requests[name](words)
    except Exception as err:  # a plain tree has no device nodes, which the document needs, and no switches
        assert {"cdi": "E_CDI_", "promise": "E_CDI_", "switches": "E_CC_SWITCH"}[name] in getattr(err, "code", ""), (name, err)
    print(name, *sorted(set(sys.modules) - before))
"""


def test_no_request_loads_a_module(gpu_guest: MakeGuest) -> None:
    """The worker loads its code while the driver attaches GPUs; what a request loads, the boot waits for."""
    guest = gpu_guest(keys="cc=on", text=CONFIDENTIAL)
    root = Path(nvrc.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", FIRST_REQUESTS, root, guest.root], capture_output=True, text=True,
                          check=False, timeout=60, env={**os.environ, "PYTHONPATH": ""})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n") == ["gpus", "settings", "cc", "certificates", "mig", "fabric", "links", "switches", "cdi",
                                       "promise", "keys", "ready", ""]


def test_the_gpus_are_walked_once_for_a_boot(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest()
    guest.boot()
    assert [guest.mock.names().count(name) for name in ("nvmlDeviceGetCount_v2", "nvmlDeviceGetUUID")] == [1, 2]


def test_only_a_gpu_with_another_layout_is_read_anew(gpu_guest: MakeGuest) -> None:
    guest = gpu_guest("nvrc.mig=0:1g.10gb", keys="mig=on")
    facts = guest.boot()
    assert facts.mig is not None and [row.changed for row in facts.mig] == [True]
    assert guest.mock.names().count("nvmlDeviceGetMinorNumber") == 3, "both GPUs, then the one that was cut"
    document = yaml.safe_load(guest.text("/run/cdi/nvidia.yaml"))
    assert {"0:0", "all"} == {name for device in document["devices"] if not (name := device["name"]).startswith("MIG-")}
