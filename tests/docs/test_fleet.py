# SPDX-License-Identifier: Apache-2.0
"""The files for a fleet: rules, dashboard, units and manifest name only what exists. With tools of others also by
their own word: NVRC_PROMTOOL (Prometheus's promtool), NVRC_KUBERNETES_VALIDATE (kubernetes-validate of PyPI),
NVRC_GRAFANA_PYTHON (a Python that has grafana-foundation-sdk of PyPI).
"""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fakes.kata_host import make_host
from fakes.metrics import parse
from nvrc.beside.families import BY_NAME, FAMILIES, Sample, render
from nvrc.cli import main
from nvrc.preflight import export
from nvrc.preflight.host import Host
from nvrc.preflight.preflight import judge
from nvrc.preflight.row import State
from nvrc.preflight.rows import ROWS

FLEET = Path(__file__).resolve().parents[2] / "docs/fleet"
RULES, DASHBOARD = FLEET / "rules.yaml", FLEET / "dashboard.json"
PREFLIGHT = {"nvrc_preflight_state": {"row", "state"}, "nvrc_preflight_good": set(), "nvrc_preflight_time_seconds": set()}
LABELS = {**{family.name: set(family.labels) for family in FAMILIES}, **PREFLIGHT}
PROMTOOL = os.environ.get("NVRC_PROMTOOL", "")
KUBERNETES = os.environ.get("NVRC_KUBERNETES_VALIDATE", "")
GRAFANA = os.environ.get("NVRC_GRAFANA_PYTHON", "")
# Labels that Prometheus adds to each series.
TARGET = {"instance", "job"}


def expressions() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from ((rule["alert"], rule["expr"]) for rule in group["rules"])
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])
    yield from (("variable", one["query"]["query"]) for one in dashboard["templating"]["list"] if one["type"] == "query")


EXPRESSIONS = tuple(expressions())


def test_every_query_names_metrics_and_labels_that_exist() -> None:
    for name, expr in EXPRESSIONS:
        found = re.findall(r"\b(nvrc_\w+)(?:\{([^}]*)\})?", expr)
        assert found, expr
        for metric, selector in found:
            assert metric in LABELS, f"{name}: no metric {metric}"
            used = set(re.findall(r"(\w+)\s*=~?", selector))
            assert used <= LABELS[metric] | TARGET, f"{name}: {metric} has no label {used - LABELS[metric] - TARGET}"


def test_words_of_states_are_those_that_are_told() -> None:
    known = {"attached", "lost", "failed", "revoked", "completed", *(state.value for state in State)}
    for name, expr in EXPRESSIONS:
        for words in re.findall(r'state=~?"([^"]*)"', expr):
            assert set(words.split("|")) <= known, name


def test_counters_are_asked_for_their_growth_only() -> None:
    for name, expr in EXPRESSIONS:
        for metric in re.findall(r"\b(nvrc_\w+_total)\b", expr):
            assert BY_NAME[metric].kind == "counter"
            assert re.search(rf"(rate|increase)\({metric}", expr) or name.endswith(" since the boot"), name


def test_texts_of_alerts_use_labels_that_the_query_keeps() -> None:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            metric = re.findall(r"\b(nvrc_\w+)", rule["expr"])[0]
            used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
            assert used <= LABELS[metric] | TARGET, rule["alert"]
            assert rule["annotations"]["action"]
            assert rule["labels"]["severity"] in ("warning", "critical")


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    taken = set[tuple[int, int]]()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells


def test_a_table_is_asked_for_as_one() -> None:
    """Otherwise each series is a table of its own, of which one is shown."""
    tables = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] == "table"]
    assert [panel["title"] for panel in tables] == ["GPUs", "Troubles", "Hosts: missing conditions"]
    for panel in tables:
        assert all(target["format"] == "table" and target["instant"] for target in panel["targets"]), panel["title"]
        assert [one["id"] for one in panel["transformations"]] == ["organize"]


