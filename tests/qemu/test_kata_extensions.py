# SPDX-License-Identifier: Apache-2.0
"""Our base under extensions as Kata publishes them: three disks, each with its hash tree, on one machine with a GPU; and a hostile container from a fourth.

Kata's own disks cannot be had here. These have what its build puts where (tools/osbuilder/rootfs-builder/nvidia, and
docs/design/composable-vm-images.md): programs in /bin beside a /usr without any, modules in /lib with a tree of their
own, a loader cache that does not know where it is mounted, no ldconfig; components that a manifest names. What the
programs need of the base they do not have. The content is the lab's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from fakes.measured_root import Went, boot, make_first_stage, root_words, with_functions
from fakes.tenant import ENGINE, LINKS, bundle_tree, read_answers
from nvrc_build import pipeline
from nvrc_build.after.contents import read_tree
from nvrc_build.after.extension import check_extension
from nvrc_build.declared.declared import FileSystem
from nvrc_build.job import CHECKOUT, EPOCH, Brought
from nvrc_build.output import disk, pack
from nvrc_build.supply import compile as compiler
from nvrc_build.tree.tree import Kind, Origin, Tree
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit import kit, standins
from nvrc_lab.kit.standins import DRIVER_VERSION
from nvrc_lab.qemu.machine import Disk
from nvrc_lab.run.probing import told
from nvrc_lab.scenario.hardware import describe_functions, describe_nvml, place_gpus
from nvrc_lab.scenario.scenario import find_scenario, read_scenario

pytestmark = pytest.mark.qemu

CACHE = CHECKOUT / "out/cache"
OURS = "ours"
LIB = "/usr/lib/x86_64-linux-gnu"
METRICS_PORT = 9400  # that a container tries to take (tests/fakes/tenant.c)
GPU, COCO = "/run/kata-extensions/gpu", "/run/kata-extensions/coco"
COMPONENTS = ("api-server-rest", "attestation-agent", "attestation-agent-nv", "confidential-data-hub")
MANIFEST = """\
schema_version = 1
[paths]
"ocicrypt-config" = "etc/ocicrypt_config.json"
"pause-bundle" = "pause_bundle"
[[process]]
id = "attestation-agent"
level = 1
select = "${attester_variant}"
[process.variants.default]
path = "usr/local/bin/attestation-agent"
[process.variants.nvidia]
path = "usr/local/bin/attestation-agent-nv"
env = { LD_LIBRARY_PATH = "${extension_root}/usr/local/lib:/run/kata-extensions/gpu/usr/lib" }
[[process]]
id = "confidential-data-hub"
level = 2
path = "usr/local/bin/confidential-data-hub"
[[process]]
id = "api-server-rest"
level = 3
path = "usr/local/bin/api-server-rest"
"""
# Where the agent would be: what it and its containers would find.
SCRIPT = f"""\
run {ENGINE}
cat /proc/sys/kernel/modules_disabled
cat /proc/modules
ls {GPU}/bin
ls {COCO}/usr/local/bin
ls /usr/lib/firmware/nvidia
grep /var/run/cdi/nvidia.yaml hostPath
run {COCO}/usr/local/bin/attestation-agent-nv {COCO}/etc/said
poweroff
"""
# The second one is built and booted where somebody waits for more images than CI has: NVRC_BUILT_IMAGES=1.
CONFIDENTIAL = "kata-base-confidential"
BASES = (CONFIDENTIAL, *(("kata-base",) if os.environ.get("NVRC_BUILT_IMAGES") else ()))
# The confidential one's policy denies metrics.
METRICS: Mapping[str, tuple[str, ...]] = {CONFIDENTIAL: (), "kata-base": (f"nvrc.metrics={METRICS_PORT}",)}
# What the lab itself puts on the line: the first stage, and the clock of an emulated machine.
WORDS = 'words = ["*"]'


@pytest.fixture(scope="module", params=BASES)
def declared(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def base(declared: str, tmp_path_factory: pytest.TempPathFactory) -> pipeline.Image:
    """With probes for the agent, which reads no policy; the confidential one lets the lab's own words pass."""
    own, shipped = tmp_path_factory.mktemp("own"), CHECKOUT / "rootfs"
    for folder in ("images", "slices", "files", "locks"):
        (own / folder).mkdir()
    (own / f"images/{OURS}.toml").write_text(
        f'extends = "{declared}"\nagent_policy = "allow-all"\n[add]\nslices = ["probes"]\n')
    links = "".join(f'[[link]]\npath = "/lab/{name}"\ntarget = "/run/kata-extensions/tenant/{name}"\n' for name in LINKS)
    (own / "slices/probes.toml").write_text(f'why = "x"\n[[text]]\npath = "/lab/script"\nsource = "script"\n{links}')
    (own / "files/script").write_text(SCRIPT)
    policy = (shipped / "files/policy-confidential-extensions.toml").read_text(encoding="utf-8")
    assert 'words = ["@kata"]' in policy
    (own / "files/policy-confidential-extensions.toml").write_text(policy.replace('words = ["@kata"]', WORDS))
    (own / f"locks/image-{OURS}.toml").write_bytes((shipped / f"locks/image-{declared}.toml").read_bytes())
    agent = standins.build_program(standins.open_workshop(checkout()), "prober")
    return pipeline.build(OURS, out=tmp_path_factory.mktemp("images"), cache=CACHE, agent=agent,
                          brought=Brought(declarations=own))


