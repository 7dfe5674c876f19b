# SPDX-License-Identifier: Apache-2.0
"""A confidential pod with the guest components and the key broker of others, on loopback; the TEE is their `sample`.

NVRC_COCO names a folder: `components/` (laid out as in Kata's images), `kata-agent` (with policies and initdata), `kbs`,
`kbs-client`, and, if it is there, `genpolicy` with `rules.rego` and `genpolicy-settings.json`. docs/conformance.md says
where they come from. What needs none of them: tests/lab/agent/test_key_broker.py, tests/nvrc/confidential,
tests/qemu/test_network.py, and the scenarios `attest*` and `initdata*`.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from fakes.built_images import CONFIDENTIAL as CONFIDENTIAL_IMAGE
from fakes.built_images import declare_confidential
from fakes.firmware import make_firmware
from fakes.registry import MANIFEST_TYPE, Registry, sha256
from nvrc_build.cli import main as image_main
from nvrc_build.declared.declared import AgentPolicy
from nvrc_build.products.agent_policy import render, requests_of
from nvrc_build.tree.tree import Origin, Tree
from nvrc_lab.agent.kata_agent import Agent, Container, Mount, Storage
from nvrc_lab.agent.key_broker import Broker, open_broker
from nvrc_lab.agent.runtime_side import CGROUPS_PATH
from nvrc_lab.agent.ttrpc import RpcError
from nvrc_lab.commands.conformance import CONFIDENTIAL, missing
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit.archives import join_archives
from nvrc_lab.kit.image import BootFiles, build_image
from nvrc_lab.qemu.machine import Disk
from nvrc_lab.qemu.qemu import find_qemu
from nvrc_lab.run.compose import GUEST, HOST, MAC
from nvrc_lab.run.runner import Result, open_lab, run_scenario
from nvrc_lab.scenario.scenario import parse_scenario
from nvrc_lab.scenario.values import Scenario

pytestmark = [pytest.mark.qemu, pytest.mark.skipif(
    bool(missing(CONFIDENTIAL, os.environ)), reason="no guest components given: name a folder with NVRC_COCO; docs/conformance.md says what it holds")]

DEADLINE_S, PULL_S = 600.0, 120.0
RUN = "/run/kata-containers"
SHARED = f"{RUN}/shared/containers"
IMAGE = "pod/lab:1"
SECRET, PATH = b"kbs-secret-42", "default/test/secret"
REST, FETCH = "8006", f"/cdh/resource/{PATH}"
DISK = 254, 16  # the second virtio disk; the first has the initdata
EXEC, SET_POLICY = "ExecProcessRequest", "SetPolicyRequest"
# What the sample verifier says of every sample: trustee, deps/verifier/src/sample.
SAMPLE: tuple[tuple[str, ...], ...] = (
    ("launch_digest", "abcde"), ("svn", "1"), ("--as-integer", "--as-single-value", "major_version", "1"),
    ("--as-integer", "--as-single-value", "minimum_minor_version", "4"))
Play = Callable[[Agent], Iterator[str]]
Boot = Callable[..., list[str]]


@pytest.fixture(scope="module")
def given() -> Path:
    return Path(os.environ["NVRC_COCO"]).resolve()


@pytest.fixture(scope="module")
def build(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., BootFiles]:
    """`nvidia-confidential` without the driver; what it is made of is read from its own declaration."""
    declared = declare_confidential(tmp_path_factory.mktemp("declarations"))

    def make(profile: str = CONFIDENTIAL_IMAGE, agent_policy: str = "allow-all") -> BootFiles:
        options = ("--components", str(given / "components"), *declared, "--agent-policy", agent_policy)
        return build_image(profile, agent=given / "kata-agent", options=options)

    return make


@pytest.fixture(scope="module")
def image(build: Callable[..., BootFiles]) -> BootFiles:
    return build()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """With one image of one layer: the lab's static programs."""
    work, layer = tmp_path_factory.mktemp("pod"), io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("dev", "proc", "tmp", "data"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for name in ("ask", "carry", "show", "stay"):
            source = checkout().root / f"qemu-tests/container/{name}.c"
            subprocess.run(["gcc", "-static", "-O1", "-o", work / name, source], check=True)
            info = tarfile.TarInfo(name)
            data = (work / name).read_bytes()
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    packed = gzip.compress(layer.getvalue(), 1)
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/stay"], "Env": ["PATH=/"]},
                         "rootfs": {"type": "layers", "diff_ids": [sha256(layer.getvalue())]}, "history": []}).encode()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(config), "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": sha256(packed), "size": len(packed)}]}).encode()
    found = Registry()
    found.blobs |= {sha256(config): config, sha256(packed): packed}
    found.manifests |= {"1": manifest, sha256(manifest): manifest}
    yield found
    found.close()


