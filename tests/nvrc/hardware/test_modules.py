# SPDX-License-Identifier: Apache-2.0
"""Loading by name: order, options, compression, what is there already, and each refusal of the kernel in words."""

from __future__ import annotations

import gzip
import random
import zlib
from errno import (
    EBUSY,
    EEXIST,
    EINVAL,
    EIO,
    EKEYREJECTED,
    ENODATA,
    ENODEV,
    ENOENT,
    ENOEXEC,
    ENOKEY,
    ENOMEM,
    EOPNOTSUPP,
    EPERM,
    ERANGE,
    EXDEV,
)
from pathlib import Path

import pytest

from fakes.modules import RELEASE, TREE, add_module, image, loads, module_guest
from fakes.system import FakeSystem, RecordingSystem
from nvrc.hardware.module_failure import find_vermagic, kernel_words
from nvrc.hardware.modules import Modules
from nvrc.vocabulary.errors import NvrcError

EXT = "/run/kata-extensions/gpu"


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return module_guest(str(tmp_path))


def refusal(system: FakeSystem, module: str, **given: str) -> NvrcError:
    with pytest.raises(NvrcError) as caught:
        Modules(system, **given).load(module)  # type: ignore[arg-type]
    return caught.value


def test_what_it_needs_comes_first_farthest_first_and_once(system: FakeSystem) -> None:
    add_module(system, "a.ko")
    add_module(system, "b.ko", "a.ko")
    add_module(system, "c-d.ko", "b.ko", "a.ko")
    modules = Modules(system)
    modules.load("c-d")
    modules.load("c_d")
    modules.load("b")
    assert loads(system) == ["a.ko", "b.ko", "c-d.ko"]


def test_needs_are_followed_even_where_the_index_lists_only_the_nearest(system: FakeSystem) -> None:
    add_module(system, "a.ko")
    add_module(system, "b.ko", "a.ko")
    add_module(system, "c.ko", "b.ko")
    Modules(system).load("c")
    assert loads(system) == ["a.ko", "b.ko", "c.ko"]


def test_options_are_those_of_files_then_command_line_then_ours(system: FakeSystem) -> None:
    add_module(system, "nvidia.ko")
    system.put("/etc/modprobe.d/0000-nvidia.conf", "options nvidia NVreg_DeviceFileMode=0660\n")
    Modules(system, options=(("nvidia", "NVreg_X=1"), ("nvidia_uvm", "y=2"))).load("nvidia", "NVreg_NvLinkDisable=1")
    assert loads(system) == ["nvidia.ko NVreg_DeviceFileMode=0660 NVreg_X=1 NVreg_NvLinkDisable=1"]


@pytest.mark.parametrize("there", ["/sys/module/nvidia/version", "/sys/module/nvidia/initstate", "sign", "builtin"])
def test_what_is_in_the_kernel_already_is_left_alone(system: FakeSystem, there: str) -> None:
    add_module(system, "nvidia.ko")
    if there == "builtin":
        system.put(f"{TREE}/modules.builtin", "kernel/nvidia.ko\n")
    else:
        system.put(f"/sys/{there}" if there == "sign" else there, "live\n")
    modules = Modules(system)
    modules.load("nvidia", signs=("/sys/sign",))
    assert modules.remarks == []
    modules.load("nvidia", "NVreg_NvLinkDisable=1", ("/sys/sign",))
    assert loads(system) == []
    assert modules.remarks == ["module nvidia was in the kernel before: NVreg_NvLinkDisable=1 was not given to it"]


def test_a_module_that_is_still_coming_is_loaded_and_one_that_came_meanwhile_is_fine(system: FakeSystem) -> None:
    where = add_module(system, "a.ko")
    system.put("/sys/module/a/initstate", "coming\n")
    system.fail[f"load {where}"] = OSError(EEXIST, "File exists")
    Modules(system).load("a")
    assert loads(system) == []


def test_nvidias_modules_come_from_the_extension_and_only_from_there(system: FakeSystem) -> None:
    add_module(system, "nvidia.ko")
    add_module(system, "ecc.ko")
    add_module(system, "mlx5_ib.ko")
    add_module(system, "extra/nvidia.ko", "ecc.ko", tree=f"{EXT}{TREE}")
    add_module(system, "extra/nvidia-uvm.ko", "extra/nvidia.ko", tree=f"{EXT}{TREE}")
    modules = Modules(system, gpu_root=EXT)
    modules.load("nvidia-uvm")
    modules.load("mlx5_ib")
    assert [effect for effect in system.effects if effect.startswith("load")] == [
        f"load {TREE}/ecc.ko", f"load {EXT}{TREE}/extra/nvidia.ko", f"load {EXT}{TREE}/extra/nvidia-uvm.ko",
        f"load {TREE}/mlx5_ib.ko"]
    add_module(system, "nvidia-fs.ko")
    assert refusal(system, "nvidia-fs", gpu_root=EXT).code == "E_MODULE_MISSING"


