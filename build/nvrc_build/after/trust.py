# SPDX-License-Identifier: Apache-2.0
"""Commands about a finished image: its launch measurement, files laid over it, its key in a firmware."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path

from nvrc.vocabulary.output import write_document
from nvrc_build.after import measure, overlay_image, reference, tdx, varstore
from nvrc_build.after.measure import Launch
from nvrc_build.ground.errors import BuildError, WrongCallError
from nvrc_build.ground.progress import Terminal
from nvrc_build.job import EPOCH, open_supply
from nvrc_build.output import disk
from nvrc_build.output.verity import parse_parameters
from nvrc_build.papers.inventory import Inventory, find_manifest, read_inventory, read_parameters
from nvrc_build.supply import supply

SNP, TDX = "snp", "tdx"
_QEMU, _KEEPS_KERNEL = (10, 1), (10, 0)
MOST_MIB = 1 << 26

MEASURE_EPILOG = """examples:
  nvrc-image measure nvidia-confidential --firmware OVMF.amdsev.fd --cmdline "console=hvc0" --vcpus 1-8 -o values.json
  nvrc-image measure nvidia-confidential --firmware OVMF.amdsev.fd --cmdline "console=hvc0" --compare values.json
  nvrc-image measure nvidia-base --firmware OVMF.amdsev.fd --cmdline "console=hvc0" --extension nvidia-gpu
  nvrc-image measure nvidia-confidential --tee tdx --firmware OVMF.inteltdx.fd --cmdline "console=hvc0" -o values.json