def gpu_tree(bench: kit.Bench, nvml: str, work: Path) -> Tree:
    """What assemble_nvidia_gpu_extension of Kata's nvidia_rootfs.sh leaves."""
    lab, tree, origin = Tree(), Tree(), Origin(slice="gpu")
    kit.add_driver(bench, lab, work)
    for entry in lab:
        path = re.sub("^/usr/(bin|sbin|lib/firmware)/", r"/\1/", entry.path)
        if entry.kind is Kind.FILE:
            tree.add_file(path, entry.content, origin, entry.mode)
        elif entry.kind is Kind.LINK and entry.path.startswith(LIB):
            tree.add_link(path, entry.target, origin)
    program = standins.build_program(bench.shop, "nvidia")
    for name in ("nvidia-ctk", "nvidia-cdi-hook"):
        tree.add_file(f"/bin/{name}", program, origin, 0o755)
    release, built = compiler.headers_release(bench.shop.root), standins.build_modules(bench.shop).files
    for name, file in (("nvidia", "nvidia"), ("nvidia_uvm", "nvidia-uvm")):
        tree.add_file(f"/lib/modules/{release}/kernel/drivers/video/{file}.ko", built[name], origin)
    tree.add_file(f"/lib/modules/{release}/modules.dep",
                  b"kernel/drivers/video/nvidia.ko:\nkernel/drivers/video/nvidia-uvm.ko: kernel/drivers/video/nvidia.ko\n", origin)
    tree.add_file("/etc/ld.so.cache", kit.make_cache(bench, lab, work), origin)
    tree.add_file(f"{LIB}/nvml-mock.conf", nvml.encode(), origin)
    return tree


def coco_tree(program: Path) -> Tree:
    tree, origin = Tree(), Origin(slice="coco")
    for path in (*(f"/usr/local/bin/{name}" for name in COMPONENTS), "/usr/sbin/cryptsetup", "/pause_bundle/rootfs/pause"):
        tree.add_file(path, program, origin, 0o755)
    for path, text in {"/etc/kata-extensions/components.toml": MANIFEST, "/etc/ocicrypt_config.json": "{}",
                       "/pause_bundle/config.json": "{}", "/etc/said": "say started\n"}.items():
        tree.add_file(path, text.encode(), origin)
    return tree


def write(name: str, tree: Tree, folder: Path, tools: Path) -> tuple[Disk, str]:
    """The disk, and the word that the runtime writes for it."""
    assert not tree.conflicts
    pack.write_filesystem(FileSystem.EROFS, tree, folder / "data", tools=tools, epoch=EPOCH)
    parameters = disk.write_disk(folder / "data", folder / f"{name}.img").parameters()
    return Disk(path=folder / f"{name}.img", serial=f"extension-{name}"), f"kata.extension.{name}.verity_params={parameters}"


