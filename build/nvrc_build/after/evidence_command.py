# SPDX-License-Identifier: Apache-2.0
"""`nvrc-image check-report`: why a verifier refuses a guest of an image."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from nvrc.params.initdata import Initdata, is_initdata, read_initdata, unpack_disk
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.output import write_document
from nvrc_build.after import evidence, kernel_image, measure, trust
from nvrc_build.after.measure import Launch
from nvrc_build.after.quote import NOT_COMPARED, compare_quote
from nvrc_build.ground.errors import BuildError
from nvrc_build.papers.inventory import find_manifest, read_inventory

EPILOG = """examples:
  cat /sys/kernel/config/tsm/report/x/outblob >report                  in the guest
  nvrc-image check-report nvidia-confidential report --firmware OVMF.amdsev.fd --cmdline "console=hvc0" --vcpus 1-8
  nvrc-image check-report nvidia-confidential report --firmware OVMF.amdsev.fd --cmdline "console=hvc0" --vcpus 1-8 \\
      --initdata initdata.toml --or-cmdline "console=hvc0 agent.log=debug" --or-firmware OVMF.fd
  nvrc-image check-report nvidia-confidential quote --firmware OVMF.inteltdx.fd --cmdline "console=hvc0"

What a SEV-SNP report or a TDX quote says is computed again. Inputs are exchanged one at a time: processors,
--or-cmdline, --or-firmware, kernel and initrd of other images in OUT/images. RTMR[0] and RTMR[3] of a quote are
printed and not compared. The signature is not checked. Exit status 1: it differs.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", help="an image in OUT/images, its folder, or its manifest.json")
    parser.add_argument("report", type=Path, metavar="REPORT",
                        help="a SEV-SNP report or a TDX quote, as configfs-tsm gives it")
    trust.launch_arguments(parser)
    parser.add_argument("--initdata", type=Path, metavar="FILE", help="what the pod gave: its TOML document or disk")
    parser.add_argument("--or-cmdline", action="append", default=[], metavar="TEXT", help="another command line to try")
    parser.add_argument("--or-firmware", action="append", default=[], type=Path, metavar="FILE",
                        help="another firmware to try")


def run(args: argparse.Namespace) -> int:
    report = evidence.read_report(args.report)
    initdata = _initdata(args.initdata) if args.initdata is not None else None
    image = read_inventory(find_manifest(args.image, args.out / "images"))
    if report.kind == "TDX":
        machine = trust.make_machine(image, args)
        differs = compare_quote(report, machine, args.memory or (kernel_image.STEADY_MIB,), initdata=initdata,
                                others=tuple(_others(machine.launch, args)))
    else:
        launch = trust.make_launch(image, args)
        measure.check_launch(launch)
        differs = evidence.compare(report, launch, measure.parse_shapes(args.vcpus), policy=args.guest_policy,
                                   initdata=initdata, others=tuple(_others(launch, args)))
    _tell(report, differs, as_json=args.json)
    return 1 if differs else 0


def _tell(report: evidence.Report, differs: tuple[str, ...], *, as_json: bool) -> None:
    values = {f"rtmr_{number}": value.hex() for number, value in enumerate(report.registers)}
    values |= {"xfam": report.features.hex()} if report.features else {}
    if as_json:
        write_document(sys.stdout, {"kind": report.kind, "ok": not differs, "differences": list(differs),
                                    "measurement": report.measurement.hex(), "bound": report.bound.hex(), **values})
        return
    for name, value in values.items():
        if name in NOT_COMPARED:
            print(f"{name}: {value} (not compared)")
    print("".join(f"{line}\n" for line in differs) or "good: the report is one of this image\n", end="")


def _others(launch: Launch, args: argparse.Namespace) -> Iterator[tuple[str, Launch]]:
    for line in args.or_cmdline:
        whole = launch.cmdline.removesuffix(args.cmdline) + line
        yield (f"command line: the machine was started with {whole!a}, expected {launch.cmdline!a}",
               replace(launch, cmdline=whole))
    for firmware in args.or_firmware:
        yield (f"firmware: the machine was started with {firmware}, expected {launch.firmware}",
               replace(launch, firmware=firmware))
    for manifest in sorted((args.out / "images").glob("*/manifest.json")):
        other = read_inventory(manifest)
        kernel, initrd = other.folder / "vmlinuz", other.folder / "initrd"
        if kernel.is_file() and kernel != launch.kernel:
            yield f"kernel: that of {other.image}, expected {launch.kernel}", replace(launch, kernel=kernel)
        if initrd.is_file() and launch.initrd is not None and initrd != launch.initrd:
            yield f"initrd: that of {other.image}, expected {launch.initrd}", replace(launch, initrd=initrd)
            if kernel.is_file():
                yield f"image: {other.image}, expected {args.image}", replace(launch, kernel=kernel, initrd=initrd)


def _initdata(path: Path) -> Initdata:
    try:
        data = path.read_bytes()
        return read_initdata(unpack_disk(data) if is_initdata(data) else data)
    except (OSError, NvrcError) as wrong:
        raise BuildError(f"{path}: {wrong}", "check it with: nvrc initdata check") from wrong
