# SPDX-License-Identifier: Apache-2.0
"""Kernel modules without kmod: by name, with what they need and with their options, straight from finit_module(2).

NVIDIA's modules come from the GPU extension's own tree where there is one, all others from the image's. A module that
is in the kernel already, loaded or built in, is left as it is. Files that are compressed are unpacked by the kernel
where it can (CONFIG_MODULE_DECOMPRESS); gzip is unpacked here where it cannot, xz and zstd are refused then: the
frozen init carries no library for them.

A signature may lie beside its module (docs/kernel-modules.md): checking it is most of what loading costs, so it is
handed over only to a kernel that has refused the module without it. So is what the factory took out for loading's sake.
"""

from __future__ import annotations

import errno

from nvrc.hardware.modprobe_config import read_config
from nvrc.hardware.module_failure import Refused, explain, find_vermagic
from nvrc.hardware.module_tree import COMPRESSIONS, ModuleTree, Softdep, canonical, read_tree, releases
from nvrc.machine.system import Files, System
from nvrc.params.module_options import ModuleOption
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.needs import CHANGED_BYTES, SIGNATURE, SIGNED_BYTES

COMPRESSION = "/sys/module/compression"
# What a kernel answers that takes signed modules only: module.sig_enforce, and lockdown.
_UNSIGNED = (errno.EKEYREJECTED, errno.EPERM)
_FILE_LIMIT, _SIGNATURE_LIMIT = 512 << 20, 64 << 10
_NO_SOFTDEP = Softdep()


def read_release(system: Files) -> str:
    """The kernel's own name, which is that of a folder below lib/modules."""
    try:
        release = system.read(paths.OSRELEASE, 256).decode("ascii", "replace").strip()
    except OSError as err:
        raise NvrcError("E_MODULE_TREE", f"{paths.OSRELEASE}: {err.strerror}", "check that /proc is mounted") from err
    if not release.isprintable() or "/" in release or release in ("", ".", ".."):
        raise NvrcError("E_MODULE_TREE", f"{paths.OSRELEASE} reads {release[:40]!a}, no kernel release")
    return release


