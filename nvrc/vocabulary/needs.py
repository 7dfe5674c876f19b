# SPDX-License-Identifier: Apache-2.0
"""What a guest may need of its kernel once no module can be loaded any more, one row a need.

An image declares which of these it serves; the factory then puts the modules into it. The init loads those that are
recognised on the machine before it locks loading. A kernel that has a module built in has no file of it, and nothing
is done. Knows no machine: nvrc/hardware/needs.py recognises and loads. docs/kernel-needs.md is written from it.
"""

from __future__ import annotations

from struct import Struct
from types import MappingProxyType

from guest_cdi.lean.light import Enum, Mapping, NamedTuple

_NO_MODULES: Mapping[str, str] = MappingProxyType({})


class Sign(Enum):
    """What a row may go by."""

    ALWAYS = "every machine"
    CPU_FLAG = "CPU flag"
    PATH = "path"
    EXTENSION = "extension"
    WORD = "kernel parameter"
    NIC = "a network function of vendor 15b3 that containers may have"
    VIRTIO = "virtio device"
    TEE_GPU = "a GPU in a confidential guest"


class Need(NamedTuple):
    """Modules in the order of loading, each with the kernel option that makes it. A name with several rows is one need,
    whose modules go by signs of their own.

    `signs`: one of them is enough. `where_there`: modules that some kernels do not have; an image goes without.
    `elsewhere`: modules that an image has for it, and that the step `modules` loads where the machine's mode says so.
    `device`: what a confidential guest must show afterwards. `builtin`: where the modules are part of the kernel.
    """

    name: str
    why: str
    signs: tuple[tuple[Sign, str], ...]
    modules: Mapping[str, str]
    builtin: str
    where_there: Mapping[str, str] = _NO_MODULES
    elsewhere: Mapping[str, str] = _NO_MODULES
    before_driver: bool = False
    device: str = ""


_ALWAYS = ((Sign.ALWAYS, ""),)
_KATA = "Kata's kernels"
_NOT_DEBIAN = "Kata's kernels; a module in Debian's and Ubuntu's"

SNP_SIGNS = ((Sign.PATH, "/sys/devices/platform/sev-guest"), (Sign.PATH, "/sys/devices/system/cpu/sev"))
TDX_SIGNS = ((Sign.CPU_FLAG, "tdx_guest"),)
CCA_SIGNS = ((Sign.PATH, "/sys/devices/platform/arm-cca-dev"),)
# Where guest components are: their attestation takes a TEE without a device for no TEE at all.
COMPONENTS = ((Sign.PATH, "/usr/local/bin/attestation-agent"), (Sign.EXTENSION, "coco"))