def test_soft_dependencies_before_and_after_never_fail_the_module(system: FakeSystem) -> None:
    system.put("/etc/modprobe.d/a.conf", "softdep a pre: absent early post: late a\n")
    bad = add_module(system, "early.ko")
    add_module(system, "late.ko")
    add_module(system, "a.ko")
    system.put(f"{TREE}/modules.softdep", "softdep a post: indexed\n")
    add_module(system, "indexed.ko")
    system.fail[f"load {bad}"] = OSError(ENODEV, "No such device")
    modules = Modules(system)
    modules.load("a")
    assert loads(system) == ["a.ko", "indexed.ko", "late.ko"]
    assert [remark.split(" (")[0] for remark in modules.remarks] == [
        "soft dependency of module a: module early found no device to drive"]


def test_a_circle_of_needs_is_told(system: FakeSystem) -> None:
    add_module(system, "a.ko", "b.ko")
    add_module(system, "b.ko", "a.ko")
    assert refusal(system, "a").what == f"{TREE}/modules.dep: a needs b needs a"


def test_a_need_that_is_nowhere_is_told_with_who_needs_it(system: FakeSystem) -> None:
    add_module(system, "a.ko", "gone.ko")
    err = refusal(system, "a")
    assert err.code == "E_MODULE_MISSING"
    assert err.what == f"module gone is not in the kernel, and a needs it, and {TREE}/modules.dep does not list it"


def test_who_needs_it_is_the_last_of_the_chain(system: FakeSystem) -> None:
    add_module(system, "b.ko", "gone.ko")
    add_module(system, "c.ko", "b.ko")
    assert "module gone is not in the kernel, and b needs it, and " in refusal(system, "c").what


@pytest.mark.parametrize(("release", "shown"), [
    pytest.param("", "''", id="nothing"), pytest.param(".", "'.'", id="the-folder-itself"),
    pytest.param("..", "'..'", id="its-parent"), pytest.param("6.1/../x", "'6.1/../x'", id="a-path"),
    pytest.param("6.1\x1bx", r"'6.1\x1bx'", id="unprintable"), pytest.param("/" + "x" * 90, f"'/{'x' * 39}'", id="endless"),
])
def test_a_kernel_whose_name_is_no_folder_loads_nothing(system: FakeSystem, release: str, shown: str) -> None:
    system.put("/proc/sys/kernel/osrelease", f"{release}\n")
    error = refusal(system, "a")
    assert (error.code, error.what) == ("E_MODULE_TREE", f"/proc/sys/kernel/osrelease reads {shown}, no kernel release")


def test_a_kernel_that_does_not_tell_its_name_loads_nothing(system: FakeSystem) -> None:
    system.fail["read /proc/sys/kernel/osrelease"] = OSError(EIO, "Input/output error")
    error = refusal(system, "a")
    assert (error.code, error.what) == ("E_MODULE_TREE", "/proc/sys/kernel/osrelease: Input/output error")


def test_what_is_loadable_has_a_file_and_is_not_in_the_kernel(system: FakeSystem) -> None:
    add_module(system, "a.ko")
    add_module(system, "b.ko")
    system.put("/sys/module/b/initstate", "live\n")
    modules = Modules(system)
    assert [modules.is_loadable(name) for name in ("a", "b", "c")] == [True, False, False]
    assert modules.folder == TREE


def test_what_is_read_is_bounded(system: FakeSystem) -> None:
    recording = RecordingSystem(system.root)
    signed_guest(recording, EPERM)
    add_module(recording, "packed.ko.gz", content=gzip.compress(image(), mtime=0))
    modules = Modules(recording)
    recording.put("/sys/module/live/initstate", "live\n")
    for name in ("a", "packed", "live"):
        modules.load(name)
    assert recording.limits["osrelease"] == 256
    assert (recording.limits["initstate"], recording.limits["compression"]) == (16, 16)
    assert (recording.limits["a.ko"], recording.limits["packed.ko.gz"], recording.limits["a.ko.sig"]) == (512 << 20, 512 << 20, 64 << 10)


