# SPDX-License-Identifier: Apache-2.0
"""The folder `deploy/`: all that brings an image to a cluster, with a README of five steps and the way back.

Made beside its place and swapped in whole. A folder that holds anything else is left alone.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nvrc_build.ground.errors import WrongCallError
from nvrc_build.ground.exchange import exchange
from nvrc_build.kata import cluster as kata_cluster
from nvrc_build.kata.classes import KataClass, Runtime, Tee
from nvrc_build.kata.drop_in import DropIn, Request
from nvrc_build.kata.folder import DROP_IN, check_folder
from nvrc_build.papers.inventory import Inventory

PREFIX = PurePosixPath("/opt/nvrc/images")
_PARTS = ("vmlinuz", "initrd", "disk.img")
_CHART = "oci://ghcr.io/kata-containers/kata-deploy-charts/kata-deploy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    request: Request
    drop_in: DropIn
    images: tuple[Inventory, ...]
    name: str
    workload: kata_cluster.Workload

    @property
    def prefix(self) -> PurePosixPath:
        return self.request.prefix or PREFIX


def write_files(deployment: Deployment) -> dict[str, str]:
    """Path below the folder to text."""
    kata = deployment.request.kata
    return {
        "README.md": _readme(deployment),
        "values.yaml": kata_cluster.write_values(kata, deployment.name, deployment.drop_in.text),
        "runtimeclass.yaml": kata_cluster.write_runtime_class(kata, deployment.name),
        "pod.yaml": kata_cluster.write_pod(kata, deployment.workload),
        f"config.d/{DROP_IN}": deployment.drop_in.text,
        "SHA256SUMS": _sums(deployment),
    }


def write_folder(folder: Path, files: Mapping[str, str]) -> None:
    _check_ours(folder, files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        for name, text in files.items():
            (fresh / name).parent.mkdir(exist_ok=True)
            (fresh / name).write_text(text, encoding="utf-8")
        check_folder(fresh / "config.d")
        if folder.exists():
            exchange(fresh, folder)
        else:
            fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _check_ours(folder: Path, files: Mapping[str, str]) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise WrongCallError(f"{folder} is not a folder", "give --deploy a folder that this command may write")
    known = files.keys() | {str(parent) for name in files for parent in PurePosixPath(name).parents}
    foreign = tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*")
                           if str(path.relative_to(folder)) not in known))
    if foreign:
        raise WrongCallError(f"{folder} has files that this command did not write", "give --deploy another folder",
                             findings=foreign)


def _sums(deployment: Deployment) -> str:
    """For `sha256sum -c` on a node."""
    rows = []
    for image in deployment.images:
        for name in _PARTS:
            path = image.folder / name
            if path.is_file():
                with path.open("rb") as data:
                    digest = hashlib.file_digest(data, "sha256").hexdigest()
                rows.append(f"{digest}  {deployment.prefix / image.image / name}\n")
    return "".join(rows)


def class_folder(kata: KataClass) -> str:
    return f"/opt/kata/share/defaults/kata-containers/{kata.folder}"


def _readme(deployment: Deployment) -> str:
    kata, name, timeouts = deployment.request.kata, deployment.name, deployment.drop_in.timeouts
    copies = "\n".join(_copy(image, deployment.prefix / image.image) for image in deployment.images)
    request_s = max(timeouts.dial_s, timeouts.create_container_s)
    folders = " ".join(str(deployment.prefix / image.image) for image in deployment.images)
    return _README.format(
        image=deployment.request.image.image, prefix=deployment.prefix, base=kata.name, name=name, copies=copies,
        chart=_CHART,
        runtime="Rust" if kata.runtime is Runtime.RUST else "Go", request_s=request_s, dial_s=timeouts.dial_s,
        create_s=timeouts.create_container_s, folder=class_folder(kata), drop_in=DROP_IN, folders=folders,
        custom=f"/opt/kata/share/defaults/kata-containers/custom-runtimes/{name}/config.d",
        selectors="\n".join(f"    {key}={value}" for key, value in kata.node_selector().items()),
        snapshotter=kata.snapshotter or "containerd's default", params=deployment.drop_in.kernel_params,
        runtime_name=name.removeprefix("kata-"), pod=f"{name}-test",
        tee=_TEES[kata.tee].format(image=deployment.request.image.image))


def _copy(image: Inventory, place: PurePosixPath) -> str:
    parts = [str(image.folder.resolve() / name) for name in _PARTS if (image.folder / name).is_file()]
    return f"    ssh NODE mkdir -p {place}\n    scp {shlex.join(parts)} NODE:{place}/"


_README = """\
# {image} as {name}

