# SPDX-License-Identifier: Apache-2.0
"""Images of the factory, as far as their documents say: what kata-config and measure look at."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

LINE = f"root_hash={'cd' * 32},salt={'ab' * 32},data_blocks=2,data_block_size=4096,hash_block_size=4096"
INIT, AGENT = "/init", "/usr/local/bin/attestation-agent"
NVML = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.550.163.01"
# format and files of each.
IMAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "lab": ("initrd", (INIT,)),
    "nvidia": ("initrd", (INIT, NVML)),
    "nvidia-confidential": ("initrd", (INIT, NVML, AGENT)),
    "nvidia-base": ("initrd", (INIT,)),
    "kata-base": ("disk", (INIT,)),
    "nvidia-gpu": ("disk", (NVML,)),
    "nvidia-coco": ("disk", (AGENT,)),
}


def make_image(images: Path, name: str, policy: str = "") -> Path:
    image_format, files = IMAGES[name]
    folder = images / name
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({
        "version": 1, "image": name, "format": image_format, "parts": {}, "packages": [], "filesystem": "erofs",
        "files": [{"path": path, "kind": "file", "mode": "0755", "slice": "x"} for path in files],
        **({"policy": {"sha256": hashlib.sha256(policy.encode()).hexdigest(), "slice": "x", "text": policy}} if policy else {})}))
    if image_format == "disk":
        (folder / "disk.img").write_text(f"disk of {name}")
        (folder / "verity.txt").write_text(LINE + "\n")
    else:
        (folder / "initrd").write_text(f"initrd of {name}")
    if name not in {"kata-base", "nvidia-gpu", "nvidia-coco"}:
        (folder / "vmlinuz").write_text(f"kernel of {name}")
    return folder