def test_an_install_line_is_quoted_as_far_as_a_line_goes(system: FakeSystem) -> None:
    add_module(system, "a.ko")
    system.put("/etc/modprobe.d/a.conf", f"install a {'x' * 500}\n")
    words = refusal(system, "a").what.partition("(")[2]
    assert (len(words), words[-1]) == (161, ")")


def test_an_install_line_is_refused_not_passed_over(system: FakeSystem) -> None:
    add_module(system, "nvidia.ko")
    system.put("/etc/modprobe.d/n.conf", "install nvidia /bin/false\n")
    err = refusal(system, "nvidia")
    assert (err.code, "n.conf:1: install nvidia /bin/false" in err.what) == ("E_MODULE_CONFIG", True)


@pytest.mark.parametrize(("put", "what"), [
    ({}, "there are no modules in /lib/modules"),
    ({"/lib/modules/6.1.0-a/x": "", "/lib/modules/6.6.9/x": ""},
     f"/lib/modules is for kernel 6.1.0-a, 6.6.9, this is {RELEASE}"),
    ({f"{TREE}/x": ""}, f"{TREE}/modules.dep is missing or empty (run depmod when the image is built)"),
    ({f"{TREE}/modules.dep": "a.ko:\n"}, f"{TREE}/modules.dep does not list it"),
])
def test_a_missing_module_says_what_is_there_instead(system: FakeSystem, put: dict[str, str], what: str) -> None:
    for path, text in put.items():
        system.put(path, text)
    err = refusal(system, "nvidia")
    assert (err.code, err.what) == ("E_MODULE_MISSING", f"module nvidia is not in the kernel, and {what}")
    assert Modules(system).load_if_there("nvidia") is False


def test_a_missing_module_of_the_driver_is_looked_for_in_the_extension(system: FakeSystem) -> None:
    add_module(system, "a.ko")
    system.put(f"{EXT}/lib/modules/{'6.1.0-' + 'x' * 200}/y", "")
    assert refusal(system, "nvidia", gpu_root=EXT).what.endswith(
        f"and {EXT}/lib/modules is for kernel 6.1.0-{'x' * 154}, this is {RELEASE}")
    assert refusal(system, "b", gpu_root=EXT).what.endswith(f"and {TREE}/modules.dep does not list it")


@pytest.mark.parametrize("tree", [TREE, f"{EXT}{TREE}"], ids=["image", "extension"])
def test_what_either_tree_says_is_built_in_is_left_alone(system: FakeSystem, tree: str) -> None:
    add_module(system, "nvidia.ko", tree=f"{EXT}{TREE}")
    system.put(f"{tree}/modules.builtin", "kernel/nvidia.ko\n")
    Modules(system, gpu_root=EXT).load("nvidia")
    assert loads(system) == []


def test_what_may_be_built_in_is_loaded_where_it_is_a_module(system: FakeSystem) -> None:
    add_module(system, "overlay.ko")
    modules = Modules(system)
    assert modules.load_if_there("overlay") is True
    assert modules.load_if_there("overlay") is False
    assert loads(system) == ["overlay.ko"]


# signatures beside their modules
def signed_guest(system: FakeSystem, error: int | None) -> None:
    """Three modules, two with a signature beside them, on a kernel that refuses what is not signed.

    The second was changed since: its first byte was another, which its signature is of.
    """
    for name in ("a", "b", "c"):
        where = add_module(system, f"{name}.ko", content=name.encode())
        if error is not None and name != "b":  # of which no attempt without signature is to be seen
            system.fail[f"load {where}"] = OSError(error, "Key was rejected by service")
    for name in ("a", "b"):
        system.put(f"{TREE}/{name}.ko.sig", f"-signature-of-{name}")
    system.put(f"{TREE}/b.ko.was", b"\0\0\0\0B")


@pytest.mark.parametrize(("error", "effects", "images"), [
    pytest.param(None, [f"load {TREE}/a.ko x=1", f"load {TREE}/b.ko"], [], id="the-kernel-requires-none"),
    pytest.param(EKEYREJECTED, ["load memory x=1", "load memory"],
                 [b"a-signature-of-a", b"B-signature-of-b"], id="sig-enforce"),
    pytest.param(EPERM, ["load memory x=1", "load memory"],
                 [b"a-signature-of-a", b"B-signature-of-b"], id="lockdown"),
])
def test_a_signature_is_handed_over_where_the_kernel_requires_one(system: FakeSystem, error: int | None,
                                                                  effects: list[str], images: list[bytes]) -> None:
    signed_guest(system, error)
    modules = Modules(system)
    modules.load("a", "x=1")
    modules.load("b")
    assert [one for one in system.effects if one.startswith("load ")] == effects
    assert system.images == images