NEEDS: tuple[Need, ...] = (
    Need("agent", "the agent's own: containers' roots", _ALWAYS, {"overlay": "OVERLAY_FS"}, _KATA),
    Need("agent", "the agent's own: a network function that is attached at boot", ((Sign.VIRTIO, "1"),),
         {"virtio_net": "VIRTIO_NET"}, _KATA),
    Need("agent", "the agent's own: the line to the runtime", ((Sign.VIRTIO, "19"),),
         {"vmw_vsock_virtio_transport": "VIRTIO_VSOCKETS"}, _KATA),
    Need("storage", "disks that are plugged in while the guest runs, and the file systems on them", _ALWAYS, {
        "virtio_blk": "VIRTIO_BLK", "erofs": "EROFS_FS", "dm_verity": "DM_VERITY", "loop": "BLK_DEV_LOOP",
    }, _NOT_DEBIAN),
    # Runtimes that plug in SCSI disks give the machine their controller at its start.
    Need("storage", "disks that are plugged into a SCSI controller that was attached at boot", ((Sign.VIRTIO, "8"),),
         {"virtio_scsi": "SCSI_VIRTIO", "sd_mod": "BLK_DEV_SD"}, _NOT_DEBIAN),
    # Of its own: its functions are so many that the kernel's tracing takes longer for it than for all of the others.
    Need("xfs", "volumes with XFS that the agent mounts", _ALWAYS, {"xfs": "XFS_FS"}, _NOT_DEBIAN),
    Need("netfilter", "iptables by nf_tables: the agent's calls, and pods that make rules of their own", _ALWAYS, {
        "nf_tables": "NF_TABLES", "nft_compat": "NFT_COMPAT", "nft_chain_nat": "NFT_NAT", "nft_ct": "NFT_CT",
        "nft_limit": "NFT_LIMIT", "nft_log": "NFT_LOG", "nft_masq": "NFT_MASQ", "nft_nat": "NFT_NAT",
        "nft_redir": "NFT_REDIR", "nft_reject_inet": "NFT_REJECT_INET", "ipt_REJECT": "IP_NF_TARGET_REJECT",
        "ip6t_REJECT": "IP6_NF_TARGET_REJECT", "xt_addrtype": "NETFILTER_XT_MATCH_ADDRTYPE",
        "xt_comment": "NETFILTER_XT_MATCH_COMMENT", "xt_conntrack": "NETFILTER_XT_MATCH_CONNTRACK",
        "xt_connmark": "NETFILTER_XT_CONNMARK", "xt_limit": "NETFILTER_XT_MATCH_LIMIT",
        "xt_LOG": "NETFILTER_XT_TARGET_LOG", "xt_mark": "NETFILTER_XT_MARK",
        "xt_MASQUERADE": "NETFILTER_XT_TARGET_MASQUERADE", "xt_multiport": "NETFILTER_XT_MATCH_MULTIPORT",
        "xt_nat": "NETFILTER_XT_NAT", "xt_owner": "NETFILTER_XT_MATCH_OWNER",
        "xt_REDIRECT": "NETFILTER_XT_TARGET_REDIRECT", "xt_socket": "NETFILTER_XT_MATCH_SOCKET",
        "xt_statistic": "NETFILTER_XT_MATCH_STATISTIC", "xt_TCPMSS": "NETFILTER_XT_TARGET_TCPMSS",
        "xt_tcpudp": "NETFILTER_XTABLES", "xt_TPROXY": "NETFILTER_XT_TARGET_TPROXY",
    }, _NOT_DEBIAN),
    Need("netfilter-legacy", "iptables-legacy in containers; many kernels have no more of it", _ALWAYS, {},
         "Kata's kernels", {
             "iptable_filter": "IP_NF_FILTER", "iptable_nat": "IP_NF_NAT", "iptable_mangle": "IP_NF_MANGLE",
             "iptable_raw": "IP_NF_RAW", "ip6table_filter": "IP6_NF_FILTER", "ip6table_nat": "IP6_NF_NAT",
             "ip6table_mangle": "IP6_NF_MANGLE", "ip6table_raw": "IP6_NF_RAW",
         }),
    Need("networks", "networks that containers make: VPNs, containers in containers", _ALWAYS, {
        "veth": "VETH", "bridge": "BRIDGE", "tun": "TUN",
    }, _NOT_DEBIAN),
    Need("late-network", "a network function that is plugged in while the guest runs, as for docker and nerdctl",
         _ALWAYS, {"virtio_net": "VIRTIO_NET"}, _KATA),
    Need("gpu-crypto", "confidential GPUs: the driver asks the kernel for these by name, so no symbol brings them",
         ((Sign.TEE_GPU, ""),), {"gcm": "CRYPTO_GCM", "ecdh_generic": "CRYPTO_ECDH"},
         "Kata's NVIDIA kernel", {
             "ghash_generic": "CRYPTO_GHASH", "ghash_clmulni_intel": "CRYPTO_GHASH_CLMUL_NI_INTEL",
             "aesni_intel": "CRYPTO_AES_NI_INTEL",
         }, before_driver=True),
    Need("sev-snp", "attestation on AMD SEV-SNP", SNP_SIGNS, {"sev_guest": "SEV_GUEST"}, "Kata's confidential kernel",
         {"tsm": "TSM_REPORTS", "tsm_report": "TSM_REPORTS"}, device="/dev/sev-guest"),
    Need("tdx", "attestation on Intel TDX", TDX_SIGNS, {"tdx_guest": "TDX_GUEST_DRIVER"}, "Kata's confidential kernel",
         {"tsm": "TSM_REPORTS", "tsm_report": "TSM_REPORTS"}, device="/dev/tdx_guest"),
    Need("encrypted-storage", "volumes that the confidential data hub encrypts, with integrity or without",
         ((Sign.PATH, "/usr/local/bin/confidential-data-hub"), (Sign.EXTENSION, "coco"),
          (Sign.WORD, "agent.secure_storage_integrity")), {
             "dm_crypt": "DM_CRYPT", "dm_integrity": "DM_INTEGRITY", "xts": "CRYPTO_XTS", "authenc": "CRYPTO_AUTHENC",
             "algif_skcipher": "CRYPTO_USER_API_SKCIPHER",
         }, "Kata's confidential kernel",
         {"essiv": "CRYPTO_ESSIV", "algif_hash": "CRYPTO_USER_API_HASH", "aesni_intel": "CRYPTO_AES_NI_INTEL"}),
    Need("rdma", "network functions of NVIDIA's, with RDMA", ((Sign.NIC, ""),), {
        "mlx5_core": "MLX5_CORE", "mlx5_ib": "MLX5_INFINIBAND", "ib_uverbs": "INFINIBAND_USER_ACCESS",
        "rdma_ucm": "INFINIBAND_ADDR_TRANS",
    }, "Kata's NVIDIA kernel", elsewhere={"ib_umad": "INFINIBAND_USER_MAD"}),
)

NAMES = tuple(dict.fromkeys(need.name for need in NEEDS))
# Beside modules.dep in an image whose modules the factory chose: the names of the needs that it serves, one a line.
SERVES = "nvrc.serves"
# What a module's file is called with it behind: its signature, for the kernels that require one, and the bytes that
# the factory changed in it, each with its place, as they were when it was signed.
SIGNATURE = ".sig"
SIGNED_BYTES = ".was"
CHANGED_BYTES = Struct("<IB")


def modules_of(option: str) -> tuple[str, ...]:
    """The modules that a kernel option makes, as far as a row knows."""
    pairs = (pair for need in NEEDS for pair in (*need.modules.items(), *need.where_there.items(),
                                                *need.elsewhere.items()))
    return tuple(dict.fromkeys(module for module, makes in pairs if makes == option))