class Modules:
    """What this kernel can load, and what has been said about it. `remarks` grows with what went past in silence."""

    def __init__(self, system: System, *, gpu_root: str = "", options: tuple[ModuleOption, ...] = ()) -> None:
        self._system = system
        self._release = read_release(system)
        self._config = read_config(system, options)
        self._gpu_root = gpu_root
        self._image = read_tree(system, "", self._release)
        self._gpu = read_tree(system, gpu_root, self._release) if gpu_root else self._image
        self._signed_only = False
        self.remarks: list[str] = list(self._config.remarks)

    def load(self, module: str, options: str = "", signs: tuple[str, ...] = ()) -> None:
        """Have a module in the kernel. `signs`: paths that show its code is there when nothing else does."""
        name = canonical(module)
        if self.is_present(name) or any(self._system.exists(sign) for sign in signs):
            if options:
                self.remarks.append(f"module {module} was in the kernel before: {options} was not given to it")
            return
        self._load(self._tree_of(name), name, options, ())

    def load_if_there(self, module: str) -> bool:
        """The same for a module that a kernel may have built in without leaving a trace: absent is fine."""
        name = canonical(module)
        if self.is_present(name) or name not in self._tree_of(name).files:
            return False
        self._load(self._tree_of(name), name, "", ())
        return True

    @property
    def folder(self) -> str:
        """Where the image's modules for this kernel are, if it has any."""
        return self._image.folder

    def is_loadable(self, name: str) -> bool:
        """Whether there is a file of a module that is not in the kernel yet."""
        return name in self._tree_of(name).files and not self.is_present(name)

    def is_present(self, name: str) -> bool:
        if name in self._image.builtin or name in self._gpu.builtin:
            return True
        if not self._system.exists(f"/sys/module/{name}"):
            return False
        try:
            return self._system.read(f"/sys/module/{name}/initstate", 16).strip() == b"live"
        except OSError:
            return True  # only code that is built in has no state

    def _tree_of(self, name: str) -> ModuleTree:
        return self._gpu if name.startswith("nvidia") else self._image

    def _load(self, tree: ModuleTree, name: str, options: str, chain: tuple[str, ...]) -> None:
        if name in chain:
            raise NvrcError("E_MODULE_TREE", f"{tree.folder}/modules.dep: {' needs '.join((*chain, name))}")
        if self.is_present(name):
            return
        if line := self._config.installs.get(name):
            raise NvrcError("E_MODULE_CONFIG", f"module {name} is to be loaded by a shell command ({line[:160]})")
        if name not in tree.files:
            raise self._missing(name, f", and {chain[-1]} needs it" if chain else "")
        soft = [tree.softdeps.get(name, _NO_SOFTDEP), self._config.softdeps.get(name, _NO_SOFTDEP)]
        self._load_softly(name, [before for one in soft for before in one.pre], (*chain, name))
        for need in reversed(tree.needs[name]):
            self._load(tree if need in tree.files else self._tree_of(need), need, "", (*chain, name))
        self._insert(name, tree.files[name], options)
        self._load_softly(name, [after for one in soft for after in one.post], (*chain, name))

    def _load_softly(self, owner: str, names: list[str], chain: tuple[str, ...]) -> None:
        """What a module would like to have around it; whatever goes wrong there is a remark."""
        for name in names:
            tree = self._tree_of(name)
            if name in chain or name not in tree.files:
                continue
            try:
                self._load(tree, name, "", chain)
            except NvrcError as err:
                self.remarks.append(f"soft dependency of module {owner}: {err.what}")

    def _insert(self, name: str, path: str, options: str) -> None:
        given = " ".join((*self._config.options_of(name), *([options] if options else [])))
        packed = COMPRESSIONS[".ko" + path.rpartition(".ko")[2]]
        try:
            if not packed:
                self._insert_plain(path, given)
            elif packed == self._kernel_unpacks():
                self._system.load_module(path, given, compressed=True)
            else:
                self._system.load_module(self._unpack(name, path, packed), given)
        except OSError as err:
            if err.errno == errno.ENOENT and not self._system.exists(path):
                what = f"module {name}: modules.dep lists {path}, which does not exist"
                raise NvrcError("E_MODULE_MISSING", what) from err
            if err.errno != errno.EEXIST:
                raise explain(self._system, Refused(name, path, self._release, self._vermagic(path)), err) from err

    def _insert_plain(self, path: str, given: str) -> None:
        signature = path + SIGNATURE
        has_one = self._system.exists(signature)
        if not (has_one and self._signed_only):
            try:
                self._system.load_module(path, given)
            except OSError as err:
                if not has_one or err.errno not in _UNSIGNED:
                    raise
            else:
                return
        signed = self._read_signed(path) + self._system.read(signature, _SIGNATURE_LIMIT)
        self._system.load_module(signed, given)
        self._signed_only = True

    def _read_signed(self, path: str) -> bytes:
        """A module's file as it was when it was signed."""
        image = bytearray(self._system.read(path, _FILE_LIMIT))
        if self._system.exists(path + SIGNED_BYTES):
            for at, byte in CHANGED_BYTES.iter_unpack(self._system.read(path + SIGNED_BYTES, _FILE_LIMIT)):
                image[at] = byte
        return bytes(image)

    def _kernel_unpacks(self) -> str:
        """The one compression that the kernel knows; "" for none."""
        try:
            return self._system.read(COMPRESSION, 16).decode("ascii", "replace").strip()
        except OSError:
            return ""

    def _unpack(self, name: str, path: str, packed: str) -> bytes:
        if packed != "gzip":
            knows = self._kernel_unpacks()
            raise NvrcError("E_MODULE_COMPRESSION", f"module {name} is compressed with {packed}, and this kernel "
                            f"unpacks {knows or 'no modules'} ({path})")
        import zlib

        unpacker = zlib.decompressobj(wbits=31)
        try:
            image = unpacker.decompress(self._system.read(path, _FILE_LIMIT), _FILE_LIMIT)
        except zlib.error as err:
            raise NvrcError("E_MODULE_COMPRESSION", f"module {name} cannot be unpacked: {err} ({path})") from err
        if not unpacker.eof:
            raise NvrcError("E_MODULE_COMPRESSION", f"module {name} is cut off or unpacks to too much ({path})")
        return image

    def _vermagic(self, path: str) -> str:
        """What an uncompressed file says it was built for; "" where it does not say."""
        try:
            return find_vermagic(self._system.read(path, _FILE_LIMIT)) if path.endswith(".ko") else ""
        except OSError:
            return ""

    def _missing(self, name: str, why: str = "") -> NvrcError:
        tree = self._tree_of(name)
        root = self._gpu_root if tree is self._gpu else ""
        there = releases(self._system, root)
        if not there:
            what = f"there are no modules in {tree.folder.rpartition('/')[0]}"
        elif self._release not in there:
            what = f"{tree.folder.rpartition('/')[0]} is for kernel {', '.join(there)[:160]}, this is {self._release}"
        elif not tree.files:
            what = f"{tree.folder}/modules.dep is missing or empty (run depmod when the image is built)"
        else:
            what = f"{tree.folder}/modules.dep does not list it"
        return NvrcError("E_MODULE_MISSING", f"module {name} is not in the kernel{why}, and {what}")
