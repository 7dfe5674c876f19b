# SPDX-License-Identifier: Apache-2.0
"""Documents of NICs, made in a worker of the step's own from what PID 1 found out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fakes.nics import put_function, put_nic, put_node
from fakes.system import FakeSystem, bare_guest
from nvrc.engine.facts import Facts
from nvrc.hardware.topology import classify, scan
from nvrc.machine.processes import LinuxProcesses
from nvrc.nvml.nics import make_requests
from nvrc.params.parse import parse
from nvrc.steps import nics
from nvrc.vocabulary.errors import NvrcError

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")]


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    system = bare_guest(str(tmp_path))
    system.workers = LinuxProcesses(str(tmp_path))
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("../run")
    return system


def published(system: FakeSystem) -> dict[str, dict[str, list[str]]]:
    facts = nics.look(system, Facts(parameters=parse(b""), topology=classify(scan(system))))
    nics.publish_documents(system, nics.describe(system, facts), lambda: make_requests(system.root))
    made = {}
    for path in sorted(Path(system.real_path("/run/cdi")).glob("nvidia-*.yaml")):
        spec = yaml.safe_load(path.read_text())
        made[path.name] = {device["name"]: [node["path"] for node in device["containerEdits"].get("deviceNodes", [])]
                           for device in spec["devices"]}
    return made


def test_every_function_that_kata_counts_has_its_number(system: FakeSystem) -> None:
    put_nic(system, "0000:70:00.0", 2)
    put_function(system, "0000:60:00.0", "15b3:1021", "020700", b"SW_MNG")
    put_nic(system, "0000:71:00.0", 0, gids=())
    put_nic(system, "0000:72:00.0", 1, vpd=b"")
    put_node(system, "rdma_cm", 90)
    given = ["/dev/infiniband/uverbs2", "/dev/infiniband/rdma_cm"]
    assert published(system) == {
        "nvidia-nic.yaml": {"0": [], "1": given, "2": [], "3": [], "all": given},
        "nvidia-ib.yaml": {"0": given, "mlx5_2": given, "all": given}}


def test_a_folder_that_cannot_be_written_is_the_steps_failure(system: FakeSystem) -> None:
    put_nic(system, "0000:70:00.0", 0)
    Path(system.real_path("/run/cdi")).write_text("")
    with pytest.raises(NvrcError, match="/run/cdi") as caught:
        published(system)
    assert caught.value.code == "E_NVML_CRASH"
