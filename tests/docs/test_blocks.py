# SPDX-License-Identifier: Apache-2.0
"""Every example of every help text, of the README and of docs/, verbatim. Each command is run in a copy of docs/examples, or a
row of ELSEWHERE says where it is and its program's parser reads it; every other block is of a form that is checked, or a row of TEXTS.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from fakes import tdx
from fakes.bytecode import BYTECODE
from fakes.firmware import make_firmware
from fakes.kata_images import IMAGES, make_image
from fakes.snp import report as snp_report
from nvrc.cli import load_command, make_parser
from nvrc.pages.manual import describe_cdi, describe_nvrc
from nvrc.params.initdata import read_initdata
from nvrc_build.after.measure import Launch, snp_digest
from nvrc_build.cli import make_parser as image_parser
from nvrc_lab.__main__ import make_parser as lab_parser
from nvrc_lab.manual import IMAGE, LAB

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
PAGES = tuple(page for page in (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))) if page.name != "CHANGELOG.md")
BLOCK = re.compile(r"^(?P<indent> *)```(?P<kind>\w*)\n(?P<fenced>.*?)^(?P=indent)```$|(?<=\n\n)(?P<text>(?:    [^\n]*\n|\n(?=    ))+)", re.MULTILINE | re.DOTALL)
OURS = ("nvrc", "guest-cdi", "nvrc-image", "nvrc-lab")
PROGRAMS = (*OURS, "./dev", ".venv/bin/python", "kubectl", "ssh", "scp", "helm", "journalctl", "make", "grep", "NVRC_KATA_AGENT=", "NVRC_KATA_SHIM=")
MODULES = {"nvrc": "nvrc", "guest-cdi": "guest_cdi", "nvrc-image": "nvrc_build", "nvrc-lab": "nvrc_lab"}
KUBECTL = """#!/bin/sh
case "$*" in
    nvrc\\ *) shift; exec /bin/sh {root}/kubectl/kubectl-nvrc "$@" ;;
    *containerStatuses*) ;;
    *'get pod'*) echo 'node-7|5d1c0000-0000-4000-8000-000000000001|2026-11-20T09:14:00Z|kata-qemu-nvidia-gpu' ;;
    *'get events'* | *'describe pod'*) cat describe.txt ;;
    *'get node'*) echo '{{"kind": "Node", "metadata": {{"name": "n", "labels": {{}}}}, "status": {{"nodeInfo": {{}}}}}}' ;;
    *) echo 'Error from server (Forbidden)' >&2; exit 1 ;;
