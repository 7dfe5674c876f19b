# SPDX-License-Identifier: Apache-2.0
"""Commands that hand an image on: sign its folder, push it to a registry and pull it by digest."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from nvrc.vocabulary.output import write_document
from nvrc_build.after import oci, provenance, signature
from nvrc_build.ground.errors import BuildError, WrongCallError
from nvrc_build.papers.inventory import find_manifest

CREDENTIALS = "NVRC_REGISTRY_CREDENTIALS"
SIGN_EPILOG = """examples:
  ssh-keygen -t ed25519 -f builder -C builder@example.com
  nvrc-image sign nvidia-confidential --key builder --builder https://ci.example.com/nvrc

Writes provenance.intoto.json (an in-toto statement about every file of the folder, with a SLSA provenance) and its
signature provenance.intoto.json.sig (OpenSSH, namespace nvrc-image). Put measurements (nvrc-image measure -o) into the
folder before: every file of it is signed.
"""
PUSH_EPILOG = f"""examples:
  nvrc-image push nvidia-confidential registry.example.com/nvrc/nvidia-confidential:0.1.0

{CREDENTIALS} has USER:PASSWORD where the registry requires them. Only a registry on loopback is spoken to without TLS.
"""
PULL_EPILOG = """examples:
  nvrc-image pull registry.example.com/nvrc/nvidia-confidential@sha256:HEX -o images/nvidia-confidential
  nvrc-image pull registry.example.com/nvrc/nvidia-confidential@sha256:HEX -o images/nvidia-confidential \\
      --signers allowed_signers --identity builder@example.com

The digest is what push printed. The folder appears when every file has the digest and the size of the manifest, and
with --signers when its signature is good; otherwise there is none.
"""


def sign_arguments(parser: argparse.ArgumentParser) -> None:
    _image(parser)
    parser.add_argument("--key", type=Path, required=True, metavar="FILE",
                        help="a key of OpenSSH; a public one if an agent has it")
    parser.add_argument("--builder", default="urn:nvrc:builder:unnamed", metavar="URI",
                        help="who built, for the provenance")


def run_sign(args: argparse.Namespace) -> int:
    folder = _folder(args)
    statement = folder / provenance.STATEMENT
    statement.write_bytes(provenance.make_statement(folder, args.builder))
    made = signature.sign_file(statement, args.key)
    names = sorted(provenance.read_subjects(statement.read_bytes(), str(statement)))
    if args.json:
        write_document(sys.stdout, {"statement": str(statement), "signature": str(made), "files": names})
    else:
        print(f"{made}: {len(names)} files: {', '.join(names)}")
    return 0


def verify_folder(folder: Path, signers: Path, identity: str) -> tuple[str, ...]:
    """What differs from what `identity` signed; BuildError where the signature is not its."""
    statement = folder / provenance.STATEMENT
    if not statement.is_file() or statement.stat().st_size > provenance.SIZE_LIMIT:
        raise BuildError(f"{statement} does not exist, or has more than {provenance.SIZE_LIMIT} bytes",
                         "sign the image with: nvrc-image sign")
    data = statement.read_bytes()
    signature.verify(data, folder / provenance.SIGNATURE, signers, identity)
    return provenance.compare_files(folder, provenance.read_subjects(data, str(statement)))


def push_arguments(parser: argparse.ArgumentParser) -> None:
    _image(parser)
    parser.add_argument("reference", help="HOST[:PORT]/NAME:TAG")


def run_push(args: argparse.Namespace) -> int:
    folder, reference = _folder(args), oci.parse_reference(args.reference)
    if reference.digest:
        raise WrongCallError(f"{args.reference}: a digest is the result of a push", "write HOST[:PORT]/NAME:TAG")
    provenance.refuse_links(folder)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    digest = oci.push(files, reference, _registry(reference))
    pulled = f"{reference.host}/{reference.name}@{digest}"
    if args.json:
        write_document(sys.stdout, {"reference": pulled, "digest": digest, "files": [path.name for path in files]})
    else:
        print(pulled)
    return 0


def pull_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", help="HOST[:PORT]/NAME@sha256:HEX")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR",
                        help="a folder that does not exist yet")
    parser.add_argument("--limit-mib", type=int, default=16384, metavar="N",
                        help="most MiB of all files (default: %(default)s)")
    signer_arguments(parser)


def run_pull(args: argparse.Namespace) -> int:
    reference = oci.parse_reference(args.reference)
    if not reference.digest:
        raise WrongCallError(f"{args.reference} has no digest: the registry can move a tag",
                             "write HOST[:PORT]/NAME@sha256:HEX, as push printed it")
    is_signed = has_signers(args)

    def check(folder: Path) -> None:
        differs = verify_folder(folder, args.signers, args.identity) if is_signed else ()
        if differs:
            raise BuildError(f"{args.reference} differs from what {args.identity} signed", "use what was signed",
                             findings=differs)

    names = oci.pull(reference, _registry(reference), args.output, args.limit_mib << 20, check)
    if args.json:
        write_document(sys.stdout, {"folder": str(args.output), "files": names, "signed_by": args.identity})
    else:
        how = f"signed by {args.identity}" if args.identity else "by digest"
        print(f"{args.output}: {len(names)} files, {how}")
    return 0


def _image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", help="an image in OUT/images, its folder, or its manifest.json")


def signer_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--signers", type=Path, metavar="FILE", help="allowed_signers, as in ssh-keygen(1)")
    parser.add_argument("--identity", metavar="WHO", help="who has to have signed, as in that file")


def has_signers(args: argparse.Namespace) -> bool:
    if (args.signers is None) != (args.identity is None):
        raise WrongCallError("--signers and --identity belong together", "give both, or neither")
    return args.signers is not None


def _folder(args: argparse.Namespace) -> Path:
    return find_manifest(args.image, args.out / "images").parent


def _registry(reference: oci.Reference) -> oci.Registry:
    return oci.Registry(reference, os.environ.get(CREDENTIALS, ""))
