# SPDX-License-Identifier: Apache-2.0
"""THE table of parsers that eat foreign bytes: what each reads, who controls that, and what it may raise.

A parser keeps its promise if it returns, or raises one of `refuses`; anything else is a finding. Each `run` (fuzz.runs)
gives bytes to the product's own function.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

from fuzz import runs
from fuzz.drive import LARGEST
from guest_cdi.elf import ElfError
from guest_cdi.hooks.elf_note import NoteError
from guest_cdi.ldcache import CacheError
from guest_cdi.lean.errors import CdiError
from nvrc.confidential.ttrpc import RefusedError
from nvrc.confidential.ttrpc import WireError as TtrpcError
from nvrc.pid1.farewell import GarbageError
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.jsonread import FormatError
from nvrc_build.ground.errors import BuildError
from nvrc_build.supply.extract import DAMAGE
from nvrc_lab.agent.protobuf import WireError
from nvrc_lab.agent.ttrpc import RpcError
from nvrc_lab.devices.vhost_ring import ProtocolError

Errors = tuple[type[Exception], ...]


@dataclass(frozen=True)
class Parser:
    name: str
    reads: str
    who: str
    run: Callable[[bytes], object]
    refuses: Errors = ()
    largest: int = LARGEST  # of an input; what takes longer the longer it is finds more when it is short

    def try_on(self, data: bytes) -> None:
        """Return when the parser keeps its promise; raise what it should not have raised."""
        try:
            self.run(data)
        except self.refuses:
            return


HOST, POD, CONTAINER = "host", "pod author", "container"
DAEMON, OWNER, SUPPLY = "daemon or NVIDIA's library", "image owner", "supplier of an input"

PARSERS = (
    Parser("kernel-line", "kernel command line, with and without a policy", f"{POD}, {HOST}", runs.kernel_line, largest=200),
    Parser("policy", "/etc/nvrc/policy.toml", OWNER, runs.policy, (NvrcError,), 1024),
    Parser("policy-draft", "lines for nvrc policy suggest", POD, runs.policy_draft, largest=200),
    Parser("initdata", "a pod's initdata, on its disk and as a document", f"{POD}, {HOST}", runs.initdata, (NvrcError,)),
    Parser("nccl-topology", "a machine for NCCL, of initdata or of the image", f"{POD}, {OWNER}", runs.nccl_topology),
    Parser("tee-report", "what the kernel says that the TEE says", HOST, runs.tee_report),
    Parser("evidence", "evidence of GPUs, from the attestation agent", f"{HOST}, {DAEMON}", runs.evidence, (NvrcError,)),
    Parser("token", "a verifier's token, from the attestation agent", f"{HOST}, {DAEMON}", runs.token, (NvrcError,)),
    Parser("attestation-answer", "ttRPC of the attestation agent", HOST, runs.attestation_answer, (TtrpcError, RefusedError)),
    Parser("cdi-document", "the CDI document that the worker describes", DAEMON, runs.cdi_document, (NvrcError,)),
    Parser("switch-answer", "what the worker says of NVSwitches", DAEMON, runs.switch_answer, (NvrcError,)),
    Parser("worker-answer", "a line of JSON from the worker", DAEMON, runs.worker_answer, (NvrcError,)),
    Parser("boot-report", "boot.json, in nvrc report and doctor", HOST, runs.boot_report, (FormatError,)),
    Parser("live-status", "status.json, in nvrc status and doctor", HOST, runs.live_status, (FormatError,)),
    Parser("host-log", "console, journal and events, in nvrc doctor", f"{HOST}, {CONTAINER}", runs.host_log, (FormatError,), 1024),
    Parser("lab-console", "console of a lab machine", CONTAINER, runs.lab_console),
    Parser("agent-output", "what the agent prints", CONTAINER, runs.agent_output),
    Parser("log-datagram", "/dev/log", f"{CONTAINER}, {DAEMON}", runs.log_datagram),
    Parser("kernel-record", "/dev/kmsg", f"{HOST}, {CONTAINER}", runs.kernel_record),
    Parser("ttrpc-request", "the runtime's requests to a failed guest", HOST, runs.ttrpc_request, (GarbageError,)),
    Parser("ttrpc-response", "an agent's answers, in the lab", CONTAINER, runs.ttrpc_response, (RpcError, WireError)),
    Parser("vsock-packet", "packets of a guest, in the lab", CONTAINER, runs.vsock_packet, (ProtocolError,)),
    Parser("cdi-json", "CDI documents", SUPPLY, runs.cdi_json, largest=1024),
    Parser("cdi-yaml", "CDI documents", SUPPLY, runs.cdi_yaml, largest=512),
    Parser("bundle", "config.json of a bundle, and a CDI document", f"{CONTAINER}, {SUPPLY}", runs.bundle, (CdiError,), 512),
    Parser("elf-soname", "libraries of the driver's root", SUPPLY, runs.elf_soname, (ElfError,)),
    Parser("elf-note", "libcuda of a container", CONTAINER, runs.elf_note, (NoteError,)),
    Parser("static-program", "ldconfig of a container", CONTAINER, runs.static_program),
    Parser("library-cache", "ld.so.cache", f"{CONTAINER}, {SUPPLY}", runs.library_cache, (CacheError,)),
    Parser("loader-configuration", "ld.so.conf and musl's list", CONTAINER, runs.loader_configuration),
    Parser("container-state", "OCI state on a hook's standard input", CONTAINER, runs.container_state, (CdiError,)),
    Parser("pci-function", "ids and VPD of a PCI function", HOST, runs.pci_function, (NvrcError,)),
    Parser("gpu-information", "what the driver's file says of a GPU", DAEMON, runs.gpu_information, (NvrcError,)),
    Parser("pci-space", "configuration space and links of a PCI function", HOST, runs.pci_space),
    Parser("extension-disk", "serial and partitions of a disk, as sysfs has them", HOST, runs.extension_disk, (NvrcError,)),
    Parser("scrape-request", "HTTP, on the port of the metrics", f"{CONTAINER}, {HOST}", runs.scrape_request),
    Parser("metrics-answer", "what the process with NVIDIA's library tells the metrics", DAEMON, runs.metrics_answer),
    Parser("module-indexes", "modules.dep and its siblings", SUPPLY, runs.module_indexes, (NvrcError,)),
    Parser("module-configuration", "files of modprobe.d", SUPPLY, runs.module_configuration),
    Parser("kernel-module", "a module that the kernel refused", OWNER, runs.kernel_module),
    Parser("signed-module", "modules that enter an image, and their signatures", SUPPLY, runs.signed_module, (BuildError,), 2048),
    Parser("driver-file-list", "a driver's list of its files", SUPPLY, runs.driver_file_list),
    Parser("kernel-image", "a kernel that is given, and its PE headers", SUPPLY, runs.kernel_image, (BuildError,)),
    Parser("tdx-firmware", "an OVMF for TDX", SUPPLY, runs.tdx_firmware),
    Parser("attestation-report", "a SEV-SNP report or TDX quote", HOST, runs.attestation_report, (BuildError,)),
    Parser("reference-values", "values to compare a measurement with", SUPPLY, runs.reference_values, (BuildError,)),
    Parser("provenance", "the statement that is signed of an image", SUPPLY, runs.provenance, (BuildError,)),
    Parser("registry-manifest", "an image's manifest in a registry", SUPPLY, runs.registry_manifest, (BuildError,)),
    Parser("image-elf", "programs that enter an image", SUPPLY, runs.image_elf, (BuildError,), 1024),
    Parser("archive", "tar archives of components and packages", SUPPLY, runs.archive, (BuildError,)),
    Parser("tar-headers", "headers of those archives about other headers", SUPPLY, runs.tar_headers, DAMAGE),
    Parser("initrd", "the archive of an image", SUPPLY, runs.initrd, (BuildError,)),
    Parser("package", "control files of a .deb, for its scripts", SUPPLY, runs.package, DAMAGE),
    Parser("agent-descriptors", "protobuf descriptors in kata-agent", SUPPLY, runs.agent_descriptors),
    Parser("variable-store", "an OVMF variable store", HOST, runs.variable_store, (BuildError,)),
    Parser("class-configuration", "a Kata class, in kata-config", HOST, runs.class_configuration, (BuildError,)),
    Parser("class-for-a-policy", "a Kata class, in nvrc policy suggest", HOST, runs.class_for_a_policy, (FormatError,), 512),
    Parser("image-manifest", "manifest.json of an image", SUPPLY, runs.image_manifest, (BuildError,)),
    Parser("declaration", "TOML below rootfs/", OWNER, runs.declaration),
    Parser("verity-parameters", "verity.txt of an image", SUPPLY, runs.verity_parameters, (BuildError,)),
    Parser("partition-table", "disk.img of an image", SUPPLY, runs.partition_table, (BuildError,)),
    Parser("host-files", "a recorded host, in nvrc doctor --host", HOST, runs.host_files, largest=1100),
    Parser("apt-sources", "apt's sources of the build machine", OWNER, runs.apt_sources),
)


def find(name: str) -> Parser:
    return next(parser for parser in PARSERS if parser.name == name)


if __name__ == "__main__":
    sys.stdout.write(json.dumps([{"name": parser.name, "reads": parser.reads, "who": parser.who} for parser in PARSERS]) + "\n")
