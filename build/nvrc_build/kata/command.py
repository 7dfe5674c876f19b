# SPDX-License-Identifier: Apache-2.0
"""`nvrc-image kata-config`: from an image and the words of a command line to the documents of a cluster."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path, PurePosixPath

from nvrc.vocabulary.output import write_document
from nvrc_build.ground.errors import BuildError, WrongCallError
from nvrc_build.kata import cluster as kata_cluster
from nvrc_build.kata import deploy as kata_deploy
from nvrc_build.kata import drop_in as kata
from nvrc_build.kata import folder as kata_folder
from nvrc_build.kata.classes import CLASSES, KataClass, find_class
from nvrc_build.kata.extensions import Choice, Extension, read_class
from nvrc_build.kata.timeouts import Machine
from nvrc_build.papers.inventory import Inventory, find_manifest, read_inventory, read_parameters

EPILOG = """examples:
  nvrc-image kata-config nvidia                           show a drop-in and a Pod for kata-qemu-nvidia-gpu
  nvrc-image kata-config nvidia -d config.d --pod pod.yaml
  nvrc-image kata-config nvidia --gpus 8 --nvswitch 4 --memory 512Gi --deploy deploy
  nvrc-image kata-config nvidia-base --runtime-class kata-qemu-nvidia-gpu-runtime-rs --extension gpu=nvidia-gpu
  nvrc-image kata-config nvidia-base --runtime-class kata-qemu-nvidia-gpu-snp-runtime-rs --extension gpu=nvidia-gpu \\
    --class-config configuration-qemu-nvidia-gpu-snp-runtime-rs.toml --prefix /opt/nvrc/images
  nvrc-image kata-config nvidia --kernel-params "nvrc.log=debug" --debug --deploy deploy-debug
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", help="an image in OUT/images, its folder, or its manifest.json")
    parser.add_argument("--runtime-class", default="kata-qemu-nvidia-gpu", metavar="CLASS",
                        help=f"one of {', '.join(CLASSES)} (default: kata-qemu-nvidia-gpu)")
    out = parser.add_argument_group("what to write")
    out.add_argument("-d", "--directory", type=Path, metavar="DIR",
                     help=f"the class's config.d: write {kata_folder.DROP_IN} there, and nothing else")
    out.add_argument("--pod", type=Path, metavar="FILE", help="write a Pod that uses the class")
    out.add_argument("--deploy", type=Path, metavar="DIR", help="write a folder with everything, for a custom runtime "
                     "beside the class: drop-in, Helm values, RuntimeClass, Pod, checksums, README")
    out.add_argument("--name", help="the custom runtime's RuntimeClass (default: kata-nvrc-CLASS)")
    boot = parser.add_argument_group("what boots")
    boot.add_argument("--prefix", type=PurePosixPath, metavar="PATH", help="folder of the images on the nodes, each in "
                      f"PATH/NAME (default: with --deploy {kata_deploy.PREFIX}, else where they lie here)")
    boot.add_argument("--kernel", type=Path, help="kernel on the host (default: the image's own)")
    boot.add_argument("--extension", action="append", default=[], metavar="NAME=IMAGE",
                      help="an extension image to cold-plug; may be given several times")
    boot.add_argument("--class-config", type=Path, metavar="FILE", help="the class's configuration-*.toml from a node: "
                      "its kernel parameters, and extensions that are not named here, are kept")
    boot.add_argument("--drop", action="append", default=[], metavar="NAME",
                      help="do without this extension of the class; may be given several times")
    boot.add_argument("--kernel-params", default="", metavar="WORDS",
                      help="kernel parameters to add to those of the class; checked as the guest reads them")
    boot.add_argument("--debug", action="store_true", help="have hypervisor, agent and runtime log for debugging")
    pod = parser.add_argument_group("the pod, and the machine that the timeouts are for")
    pod.add_argument("--gpus", type=int, metavar="N", help="GPUs of a pod (default: 1, of a class without GPUs 0)")
    pod.add_argument("--nvswitch", type=int, default=0, metavar="N", help="NVSwitches of a pod (default: 0)")
    pod.add_argument("--memory", default="", metavar="N", help="memory limit of the pod, like 64Gi")
    pod.add_argument("--pod-image", default="", metavar="IMAGE", help="container image of the pod")