@pytest.fixture
def broker(given: Path, tmp_path: Path) -> Iterator[Broker]:
    work = tmp_path / "broker"
    work.mkdir()
    with open_broker(given, work) as found:
        found.put(PATH, SECRET)
        yield found


def initdata(broker: Broker, registry: Registry, policy: str = "") -> dict[str, str]:
    """aa.toml and cdh.toml of such a pod, and a policy if there is one."""
    url = f"http://{HOST}:{broker.port}"
    port = registry.host.rpartition(":")[2]
    entries = {
        "aa.toml": f'[token_configs.kbs]\nurl = "{url}"\n',
        "cdh.toml": f'''socket = "unix:///run/confidential-containers/cdh.sock"
skip_sealed_secret_verification = true
[kbc]
name = "cc_kbc"
url = "{url}"
[image.registry_config]
[[image.registry_config.registry]]
prefix = "{HOST}:{port}"
location = "{HOST}:{port}"
insecure = true
'''}
    return entries | ({"policy.rego": policy} if policy else {})


@pytest.fixture
def boot(image: BootFiles, tmp_path: Path) -> Boot:
    """Boots, lets `play` ask the agent, and gives the lines that it said."""
    def run(play: Play, entries: dict[str, str], *, line: str = "", files: BootFiles = image, disks: tuple[Disk, ...] = ()) -> list[str]:
        result = boot_result(play, entries, tmp_path, files=files, line=line, disks=disks)
        assert not result.problems, "\n".join([*result.problems, *result.console.read_text(errors="replace").splitlines()[-40:]])
        assert result.told is not None
        return list(result.told.lines)

    return run


def boot_result(play: Play, entries: dict[str, str], work: Path, *, files: BootFiles, line: str = "", lost: str = "",
                disks: tuple[Disk, ...] = ()) -> Result:
    described = {"summary": "A confidential pod.", "expect": {"verdict": "lost", "code": lost} if lost else {"verdict": "ready"},
                 "machine": {"network": "user", "scratch_mib": 256, "memory_mib": 2048, "initdata": {"entries": entries}},
                 "cmdline": f"agent.launch_process_timeout=60 {line}".strip()}
    scenario = replace(parse_scenario(json.dumps(described), "confidential", "this test"), deadline_s=DEADLINE_S)

    def enter(_scenario: Scenario, agent: Agent) -> Iterator[str]:
        agent.set_address("eth0", MAC, GUEST, 24)
        agent.set_route("eth0", HOST)
        agent.create_sandbox("pod", dns=[f"nameserver {HOST}"])
        yield from play(agent)
        agent.destroy_sandbox()

    lab = replace(open_lab(checkout(), find_qemu(), files, [scenario], runtime=enter), disks=disks)
    return run_scenario(lab, scenario, work / "console")


def pulled(registry: Registry, name: str, *args: str, env: tuple[str, ...] = ("PATH=/",), metadata: dict[str, str] | None = None,
           storages: Sequence[Storage] = (), mounts: Sequence[Mount] = ()) -> Container:
    """A container whose image the guest pulls."""
    root = f"{RUN}/{name}/rootfs"
    asked = json.dumps({"metadata": metadata or {}})
    pull = Storage(driver="image_guest_pull", source=f"{HOST}:{registry.host.rpartition(':')[2]}/{IMAGE}", target=root, kind="overlay",
                   settings=(f"image_guest_pull={asked}",))
    return Container(name=name, args=args, env=env, annotations=metadata or {}, root=root, in_pod=True, mounts=tuple(mounts),
                     storages=(pull, *storages), cgroups_path=CGROUPS_PATH.replace(":lab", f":{name}"))