@pytest.mark.parametrize(("error", "code"), [(EKEYREJECTED, "E_MODULE_SIGNATURE"), (EPERM, "E_MODULE_LOAD")])
def test_a_module_without_a_signature_is_refused_as_before(system: FakeSystem, error: int, code: str) -> None:
    signed_guest(system, error)
    assert refusal(system, "c").code == code
    modules = Modules(system)
    modules.load("a")
    with pytest.raises(NvrcError) as caught:
        modules.load("c")
    assert (caught.value.code, system.images) == (code, [b"a-signature-of-a"])


@pytest.mark.parametrize("error", [ENOKEY, ENOEXEC], ids=["bad-signature", "another-kernel"])
def test_what_a_signature_cannot_cure_is_not_tried_with_it(system: FakeSystem, error: int) -> None:
    signed_guest(system, error)
    assert refusal(system, "a").code in ("E_MODULE_SIGNATURE", "E_MODULE_VERSION")
    assert system.images == []


# compression

@pytest.mark.parametrize(("ending", "kernel", "effect"), [
    (".ko.xz", "xz\n", "load {} compressed"),
    (".ko.zst", "zstd\n", "load {} compressed"),
    (".ko.gz", "gzip\n", "load {} compressed"),
    (".ko.gz", None, "load memory"),
    (".ko.gz", "xz\n", "load memory"),
])
def test_the_kernel_unpacks_what_it_can_and_gzip_is_unpacked_here(system: FakeSystem, ending: str, kernel: str | None,
                                                                  effect: str) -> None:
    where = add_module(system, f"a{ending}", content=gzip.compress(image(), mtime=0))
    if kernel:
        system.put("/sys/module/compression", kernel)
    Modules(system).load("a")
    assert system.effects == [effect.format(where)]


def test_gzip_of_any_window_is_unpacked_whole(system: FakeSystem) -> None:
    """A repetition that is farther back than half of the largest window."""
    content = image() + random.Random(1).randbytes(20_000) * 2
    add_module(system, "a.ko.gz", content=gzip.compress(content, mtime=0))
    Modules(system).load("a")
    assert system.images == [content]


@pytest.mark.parametrize(("ending", "content", "what"), [
    (".ko.gz", zlib.compress(image()), "cannot be unpacked: "),
    (".ko.xz", b"", "is compressed with xz, and this kernel unpacks no modules"),
    (".ko.gz", b"not gzip", "cannot be unpacked: "),
    (".ko.gz", gzip.compress(image(), mtime=0)[:-9], "is cut off or unpacks to too much"),
])
def test_what_nobody_can_unpack_is_told(system: FakeSystem, ending: str, content: bytes, what: str) -> None:
    add_module(system, f"a{ending}", content=content)
    err = refusal(system, "a")
    assert err.code == "E_MODULE_COMPRESSION"
    assert f"module a {what}" in err.what


# refusals

def kernel_line(text: str, priority: int = 3) -> bytes:
    return b"%d,1,2,-;%s\n" % (priority, text.encode())


@pytest.mark.parametrize(("number", "code", "words"), [
    (ENOKEY, "E_MODULE_SIGNATURE", "is not signed with a key that this kernel trusts (ENOKEY, "),
    (EKEYREJECTED, "E_MODULE_SIGNATURE", "is not signed with a key that this kernel trusts"),
    (ENODATA, "E_MODULE_SIGNATURE", "is not signed"),
    (ENOEXEC, "E_MODULE_VERSION", "is not a module for this kernel"),
    (ENOENT, "E_MODULE_SYMBOL", "needs a symbol that neither the kernel nor a loaded module has"),
    (ENODEV, "E_MODULE_DEVICE", "found no device to drive"),
    (EINVAL, "E_MODULE_OPTIONS", "was refused for an invalid parameter"),
    (ERANGE, "E_MODULE_OPTIONS", "was refused for a parameter out of range"),
    (EPERM, "E_MODULE_LOAD", "may not be loaded: module loading is disabled or locked down"),
    (EBUSY, "E_MODULE_LOAD", "is being loaded or unloaded by another program"),
    (ENOMEM, "E_MODULE_LOAD", "does not fit into the VM's memory"),
    (EOPNOTSUPP, "E_MODULE_COMPRESSION", "is compressed, and this kernel cannot unpack it"),
    (EXDEV, "E_MODULE_LOAD", "was refused by the kernel (EXDEV, "),
])
def test_each_refusal_of_the_kernel_in_words(system: FakeSystem, number: int, code: str, words: str) -> None:
    where = add_module(system, "nvidia.ko")
    system.fail[f"load {where}"] = OSError(number, "x")
    err = refusal(system, "nvidia")
    assert err.code == code
    assert err.what.startswith(f"module nvidia {words}")
    assert where in err.what


