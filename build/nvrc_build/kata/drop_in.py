# SPDX-License-Identifier: Apache-2.0
"""The drop-in that makes a Kata runtime class boot an image of ours.

Of the class's own configuration everything holds that the drop-in does not name. Both runtimes merge tables and replace
scalars and lists whole, so lists are always written whole here. The Go runtime refuses a key of [hypervisor.qemu] or
[agent.kata] that it does not know, which is why keys depend on the runtime. The text is parsed again before it is given
out. kata_classes.py has the classes, kata_timeouts.py the timeouts, kata_extensions.py the list of extensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nvrc.params.parse import Severity, parse
from nvrc.vocabulary.paths import POLICY
from nvrc.vocabulary.tomltext import parse_toml
from nvrc_build.ground.errors import BuildError, WrongCallError
from nvrc_build.kata.classes import KataClass, Runtime
from nvrc_build.kata.extensions import Choice, Extension, choose_extensions
from nvrc_build.kata.line import check_line, whole_line
from nvrc_build.kata.timeouts import PULL_S, Machine, Timeouts, find_timeouts
from nvrc_build.output.verity import parse_parameters
from nvrc_build.papers.inventory import Inventory, read_parameters

# What a guest of ours cannot do without, on a class that says nothing: the kernel has no version 1 controllers.
_LEAST_PARAMETERS = "cgroup_no_v1=all"
_CLASS_ROOT_PORTS = 8

Value = str | int | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`prefix`: the folder on the nodes below which each image has a folder of its name; without it, paths of here."""

    image: Inventory
    kata: KataClass
    machine: Machine
    choice: Choice
    kernel: Path | None = None
    prefix: PurePosixPath | None = None
    kernel_params: str = ""
    # The class's own line as a node has it; None: as Kata 4.1 ships it.
    class_params: str | None = None
    is_debug: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DropIn:
    """`kernel_params`: what the class's guests get then, also where the drop-in leaves the class's own line alone."""

    text: str
    kernel_params: str
    timeouts: Timeouts
    notes: tuple[str, ...]


def write_drop_in(request: Request) -> DropIn:
    kata = request.kata
    _check_bootable(request.image)
    own = kata.kernel_params if request.class_params is None else request.class_params
    line, notes = check_parameters(own, request.kernel_params)
    rows, told = choose_extensions(request.image, kata, request.choice)
    timeouts = find_timeouts(request.machine, line, is_tee=kata.pulls_in_guest,
                             pull_s=PULL_S if kata.pulls_in_guest else 0)
    hypervisor = _boot_rows(request)
    hypervisor |= {"kernel_params": line} if line != own else {}
    ports = request.machine.gpus + request.machine.nvswitches
    if kata.runtime is Runtime.RUST and ports > _CLASS_ROOT_PORTS:
        hypervisor["pcie_root_port"] = ports  # the Go runtime counts the devices itself
    agent, runtime = _timeout_rows(kata, timeouts)
    if request.is_debug:
        for table in (hypervisor, agent, runtime):
            table["enable_debug"] = True
        notes += _debug_notes(kata)
    # An array of tables ends its table, so it comes last.
    text = (f"# {request.image.image} for {kata.name}\n"
            + _table("agent.kata", agent) + _table("runtime", runtime) + _table("hypervisor.qemu", hypervisor)
            + (_extension_rows(rows) if rows else "guest_extension_images = []\n"))
    made = DropIn(text=text, kernel_params=line, timeouts=timeouts, notes=(*notes, *told, *_judge(request, line, rows)))
    validate(made.text, are_here=request.prefix is None, extensions=rows)
    return made


def _judge(request: Request, line: str, extensions: tuple[Extension, ...]) -> tuple[str, ...]:
    """By the image's own policy, as the guest will; what cannot be judged here is told."""
    image = request.image
    if image.policy:
        verity = read_parameters(image) if image.format == "disk" else ""
        check_line(image, whole_line(image, request.kata, line, extensions, verity=verity, is_debug=request.is_debug))
        return ()
    return ((f"the policy of image {image.image} is not in its manifest, so the line was not judged by it",)
            if POLICY in image.files else ())


def check_parameters(own: str, given: str) -> tuple[str, tuple[str, ...]]:
    """The whole line, read by the guest's own parser: what it would refuse or ignore does not reach a node."""
    if any(sign in '"\\' or not sign.isprintable() or not sign.isascii() for sign in given):
        raise BuildError("kernel parameters with a quote, a backslash or a character that cannot be printed cannot be "
                         "passed on", "leave them out")
    words = given.split()
    keys = {word.partition("=")[0] for word in words}
    if runtimes := sorted(key for key in keys if key.startswith("kata.extension.")):
        raise BuildError(f"{runtimes[0]} is written by the runtime", "give the extension with --extension NAME=IMAGE")
    # pci= may be there several times; of a parameter of ours the last one holds, so it takes the place of the class's.
    kept = [word for word in (own or _LEAST_PARAMETERS).split()
            if not (word.startswith("nvrc.") and word.partition("=")[0] in keys)]
    line = " ".join((*kept, *words))
    problems = parse(line.encode()).problems
    bad = tuple(str(problem) for problem in problems if problem.severity is not Severity.NOTICE)
    if bad:
        raise BuildError("the kernel parameters have mistakes", "correct --kernel-params", findings=bad)
    return line, tuple(str(problem) for problem in problems)


