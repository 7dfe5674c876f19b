# SPDX-License-Identifier: Apache-2.0
"""What a verifier is given: hex, the message that Trustee's RVPS registers, and what is left for the host to say."""

from __future__ import annotations

import base64
import json
import shlex
from pathlib import Path

import pytest

from fakes.firmware import make_firmware
from nvrc_build.after import reference
from nvrc_build.after.measure import Launch
from nvrc_build.cli import main
from nvrc_build.ground.errors import BuildError
from nvrc_build.papers.inventory import Inventory, read_inventory

ONE = {1: bytes(range(48))}
SNP = {"snp_guest_abi_major": 0, "snp_guest_abi_minor": 0, "snp_single_socket": False, "snp_smt_allowed": True}
DRIVER = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.163.01"


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    for name in ("ovmf", "kernel", "initrd"):
        (tmp_path / name).write_text(name)
    return Launch(firmware=tmp_path / "ovmf", kernel=tmp_path / "kernel", initrd=tmp_path / "initrd",
                  cmdline="console=hvc0", vcpus=1, vcpu_type="EPYC-v4")


def make_image(folder: Path, *files: str) -> Inventory:
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({
        "version": 1, "image": folder.name, "format": "initrd", "parts": {}, "packages": [],
        "files": [{"path": path, "kind": "file", "mode": "0644", "slice": "x"} for path in files]}))
    return read_inventory(folder / "manifest.json")


def register(message: str) -> dict[str, object]:
    """As RVPS reads a message: rvps/src/lib.rs `verify_and_extract`, rvps/src/extractors/sample/mod.rs."""
    told = json.loads(message)
    assert told.keys() == {"version", "type", "payload"}
    assert (told["version"], told["type"]) == ("0.1.0", "sample")
    values = json.loads(base64.b64decode(told["payload"], validate=True))
    assert isinstance(values, dict)
    return values


def set_by_client(line: str) -> dict[str, object]:
    """As kbs-client reads `config set-sample-reference-value` (tools/kbs-client/src/main.rs)."""
    words = shlex.split(line)
    assert words[:7] == ["kbs-client", "--url", "URL", "config", "--admin-token-file", "TOKEN", "set-sample-reference-value"]
    flags = {word for word in words[7:] if word.startswith("--")}
    assert flags <= {"--as-integer", "--as-bool", "--as-single-value"}
    name, text = (word for word in words[7:] if not word.startswith("--"))
    value: object = int(text) if "--as-integer" in flags else text == "true" if "--as-bool" in flags else text
    return {name: value if "--as-single-value" in flags else [value]}


@pytest.mark.parametrize(("drivers", "digests", "expected"), [
    ((), ONE, {**SNP, "snp_launch_measurement": [ONE[1].hex()]}),
    (("550.163.01",), {1: b"\1" * 48, 2: b"\2" * 48},
     {**SNP, "snp_launch_measurement": ["01" * 48, "02" * 48], "allowed_driver_versions": ["550.163.01"]}),
], ids=["one-shape", "shapes-and-driver"])
def test_values_are_those_that_the_policies_compare(launch: Launch, drivers: tuple[str, ...], digests: dict[int, bytes],
                                                    expected: dict[str, object]) -> None:
    document = reference.describe("x", launch, digests, drivers=drivers)
    assert document["reference_values"] == expected
    assert register(json.dumps(reference.rvps_message(document))) == expected


def test_the_lines_for_kbs_client_set_the_same_values(launch: Launch) -> None:
    document = reference.describe("x", launch, ONE, drivers=("550.163.01",))
    lines = reference.registration(document, None).splitlines()
    told = [line.strip() for line in lines if "set-sample-reference-value" in line and not line.endswith(" VALUE")]
    found: dict[str, object] = {}
    for line in told:
        found |= set_by_client(line)
    assert found == document["reference_values"]


def test_several_digests_cannot_go_by_kbs_client(launch: Launch) -> None:
    document = reference.describe("x", launch, {1: b"\1" * 48, 2: b"\2" * 48})
    text = reference.registration(document, Path("out/rvps-message.json"))
    assert "snp_launch_measurement has 2 values: kbs-client sets one, the message all" in text
    assert "set-sample-reference-value snp_launch_measurement" not in text
    assert "--data-binary @out/rvps-message.json URL/kbs/v0/reference-value" in text
    assert "rvps-tool register --path out/rvps-message.json" in text


@pytest.mark.parametrize(("drivers", "names"), [
    ((), [row.name for row in reference.HOST_VALUES]),
    (("1.2",), [row.name for row in (*reference.HOST_VALUES, *reference.GPU_HOST_VALUES)]),
], ids=["no-gpu", "gpu"])
def test_what_only_the_host_knows_is_named_with_the_way_to_it(launch: Launch, drivers: tuple[str, ...],
                                                              names: list[str]) -> None:
    document = reference.describe("x", launch, ONE, drivers=drivers)
    hosts = document["only_the_host_knows"]
    assert isinstance(hosts, dict)
    assert list(hosts) == names
    assert "snphost show tcb" in hosts["snp_microcode"]
    text = reference.registration(document, None)
    assert [line.split()[-2] for line in text.splitlines() if line.endswith(" VALUE")] == names