def test_a_file_for_another_kernel_is_told_by_both_releases(system: FakeSystem) -> None:
    where = add_module(system, "nvidia.ko", release="6.1.0-old")
    system.fail[f"load {where}"] = OSError(ENOEXEC, "Exec format error")
    err = refusal(system, "nvidia")
    assert (err.code, err.what) == (
        "E_MODULE_VERSION", f"module nvidia is built for kernel 6.1.0-old, this is {RELEASE} (ENOEXEC, {where})")


def test_the_kernels_own_words_are_part_of_the_message(system: FakeSystem) -> None:
    where = add_module(system, "nvidia-uvm.ko")
    system.fail[f"load {where}"] = OSError(ENOENT, "x")
    system.kernel_log = [kernel_line("pci 0000:00:00.0: something"), kernel_line("NVRM: a"),
                         kernel_line("nvidia-uvm: b"), kernel_line("nvidia_uvm: c"),
                         kernel_line("nvidia_uvm: forged by a program", 11), b"garbage",
                         kernel_line("nvidia_uvm: Unknown symbol \x1bx (err -2)")]
    err = refusal(system, "nvidia-uvm")
    assert err.what.endswith('; the kernel says "nvidia_uvm: Unknown symbol ?x (err -2)"')
    assert err.details == ("nvidia-uvm: b", "nvidia_uvm: c")


def test_symbols_of_another_build_are_a_matter_of_version(system: FakeSystem) -> None:
    where = add_module(system, "a.ko")
    system.fail[f"load {where}"] = OSError(EINVAL, "x")
    system.kernel_log = [kernel_line("a: disagrees about version of symbol module_layout", 4)]
    assert refusal(system, "a").code == "E_MODULE_VERSION"


def test_the_drivers_words_are_not_given_to_other_modules(system: FakeSystem) -> None:
    system.kernel_log = [kernel_line("NVRM: No NVIDIA GPU found.")]
    assert kernel_words(system, "mlx5_ib") == ()
    assert kernel_words(system, "nvidia") == ("NVRM: No NVIDIA GPU found.",)


def test_an_invalid_parameter_is_told_apart_even_in_a_file_of_another_release(system: FakeSystem) -> None:
    where = add_module(system, "nvidia.ko", release="6.12.0-other")
    system.fail[f"load {where}"] = OSError(EINVAL, "x")
    system.kernel_log = [kernel_line("nvidia: `x' invalid for parameter `NVreg_DeviceFileMode'")]
    err = refusal(system, "nvidia")
    assert (err.code, "was refused for an invalid parameter (EINVAL" in err.what) == ("E_MODULE_OPTIONS", True)


def test_a_number_that_has_nothing_to_do_with_the_release_keeps_its_meaning(system: FakeSystem) -> None:
    where = add_module(system, "nvidia.ko", release="6.12.0-other")
    system.fail[f"load {where}"] = OSError(ENODEV, "x")
    assert refusal(system, "nvidia").code == "E_MODULE_DEVICE"


def test_a_file_that_is_listed_and_not_there_is_missing(system: FakeSystem, tmp_path: Path) -> None:
    where = add_module(system, "a.ko")
    system.fail[f"load {where}"] = OSError(ENOENT, "x")
    (tmp_path / where[1:]).unlink()
    err = refusal(system, "a")
    assert (err.code, err.what) == ("E_MODULE_MISSING", f"module a: modules.dep lists {where}, which does not exist")


def test_a_file_that_cannot_be_read_is_told_without_its_vermagic(system: FakeSystem) -> None:
    where = add_module(system, "a.ko")
    system.fail[f"load {where}"] = OSError(EIO, "Input/output error")
    system.fail[f"read {where}"] = OSError(EIO, "Input/output error")
    assert refusal(system, "a").what == f"module a was refused by the kernel (EIO, {where})"


@pytest.mark.parametrize(("data", "found"), [
    (image(), f"{RELEASE} SMP mod_unload "),
    (b"vermagic=no", ""),
    (b"\0vermagic=" + b"x" * 500, "x" * 200),
    (b"\0vermagic=\xff\xfe\0", ""),
    (b"", ""),
])
def test_the_vermagic_of_a_file(data: bytes, found: str) -> None:
    assert find_vermagic(data) == found
