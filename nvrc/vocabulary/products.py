# SPDX-License-Identifier: Apache-2.0
"""Products by the names people use, with the numbers a guest sees of them. Ids as in NVIDIA's open kernel modules.

Nothing is decided by this table: the lab imitates these machines, and `nvrc plan --machine` imagines them.
"""

from __future__ import annotations

from guest_cdi.lean.light import Mapping, dataclass

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    device: int
    model: str
    memory_gib: int
    has_mig: bool = True
    pci_class: int = 0x030200
    capability: tuple[int, int] = (9, 0)


PRODUCTS: Mapping[str, Product] = {
    "A100": Product(device=0x20B2, model="NVIDIA A100-SXM4-80GB", memory_gib=80, capability=(8, 0)),
    "A30": Product(device=0x20B7, model="NVIDIA A30", memory_gib=24, capability=(8, 0)),
    "T4": Product(device=0x1EB8, model="Tesla T4", memory_gib=16, has_mig=False, capability=(7, 5)),
    "L40S": Product(device=0x26B9, model="NVIDIA L40S", memory_gib=45, has_mig=False, pci_class=0x030000,
                    capability=(8, 9)),
    "H100": Product(device=0x2330, model="NVIDIA H100 80GB HBM3", memory_gib=80),
    "H100-PCIe": Product(device=0x2331, model="NVIDIA H100 PCIe", memory_gib=80),
    "H20": Product(device=0x2329, model="NVIDIA H20", memory_gib=96),
    "H200": Product(device=0x2335, model="NVIDIA H200", memory_gib=141),
    "GH200": Product(device=0x2342, model="NVIDIA GH200 480GB", memory_gib=96),
    "B200": Product(device=0x2901, model="NVIDIA B200", memory_gib=180, capability=(10, 0)),
    "B300": Product(device=0x3182, model="NVIDIA B300", memory_gib=270, capability=(10, 3)),
    "RTX-PRO-6000": Product(device=0x2BB5, model="NVIDIA RTX PRO 6000 Blackwell Server Edition", memory_gib=96,
                            pci_class=0x030000, capability=(12, 0)),
}
# NVLinks of one GPU to the switches of its board, by device id, as nvidia-smi topo -m counts them there. A800 and H800
# have 8: 400 GB/s of 50 GB/s each, where A100 has 600 and H100 and H20 have 900; B200 has 1800 of 100 each.
NVLINKS: Mapping[int, int] = {
    0x20B0: 12, 0x20B2: 12, 0x20BD: 8, 0x20F3: 8, 0x2324: 8, 0x2329: 18, 0x232C: 18, 0x2330: 18, 0x2335: 18,
    0x2901: 18, 0x3182: 18,
}
# NVSwitch functions, class 0680.
SWITCHES: Mapping[str, int] = {"A100": 0x1AF1, "H100": 0x22A3}