def run(agent: Agent, container: Container) -> Iterator[str]:
    """Its lines, and its status."""
    try:
        agent.create(container, limit_s=PULL_S)
    except RpcError as refused:
        yield f"{container.name}: refused: {refused.reason}"
        return
    agent.start(container.name)
    output = agent.read_output(container.name, container.name, PULL_S)
    yield from (f"{container.name}: {text}" for text in output.decode(errors="replace").splitlines())
    yield f"{container.name}: status {agent.wait(container.name, container.name, PULL_S)}"
    agent.remove(container.name)


def of(lines: list[str], name: str) -> list[str]:
    return [line.removeprefix(f"{name}: ") for line in lines if line.startswith(f"{name}: ")]


def affirm(broker: Broker) -> None:
    broker.ask("config", "set-resource-policy", "--affirming")
    for words in SAMPLE:
        broker.ask("config", "set-sample-reference-value", *words)


def test_an_agent_whose_policy_file_is_missing_is_named(image: BootFiles, broker: Broker, registry: Registry, tmp_path: Path) -> None:
    tree = Tree()
    tree.add_link("/etc/kata-opa/default-policy.rego", "/nothing", Origin(slice="test"))
    initrd = tmp_path / "initrd"
    join_archives([image.initrd], tree, initrd)
    went = boot_result(lambda _agent: iter(()), initdata(broker, registry), tmp_path, files=replace(image, initrd=initrd), lost="E_AGENT_EXIT")
    assert (went.verdict, went.code) == ("lost", "E_AGENT_EXIT")
    assert went.told is not None
    assert went.told.run.story.failure is not None
    assert "default-policy.rego" in went.told.run.story.failure.what


def test_a_secret_is_given_by_reference_values_only(boot: Boot, broker: Broker, registry: Registry) -> None:
    def play(agent: Agent) -> Iterator[str]:
        yield from run(agent, pulled(registry, "unknown", "/ask", REST, FETCH))
        broker.ask("config", "set-resource-policy", "--affirming")
        yield from run(agent, pulled(registry, "unregistered", "/ask", REST, FETCH))
        affirm(broker)
        broker.ask("config", "set-sample-reference-value", "launch_digest", "another")
        yield from run(agent, pulled(registry, "another", "/ask", REST, FETCH))
        affirm(broker)  # last, since a token that was given stays good for minutes
        yield from run(agent, pulled(registry, "registered", "/ask", REST, FETCH))

    lines = boot(play, initdata(broker, registry))
    assert of(lines, "registered")[0] == f"ask: 200 {SECRET.decode()}"
    for name in ("unknown", "unregistered", "another"):
        (first, *_rest) = of(lines, name)
        assert first.startswith("ask: ") and not first.startswith("ask: 200"), lines


def test_a_token_of_the_attestation_agent(boot: Boot, broker: Broker, registry: Registry) -> None:
    lines = boot(lambda agent: run(agent, pulled(registry, "token", "/ask", REST, "/aa/token?token_type=kbs")), initdata(broker, registry),
                 line="agent.guest_components_rest_api=all")
    (answer, status) = of(lines, "token")
    assert (answer.startswith("ask: 200 {"), '"token"' in answer, status) == (True, True, "status 0")


def test_a_sealed_secret_in_the_environment(boot: Boot, broker: Broker, registry: Registry) -> None:
    affirm(broker)
    sealed = {"version": "0.1.0", "type": "vault", "provider": "kbs", "name": f"kbs:///{PATH}", "provider_settings": {}, "annotations": {}}
    payload = base64.urlsafe_b64encode(json.dumps(sealed).encode()).decode().rstrip("=")
    env = ("PATH=/", f"SECRET=sealed.fakejwsheader.{payload}.fakesignature")
    lines = boot(lambda agent: run(agent, pulled(registry, "env", "/show", "env", env=env)), initdata(broker, registry))
    assert f"show env: SECRET={SECRET.decode()}" in of(lines, "env")


def test_an_image_that_the_guest_pulls_runs(boot: Boot, broker: Broker, registry: Registry) -> None:
    lines = boot(lambda agent: run(agent, pulled(registry, "pull", "/show", "/proc/self/mounts")), initdata(broker, registry))
    assert of(lines, "pull")[-1] == "status 0"
    assert any(" / overlay " in line for line in of(lines, "pull"))