A custom runtime beside Kata's own classes, made from `{base}` ({runtime} runtime). For Kata 4.1; upgrades keep it.

## 1. Copy the files to every node

{copies}
    scp SHA256SUMS NODE:{prefix}/
    ssh NODE sha256sum -c {prefix}/SHA256SUMS

## 2. Install the runtime class

    helm upgrade --install -n kube-system kata-deploy {chart} --version VERSION --reuse-values -f values.yaml

`VERSION` and namespace are those of the installed release (`helm list -A`). The chart writes the drop-in to
`{custom}/50-overrides.toml` and makes the RuntimeClass.
Without Helm, to change the class `{base}` itself: copy `config.d/{drop_in}` to
`{folder}/config.d/` on every node. Kata reads **every** file of that folder as TOML, so nothing else may lie there.

Kernel parameters of the guest: `{params}`
A drop-in replaces that line whole. If your values set `agent.httpsProxy` or `agent.noProxy`, give them here, too:
`nvrc-image kata-config ... --kernel-params "agent.https_proxy=..."`.

## 3. Let kubelet wait as long as the guest may take

In kubelet's configuration on every node, then restart it:

    runtimeRequestTimeout: {request_s}s

The runtime waits {dial_s} s for the agent and {create_s} s for a container to be created.
containerd needs the snapshotter that the class uses: {snapshotter}.

## 4. Check the nodes

The RuntimeClass runs pods only on nodes with these labels:

{selectors}

    kubectl get runtimeclass {name} && kubectl get nodes -L katacontainers.io/kata-runtime
{tee}
## 5. Run a pod

    kubectl apply -f pod.yaml
    kubectl wait --for=jsonpath='{{.status.phase}}'=Succeeded pod/{pod} --timeout={request_s}s
    kubectl logs {pod}

If it stays in ContainerCreating: `kubectl describe pod {pod}` shows what the guest said. For its console, make this
folder again with `--debug`, set `[debug] level = "debug"` in containerd's configuration, and look for `vmconsole=` in
`journalctl -u containerd`.

## The way back

    kubectl delete -f pod.yaml
    helm upgrade -n kube-system kata-deploy {chart} --version VERSION --reuse-values \\
      --set customRuntimes.runtimes.{runtime_name}=null
    ssh NODE rm -r {folders}

Without Helm: remove `{drop_in}` from the class's `config.d/`. Take back `runtimeRequestTimeout` if nothing else
needs it.
"""

_TEES: Mapping[Tee, str] = {
    Tee.NONE: "",
    Tee.SNP: """
A confidential guest is measured: compute what a verifier must expect from the firmware of the class and the command
line that QEMU gets (`-append`, in `journalctl -t kata` of a node), and register it:

    nvrc-image measure {image} --firmware FIRMWARE --cmdline "..." --vcpus 1-8 -o values.json

Where node feature discovery counts the host's keys, add `sev-snp.amd.com/esids: "1"` to the RuntimeClass's
`overhead.podFixed`.
""",
    Tee.TDX: """
A confidential guest is measured; what a verifier must expect of a TDX guest is not computed by nvrc-image.
Where node feature discovery counts the host's keys, add `tdx.intel.com/keys: "1"` to the RuntimeClass's
`overhead.podFixed`.
""",
}
