# SPDX-License-Identifier: Apache-2.0
"""`nvrc-image verify`: is an image what its builder signed, and a report one of it, and if not, what differs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nvrc.params.initdata import Initdata, read_initdata
from nvrc.params.initdata_make import unwrap
from nvrc.vocabulary.document import read_input
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.output import write_document
from nvrc_build.after import evidence, kernel_image, measure, share, trust
from nvrc_build.after.measure import Launch
from nvrc_build.after.quote import NOT_COMPARED, compare_quote
from nvrc_build.ground.errors import BuildError, WrongCallError
from nvrc_build.papers.inventory import Inventory, find_manifest, read_inventory

EPILOG = """examples:
  echo "builder@example.com namespaces=\\"nvrc-image\\" $(cat builder.pub)" >allowed_signers
  nvrc-image verify nvidia-confidential --signers allowed_signers --identity builder@example.com
  cat /sys/kernel/config/tsm/report/x/outblob >report                  in the guest
  nvrc-image verify nvidia-confidential --report report --firmware OVMF.amdsev.fd --cmdline "console=hvc0" --vcpus 1-8
  nvrc-image verify nvidia-confidential --report report --firmware OVMF.amdsev.fd --cmdline "console=hvc0" \\
      --vcpus 1-8 --initdata initdata.toml --or-cmdline "console=hvc0 agent.log=debug" --or-firmware OVMF.fd
  nvrc-image verify nvidia-confidential --report quote --firmware OVMF.inteltdx.fd --cmdline "console=hvc0"

With --signers every file of the folder is held against what the builder signed. With --report, what a SEV-SNP report or
a TDX quote says is computed again. Inputs are exchanged one at a time: processors, --or-cmdline, --or-firmware, kernel
and initrd of other images in OUT/images. RTMR[0] and RTMR[3] of a quote are printed and not compared. The report's
signature is not checked. Exit status 1: the signature is good, and a file or the report differs.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", help="an image in OUT/images, its folder, or its manifest.json")
    share.signer_arguments(parser)
    parser.add_argument("--report", type=Path, metavar="FILE",
                        help="a SEV-SNP report or a TDX quote, as configfs-tsm gives it")
    trust.launch_arguments(parser, is_for_a_report=True)
    parser.add_argument("--initdata", type=Path, metavar="FILE",
                        help="what the pod gave: its TOML document, annotation or disk")
    parser.add_argument("--or-cmdline", action="append", default=[], metavar="TEXT", help="another command line to try")
    parser.add_argument("--or-firmware", action="append", default=[], type=Path, metavar="FILE",
                        help="another firmware to try")


def run(args: argparse.Namespace) -> int:
    is_signed = share.has_signers(args)
    if (args.report is None) != (args.firmware is None):
        raise WrongCallError("--report and --firmware belong together", "give both, or neither")
    if args.report is None and not is_signed:
        raise WrongCallError("there is nothing to hold the image against",
                             "give --signers and --identity, or --report and --firmware, or all of them")
    report = evidence.read_report(args.report) if args.report is not None else None
    manifest = find_manifest(args.image, args.out / "images")
    unsigned = share.verify_folder(manifest.parent, args.signers, args.identity) if is_signed else ()
    differs = (*unsigned, *(_compare(report, read_inventory(manifest), args) if report is not None else ()))
    if args.json:
        write_document(sys.stdout, {"ok": not differs, "identity": args.identity, "differences": list(differs),
                                    "report": _describe(report) if report is not None else None})
        return 1 if differs else 0
    for name, value in _values(report) if report is not None else ():
        if name in NOT_COMPARED:
            print(f"{name}: {value} (not compared)")
    good = (*((f"{manifest.parent}: good, signed by {args.identity}",) if is_signed else ()),
            *(("good: the report is one of this image",) if report is not None else ()))
    print("".join(f"{line}\n" for line in differs or good), end="")
    return 1 if differs else 0


def _compare(report: evidence.Report, image: Inventory, args: argparse.Namespace) -> tuple[str, ...]:
    initdata = _initdata(args.initdata) if args.initdata is not None else None
    if report.kind == "TDX":
        machine = trust.make_machine(image, args)
        return compare_quote(report, machine, args.memory or (kernel_image.STEADY_MIB,), initdata=initdata,
                             others=tuple(_others(machine.launch, args)))
    launch = trust.make_launch(image, args)
    measure.check_launch(launch)
    return evidence.compare(report, launch, measure.parse_shapes(args.vcpus), policy=args.guest_policy,
                            initdata=initdata, others=tuple(_others(launch, args)))


def _describe(report: evidence.Report) -> dict[str, str]:
    return {"kind": report.kind, "measurement": report.measurement.hex(), "bound": report.bound.hex(),
            **dict(_values(report))}


def _values(report: evidence.Report) -> Iterator[tuple[str, str]]:
    yield from ((f"rtmr_{number}", value.hex()) for number, value in enumerate(report.registers))
    if report.features:
        yield "xfam", report.features.hex()


def _others(launch: Launch, args: argparse.Namespace) -> Iterator[tuple[str, Launch]]:
    for line in args.or_cmdline:
        whole = launch.cmdline.removesuffix(args.cmdline) + line
        yield (f"command line: the machine was started with {whole!a}, expected {launch.cmdline!a}",
               replace(launch, cmdline=whole))
    for firmware in args.or_firmware:
        measure.check_file("firmware", firmware, "give --or-firmware a file")
        yield (f"firmware: the machine was started with {firmware}, expected {launch.firmware}",
               replace(launch, firmware=firmware))
    for manifest in sorted((args.out / "images").glob("*/manifest.json")):
        try:
            other = read_inventory(manifest)
        except BuildError:
            continue  # an image that is damaged or of another version explains nothing
        kernel, initrd = other.folder / "vmlinuz", other.folder / "initrd"
        if kernel.is_file() and kernel != launch.kernel:
            yield f"kernel: that of {other.image}, expected {launch.kernel}", replace(launch, kernel=kernel)
        if initrd.is_file() and launch.initrd is not None and initrd != launch.initrd:
            yield f"initrd: that of {other.image}, expected {launch.initrd}", replace(launch, initrd=initrd)
            if kernel.is_file():
                yield f"image: {other.image}, expected {args.image}", replace(launch, kernel=kernel, initrd=initrd)


def _initdata(path: Path) -> Initdata:
    try:
        return read_initdata(unwrap(read_input(str(path))))
    except (OSError, NvrcError) as wrong:
        raise BuildError(f"{path}: {wrong}", "check it with: nvrc initdata check") from wrong