def run(args: argparse.Namespace) -> int:
    request, images = _request(args)
    drop_in = kata.write_drop_in(request)
    name = (args.name or kata_cluster.default_name(request.kata)) if args.deploy is not None else request.kata.name
    workload = kata_cluster.Workload(runtime_class=name, machine=request.machine, image=args.pod_image,
                                     memory=args.memory)
    if args.deploy is not None:
        files = kata_deploy.write_files(kata_deploy.Deployment(
            request=request, drop_in=drop_in, images=images, name=name, workload=workload))
        kata_deploy.write_folder(args.deploy, files)
    else:
        files = {kata_folder.DROP_IN: drop_in.text, "pod.yaml": kata_cluster.write_pod(request.kata, workload)}
        _write_apart(args, files)
    for note in drop_in.notes:
        print(f"nvrc-image: {note}", file=sys.stderr)
    if args.json:
        write_document(sys.stdout, {"files": files})
    elif args.deploy is not None:
        print("".join(f"{args.deploy / path}\n" for path in files), end="")
    else:
        print("".join(f"# {path}\n{text}\n" for path, text in files.items()), end="")
    return 0


def _write_apart(args: argparse.Namespace, files: dict[str, str]) -> None:
    if args.name:
        raise WrongCallError("--name is the name of a custom runtime", "give --deploy, too")
    if args.pod is not None and args.directory is not None and args.directory.resolve() in args.pod.resolve().parents:
        raise WrongCallError(f"the Pod {args.pod} would lie in {args.directory}, where Kata reads every file as TOML",
                             "give --pod a path in another folder")
    if args.directory is not None:
        kata_folder.write_drop_in(args.directory, files[kata_folder.DROP_IN])
    if args.pod is not None:
        args.pod.write_text(files["pod.yaml"], encoding="utf-8")


def _request(args: argparse.Namespace) -> tuple[kata.Request, tuple[Inventory, ...]]:
    if args.deploy is not None and (args.directory is not None or args.pod is not None):
        raise WrongCallError("--deploy writes drop-in and Pod itself", "leave -d and --pod out")
    image, known = read_inventory(find_manifest(args.image, args.out / "images")), find_class(args.runtime_class)
    prefix = args.prefix or (kata_deploy.PREFIX if args.deploy is not None else None)
    if prefix is not None and (not prefix.is_absolute() or ".." in prefix.parts):
        raise WrongCallError(f"--prefix {prefix} is not a folder of a node", "give an absolute path without '..'")
    named = [_named(text, args.out) for text in args.extension]
    of_node = read_class(args.class_config) if args.class_config is not None else None
    choice = Choice(given=tuple(_extension(name, row, prefix) for name, row in named), dropped=tuple(args.drop),
                    of_the_class=of_node.extensions if of_node is not None else ())
    request = kata.Request(image=image, kata=known, machine=_machine(args, known), choice=choice, kernel=args.kernel,
                           prefix=prefix, kernel_params=args.kernel_params, is_debug=args.debug,
                           class_params=of_node.kernel_params if of_node is not None else None)
    return request, (image, *(row for _, row in named))


def _machine(args: argparse.Namespace, known: KataClass) -> Machine:
    gpus = int(known.has_gpus) if args.gpus is None else args.gpus
    if (gpus or args.nvswitch) and not known.has_gpus:
        raise WrongCallError(f"class {known.name} passes no devices to the VM",
                             "take a class with -nvidia-gpu, or leave --gpus and --nvswitch out")
    return Machine(gpus=gpus, nvswitches=args.nvswitch)


def _named(text: str, out: Path) -> tuple[str, Inventory]:
    name, sign, given = text.partition("=")
    if not sign:
        raise WrongCallError(f"--extension {text!r} is not NAME=IMAGE", "write, for example, gpu=nvidia-gpu")
    return name, read_inventory(find_manifest(given, out / "images"))


def _extension(name: str, image: Inventory, prefix: PurePosixPath | None) -> Extension:
    if image.format != "disk":
        raise BuildError(f"image {image.image} is not a disk, so it cannot be extension {name}",
                         "give an image of an extension, like nvidia-gpu")
    if kata.is_bootable(image):
        raise BuildError(f"image {image.image} has an init, so it is not an extension",
                         "give it as the image that boots")
    return Extension(name=name, path=kata.place(image, "disk.img", prefix), parameters=read_parameters(image))