def is_bootable(image: Inventory) -> bool:
    return bool(image.files.keys() & {"/init", "/sbin/init"})


def _check_bootable(image: Inventory) -> None:
    if not is_bootable(image):
        raise BuildError(f"image {image.image} has no init: it is an extension",
                         f"give the base image, and this one as --extension NAME={image.image}")


def _boot_rows(request: Request) -> dict[str, Value]:
    """Image or initrd, never both: the runtime refuses a configuration with two."""
    image, rows = request.image, dict[str, Value]()
    if request.kernel is not None and request.prefix is not None and not request.kernel.is_absolute():
        raise WrongCallError(f"kernel {request.kernel} is not a path of a node", "give --kernel an absolute path")
    if request.kernel is not None:
        rows["kernel"] = str(request.kernel if request.prefix is not None else request.kernel.resolve())
    elif (image.folder / "vmlinuz").is_file():
        rows["kernel"] = place(image, "vmlinuz", request.prefix)
    if image.format != "disk":
        return {**rows, "initrd": place(image, "initrd", request.prefix), "image": ""}
    rows |= {"image": place(image, "disk.img", request.prefix), "initrd": "", "rootfs_type": image.filesystem,
             "kernel_verity_params": read_parameters(image), "disable_image_nvdimm": True}
    return rows | ({"vm_rootfs_driver": "virtio-blk-pci"} if request.kata.runtime is Runtime.RUST else {})


def place(image: Inventory, name: str, prefix: PurePosixPath | None) -> str:
    """Where a file of the image lies: here, or on a node."""
    return str(image.folder.resolve() / name if prefix is None else prefix / image.image / name)


def _timeout_rows(kata: KataClass, timeouts: Timeouts) -> tuple[dict[str, Value], dict[str, Value]]:
    """One meaning, two spellings: the keys of [agent.kata] and of [runtime]."""
    if kata.runtime is Runtime.GO:
        return {"dial_timeout": timeouts.dial_s}, {"create_container_timeout": timeouts.create_container_s}
    return {"reconnect_timeout_ms": timeouts.dial_s * 1000,
            "create_container_timeout": timeouts.create_container_s}, {}


def _debug_notes(kata: KataClass) -> tuple[str, ...]:
    told = ["--debug: containerd's journal has the guest's console as vmconsole=\"...\", once containerd's own "
            'configuration says [debug] level = "debug"']
    if kata.pulls_in_guest:
        told.append("--debug changes the guest's command line, and with it the launch measurement")
    return tuple(told)


def _table(name: str, rows: Mapping[str, Value]) -> str:
    return f"\n[{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in rows.items()) if rows else ""


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else _quote(value)


def _quote(value: str) -> str:
    if not value.isprintable():
        raise BuildError(f"{value!r} has a character that cannot be printed", "use other names for files and folders")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _extension_rows(rows: tuple[Extension, ...]) -> str:
    return "".join(f"\n[[hypervisor.qemu.guest_extension_images]]\nname = {_quote(row.name)}\n"
                   f"path = {_quote(row.path)}\nverity_params = {_quote(row.parameters)}\n" for row in rows)


def validate(text: str, *, are_here: bool, extensions: tuple[Extension, ...] = ()) -> None:
    """It parses, says what its reader needs, and names files that exist, as far as they can be looked for here."""
    findings = []
    try:
        hypervisors = parse_toml(text)["hypervisor"]
        hypervisor = hypervisors["qemu"] if isinstance(hypervisors, dict) else {}
        if bool(hypervisor.get("image")) == bool(hypervisor.get("initrd")):
            findings.append("the drop-in needs exactly one of image and initrd")
        if hypervisor.get("kernel_verity_params"):
            parse_parameters(hypervisor["kernel_verity_params"])
        read = tuple((row["name"], row["path"], row["verity_params"])
                     for row in hypervisor["guest_extension_images"])
        if read != tuple((row.name, row.path, row.parameters) for row in extensions):
            findings.append("the drop-in's extensions are not those that were chosen")
        if are_here:
            named = {key: hypervisor[key] for key in ("kernel", "image", "initrd") if hypervisor.get(key)}
            findings += [f"the drop-in's {key} {path} does not exist" for key, path in named.items()
                         if not Path(path).is_file()]
            findings += [f"extension {row.name}: {row.path} does not exist" for row in extensions
                         if row.is_ours and not Path(row.path).is_file()]
    except (ValueError, KeyError, BuildError) as wrong:
        findings.append(f"the drop-in cannot be read back: {wrong}")
    if findings:
        raise BuildError("the Kata configuration is not good", findings=tuple(findings))
