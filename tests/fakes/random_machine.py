# SPDX-License-Identifier: Apache-2.0
"""Machines by seed: every layout, every kind of file present or not, and the ways in which drivers are installed wrongly.

Made for comparing two generators on the same machine. A seed always gives the same machine and command line.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from random import Random

from fakes.elf import library_cache, shared_object
from fakes.machine import Machine, Node, add_library
from guest_cdi.gpu import Gpu, Mig

VERSION = "580.95.05"
LIBRARY_DIRS = ("/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu/nvidia/current",
                "/usr/lib/aarch64-linux-gnu", "/opt/nv/lib")
UNMERGED_DIRS = ("/lib64", "/lib/x86_64-linux-gnu", "/")
LIBRARIES = ("libcuda", "libnvidia-ml", "libnvidia-ptxjitcompiler", "libGLX_nvidia", "libnvidia-opticalflow",
             "libnvidia-allocator", "libnvidia-vulkan-producer", "libnvidia-cfg", "libnvcuvid", "libnvidia-glcore")
OTHERS = (("libnvidia-egl-gbm", "1.1.2"), ("libnvidia-egl-wayland", "1.1.20"), ("libnvidia-egl-wayland2", "1.0"),
          ("libnvidia-egl-xcb", "1.0.3"), ("libnvidia-egl-xlib", "1"), ("libnvidia-nvvm70", "4"))
PROGRAMS = ("nvidia-smi", "nvidia-debugdump", "nvidia-persistenced", "nvidia-cuda-mps-control", "nvidia-imex",
            "nvidia-xconfig", "nvidia-cdi-hook")
SOCKETS = ("nvidia-persistenced/socket", "nvidia-fabricmanager/socket")
CONFIGS = ("glvnd/egl_vendor.d/10_nvidia.json", "egl/egl_external_platform.d/15_nvidia_gbm.json",
           "egl/egl_external_platform.d/20_nvidia_xcb.json", "nvidia/nvoptix.bin", "X11/xorg.conf.d/10-nvidia.conf",
           "OpenCL/vendors/nvidia.icd", "vulkan/icd.d/nvidia_icd.json", "vulkan/icd.d/nvidia_layers.json",
           "vulkan/implicit_layer.d/nvidia_layers.json", "vulkan/icd.d/nvidia_icd.x86_64.json")
MODES = (0o666, 0o660, 0o664, 0o606, 0)
# Flags with the share of machines on which they are given, and their values.
FLAGS: tuple[tuple[str, float, Sequence[str]], ...] = (
    ("--device-name-strategy", .2, ("index", "uuid", "type-index", "index,type-index", "type-index,uuid,index")),
    ("--device-id", .15, ("0", "1", "0,1", "none", "all,0", "1:0", "9", "gpu0", "0,none", "00",
                          "GPU-00000000-0000-4000-8000-000000000000")),
    ("--disable-hook", .2, ("all", "update-ldcache", "create-symlinks", "enable-cuda-compat,chmod", "nonsense")),
    ("--enable-hook", .1, ("chmod", "create-symlinks", "update-ldcache")),
    ("--ldconfig-path", .1, ("/sbin/ldconfig",)),
    ("--config-search-path", .1, ("/cfg,/etc",)),
    ("--feature-flag", .15, ("disable-ipc-discoverer", "no-additional-gids-for-device-nodes",
                             "enable-explicit-driver-libraries")),
)


def make_machine(seed: int) -> Machine:
    machine = _Maker(Random(seed)).machine
    # What is a link is nothing else, and what is a directory is no file.
    for path in machine.links:
        machine.files.pop(path, None)
    machine.directories[:] = [path for path in machine.directories
                              if path not in machine.links and path not in machine.files]
    machine.sockets[:] = dict.fromkeys(machine.sockets)
    return machine


class _Maker:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.machine = Machine(driver=VERSION)
        self.root = random.choice(("", "", "/run/ext/gpu", "/opt/drv"))
        self.merged = not self.root and self.chance(.5)
        self.dev = self.place_dev()
        self.cached: list[str] = []
        pool = LIBRARY_DIRS if self.merged else LIBRARY_DIRS + UNMERGED_DIRS
        self.dirs = random.sample(pool, random.randint(1, 3))
        for step in (self.add_layout, self.add_libraries, self.add_others, self.add_cache, self.add_modules,
                     self.add_programs, self.add_sockets, self.add_firmware, self.add_configs, self.add_control_nodes,
                     self.add_gpus, self.add_flags):
            step()

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def pick(self, *values: str) -> str:
        return self.random.choice(values)

    def argue(self, *words: str) -> None:
        self.machine.arguments += words

    def file(self, path: str, content: bytes = b"x", mode: int = 0o644) -> None:
        self.machine.files[path] = (mode, content)

    def below(self, directory: str) -> str:
        return f"{self.root}{directory}".rstrip("/")

    def place_dev(self) -> str:
        if self.root:
            self.argue(f"--driver-root={self.root}")
            if self.chance(.2):
                return self.root
            self.argue("--dev-root=/")
        elif self.chance(.2):
            self.argue("--dev-root=/host")
            return "/host"
        return ""

    def add_layout(self) -> None:
        if self.merged:
            for name in ("bin", "sbin", "lib", "lib64"):
                self.machine.links[f"/{name}"] = f"usr/{name}"
                self.machine.directories.append(f"/usr/{name}")
        if self.chance(.5):
            self.machine.links["/var/run"] = "../run"
            self.machine.directories += ["/run", "/var"]

    def add_libraries(self) -> None:
        for library in LIBRARIES:
            if library != "libnvidia-ml" and self.chance(.1 if library == "libcuda" else .3):
                continue
            some = self.dirs[:1] if self.chance(.6) else self.random.sample(self.dirs, self.random.randint(
                1, len(self.dirs)))
            for directory in some:
                self.add_library(directory, library)

    def add_library(self, directory: str, library: str) -> None:
        place = self.below(directory)
        name = f"{library}.so.{VERSION}"
        is_nvml = library == "libnvidia-ml"
        soname = f"{library}.so.1" if is_nvml else self.pick(f"{library}.so.1", f"{library}.so.1", name, f"{library}.so")
        self.file(f"{place}/{name}", shared_object(soname))
        if not is_nvml and self.chance(.2):
            self.spoil(directory, library, soname)
        if soname != name and (is_nvml or self.chance(.85)):
            self.machine.links[f"{place}/{soname}"] = name
        if self.chance(.3):
            self.machine.links.setdefault(f"{place}/{library}.so", f"{library}.so.1")
        self.cached.append(f"{directory.rstrip('/')}/{self.pick(soname, name)}")

    def spoil(self, directory: str, library: str, soname: str) -> None:
        name = f"{library}.so.{VERSION}"
        path = f"{self.below(directory)}/{name}"
        match self.pick("text", "link", "directory", "nameless", "two names", "empty name", "cut"):
            case "text":
                self.file(path, b"not elf")
            case "link":
                inside = f"{self.root}{directory}/real-{name}"
                for target in (inside, f"/outside/{name}"):
                    self.file(target, shared_object(soname))
                self.machine.links[path] = self.pick("gone", name, inside, f"/outside/{name}")
            case "directory":
                del self.machine.files[path]
                self.machine.directories.append(path)
            case "nameless":
                self.file(path, shared_object())
            case "two names":
                self.file(path, shared_object(soname, "libx.so"))
            case "empty name":
                self.file(path, shared_object(""))
            case _:
                self.file(path, shared_object(soname)[:200])

    def add_others(self) -> None:
        for library, version in OTHERS:
            if self.chance(.4):
                directory = self.random.choice(self.dirs)
                name = f"{library}.so.{version}"
                add_library(self.machine, self.below(directory), name, name if version.isdigit() else f"{library}.so.1")
                self.cached.append(f"{directory.rstrip('/')}/{name}")
        for directory in self.dirs:
            if self.chance(.3):
                add_library(self.machine, f"{self.below(directory)}/vdpau", f"libvdpau_nvidia.so.{VERSION}",
                            "libvdpau_nvidia.so.1")

    def add_cache(self) -> None:
        if self.chance(.6):
            self.random.shuffle(self.cached)
            good = library_cache(self.cached, old=self.chance(.3))
            self.file(f"{self.root}/etc/ld.so.cache", good if self.chance(.9) else b"junk" * 20)

    def add_modules(self) -> None:
        for directory in ("/usr/lib/xorg/modules/drivers", "/usr/lib64/xorg/modules/extensions",
                          f"{self.dirs[0].rstrip('/')}/nvidia/xorg",
                          f"{self.dirs[-1].rstrip('/')}/xorg/modules/updates/drivers"):
            for name in ("nvidia_drv.so", f"libglxserver_nvidia.so.{VERSION}"):
                if self.chance(.2):
                    self.file(f"{self.root}{directory}/{name}", shared_object())

    def add_programs(self) -> None:
        directories = ("/usr/local/bin", "/usr/sbin", "/usr/bin", *(() if self.merged else ("/bin", "/sbin")))
        for path in (f"{self.root}{directory}/{name}" for directory in directories for name in PROGRAMS):
            if self.chance(.15):
                self.file(path, mode=self.random.choice((0o755, 0o755, 0o644, 0o111)))
            elif self.chance(.04):
                self.machine.links[path] = self.pick("gone", "/usr/bin/nvidia-smi")
        if self.root and self.chance(.7):
            self.argue(f"--nvidia-cdi-hook-path={self.root}/bin/nvidia-cdi-hook")
        elif self.chance(.2):
            self.argue(f"--nvidia-cdi-hook-path={self.pick('nvidia-ctk', '/x/nvidia-ctk', '/y/hook')}")

    def add_sockets(self) -> None:
        bases = {"/run", f"{self.root}/run", f"{self.root}/var/run"} - ({"/var/run"} & set(self.machine.links))
        self.machine.sockets += [f"{base}/{name}" for base in sorted(bases) for name in SOCKETS if self.chance(.3)]
        match self.pick("none", "none", "file", "directory"):
            case "file":
                self.file(f"{self.root}/tmp/nvidia-mps")
            case "directory":
                self.machine.directories.append(f"{self.root}/tmp/nvidia-mps")

    def add_firmware(self) -> None:
        if self.chance(.4):
            self.file("/sys/module/firmware_class/parameters/path", self.random.choice((b"/opt/fw\n", b"\n",
                                                                                        b"/lib/firmware\n")))
        release = os.uname().release
        for directory in ("/lib/firmware", "/lib/firmware/updates", f"/lib/firmware/{release}",
                          f"/lib/firmware/updates/{release}", "/opt/fw"):
            for name in ("gsp_ga10x.bin", "gsp_tu10x.bin", "gsp_x.txt"):
                if self.chance(.3):
                    self.file(f"{self.root}{directory}/nvidia/{VERSION}/{name}")

    def add_configs(self) -> None:
        bases = ["/etc", "/usr/local/share", "/usr/share", *(["/"] if self.root else [])]
        for path in (f"{self.below(base)}/{name}" for base in bases for name in CONFIGS):
            if self.chance(.2):
                self.file(path)
        for name in CONFIGS:
            if self.chance(.2):
                self.file(f"/cfg/{name}")

    def node(self, path: str, major: int, minor: int) -> None:
        if self.chance(.95):
            self.machine.nodes[self.dev + path] = Node(major=major, minor=minor, mode=self.random.choice(MODES),
                                                       gid=self.random.choice((0, 0, 0, 44, 27)))
        elif self.chance(.3):
            self.machine.links[self.dev + path] = "/dev/null"

    def add_control_nodes(self) -> None:
        for path, major, minor in (("/dev/nvidiactl", 195, 255), ("/dev/nvidia-uvm", 510, 0),
                                   ("/dev/nvidia-uvm-tools", 510, 1), ("/dev/nvidia-modeset", 195, 254)):
            if minor != 254 or self.chance(.3):
                self.node(path, major, minor)

    def add_gpus(self) -> None:
        count = self.random.randint(0 if self.chance(.1) else 1, 3)
        minors = self.random.sample(range(count), count)
        capabilities = ["config 1", "monitor 2", "a line of three"]
        for index, minor in enumerate(minors):
            domain = self.pick("00000000", "00000001")
            self.node(f"/dev/nvidia{minor}", 195, minor)
            if self.chance(.4):
                self.add_drm(index, f"{domain[4:] if domain == '00000000' else domain}:{0x1a + index:02x}:00.0")
            split = self.chance(.3)
            migs = self.make_migs(index, minor, capabilities) if split else ()
            self.machine.gpus.append(Gpu(
                index=index, uuid=f"GPU-0000000{index}-0000-4000-8000-000000000000", name="NVIDIA H100", minor=minor,
                bus_id=f"{domain}:{0x1a + index:02X}:00.0", mig_capable=True, mig_enabled=split, migs=migs))
        if self.chance(.95):
            self.file("/proc/driver/nvidia-caps/mig-minors", "\n".join(capabilities).encode() + b"\n")

    def add_drm(self, index: int, address: str) -> None:
        for kind, name, minor in (("card", f"card{index}", index), ("render", f"renderD{128 + index}", 128 + index)):
            self.machine.directories.append(f"/sys/bus/pci/devices/{address}/drm/{name}")
            if self.chance(.9):
                self.node(f"/dev/dri/{name}", 226, minor)
            if self.chance(.8):
                self.machine.links[f"{self.dev}/dev/dri/by-path/pci-{address}-{kind}"] = self.pick(
                    f"../{name}", f"/dev/dri/{name}", "../nope", f"{self.dev}/dev/dri/{name}")

    def make_migs(self, index: int, minor: int, capabilities: list[str]) -> tuple[Mig, ...]:
        has_graphics = self.chance(.3)
        count = self.random.randint(0, 2)
        for part in range(count):
            names = (f"gpu{minor}/gi{part + 1}/access", f"gpu{minor}/gi{part + 1}/ci0/access")
            for number, name in enumerate(names, 100 + 20 * index + 2 * part):
                if self.chance(.97):
                    capabilities.append(f"{name} {number}")
                self.node(f"/dev/nvidia-caps/nvidia-cap{number}", 511, number)
        return tuple(Mig(index=part, uuid=f"MIG-0000000{index}-0000-5000-8000-00000000000{part}", gi=part + 1, ci=0,
                         gfx=has_graphics) for part in range(count))

    def add_flags(self) -> None:
        for flag, share, values in FLAGS:
            if self.chance(share):
                self.argue(f"{flag}={self.random.choice(values)}")
        if self.chance(.1):
            self.argue("--no-all-device")
        if self.chance(.1):
            self.argue("--vendor=a.b_c", f"--class={self.pick('gpu', 'g.pu', 'x-y')}")
        if self.chance(.1):
            self.argue(f"--library-search-path={self.root}{self.dirs[0]}")