def test_a_number_has_its_own_thresholds() -> None:
    """Grafana's are green, and red from 80: one lost GPU of a fleet would be green."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] == "stat":
            first, *others = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            assert first["value"] is None, panel["title"]
            assert all(one["value"] == 1 for one in others), panel["title"]


def test_legends_name_vm_and_place_and_fit_a_line() -> None:
    """A UUID has forty characters; which GPU of a VM it is says the bus id, and which board the table of GPUs."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            labels = set(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
            assert not labels & {"gpu", "serial"}, panel["title"]
            assert "bus_id" not in labels or "instance" in labels, panel["title"]


def test_units_and_manifest_call_what_there_is() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(FLEET / "nvrc-preflight.service")
    assert unit["Service"]["ExecStart"].split()[1:4] == ["doctor", "--host", "--export"]
    assert unit["Service"]["ExecStart"].split()[4] == unit["Service"]["ReadWritePaths"]
    timer = configparser.ConfigParser(interpolation=None)
    timer.read(FLEET / "nvrc-preflight.timer")
    assert timer["Install"]["WantedBy"] == "timers.target"
    kinds = {one["kind"]: one for one in yaml.safe_load_all((FLEET / "daemonset.yaml").read_text())}
    assert set(kinds) == {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "DaemonSet"}
    container, = kinds["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    script = container["args"][0]
    assert "nvrc doctor --host --root /host --node /tmp/node.json --export /textfile" in script
    # Of a folder that another account owns nothing is read back.
    assert "nvrc doctor --host --root /host --node /tmp/node.json --export /tmp" in script
    assert f"--patch-file /tmp/{export.CONDITION}" in script
    mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
    assert mounts["/host"]["readOnly"] is True
    assert {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]} in kinds["ClusterRole"]["rules"]


def test_a_host_is_exported_as_metrics_and_as_a_condition(tmp_path: Path) -> None:
    host, folder = make_host(tmp_path / "host"), tmp_path / "out"
    folder.mkdir()
    node = tmp_path / "node.json"
    node.write_bytes(host.node_json())
    call = ["doctor", "--host", "--root", str(host.root), "--node", str(node), "--export", str(folder)]
    with (tmp_path / "shown").open("w") as out:
        assert main(call, out) == 0
    found = parse((folder / export.METRICS).read_bytes())
    assert found["nvrc_preflight_good", ()] == 1
    assert sum(value for (name, _labels), value in found.items() if name == "nvrc_preflight_state") == len(ROWS)
    assert json.loads((folder / export.CONDITION).read_text())["status"]["conditions"][0]["status"] == "True"
    host.remove("/dev/vhost-vsock")
    with (tmp_path / "shown").open("w") as out:
        assert main(call, out) == 1
    condition = json.loads((folder / export.CONDITION).read_text())["status"]["conditions"][0]
    assert (condition["type"], condition["status"], condition["reason"]) == ("NvrcPreflight", "False", "ConditionsMissing")
    assert condition["message"].startswith("vsock: /dev/vhost-vsock is missing")
    found = parse((folder / export.METRICS).read_bytes())
    assert found["nvrc_preflight_state", (("row", "vsock"), ("state", "bad"))] == 1
    assert sorted(path.name for path in folder.iterdir()) == [export.CONDITION, export.METRICS]


def test_a_machine_that_is_no_kata_host_has_an_unknown_condition(tmp_path: Path) -> None:
    found = judge(Host(str(tmp_path)))
    assert json.loads(export.condition(found, 0))["status"]["conditions"][0]["reason"] == "NotAKataHost"
    assert parse(export.metrics(found, 5).encode())["nvrc_preflight_time_seconds", ()] == 5


