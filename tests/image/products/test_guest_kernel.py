# SPDX-License-Identifier: Apache-2.0
"""Which modules an image gets, in which order they load, and edits of a driver's source."""

from __future__ import annotations

import lzma
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.elves import make_module, make_traced_module
from nvrc.hardware.module_tree import Softdep, read_softdeps
from nvrc_build.declared.declared import Signatures
from nvrc_build.declared.parts import Edit
from nvrc_build.declared.read import load
from nvrc_build.ground.errors import BuildError
from nvrc_build.products.driver import apply_edit, is_signed
from nvrc_build.products.kernel import (
    SIGNED,
    Module,
    find_release,
    modules_dep,
    read_config,
    read_extra_modules,
    read_modinfo,
    select_modules,
    split_signature,
    write_modules,
)
from nvrc_build.products.products import choose_signatures, module_trust
from nvrc_build.products.untraced import untrace

RELEASE = "6.12.1-cloud"


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """dm-verity needs dm-bufio and reed_solomon; both dm modules need dm-mod. One is compressed."""
    folder = tmp_path / "usr/lib/modules" / RELEASE
    (folder / "kernel/md").mkdir(parents=True)
    for name, depends in (("dm-mod", ""), ("dm-bufio", "dm-mod"), ("reed_solomon", ""), ("unused", "")):
        (folder / f"kernel/md/{name}.ko").write_bytes(make_module(name, depends))
    verity = make_module("dm-verity", "dm-mod,dm-bufio,reed_solomon")
    (folder / "kernel/md/dm-verity.ko.xz").write_bytes(lzma.compress(verity))
    (folder / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    (folder / "modules.builtin.modinfo").write_text("")
    (folder / "modules.order").write_text("")
    (tmp_path / "boot").mkdir()
    (tmp_path / f"boot/config-{RELEASE}").write_text('# c\nCONFIG_A=y\nCONFIG_T="text"\n# CONFIG_B is not set\n')
    return tmp_path


def test_a_module_brings_what_it_depends_on_and_a_built_in_one_is_there_already(kernel: Path) -> None:
    modules = select_modules(kernel, ["dm_verity", "ext4"])
    assert [module.path for module in modules] == [
        "kernel/md/dm-bufio.ko", "kernel/md/dm-mod.ko", "kernel/md/dm-verity.ko", "kernel/md/reed_solomon.ko"]
    assert dict(read_modinfo(modules[2].data)) == {
        "license": "GPL", "depends": "dm-mod,dm-bufio,reed_solomon", "name": "dm-verity"}


def test_modules_dep_loads_backwards(kernel: Path) -> None:
    """A loader walks each line from its end: at every point all needs of the next one must be there."""
    lines = modules_dep(select_modules(kernel, ["dm-verity"])).decode().splitlines()
    assert len(lines) == 4
    needs = {"dm-bufio": {"dm-mod"}, "dm-verity": {"dm-mod", "dm-bufio", "reed_solomon"}}
    for line in lines:
        first, rest = line.split(":")
        order = [Path(path).stem for path in (*reversed(rest.split()), first)]
        for position, name in enumerate(order):
            assert needs.get(name, set()) <= set(order[:position])


def test_soft_dependencies_come_along_where_the_kernel_has_a_file_and_are_written_down(kernel: Path,
                                                                                       tmp_path: Path) -> None:
    folder = kernel / "usr/lib/modules" / RELEASE / "kernel"
    (folder / "xts.ko").write_bytes(make_module("xts", softdeps=("pre: ecb crypto-aes", "post: late-one")))
    (folder / "ecb.ko").write_bytes(make_module("ecb"))
    (folder / "late-one.ko").write_bytes(make_module("late-one"))
    modules = select_modules(kernel, ["xts"])
    assert [module.name for module in modules] == ["ecb", "late_one", "xts"]
    write_modules(modules, kernel, tmp_path / "out")
    found = (tmp_path / "out/modules.softdep").read_text()
    assert found == "softdep xts pre: ecb crypto-aes\nsoftdep xts post: late-one\n"
    assert read_softdeps(found.splitlines())["xts"] == Softdep(("ecb", "crypto_aes"), ("late_one",))
    assert not (tmp_path / "out/nvrc.serves").exists()


def test_a_module_that_some_kernels_lack_is_taken_where_it_is_and_what_is_served_is_written_down(kernel: Path,
                                                                                                 tmp_path: Path) -> None:
    modules = select_modules(kernel, ["dm-mod"], ["gone", "reed-solomon", "ext4"])
    assert [module.name for module in modules] == ["dm_mod", "reed_solomon"]
    write_modules(modules, kernel, tmp_path / "out", ("agent", "storage"))
    assert (tmp_path / "out/nvrc.serves").read_text() == "agent\nstorage\n"


def test_unknown_modules_are_all_named(kernel: Path) -> None:
    with pytest.raises(BuildError, match=f"kernel {RELEASE} has no module gone, lost"):
        select_modules(kernel, ["lost", "dm-mod", "gone"])


def test_a_root_with_no_kernel_or_two_is_refused(kernel: Path) -> None:
    assert find_release(kernel) == RELEASE
    with pytest.raises(BuildError, match="0 kernels"):
        find_release(kernel / "boot")


def test_config_values(kernel: Path) -> None:
    assert read_config(kernel) == {"CONFIG_A": "y", "CONFIG_T": "text"}


def test_modules_built_elsewhere_join_the_tree(kernel: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra"
    extra.mkdir()
    (extra / "nvidia-uvm.ko").write_bytes(make_module("nvidia_uvm", "nvidia"))
    (extra / "nvidia.ko").write_bytes(make_module("nvidia"))
    out = tmp_path / "out"
    write_modules((*select_modules(kernel, ["dm-mod"]), *read_extra_modules(extra)), kernel, out)
    assert (out / "modules.dep").read_text() == (
        "kernel/md/dm-mod.ko:\nupdates/nvidia-uvm.ko: updates/nvidia.ko\nupdates/nvidia.ko:\n")
    assert (out / "updates/nvidia.ko").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("text", ["", "call(a);\ncall(a);\n", "call(b);\n"])
def test_an_edit_that_does_not_match_once_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.c"
    path.write_text(text)
    edit = Edit(why="x", file="x.c", find="call(a);", replace="call(a, 0);")
    with pytest.raises(BuildError, match=r"edit of x.c: \d places match"):
        apply_edit(path, edit)
    assert path.read_text() == text
    path.write_text("x call(a); y")
    apply_edit(path, edit)
    assert path.read_text() == "x call(a, 0); y"


def test_a_signature_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.ko").write_bytes(b"module" + b"sig" + b"~Module signature appended~\n")
    (tmp_path / "b.ko").write_bytes(b"module" * 20)
    assert (is_signed(tmp_path / "a.ko"), is_signed(tmp_path / "b.ko")) == (True, False)


@pytest.mark.parametrize(("config", "takes", "said"), [
    ({}, False, "these modules are refused"),
    ({"CONFIG_LOAD_UEFI_KEYS": "y"}, False, "these modules are refused"),
    ({"CONFIG_LOAD_UEFI_KEYS": "y", "CONFIG_INTEGRITY_PLATFORM_KEYRING": "y"}, True,
     "these modules are refused unless the firmware's db has signing.x509"),
], ids=["plain", "no-keyring", "keys-of-firmware"])
def test_the_report_says_what_a_kernel_without_the_key_does_with_the_modules(config: dict[str, str], takes: bool,
                                                                             said: str) -> None:
    report = module_trust(config)
    assert (report["key_carried_by_this_kernel"], report["takes_keys_from_firmware"]) == (False, takes)
    assert report["with_module_sig_enforce"] == said
    assert "nvrc-image enrol" in str(report["remedy"])


@pytest.mark.parametrize("signature", [b"", b"s" * 700], ids=["empty", "as-long-as-most"])
def test_a_signature_lies_beside_its_module_and_an_unsigned_one_stays_as_it_is(kernel: Path, tmp_path: Path,
                                                                                signature: bytes) -> None:
    plain = Module(name="a", path="a.ko", data=make_traced_module(calls=[("__fentry__", 4)]), depends=())
    trailer = bytes([0, 0, 2, 0, 0, 0, 0, 0]) + len(signature).to_bytes(4, "big")
    signed = replace(plain, data=plain.data + signature + trailer + SIGNED)
    assert split_signature(plain) == plain
    split = split_signature(signed)
    assert (split.data, split.signed_bytes) == untrace(plain.data)
    write_modules([split, replace(plain, path="b.ko")], kernel, tmp_path / "out")
    a, sig, was = ((tmp_path / f"out/a.ko{ending}").read_bytes() for ending in ("", ".sig", ".was"))
    assert (a, plain.data + sig, was) == (split.data, signed.data, split.signed_bytes)
    assert sorted(path.name for path in (tmp_path / "out").glob("b.ko*")) == ["b.ko"]
    assert (tmp_path / "out/b.ko").read_bytes() == plain.data
    with pytest.raises(BuildError, match="module a has a signature of 9999999 bytes"):
        split_signature(replace(plain, data=plain.data + bytes(8) + (9999999).to_bytes(4, "big") + SIGNED))
    with pytest.raises(BuildError, match="module a has a signature of 1 bytes"):
        split_signature(replace(plain, data=b"x" + SIGNED))
    with pytest.raises(BuildError, match="a is not a kernel module: ELFError"):
        split_signature(replace(signed, data=signed.data[len(plain.data):]))


@pytest.mark.long
def test_damage_to_a_module_that_is_signed_is_a_finding_or_none() -> None:
    module = Module(name="a", path="a.ko", data=b"", depends=())
    data = make_traced_module(calls=[("__fentry__", 4), ("printk", 4)])
    refused = 0
    for at in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        try:
            split_signature(replace(module, data=bytes(damaged) + bytes(12) + SIGNED))
        except BuildError as err:
            assert "a is not a kernel module: " in err.what
            refused += 1
    assert refused > 20


def test_modules_that_need_each_other_are_listed_once() -> None:
    ring = [Module(name=name, path=f"{name}.ko", data=b"", depends=(needs,)) for name, needs in ("ab", "bc", "ca")]
    assert modules_dep(ring).decode().splitlines() == ["a.ko: b.ko c.ko", "b.ko: c.ko a.ko", "c.ko: a.ko b.ko"]


def test_a_kernel_in_another_alphabet_is_read(kernel: Path) -> None:
    config = kernel / f"boot/config-{find_release(kernel)}"
    config.parent.mkdir(exist_ok=True)
    config.write_bytes(b'CONFIG_MODULES=y\nCONFIG_LOCALVERSION="\xff"\n')
    builtin = kernel / "usr/lib/modules" / find_release(kernel) / "modules.builtin"
    builtin.write_bytes(builtin.read_bytes() + b"kernel/\xff.ko\n")
    assert read_config(kernel)["CONFIG_MODULES"] == "y"
    assert select_modules(kernel, ["dm-verity"])


@pytest.mark.long
@pytest.mark.parametrize(("config", "named", "where", "why"), [
    ({"CONFIG_MODULE_SIG": "y"}, None, "beside", "requires none by itself"),
    ({"CONFIG_MODULE_SIG": "y", "CONFIG_MODULE_SIG_FORCE": "y"}, None, "appended", "loads no module without"),
    ({}, None, "appended", "checks none"),
    ({"CONFIG_MODULE_SIG": "y"}, Signatures.APPENDED, "appended", "the image's declaration"),
    ({"CONFIG_MODULE_SIG": "y", "CONFIG_MODULE_SIG_FORCE": "y"}, Signatures.BESIDE, "beside", "the image's declaration"),
], ids=["debian", "forced", "none", "declared", "declared-against-the-kernel"])
def test_where_signatures_lie_is_the_image_s_choice_or_follows_from_the_kernel(
        config: dict[str, str], named: Signatures | None, where: str, why: str) -> None:
    image = replace(load(Path(__file__).parents[3] / "rootfs").image("lab"), signatures_named=named)
    chosen, reason = choose_signatures(image, config)
    assert (chosen.value, why in reason) == (where, True), reason


def test_a_kernel_that_takes_its_own_keys_only_is_refused() -> None:
    with pytest.raises(BuildError, match="loads only modules signed by its own keys"):
        module_trust({"CONFIG_MODULE_SIG_FORCE": "y"})
