# SPDX-License-Identifier: Apache-2.0
"""What the lab's kernel makes of module signatures under module.sig_enforce=1, in a virtual machine.

The kernel is a distribution's: it carries that distribution's key and no other. An unsigned module, an altered one and
one that this factory signed with a key of its own are refused, and the image's report has to say the last.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from nvrc_build import kernel as kernels
from nvrc_build import pipeline, supply
from nvrc_build.driver import is_signed, sign
from nvrc_build.products import kernel_root
from nvrc_lab import standins
from nvrc_lab.places import checkout
from nvrc_lab.probing import MOUNTS, Guest, boot, told

CACHE = Path(__file__).resolve().parents[2] / "out/cache"
# Needs nothing else, and is in no image.
MODULE = "dummy"
CASES = ("good", "altered", "unsigned", "foreign")

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One module of the kernel's own, as it came; with one byte changed; without signature; signed by this build."""
    job = pipeline.open_job("lab", cache=CACHE)
    root = kernel_root(pipeline.make_inputs(job))
    found, = kernels.select_modules(root, [MODULE])
    folder = tmp_path_factory.mktemp("modules")
    files = {name: folder / f"{name}.ko" for name in CASES}
    files["good"].write_bytes(found.data)
    assert is_signed(files["good"])
    at = found.data.index(b"license=GPL")
    files["altered"].write_bytes(found.data[:at] + b"License=GPL" + found.data[at + 11:])
    for name in ("unsigned", "foreign"):
        files[name].write_bytes(found.data)
        subprocess.run(["strip", "--strip-debug", files[name]], check=True)
        assert not is_signed(files[name])
    sign([files["foreign"]], folder, root=supply.root(job.supply, "compile"))
    files["kernel"] = kernels.image_path(root)
    return files


def load_all(modules: dict[str, Path], cmdline: str) -> dict[str, str]:
    shop = standins.open_workshop(checkout())
    programs = {program.path: standins.build_program(shop, program.source) for program in standins.PROGRAMS
                if program.source in {"labinit", "prober"}}
    programs |= {f"/lab/{name}.ko": modules[name] for name in CASES}
    # The good one last: a second module of one name would be refused for that.
    script = MOUNTS + "".join(f"insmod /lab/{name}.ko\n" for name in reversed(CASES)) + "kmsg PKCS\nkmsg module\n"
    lines = boot(Guest(kernel=modules["kernel"], programs=programs,
                       texts={"/lab/target": "/lab/prober\n", "/lab/script": script, "/lab/modules": ""}),
                 cmdline=cmdline, limit_s=90)
    return {line.split()[0].removeprefix("/lab/").removesuffix(".ko"): line for line in told(lines, "insmod")}


def test_only_what_the_kernels_own_key_signed_is_loaded(modules: dict[str, Path]) -> None:
    said = load_all(modules, "module.sig_enforce=1")
    assert said.pop("good").startswith("/lab/good.ko ok")
    assert {name: line.split()[1:3] for name, line in said.items()} == {
        name: ["error", "EKEYREJECTED"] for name in CASES if name != "good"}


def test_without_enforcement_a_signature_that_is_wrong_is_refused_all_the_same(modules: dict[str, Path]) -> None:
    said = load_all({**modules, "unsigned": modules["altered"]}, "")
    assert said["altered"].split()[1:3] == ["error", "EKEYREJECTED"]
    assert said["foreign"].startswith("/lab/foreign.ko ok")
