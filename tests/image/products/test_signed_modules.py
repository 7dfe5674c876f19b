# SPDX-License-Identifier: Apache-2.0
"""What the lab's kernel makes of module signatures under module.sig_enforce=1, in a virtual machine.

The kernel is a distribution's: it carries that distribution's key and no other. An unsigned module, an altered one and
one that this factory signed with a key of its own are refused, and the image's report has to say the last. The same
kernel takes keys from the firmware: with the build's certificate in db, that module is loaded and all others still not.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from nvrc_build import pipeline
from nvrc_build.after import varstore
from nvrc_build.job import Job
from nvrc_build.products import kernel as kernels
from nvrc_build.products.driver import is_signed, sign
from nvrc_build.products.products import kernel_root
from nvrc_build.supply import supply
from nvrc_lab.ground.places import checkout
from nvrc_lab.kit import standins
from nvrc_lab.qemu.machine import Machine
from nvrc_lab.run.probing import MOUNTS, Guest, boot, told

CACHE = Path(__file__).resolve().parents[3] / "out/cache"
# Needs nothing else, and is in no image.
MODULE = "dummy"
# As the kernel's own build signed it, and with one byte changed; without a signature; signed by this factory, and that
# with one byte changed; signed by another run of it, whose key is another.
CASES = ("good", "altered", "unsigned", "own", "own-altered", "stranger")
REFUSED = ["error", "EKEYREJECTED"]

pytestmark = pytest.mark.qemu


def alter(module: bytes) -> bytes:
    """One byte that the kernel reads for nobody but people, so that only the signature can be the reason."""
    assert module.count(b"description=") == 1
    return module.replace(b"description=", b"Description=")


@pytest.fixture(scope="module")
def job() -> Job:
    return pipeline.open_job("lab", cache=CACHE)


@pytest.fixture(scope="module")
def modules(job: Job, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = kernel_root(pipeline.make_inputs(job))
    found, = kernels.select_modules(root, [MODULE])
    folder = tmp_path_factory.mktemp("modules")
    files = {name: folder / f"{name}.ko" for name in CASES}
    files["good"].write_bytes(found.data)
    assert is_signed(files["good"])
    files["altered"].write_bytes(alter(found.data))
    files["unsigned"].write_bytes(found.data)
    subprocess.run(["strip", "--strip-debug", files["unsigned"]], check=True)
    assert not is_signed(files["unsigned"])
    for name in ("own", "stranger"):
        (folder / name).mkdir()
        shutil.copyfile(files["unsigned"], folder / name / "x.ko")
        sign([folder / name / "x.ko"], folder / name, root=supply.root(job.supply, "compile"))
        (folder / name / "x.ko").rename(files[name])
    files["own-altered"].write_bytes(alter(files["own"].read_bytes()))
    files |= {"kernel": kernels.image_path(root), "certificate": folder / "own/signing.x509"}
    return files


def load_all(modules: Mapping[str, Path], cmdline: str, machine: Machine | None = None) -> dict[str, str]:
    """What became of each. Good ones last, and out again: a second module of one name would be refused for that."""
    shop = standins.open_workshop(checkout())
    programs = {program.path: standins.build_program(shop, program.source) for program in standins.PROGRAMS
                if program.source in {"labinit", "prober"}}
    programs |= {f"/lab/{name}.ko": modules[name] for name in CASES}
    script = MOUNTS + "".join(f"insmod /lab/{name}.ko\nrmmod {MODULE}\n" for name in reversed(CASES))
    lines = boot(Guest(kernel=modules["kernel"], programs=programs,
                       texts={"/lab/target": "/lab/prober\n", "/lab/script": script, "/lab/modules": ""}),
                 cmdline=cmdline, limit_s=180, machine=machine)
    return {line.split()[0].removeprefix("/lab/").removesuffix(".ko"): line for line in told(lines, "insmod")}


def loaded(said: Mapping[str, str]) -> set[str]:
    """The modules that got in; every other one must have been refused for its signature, and for nothing else."""
    good = {name for name, line in said.items() if line.split()[1] == "ok"}
    assert {name: said[name].split()[1:3] for name in CASES if name not in good} == {
        name: REFUSED for name in CASES if name not in good}
    return good


def test_only_what_the_kernels_own_key_signed_is_loaded(modules: dict[str, Path]) -> None:
    assert loaded(load_all(modules, "module.sig_enforce=1")) == {"good"}


def test_without_enforcement_a_signature_that_is_wrong_is_refused_all_the_same(modules: dict[str, Path]) -> None:
    """By a key that the kernel knows; what other keys signed counts as unsigned then, whatever was done to it."""
    assert loaded(load_all(modules, "")) == set(CASES) - {"altered"}


def boot_with_firmware(modules: Mapping[str, Path], job: Job, folder: Path, keys: tuple[bytes, ...]) -> dict[str, str]:
    """Under OVMF with a variable store of its own, in whose db are these keys."""
    ovmf = supply.root(job.supply, "firmware") / "usr/share/OVMF"
    store = (ovmf / "OVMF_VARS_4M.fd").read_bytes()
    for key in keys:
        store = varstore.enrol(store, key)
    (folder / "vars.fd").write_bytes(store)
    machine = Machine(extra=(
        "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={ovmf / 'OVMF_CODE_4M.fd'}",
        "-drive", f"if=pflash,unit=1,format=raw,file={folder / 'vars.fd'}"))
    said = load_all(modules, "module.sig_enforce=1", machine)
    # The firmware reads and writes the store in its own way, and keeps what was put there.
    assert varstore.certificates((folder / "vars.fd").read_bytes()) == keys
    return said


def test_a_key_in_the_firmwares_db_is_trusted_for_modules(modules: dict[str, Path], job: Job, tmp_path: Path) -> None:
    said = boot_with_firmware(modules, job, tmp_path, (modules["certificate"].read_bytes(),))
    assert loaded(said) == {"good", "own"}


def test_firmware_without_the_key_changes_nothing(modules: dict[str, Path], job: Job, tmp_path: Path) -> None:
    assert loaded(boot_with_firmware(modules, job, tmp_path, ())) == {"good"}