@pytest.mark.parametrize(("policy", "major", "minor", "single", "smt"), [
    (0x30000, 0, 0, False, True), (0x20000, 0, 0, False, False), (0x130137, 1, 0x37, True, True),
])
def test_a_guest_policy_is_taken_apart(policy: int, major: int, minor: int, single: bool, smt: bool) -> None:
    assert reference.policy_values(policy) == {"snp_guest_abi_major": major, "snp_guest_abi_minor": minor,
                                               "snp_single_socket": single, "snp_smt_allowed": smt}


@pytest.mark.parametrize("policy", [0, 0x10000, 0xB0000, 0x70000, 1 << 40])
def test_a_guest_policy_that_no_verifier_takes_is_refused(policy: int) -> None:
    with pytest.raises(BuildError, match=r"guest policy 0x[0-9a-f]+ cannot be used"):
        reference.policy_values(policy)


@pytest.mark.parametrize(("files", "expected"), [
    ([()], ()), ([(DRIVER,)], ("550.163.01",)), ([(), (DRIVER,)], ("550.163.01",)),
    ([(DRIVER, "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", "/x/libnvidia-ml.so.2.1.bak")], ("550.163.01",)),
], ids=["none", "image", "extension", "links"])
def test_the_driver_is_read_from_base_or_extension(tmp_path: Path, files: list[tuple[str, ...]],
                                                   expected: tuple[str, ...]) -> None:
    images = [make_image(tmp_path / f"i{number}", *paths) for number, paths in enumerate(files)]
    assert reference.driver_versions(images) == expected


def test_two_drivers_are_refused(tmp_path: Path) -> None:
    images = [make_image(tmp_path / "base", DRIVER), make_image(tmp_path / "gpu", "/usr/lib/libnvidia-ml.so.595.58.03")]
    with pytest.raises(BuildError, match=r"drivers of different releases: 550\.163\.01, 595\.58\.03"):
        reference.driver_versions(images)


def test_a_comparison_names_every_input_that_differs(tmp_path: Path, launch: Launch) -> None:
    values = reference.describe("lab", launch, ONE)
    (tmp_path / "ref.json").write_text(json.dumps(values))
    assert reference.compare_values(tmp_path / "ref.json", values) == ()
    other = reference.describe("lab", launch, {1: b"\1" * 48, 2: b"\2" * 48})
    assert reference.compare_values(tmp_path / "ref.json", other) == (
        f"launch_measurement with 1 vCPUs: expected {ONE[1].hex()}, found {'01' * 48}",
        f"launch_measurement with 2 vCPUs: expected None, found {'02' * 48}")
    (tmp_path / "more.json").write_text(json.dumps(other))
    assert reference.compare_values(tmp_path / "more.json", reference.describe("lab", launch, {2: b"\2" * 48})) == ()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sev_snp": 3, "version": 2}', '{"sev_snp": {}, "version": 1}'])
def test_what_are_no_reference_values(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(BuildError, match="has no reference values"):
        reference.compare_values(tmp_path / "x", {"sev_snp": {}})


def test_the_command_writes_both_files_and_says_what_differs(tmp_path: Path, measured: tuple[str, ...],
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    values = tmp_path / "out/values.json"
    values.parent.mkdir()
    assert main([*measured, "--cmdline", "console=hvc0", "--vcpus", "1-2", "-o", str(values)]) == 0
    shown = capsys.readouterr().out.splitlines()
    digests = json.loads(values.read_text())["sev_snp"]["launch_measurement"]
    assert shown[:3] == ["vCPUs  snp_launch_measurement", f"    1  {digests['1']}", f"    2  {digests['2']}"]
    registered = register((tmp_path / "out/rvps-message.json").read_text())
    assert registered["snp_launch_measurement"] == [digests["1"], digests["2"]]
    assert all(len(bytes.fromhex(digest)) == 48 for digest in digests.values())
    assert registered["allowed_driver_versions"] == ["550.163.01"]
    assert main([*measured, "--cmdline", "console=hvc0", "--vcpus", "1-2", "--json", "--compare", str(values)]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(values.read_text())
    assert main([*measured, "--cmdline", "other", "--vcpus", "1", "--compare", str(values)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in said] == [
        "cmdline", "launch_measurement with 1 vCPUs"]


@pytest.fixture
def measured(tmp_path: Path) -> tuple[str, ...]:
    make_image(tmp_path / "image", DRIVER)
    for name in ("vmlinuz", "initrd"):
        (tmp_path / "image" / name).write_text(name)
    (tmp_path / "ovmf").write_bytes(make_firmware())
    return ("measure", str(tmp_path / "image"), "--firmware", str(tmp_path / "ovmf"))