@pytest.fixture(scope="module")
def went(declared: str, base: pipeline.Image, tmp_path_factory: pytest.TempPathFactory) -> Went:
    folder, bench = tmp_path_factory.mktemp("machine"), kit.open_bench(checkout())
    for name in ("work", "unpacked", "modules"):
        (folder / name).mkdir()
    scenario = read_scenario(find_scenario("cc-on", checkout().scenarios))
    gpus = place_gpus(scenario.machine)
    trees = {"gpu": gpu_tree(bench, describe_nvml(gpus, DRIVER_VERSION, ()), folder / "work"),
             **({"coco": coco_tree(standins.build_program(bench.shop, "prober"))} if declared == CONFIDENTIAL else {})}
    tenant = bundle_tree(folder / "work")
    lower, release = read_tree(base.disk, folder / "unpacked", "base", tools=bench.tools), compiler.headers_release(bench.shop.root)
    for name, tree in trees.items():
        assert check_extension(lower, tree, release) == (), name
    made = [write(name, tree, folder, bench.tools) for name, tree in {**trees, "tenant": tenant}.items()]
    stage = with_functions(make_first_stage(folder / "modules", CACHE), describe_functions(scenario, gpus, {}))
    line = " ".join((root_words(base), *(word for _, word in made), "nvrc.smi.srs=1", *METRICS[declared]))
    return boot(stage, folder, line, (Disk(path=base.disk, serial="image"), *(one for one, _ in made)), memory_mib=1024)


def test_the_guest_gets_ready_with_the_driver_of_the_one_and_the_components_of_the_other(declared: str, went: Went) -> None:
    assert went.story.ready is not None, "\n".join(went.lines[-20:])
    mounted = next(line for line in went.lines if "nvrc: step extensions ok" in line)
    names = {"gpu", "tenant", *(("coco",) if declared == CONFIDENTIAL else ())}
    assert set(mounted.split()[-len(names):]) == names
    assert told(went.lines, "cat /proc/sys/kernel/modules_disabled") == ["1"]
    loaded = {line.split()[0] for line in told(went.lines, "cat /proc/modules")}
    assert {"nvidia", "nvidia_uvm"} <= loaded


def test_what_both_brought_is_where_agent_and_containers_look(declared: str, went: Went) -> None:
    assert {"nvidia-cdi-hook", "nvidia-ctk", "nvidia-persistenced", "nvidia-smi"} <= set(told(went.lines, f"ls {GPU}/bin")[0].split())
    if declared == CONFIDENTIAL:
        assert told(went.lines, f"ls {COCO}/usr/local/bin") == [" ".join(COMPONENTS)]
    assert told(went.lines, "ls /usr/lib/firmware/nvidia") == [DRIVER_VERSION]
    paths = " ".join(told(went.lines, "cat /var/run/cdi/nvidia.yaml"))
    assert f"{GPU}{LIB}/libcuda.so.{DRIVER_VERSION}" in paths
    assert f"{GPU}/bin/nvidia-smi" in paths


def test_a_component_of_the_extension_can_be_started(declared: str, went: Went) -> None:
    if declared != CONFIDENTIAL:
        pytest.skip("the other base is not mounted under extension coco: it has no libraries of cryptsetup")
    assert told(went.lines, "say") == ["started"]
    assert [row.partition(" ms=")[0] for row in told(went.lines, f"run {COCO}/usr/local/bin/attestation-agent-nv")] == ["exit=0"]


def test_a_container_does_there_what_it_does_on_the_labs_image_and_no_more(declared: str, went: Went) -> None:
    found = read_answers(went.lines)
    assert {"begins", "end"} <= found.keys(), went.lines[-40:]
    assert len(found) > 90
    # Where nothing serves metrics their port is the pod's.
    pods = set() if METRICS[declared] else {"metrics-port", "metrics-port-of-loopback", "metrics-port-of-6"}
    assert {name for name, answer in found.items() if answer == "done"} == {"audit", "stack", "nameless", "crash"} | pods