The command line is the one that QEMU gets from the runtime class (-append), whole. For TDX neither processors nor
memory change a value, unless QEMU is older than 10.0: then the kernel's register depends on --memory.
"""


def _read(args: argparse.Namespace) -> Inventory:
    return read_inventory(find_manifest(args.image, args.out / "images"))


def measure_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", help="an image in OUT/images, its folder, or its manifest.json")
    parser.add_argument("--tee", choices=(SNP, TDX), default=SNP, help=f"which kind of guest (default: {SNP})")
    launch_arguments(parser)
    parser.add_argument("--extension", action="append", default=[], metavar="IMAGE",
                        help="an extension whose driver version is registered, too; may be given several times")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE",
                        help=f"write reference values, and {reference.RVPS_FILE} beside them")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="compare with reference values; exit 1 if unequal")


def launch_arguments(parser: argparse.ArgumentParser, *, is_for_a_report: bool = False) -> None:
    parser.add_argument("--firmware", type=Path, required=not is_for_a_report,
                        help=f"OVMF with SEV or TDX metadata{', needed with --report' if is_for_a_report else ''}")
    parser.add_argument("--cmdline", default="", help="kernel command line; a disk image's root parameters are added")
    parser.add_argument("--kernel", type=Path, help="kernel (default: the image's own)")
    parser.add_argument("--vcpus", default="1", metavar="N[-M]",
                        help="virtual CPUs at start, one digest for each: 4, 1-8 or 1,2,8-12 (default: 1)")
    parser.add_argument("--vcpu-type", default="EPYC-v4", help="CPU model given to QEMU (default: EPYC-v4)")
    parser.add_argument("--guest-policy", type=number, default=reference.GUEST_POLICY, metavar="N",
                        help=f"snp_guest_policy of the class (default: {reference.GUEST_POLICY:#x})")
    parser.add_argument("--qemu", type=release, default=_QEMU, metavar="RELEASE",
                        help="for TDX: QEMU's release; before 10.0 it changes the kernel's header (default: "
                             f"{'.'.join(map(str, _QEMU))})")
    parser.add_argument("--memory", type=size, action="append", metavar="MIB",
                        help="for TDX with a QEMU before 10.0: memory of the VM; may be given several times")


def number(text: str) -> int:
    return int(text, 0)


def release(text: str) -> tuple[int, ...]:
    """`10.1` or `9.2.1`."""
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}", text):
        raise ValueError(text)
    return tuple(int(part) for part in text.split("."))


def size(text: str) -> int:
    if not 0 < int(text) <= MOST_MIB:
        raise ValueError(text)
    return int(text)


def run_measure(args: argparse.Namespace) -> int:
    image = _read(args)
    extensions = [read_inventory(find_manifest(name, args.out / "images")) for name in args.extension]
    drivers = reference.driver_versions([image, *extensions])
    values, table = _measure_tdx(image, args, drivers) if args.tee == TDX else _measure_snp(image, args, drivers)
    text = json.dumps(values, indent=1, sort_keys=True) + "\n"
    message = args.output.parent / reference.RVPS_FILE if args.output is not None else None
    if message is not None:
        args.output.write_text(text, encoding="utf-8")
        message.write_text(json.dumps(reference.rvps_message(values)) + "\n", encoding="utf-8")
    print(text if args.json else f"{table}{reference.registration(values, message)}", end="")
    differs = reference.compare_values(args.compare, values) if args.compare is not None else ()
    for line in differs:
        print(f"nvrc-image: {line}", file=sys.stderr)
    return 1 if differs else 0


def _measure_snp(image: Inventory, args: argparse.Namespace, drivers: tuple[str, ...]) -> tuple[dict[str, object], str]:
    launch, shapes = make_launch(image, args), measure.parse_shapes(args.vcpus)
    digests = measure.measure_shapes(launch, shapes)
    table = "".join(f"{vcpus:5}  {digest.hex()}\n" for vcpus, digest in digests.items())
    return (reference.describe(image.image, launch, digests, policy=args.guest_policy, drivers=drivers),
            f"vCPUs  snp_launch_measurement\n{table}")


def _measure_tdx(image: Inventory, args: argparse.Namespace, drivers: tuple[str, ...]) -> tuple[dict[str, object], str]:
    machine = make_machine(image, args)
    if not machine.is_steady and not args.memory:
        raise WrongCallError("what a QEMU before 10.0 makes of the kernel's header depends on the machine's memory",
                             "give --memory, once for each size")
    shapes = machine.shapes(args.memory or ())
    first = next(iter(shapes.values()))
    rows = [(tdx.ANY, "mr_td", first.mr_td), *((name, "rtmr_1", row.rtmr_1) for name, row in shapes.items()),
            (tdx.ANY, "rtmr_2", first.rtmr_2)]
    width = max(len(name) for name in ("memory", *shapes))
    table = "".join(f"{tdx.ANY:5}  {memory:{width}}  {name:6}  {value.hex()}\n" for memory, name, value in rows)
    return (reference.describe_tdx(image.image, machine, shapes, drivers=drivers),
            f"vCPUs  {'memory':{width}}  value\n{table}")


def make_machine(image: Inventory, args: argparse.Namespace) -> tdx.Machine:
    launch = make_launch(image, args)
    measure.check_launch(launch)
    return tdx.Machine(launch, keeps_kernel=args.qemu >= _KEEPS_KERNEL)


def make_launch(image: Inventory, args: argparse.Namespace) -> Launch:
    initrd = image.folder / "initrd" if image.format == "initrd" else None
    words = [args.cmdline]
    if initrd is None:
        words.insert(0, parse_parameters(read_parameters(image)).root_parameters(fstype=image.filesystem))
    return Launch(firmware=args.firmware, kernel=args.kernel or image.folder / "vmlinuz", initrd=initrd,
                  cmdline=" ".join(word for word in words if word), vcpus=1, vcpu_type=args.vcpu_type)


def overlay_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", help="a disk image: its name, folder, manifest.json or disk.img; or a disk of Kata's "
                        "layout alone")
    parser.add_argument("folder", type=Path, help="what to lay over it, laid out as in the image")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("-o", "--output", type=Path, metavar="DIR", help="the new image's folder")
    where.add_argument("--name", help="the new image's name: its folder is OUT/images/NAME")


def run_overlay(args: argparse.Namespace) -> int:
    base = _base(args)
    if args.name is not None and ("/" in args.name or args.name.startswith(".") or not args.name):
        raise WrongCallError(f"{args.name!r} is not a name of an image", "give --name a word, or -o a folder")
    target = args.output or args.out / "images" / args.name
    if target.suffix == ".img" or (target.exists() and not target.is_dir()):
        raise WrongCallError(f"{target} is not a folder, and an image is a folder",
                             "give -o a folder; it will hold disk.img")
    disk.read_partitions(base.disk)  # before tools are fetched for it
    terminal = Terminal(sys.stderr)
    things = open_supply(cache=args.cache or args.out / "cache", mirror=args.mirror, progress=terminal)
    done = overlay_image.overlay_image(base, args.folder, target, tools=supply.root(things, "tools"), epoch=EPOCH)
    terminal.close()
    if args.json:
        write_document(sys.stdout, {"image": str(target), "parameters": done.verity.parameters(),
                                    "changes": list(done.changes)})
    else:
        print("".join(f"{line}\n" for line in done.changes) + f"{done.verity.parameters()}\n{target}")
    return 0


def _base(args: argparse.Namespace) -> overlay_image.Base:
    """A disk that lies in no image's folder has no papers; anything else is found as everywhere."""
    given = Path(args.image)
    if given.is_file() and given.name != "manifest.json" and not (given.parent / "manifest.json").is_file():
        return overlay_image.Base(disk=given, manifest=None)
    manifest = find_manifest(args.image, args.out / "images")
    image = read_inventory(manifest)
    if image.format != "disk":
        raise WrongCallError(f"image {image.image} is an {image.format}, and files are laid over disks only",
                             "build it with the files in a slice, or append a second archive to the initrd")
    return overlay_image.Base(disk=image.folder / "disk.img", manifest=manifest)


def enrol_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", help="an image with driver modules: its name, folder, or manifest.json")
    parser.add_argument("--vars", type=Path, required=True, metavar="FILE", help="OVMF_VARS*.fd; it is not changed")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the new variable store")


def run_enrol(args: argparse.Namespace) -> int:
    """Put the certificate that the image's modules are signed with into `db` of a copy of a variable store."""
    certificate = _read(args).folder / "signing.x509"
    if not certificate.is_file():
        raise BuildError(f"image {args.image} has no signing.x509",
                         "name an image with driver modules; only such an image has one")
    der = certificate.read_bytes()
    fresh = varstore.enrol(args.vars.read_bytes(), der)
    args.output.write_bytes(fresh)
    keys, sha256 = len(varstore.certificates(fresh)), hashlib.sha256(der).hexdigest()
    if args.json:
        write_document(sys.stdout, {"store": str(args.output), "certificate_sha256": sha256, "certificates": keys})
    else:
        print(f"{args.output}: db holds signing.x509 (sha256 {sha256}) and {keys - 1} more")
    return 0