def test_the_sandbox_of_a_guest_pull_lives(boot: Boot, broker: Broker, registry: Registry) -> None:
    def play(agent: Agent) -> Iterator[str]:
        agent.create(pulled(registry, "pause", "/pause", metadata={"io.kubernetes.cri.container-type": "sandbox"}), limit_s=PULL_S)
        agent.start("pause")
        agent.kill("pause", "", signal.SIGKILL)
        yield f"pause: status {agent.wait('pause', 'pause', PULL_S)}"

    assert of(boot(play, initdata(broker, registry)), "pause") == ["status 137"]  # 13 where /run is noexec


def test_programs_of_a_config_map_and_of_an_empty_volume_run(boot: Boot, broker: Broker, registry: Registry) -> None:
    show = next(iter(find_program(registry, "show")))

    def play(agent: Agent) -> Iterator[str]:
        agent.copy_file(f"{SHARED}/config-program", show, 0o100755)
        mount = Mount(target="/program", kind="bind", source=f"{SHARED}/config-program", options=("rbind", "ro"))
        yield from run(agent, pulled(registry, "config", "/program", "/proc/self/cgroup", mounts=[mount]))
        empty = Storage(driver="local", source="local", target=f"{RUN}/sandbox/rootfs/local/data", kind="local", options=("mode=0777",))
        data = Mount(target="/data", kind="bind", source=empty.target, options=("rbind", "rw"))
        yield from run(agent, pulled(registry, "empty", "/carry", "/show", "/data/show", "/proc/self/cgroup", storages=[empty], mounts=[data]))

    lines = boot(play, initdata(broker, registry))
    assert [of(lines, name)[-1] for name in ("config", "empty")] == ["status 0", "status 0"]


def find_program(registry: Registry, name: str) -> Iterator[bytes]:
    for blob in registry.blobs.values():
        if blob.startswith(b"\x1f\x8b"):
            with tarfile.open(fileobj=io.BytesIO(blob)) as tar:
                stream = tar.extractfile(name)
                assert stream is not None
                yield stream.read()


@pytest.mark.parametrize("line", ["", "agent.secure_storage_integrity=true"], ids=["plain", "integrity"])
def test_an_empty_volume_is_encrypted(boot: Boot, broker: Broker, registry: Registry, line: str) -> None:
    target = f"{RUN}/sandbox/storage/data"
    volume = Storage(driver="blk", source="/dev/vdb", target=target, kind="ext4", settings=("encryption_key=ephemeral", "create_filesystem"))
    data = Mount(target="/data", kind="bind", source=target, options=("rbind", "rw"))
    container = pulled(registry, "volume", "/carry", "/show", "/data/show", "/proc/self/mounts", storages=[volume], mounts=[data])
    lines = boot(lambda agent: run(agent, container), initdata(broker, registry), line=line)
    assert of(lines, "volume")[-1] == "status 0"
    assert any("/dev/mapper/" in text and " /data " in text for text in of(lines, "volume"))


def test_layers_of_pulled_images_lie_on_an_encrypted_disk(boot: Boot, broker: Broker, registry: Registry) -> None:
    """A pod that brings /dev/trusted_store keeps what the guest pulls off the memory; the agent goes by the device's name."""
    pulls = Mount(target="/data", kind="bind", source=f"{RUN}/image", options=("rbind", "ro"))
    container = replace(pulled(registry, "layers", "/show", "/proc/self/mounts", mounts=[pulls]), blocks={"/dev/trusted_store": DISK})
    lines = boot(lambda agent: run(agent, container), initdata(broker, registry))
    assert of(lines, "layers")[-1] == "status 0"
    assert any("/dev/mapper/" in text and " /data ext4 " in text for text in of(lines, "layers"))


def closed_policy(agent: Path, *names: str) -> str:
    """All that this agent may be asked for, but some."""
    text = render(AgentPolicy.ALLOW_ALL, requests_of(agent.read_bytes()))
    for name in names:
        assert f"default {name} := true" in text
        text = text.replace(f"default {name} := true", f"default {name} := false")
    return text


