# SPDX-License-Identifier: Apache-2.0
"""What lines mean. Each row of the table is found by a line as people met it, and not by its neighbours."""

from __future__ import annotations

from guest_cdi.lean.coded import AUTHOR, HOST, PLATFORM
from nvrc.services.signatures import SIGNATURES, enrich, explain
from nvrc.vocabulary.errors import BY_CODE, NvrcError

BDF = "0000:41:00.0"
MET = {
    "out-of-memory": ["Out of memory: Killed process 143 (nvidia-persiste) total-vm:7124kB, anon-rss:512kB"],
    "initrd-cut": ["Initramfs unpacking failed: write error"],
    "kernel-crypto": ["libspdm_check_crypto_backend: Error - libspdm expects LKCA but found stubs!"],
    "kernel-crypto-backend": ["NVRM: SPDM cannot boot without proper crypto backend!"],
    "cc-cpu": ["NVRM: CPU does not support confidential compute."],
    "cc-gpu": ["NVRM: GPU does not support confidential compute."],
    "no-firmware": ["NVRM: RmFetchGspRmImages: No firmware image found", f"NVRM: GPU {BDF}: RmInitAdapter failed! (0x61:0x56:1705)"],
    "fsp-boot": ["NVRM: Xid (PCI:0000:41:00): 143, pid=1, Timeout while polling for FSP boot complete, 0xdead, 0x4"],
    "cc-fatal": ["NVRM: ConfCompute: Fatal error hit!"],
    "off-the-bus": [f"NVRM: GPU {BDF}: GPU has fallen off the bus."],
    "gsp-timeout": ["NVRM: Xid (PCI:0000:41:00): 119, pid=9, Timeout after 6s of waiting for RPC response from GPU0 GSP! Expected function 76"],
    "attach-spent": ["NVRM: gpumgrCheckRmFirmwarePolicy: Disabling GSP offload -- GPU not supported",
                     "NVRM: osInitNvMapping: *** Cannot attach gpu", f"NVRM: GPU {BDF}: RmInitAdapter failed! (0x22:0x56:884)"],
    "attach-spent-status": [f"NVRM: GPU {BDF}: RmInitAdapter failed! (0x22:0x56:751)"],
    "nvlink-training": ["nvidia-nvswitch0: SXid (PCI:0000:50:00.0): 22013, Fatal, Link 31", f"NVRM: GPU {BDF}: RmInitAdapter failed! (0x22:0x3f:748)"],
    "nvlink-training-status": [f"NVRM: GPU {BDF}: RmInitAdapter failed! (0x22:0x3f:748)"],
    "gsp-unsupported": ["NVRM: gpumgrCheckRmFirmwarePolicy: Disabling GSP offload -- GPU not supported"],
    "attach-refused": ["NVRM: osInitNvMapping: *** Cannot attach gpu"],
    "bar-missing": ["NVRM: This PCI I/O region assigned to your NVIDIA device is invalid:", f"NVRM: BAR0 is 0M @ 0x0 (PCI:{BDF})"],
    "bridge-window": ["pci 0000:41:00.0: BAR 2: no compatible bridge window"],
    "open-modules": ["NVRM: installed in this system requires use of the NVIDIA open kernel modules."],
    "old-driver": ["NVRM: installed in this system is not supported by the", "NVRM: NVIDIA 550.163.01 driver release."],
    "api-mismatch": ["NVRM: API mismatch: the client 'nvidia-persiste' (pid 12)"],
    "other-driver": ["NVRM: The NVIDIA probe routine was not called for 1 device(s)."],
    "probe-failed": ["NVRM: The NVIDIA probe routine failed for 1 device(s)."],
    "no-gpu": ["NVRM: No NVIDIA GPU found."],
    "adapter-failed": [f"NVRM: GPU {BDF}: RmInitAdapter failed! (0x62:0x65:1792)"],
    "no-room": ["nvidia-persistenced: Failed to update PID file: No space left on device"],
    "persistenced-driver": ["nvidia-persistenced: Failed to query NVIDIA devices. Please ensure that the NVIDIA device files (/dev/nvidia*) exist"],
    "persistenced-none": ["nvidia-persistenced: Unable to find any NVIDIA devices"],
    "persistenced-library": ["nvidia-persistenced: Failed to open libnvidia-cfg.so.1: libnvidia-cfg.so.1: cannot open shared object file"],
    "persistenced-symbol": ["nvidia-persistenced: Failed to load symbol nvCfgOpenPciDevice from libnvidia-cfg.so.1: undefined symbol"],
    "persistenced-rpc": ["nvidia-persistenced: Failed to create RPC service"],
    "persistenced-rpc-version": ["nvidia-persistenced: Failed to register RPC V2 service"],
    "persistenced-folder": ["nvidia-persistenced: Unable to access /var/run/nvidia-persistenced: No such file or directory"],
    "persistenced-twice": ["nvidia-persistenced: Failed to lock PID file: Resource temporarily unavailable"],
    "persistenced-pid-file": ["nvidia-persistenced: Failed to open PID file: Read-only file system"],
    "uvm-fabric": ["nvidia-persistenced: device 0000:41:00.0 - Could not Enable UVM Persistence mode becausethe NVLink fabric is not ready: 0x89"],
    "fabric-topology": ["nv-fabricmanager: failed to open fabric topology file in /usr/share/nvidia/nvswitch: No such file"],
    "fabric-item": ["nv-fabricmanager: fabric manager config file item: LOG_FILE_NAME has an invalid value"],
    "fabric-config": ["nv-fabricmanager: failed to open fabric manager config file /run/x.cfg"],
    "fabric-switches": ["nv-fabricmanager: request to query NVSwitch device information from NVSwitch driver failed with error:WARNING Nothing to do [NV_WARN_NOTHING_TO_DO]"],
    "fabric-loopback": ["nv-fabricmanager: failed to bind to 127.0.0.1:6666: Network is unreachable"],
    "fabric-release": ["nv-fabricmanager: fabric manager NVIDIA GPU driver interface version 550.1 don't match with driver version 550.2."],
    "nscq-library": ["NSCQ_RC_WARNING: RDT init failure"],
    "library-missing": ["nv-fabricmanager: error while loading shared libraries: libgcc_s.so.1: cannot open shared object file"],
    "dcgm-account": ["nv-hostengine: Err: failed to find the service account nvidia-dcgm"],
    "dcgm-counters": ["dcgm-exporter: level=ERROR msg=\"Could not read metrics file '/etc/dcgm-exporter/default-counters.csv'\""],
    "cgroup-version": ["cgroup: Unknown subsys name 'cpuset'"],
    "agent-policy": ['{"msg":"Failed to initialize agent policy: Failed to read /etc/kata-opa/default-policy.rego","level":"ERRO"}'],
    "cdi-names": ["unresolvable CDI devices nvidia.com/pgpu=vfio3"],
    "cdi-unresolved": ["waiting for CDI spec(s) to be generated (3 of 100 max tries) \"unresolvable CDI devices nvidia.com/gpu=0\""],
    "cdi-none": ["no CDI annotations, no devices to inject"],
    "broker-unnamed": ["ERROR ttrpc_aa::server: AA (ttrpc): get token failed", " kbs token config not configured in config file"],
    "broker-refuses": ["WARN kbs_protocol::client::rcar_client: RCAR handshake failed: RcarHandshake(\"KBS attest unauthorized, Error Info: ErrorInformation"],
    "broker-far": ["WARN kbs_protocol::client::rcar_client: RCAR handshake failed: RcarHandshake(\"reqwest::Error {\\n    kind: Request,\\n    url:"],
    "cuda-802": ["CUDA error 802: system not yet initialized"],
}