esac
"""
# What is not run here, and why. Of the four programs the parser reads the line all the same.
ELSEWHERE = (
    (r"nvrc-lab (boot|matrix|bench|soak|life)", "boots machines: tests/qemu/test_documents.py runs each, tests/qemu/test_matrix.py every scenario"),
    (r"nvrc-image (build|overlay|check-extension|enrol|lock)", "needs an archive, root or a disk: tests/image, tests/qemu/test_own_repository.py"),
    (r"nvrc-image (push|pull) ", "needs a registry: tests/image/after/test_share.py"),
    (r"nvrc status --vm ", "needs a running VM: tests/nvrc/machine/test_window.py"),
    (r"guest-cdi (generate|inject|hook)", "needs a driver, a bundle or a namespace: tests/guest_cdi, tests/namespace/test_hooks_effects.py"),
    (r"guest-cdi validate .*(/var/run/cdi|/etc/cdi)", "documents of this machine: tests/guest_cdi/test_validate.py"),
    (r"nvrc plan --record", "reads the machine it is on: tests/nvrc/commands/test_recording.py"),
    (r".*nvrc doctor --host", "judges the host it is on: tests/nvrc/preflight"),
    (r"\./dev |make |NVRC_KATA_|\.venv/bin/python -m pytest", "the tiers themselves: tests/lab/commands/test_dev.py"),
    (r"ssh |scp |helm ", "needs a cluster"), (r"kubectl (patch|logs|delete|rollout|describe pod kata)", "needs a cluster"),
)
# Commands that ask the VM or machine they run in, or tell a finding: their status.
STATUS = {
    "nvrc plan": (0, 1, 2), "nvrc params check": (0, 1, 2), "nvrc report": (2,), "nvrc status": (2,), "nvrc status --json": (2,), "nvrc doctor": (2,),
    "nvrc topology": (2,), "nvrc topology --json": (2,),
    "nvrc params check nvrc.log=debug nvrc.smi.src=1": (1,), "nvrc params check nvrc.smi.lgc=fast nvrc.smi.src=1": (1,),
    "nvrc params check --policy policy.toml - <line": (0, 1), "nvrc status --file saved.json": (0,), "nvrc doctor kata.log --sandbox 4f2a": (1,),
    "kubectl describe pod p | nvrc doctor -": (1,), "journalctl -t kata | nvrc doctor -": (1,), "nvrc-image diff old/manifest.json lab": (0, 1),
    "nvrc policy check policy.toml --cmdline 'nvrc.log=debug nvrc.cc=on'": (0, 1), "nvrc policy check policy.toml --cmdline 'nvrc.cc=on'": (0, 1),
    "guest-cdi validate nvidia.yaml": (0, 1), "nvrc plan --sysfs copy-of-sys --policy policy.toml --json": (0, 1), 'nvrc policy suggest "$(cat /proc/cmdline)" >policy.toml': (0, 1, 2),
    # Of a page whose other examples show failures.
    'nvrc-image verify nvidia-confidential --report report --firmware OVMF.amdsev.fd --cmdline "console=hvc0" --vcpus 1-8 --initdata initdata.toml': (0,),
    'nvrc-image verify nvidia-confidential --report quote --firmware OVMF.inteltdx.fd --cmdline "console=hvc0"': (0,),
    "nvrc-image verify DIR --signers allowed_signers --identity builder@example.com": (0,),
    "nvrc-image sign nvidia-confidential --key builder --builder https://ci.example.com/nvrc": (0,),
}
# Blocks that are neither commands nor of a form that is read below.
TEXTS = {
    "nvrc: step <name>": "the console's grammar: tests/nvrc/vocabulary/test_report_console.py", "nvrc.steps.entropy": "tests/docs/test_contributing.py",
    "mine/": "a folder's listing", "slice 'tools'": "a message: tests/image/tree", "Warning  FailedCreatePodSandBox": "written from the tables by nvrc.pages.pod_events",
    "0000:40:00.0/10de": "a form of the lab's hardware: tests/lab/scenario", "NVRM: gpumgr": "lines of NVIDIA's driver",
    "nvrc: step nics": "a line of the console: tests/nvrc/report", "cp docs/fleet/nvrc-preflight.*": "changes the host: tests/docs/test_fleet.py",
    "kbs-client --url URL": "Trustee's client: tests/image/after/test_reference_values.py", "curl http://127.0.0.1:8006/": "asks the guest's own loopback",
    "PID 1                      kata-agent": "who speaks to whom: tests/nvrc/confidential/test_attest.py", "GPU0  GPU1  NIC0": "a table that is printed: tests/nvrc/hardware/test_links.py",
}


INITDATA = b'version = "0.1.0"\nalgorithm = "sha256"\n'


class Example(NamedTuple):
    where: str
    command: str


def commands(text: str) -> Iterator[str]:
    """Lines that begin with a program, continued where they end with a backslash, without what explains them."""
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        words = line.strip().removeprefix("$ ")
        if words.startswith(tuple(f"{program} " if program[-1] != "=" else program for program in PROGRAMS)) or words in PROGRAMS:
            command = re.split(r" {2,}(?=\S)", words)[0]
            # Of an output, a line may begin with a program's name.
            if not re.match(r"nvrc \d|nvrc: ", command):
                yield command.rstrip()


def blocks() -> Iterator[tuple[str, str, str]]:
    for page in PAGES:
        for found in BLOCK.finditer(page.read_text()):
            yield page.name, found["kind"] or "", found["fenced"] if found["fenced"] is not None else found["text"]


def examples() -> list[Example]:
    every = [Example(page, command) for page, kind, text in blocks() if kind in ("", "sh", "console", "bash") for command in commands(text)]
    for program in (describe_nvrc(), describe_cdi(), IMAGE, LAB):
        for command in program.commands:
            helps = command.parser.epilog if command.parser else ""
            every += [Example(f"{program.name} --help", line) for line in commands("\n".join(
                line for line in re.sub(r"\s*\\\n\s*", " ", helps or "").splitlines() if line.startswith("  ")))]
    return list({one.command: one for one in every}.values())


EVERY = examples()
HERE = [one for one in EVERY if not any(re.match(pattern, one.command) for pattern, _ in ELSEWHERE)]
AWAY = [one for one in EVERY if one not in HERE]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    path = ":".join(str(ROOT / name) for name in (".", "build", "qemu-tests"))
    # In a checkout images are in its own out/; here they are in that of the folder.
    own = {"nvrc-image": ' --out "$PWD/out"'}
    texts = {name: f'#!/bin/sh\nPYTHONPATH={path} exec {sys.executable} -m {module} "$@"{own.get(name, "")}\n' for name, module in MODULES.items()}
    for name, text in (*texts.items(), ("kubectl", KUBECTL.format(root=ROOT)), ("journalctl", "#!/bin/sh\ncat kata.log\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def make_tdx(folder: Path) -> None:
    """A firmware and a kernel as TDX measures them, and a quote of a machine that started with them."""
    image, firmware, kernel = folder / "out/images/nvidia-confidential", tdx.make_tdvf(), tdx.make_kernel()
    (folder / "OVMF.inteltdx.fd").write_bytes(firmware)
    (image / "vmlinuz").write_bytes(kernel)
    started = tdx.told(firmware, kernel, "initrd=initrd console=hvc0", (image / "initrd").read_bytes())
    (folder / "quote").write_bytes(tdx.quote(started))


def furnish(folder: Path, command: str) -> None:
    """What examples name: the files of docs/examples, and images, which are too large to lie there."""
    shutil.copytree(ROOT / "docs/examples", folder, dirs_exist_ok=True)
    for name in IMAGES:
        make_image(folder / "out/images", name)
    shutil.copytree(folder / "out/images/lab", folder / "old")
    (folder / "OVMF.amdsev.fd").write_bytes(make_firmware())
    (folder / "OVMF.fd").write_bytes(make_firmware()[::-1])
    (folder / "initdata.toml").write_bytes(INITDATA)
    image = folder / "out/images/nvidia-confidential"
    if "inteltdx" in command:
        make_tdx(folder)
    digest = snp_digest(Launch(firmware=folder / "OVMF.amdsev.fd", kernel=image / "vmlinuz", initrd=image / "initrd", cmdline="console=hvc0", vcpus=2, vcpu_type="EPYC-v4"))
    (folder / "report").write_bytes(snp_report(digest, host_data=read_initdata(INITDATA).bound(32) if "--initdata" in command else bytes(32)))
    (folder / "image").mkdir()
    shutil.copyfile(folder / "policy.toml", folder / "image/policy.toml")


@pytest.mark.parametrize("one", HERE, ids=[f"{one.where} {one.command}" for one in HERE])
def test_an_example_runs(one: Example, tmp_path: Path, programs: Path) -> None:
    furnish(tmp_path, one.command)
    env = {"PATH": f"{programs}:{os.environ['PATH']}", **BYTECODE, "HOME": str(tmp_path)}
    before = PREPARE.get(one.command)
    if before:
        subprocess.run(["/bin/bash", "-c", before], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=120)
    done = subprocess.run(["/bin/bash", "-c", one.command], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120,
                          stdin=subprocess.DEVNULL)
    assert done.returncode in STATUS.get(one.command, EXPECTED.get(one.where, (0,))), done.stdout + done.stderr
    assert "Traceback" not in done.stderr and "usage: " not in done.stderr
    if done.returncode == 2 and "--json" not in one.command:
        assert done.stderr.count("\n") == 1, "asks the VM that it is in, and says that it is in none"


# An example that goes on from the one before it.
KEY = "ssh-keygen -q -t ed25519 -N '' -C builder@example.com -f builder"
SIGNED = f"""{KEY} && nvrc-image sign nvidia-confidential --key builder &&
    echo "builder@example.com namespaces=\\"nvrc-image\\" $(cat builder.pub)" >allowed_signers && cp -r out/images/nvidia-confidential DIR"""
PREPARE = {
    **dict.fromkeys(("nvrc-image sign nvidia-confidential --key builder", "nvrc-image sign nvidia-confidential --key builder --builder https://ci.example.com/nvrc"), KEY),
    **dict.fromkeys(("nvrc-image verify nvidia-confidential --signers allowed_signers --identity builder@example.com",
                     "nvrc-image verify DIR --signers allowed_signers --identity builder@example.com"), SIGNED),
    'nvrc-image measure nvidia-confidential --firmware OVMF.amdsev.fd --cmdline "console=hvc0" --compare values.json':
        'nvrc-image measure nvidia-confidential --firmware OVMF.amdsev.fd --cmdline "console=hvc0" -o values.json',
    "nvrc-image kata-config DIR --runtime-class kata-qemu-nvidia-gpu-snp --deploy deploy": "cp -r out/images/nvidia-confidential DIR",
    **dict.fromkeys(("nvrc initdata check annotation --policy image/policy.toml", "nvrc initdata digest annotation",
                     "nvrc plan --machine 'H100*8' --initdata annotation",
                     'nvrc initdata check annotation --policy image/policy.toml --cmdline "$(cat line)"'),
                    "nvrc initdata make nvrc.toml aa.toml policy.rego >annotation"),
}
# Pages whose examples show failures: test_examples.py compares what they print.
EXPECTED = {"pod.md": (0, 1), "troubleshooting.md": (0, 1), "confidential.md": (0, 1)}


@pytest.mark.parametrize("one", AWAY, ids=[f"{one.where} {one.command}" for one in AWAY])
def test_an_example_that_runs_elsewhere_is_read_by_its_program(one: Example) -> None:
    # What a shell puts in is an argument, whatever it is made of.
    last = re.sub(r"\$\([^)]*\)", "3", one.command).rpartition("|")[2].partition(" <")[0].strip()
    program, *words = shlex.split(last)
    if program in OURS:
        read(program, [word for word in words if not word.startswith(">")])
    elif program == "./dev":
        assert re.search(rf'^    "{words[0]}": Command|, "{words[0]}": Command', (ROOT / "dev").read_text(), re.MULTILINE)


def read(program: str, words: list[str]) -> None:
    with contextlib.redirect_stderr(io.StringIO()):
        if program == "nvrc":
            make_parser(load_command(words[0]), as_json=False).parse_args(words[1:])
        elif program == "guest-cdi" and words[0] != "hook":
            next(row.parser for row in describe_cdi().commands if row.words == (words[0],) and row.parser).parse_args(words[1:])
        elif program in ("nvrc-image", "nvrc-lab"):
            (image_parser if program == "nvrc-image" else lab_parser)().parse_args(words)


@pytest.mark.parametrize(("page", "kind", "text"), [pytest.param(*row, id=f"{row[0]} {number}") for number, row in enumerate(blocks())])
def test_a_block_without_commands_is_of_a_form_that_is_read_or_says_what_it_is(page: str, kind: str, text: str) -> None:
    if kind == "toml":
        tomllib.loads(text)
    elif kind == "yaml":
        assert yaml.safe_load(text)
    elif kind == "python":
        assert page == "CONTRIBUTING.md" or ast.parse(text), "test_contributing.py carries that page out"
    elif not list(commands(text)):
        assert any(text.strip().startswith(begin) for begin in TEXTS) or compiles(text), "a row of TEXTS says what it is"


def compiles(text: str) -> bool:
    """Python that is indented in a page."""
    try:
        return bool(ast.parse("".join(line.removeprefix("    ") for line in text.splitlines(keepends=True))).body)
    except SyntaxError:
        return False


def test_no_row_is_left_over() -> None:
    assert [pattern for pattern, _ in ELSEWHERE if not any(re.match(pattern, one.command) for one in EVERY)] == []
    assert [command for command in (*STATUS, *PREPARE) if command not in {one.command for one in EVERY}] == []
    assert len(HERE) > 50