def test_the_policy_of_initdata_blocks_what_it_does_not_name(boot: Boot, given: Path, broker: Broker, registry: Registry) -> None:
    def play(agent: Agent) -> Iterator[str]:
        agent.create(pulled(registry, "main", "/stay"), limit_s=PULL_S)
        agent.start("main")
        acts: dict[str, Callable[[], None]] = {"exec": partial(agent.execute, "main", "exec", ["/show", "env"]),
                                               "policy": partial(agent.set_policy, "package agent_policy")}
        for name, act in acts.items():
            try:
                act()
                yield f"{name}: allowed"
            except RpcError as refused:
                yield f"{name}: {refused.reason}"
        agent.kill("main", "", signal.SIGKILL)
        agent.wait("main", "main", PULL_S)

    lines = boot(play, initdata(broker, registry, closed_policy(given / "kata-agent", EXEC, SET_POLICY)))
    assert f"{EXEC} is blocked by policy" in of(lines, "exec")[0]
    assert f"{SET_POLICY} is blocked by policy" in of(lines, "policy")[0]


def test_a_generated_policy_blocks_a_foreign_container(boot: Boot, given: Path, broker: Broker, registry: Registry, tmp_path: Path) -> None:
    if not (given / "genpolicy").is_file():
        pytest.skip("the folder has no genpolicy")
    pod = tmp_path / "pod.yaml"
    pod.write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": {
        "runtimeClassName": "kata-qemu-nvidia-gpu-snp",
        "containers": [{"name": "one", "image": f"{registry.host}/{IMAGE}", "command": ["/stay"]}]}}))
    settings = json.loads((given / "genpolicy-settings.json").read_text())
    settings["cluster_config"]["pause_container_image"] = f"{registry.host}/{IMAGE}"  # it is pulled, too
    (tmp_path / "genpolicy-settings.json").write_text(json.dumps(settings))
    words = ["-y", str(pod), "-p", str(given / "rules.rego"), "-j", str(tmp_path), "-r", f"--insecure-registry={registry.host}"]
    done = subprocess.run([given / "genpolicy", *words], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = boot(lambda agent: run(agent, pulled(registry, "foreign", "/ask", REST, FETCH)), initdata(broker, registry, done.stdout))
    assert "CreateContainerRequest is blocked by policy" in of(lines, "foreign")[0]


def test_the_components_as_an_extension(given: Path, build: Callable[..., BootFiles], boot: Boot, broker: Broker, registry: Registry) -> None:
    """The base and the extension as the classes of runtime-rs have them, in the place of /usr/local/bin."""
    affirm(broker)
    base = build("nvidia-base-confidential")
    folder = base.initrd.parent.parent / "nvidia-coco"
    assert image_main(["build", "nvidia-coco", "--components", str(given / "components")]) == 0
    parameters = (folder / "verity.txt").read_text().strip()
    disk = Disk(path=folder / "disk.img", serial="extension-coco")
    lines = boot(lambda agent: run(agent, pulled(registry, "one", "/ask", REST, FETCH)), initdata(broker, registry), files=base, disks=(disk,),
                 line=f"kata.extension.coco.verity_params={parameters}")
    assert of(lines, "one")[0] == f"ask: 200 {SECRET.decode()}"


@pytest.mark.parametrize("tee", ["snp", "tdx"])
def test_reference_values_of_an_image_are_registered_and_read_back(image: BootFiles, broker: Broker, tmp_path: Path, tee: str) -> None:
    from fakes.tdx import make_tdvf

    firmware = tmp_path / "firmware"
    firmware.write_bytes(make_firmware() if tee == "snp" else make_tdvf())
    folder = image.initrd.parent
    assert image_main(["measure", str(folder), "--tee", tee, "--firmware", str(firmware), "--cmdline", "console=hvc0", "-o",
                       str(tmp_path / "values.json")]) == 0
    assert broker.register(json.loads((tmp_path / "rvps-message.json").read_text())) == 200
    name = "snp_launch_measurement" if tee == "snp" else "rtmr_1"
    (value,) = json.loads((tmp_path / "values.json").read_text())["reference_values"][name]
    assert len(value) == hashlib.sha384().digest_size * 2
    assert value in broker.ask("config", "get-reference-value", "--id", name)