def test_every_row_has_a_line_that_people_met() -> None:
    assert list(MET) == [row.name for row in SIGNATURES]


def test_a_line_is_explained_by_its_row() -> None:
    found = {name: explain(["noise before", *MET[name], "noise after"]) for name in MET}
    assert {name: row and row.name for name, row in found.items()} == {name: name for name in MET}


def test_rows_say_who_acts_and_use_known_codes() -> None:
    for row in SIGNATURES:
        assert row.who in (PLATFORM, HOST, AUTHOR)
        assert not row.code or row.code in BY_CODE
        assert row.cause and row.remedy and all(row.words)


def test_words_may_stand_in_several_lines_but_all_must_be_there() -> None:
    both = explain(["a SXid b", "RmInitAdapter failed! (0x22:0x3f:1)"])
    assert both is not None
    assert both.name == "nvlink-training"
    assert explain(["a SXid b"]) is None
    assert explain([]) is None


def test_an_error_takes_over_code_and_advice_of_what_explains_it() -> None:
    error = NvrcError("E_FABRIC_START", "it ended", details=("more",))
    found = enrich(error, MET["fabric-item"])
    assert (found.code, found.what, found.details) == ("E_FABRIC_CONFIG", "it ended", ("more",))
    assert found.hint.endswith("correct the item in the stock fabricmanager.cfg of the image")
    assert enrich(error, ["nothing known"]) is error


def test_a_row_without_a_code_leaves_the_step_its_own() -> None:
    found = enrich(NvrcError("E_NVLSM", "it ended"), MET["library-missing"])
    assert found.code == "E_NVLSM"
    assert found.hint.startswith("a library that the program needs is not in the image")