@pytest.mark.skipif(not PROMTOOL, reason="NVRC_PROMTOOL names no promtool")
def test_prometheus_itself_accepts_rules_and_pages(tmp_path: Path) -> None:
    done = subprocess.run([PROMTOOL, "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = render(Sample(family.name, 1, tuple("x" for _ in family.labels)) for family in FAMILIES)
    pages = page + export.metrics(judge(Host(str(make_host(tmp_path).root))), 1).encode()
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=pages.decode(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# What each alert is about, as series and values a minute apart: when it is bad, and when it is good.
GPU = 'instance="pod",gpu="GPU-1",bus_id="0000:40:00.0",serial="1"'
BAD_AND_GOOD = {
    f'nvrc_gpu_state{{{GPU},state="lost"}}': ("1x70", "0x70"),
    f'nvrc_gpu_state{{{GPU},state="failed"}}': ("1x70", "0x70"),
    'nvrc_verdict{instance="pod",verdict="degraded"}': ("1x70", "0x70"),
    'nvrc_ready_state{instance="pod",state="revoked"}': ("1x70", "0x70"),
    'nvrc_service_up{instance="pod",service="nvidia-persistenced"}': ("0x70", "1x70"),
    'nvrc_service_restarts_total{instance="pod",service="nvrc-metrics"}': ("0+1x70", "1x70"),
    'nvrc_nvml_up{instance="pod"}': ("0x70", "1x70"),
    'nvrc_nvml_sample_age_seconds{instance="pod"}': ("300x70", "7x70"),
    f'nvrc_gpu_ecc_errors_total{{{GPU},kind="uncorrected"}}': ("0+1x70", "3x70"),
    f"nvrc_gpu_nvlinks_down{{{GPU}}}": ("2x70", "0x70"),
    f"nvrc_gpu_nvlinks_up{{{GPU}}}": ("16x70", "18x70"),
    'nvrc_guest_memory_pressure_ratio{instance="pod",tasks="full"}': ("0.4x70", "0x70"),
    'nvrc_guest_oom_kills_total{instance="pod"}': ("0+1x70", "2x70"),
    'nvrc_preflight_state{instance="node",row="iommu",state="bad"}': ("1x70", "0x70"),
    'nvrc_preflight_time_seconds{instance="node"}': ("0x70", "0+60x70"),
}


@pytest.mark.skipif(not PROMTOOL, reason="NVRC_PROMTOOL names no promtool")
def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    alerts = [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    expected = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in alerts], []
    tests = [{
        "interval": "1m", "input_series": [{"series": series, "values": values[which]} for series, values in BAD_AND_GOOD.items()],
        "promql_expr_test": [{"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": "65m", "exp_samples": samples}],
    } for which, samples in enumerate(expected)]
    file = tmp_path / "rules_test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not KUBERNETES, reason="NVRC_KUBERNETES_VALIDATE names no kubernetes-validate")
def test_manifest_and_condition_are_what_kubernetes_takes(tmp_path: Path) -> None:
    patch = json.loads(export.condition(judge(Host(str(make_host(tmp_path / "host").root))), 0))
    node = tmp_path / "node.yaml"
    node.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}, **patch}))
    done = subprocess.run([KUBERNETES, "--strict", str(FLEET / "daemonset.yaml"), str(node)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


KEPT = """
import json, sys
from grafana_foundation_sdk.cog import encoder, plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
plugins.register_default_plugins()
print(encoder.JSONEncoder().encode(Dashboard.from_json(json.load(sys.stdin))))
"""


@pytest.mark.skipif(not GRAFANA, reason="NVRC_GRAFANA_PYTHON names no Python with grafana-foundation-sdk")
def test_grafana_knows_every_word_of_the_dashboard() -> None:
    """What its own model does not know is lost on the way through it."""
    done = subprocess.run([GRAFANA, "-c", KEPT], input=DASHBOARD.read_text(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(lost(json.loads(DASHBOARD.read_text()), json.loads(done.stdout), ""))


def lost(before: object, after: object, place: str) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key), f"{place}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{place}/{number}")
    elif before != after:
        yield f"{place}: {before!r} became {after!r}"
