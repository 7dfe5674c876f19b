# SPDX-License-Identifier: Apache-2.0
"""Whether an extension fits a base: libraries and their versions, modules, the manifest of guest components."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.elves import make_elf, make_module, with_versions
from nvrc_build.after.contents import find_image, read_cpio
from nvrc_build.after.extension import MANIFEST, Extension, check_extension, kind_of
from nvrc_build.ground.errors import BuildError
from nvrc_build.job import CHECKOUT
from nvrc_build.tree.cpio import write_cpio
from nvrc_build.tree.tree import Origin, Tree

LIB = "/usr/lib/x86_64-linux-gnu"
RELEASE = "6.12.1"
COMPONENTS = ("attestation-agent", "confidential-data-hub", "api-server-rest")


def tree_of(**files: bytes) -> Tree:
    return add(Tree(), files)


def add(tree: Tree, files: dict[str, bytes]) -> Tree:
    for path, data in files.items():
        tree.add_file(path, data, Origin(slice="x"), 0o755)
    return tree


def module(release: str = RELEASE) -> bytes:
    return make_module("nvidia") + f"\0vermagic={release} SMP\0".encode()


def base(*without: str) -> Tree:
    files = {f"{LIB}/libc.so.6": with_versions(make_elf(soname="libc.so.6"), defines=["GLIBC_2.41"]),
             "/usr/bin/dd": make_elf(), "/usr/sbin/mkfs.ext4": make_elf(), "/sbin/ldconfig": make_elf(),
             "/etc/netconfig": b"udp tpi_clts v inet udp - -\n",
             f"/usr/lib/modules/{RELEASE}/kernel/erofs.ko": module()}
    return add(Tree(), {path: data for path, data in files.items() if path not in without})


def coco(**changed: bytes | None) -> Tree:
    """Laid out as Kata's: our own manifest, programs in /usr/local/bin, a library in /usr/local/lib."""
    files: dict[str, bytes | None] = {
        MANIFEST: (CHECKOUT / "rootfs/files/coco-components.toml").read_bytes(),
        **{f"/usr/local/bin/{name}": make_elf(["libc.so.6", "libnvat.so.1"]) for name in COMPONENTS},
        "/usr/local/lib/libnvat.so.1": make_elf(soname="libnvat.so.1"),
        "/etc/ocicrypt_config.json": b"{}", "/pause_bundle/config.json": b"{}", "/usr/sbin/cryptsetup": make_elf(),
        **changed,
    }
    return add(Tree(), {path: data for path, data in files.items() if data is not None})


def gpu(persistenced: bytes = make_elf(["libc.so.6"])) -> Tree:
    return add(Tree(), {f"{LIB}/libnvidia-ml.so.580.1": make_elf(["libc.so.6"]), "/bin/nvidia-persistenced": persistenced,
                        f"/usr/lib/modules/{RELEASE}/updates/nvidia.ko": module()})


def test_a_driver_s_libraries_are_found_by_an_ldconfig_of_either() -> None:
    """Kata's own extension has a cache without the folder that it is mounted on, and no program to renew it."""
    assert check_extension(base("/sbin/ldconfig"), gpu()) == (
        "neither the extension nor the base has /sbin/ldconfig, which the init starts for its libraries",)
    assert check_extension(base("/sbin/ldconfig"), add(gpu(), {"/sbin/ldconfig": make_elf()})) == ()


def test_what_a_driver_s_daemon_takes_from_the_base_is_there() -> None:
    """It reads the table of transports from the root, and where it is packed it does not say what it is linked to."""
    assert check_extension(base("/etc/netconfig"), gpu()) == (
        "the base has no /etc/netconfig, without which /bin/nvidia-persistenced cannot create its RPC service",)
    packed = make_elf().ljust(300, b"\0") + b"UPX!"
    assert check_extension(base(), gpu(packed)) == (
        "/bin/nvidia-persistenced is packed and needs libtirpc.so.3, which neither the extension nor the base has",)
    assert check_extension(add(base(), {f"{LIB}/libtirpc.so.3": make_elf()}), gpu(packed)) == ()


def test_an_extension_that_fits() -> None:
    assert (kind_of(gpu()), check_extension(base(), gpu())) == (Extension.GPU, ())
    assert (kind_of(coco()), check_extension(base(), coco())) == (Extension.COCO, ())


@pytest.mark.parametrize(("lower", "upper", "expected"), [
    pytest.param(base(), coco(**{"/usr/local/lib/libnvat.so.1": None}), [
        f"/usr/local/bin/{name} needs libnvat.so.1, which neither the extension nor the base has"
        for name in sorted(COMPONENTS)], id="library"),
    pytest.param(base(), coco(**{"/usr/local/bin/api-server-rest": with_versions(
        make_elf(["libc.so.6"]), needs={"libc.so.6": ["GLIBC_2.43"]})}), [
        f"/usr/local/bin/api-server-rest needs GLIBC_2.43 of libc.so.6, which {LIB}/libc.so.6 does not have; build it"],
        id="newer-distribution"),
    pytest.param(base(), tree_of(**{"/usr/lib/modules/6.18.0/updates/nvidia.ko": module("6.18.0")}),
                 [f"its modules are of kernel 6.18.0, the base's kernel is {RELEASE}"], id="other-kernel"),
    pytest.param(base(), tree_of(**{f"/lib/modules/{RELEASE}/nvidia.ko": module("6.18.0")}),
                 [f"/lib/modules/{RELEASE}/nvidia.ko was built for kernel 6.18.0"], id="module-of-another-kernel"),
    pytest.param(base(f"/usr/lib/modules/{RELEASE}/kernel/erofs.ko"), tree_of(**{f"/lib/modules/{RELEASE}/a.ko": module()}),
                 ["it has kernel modules, and the base has none to compare with"], id="unknown-kernel"),
    pytest.param(base("/usr/bin/dd"), coco(), ["the base has no dd, which the data hub starts"], id="no-dd"),
    pytest.param(base(), coco(**{"/usr/sbin/cryptsetup": None}), ["neither the extension nor the base has cryptsetup"],
                 id="no-cryptsetup"),
    pytest.param(base(), coco(**{"/pause_bundle/config.json": None}),
                 [f"{MANIFEST} paths.pause-bundle: /pause_bundle is missing"], id="no-pause-bundle"),
    pytest.param(base(), coco(**{MANIFEST: b"schema_version = 2\n[paths]\nx = '../y'\n"}),
                 [f"{MANIFEST}: schema_version is 2, agents know 1", f"{MANIFEST} paths.x: '../y' leads out"], id="manifest"),
    pytest.param(base(), coco(**{MANIFEST: b"="}), [f"{MANIFEST} cannot be read"], id="no-toml"),
    *(pytest.param(base(), coco(**{MANIFEST: b"schema_version = 1\n" + text}), [f"{MANIFEST}: {words}"], id=f"manifest: {text.decode()!r}")
      for text, words in ((b"paths = 1", "paths is not a table"), (b"process = 1", "process is not a list of tables"),
                          (b"process = ['x']", "process is not a list of tables"),
                          (b"[[process]]\nvariants = [1]", "process ?: variants is not a table of tables"),
                          (b"[[process]]\nid = 'a'\nvariants = {x = 'path'}", "process a: variants is not a table of tables"))),
    pytest.param(base(), coco(**{MANIFEST: b"#" * (1 << 20) + b"\n"}), [f"{MANIFEST} has 1048577 bytes"], id="large-manifest"),
])
def test_what_does_not_fit(lower: Tree, upper: Tree, expected: list[str]) -> None:
    found = sorted(check_extension(lower, upper))
    assert len(found) == len(expected), found
    for line, start in zip(found, sorted(expected), strict=True):
        assert line.startswith(start)


def test_a_kernel_that_is_named_is_compared_with() -> None:
    lower = base(f"/usr/lib/modules/{RELEASE}/kernel/erofs.ko")
    upper = tree_of(**{f"/lib/modules/{RELEASE}/a.ko": module()})
    assert check_extension(lower, upper, RELEASE) == ()
    assert check_extension(lower, upper, "6.18.0") == (f"its modules are of kernel {RELEASE}, the base's kernel is 6.18.0",)


def test_an_archive_is_read_as_it_was_written() -> None:
    tree = base()
    tree.add_link("/bin", "usr/bin", Origin(slice="x"))
    found = {path: data for path, _, data in read_cpio(b"".join(write_cpio(tree, 0)))}
    assert found["/usr/bin/dd"] == make_elf()
    assert found["/bin"] == b"usr/bin"
    with pytest.raises(BuildError, match="damaged at byte 0"):
        list(read_cpio(bytes(200)))


def test_an_image_is_found_by_file_folder_and_name(tmp_path: Path) -> None:
    (tmp_path / "images/x").mkdir(parents=True)
    part = tmp_path / "images/x/disk.img"
    part.write_bytes(b"")
    assert find_image(str(part), tmp_path) == find_image(str(part.parent), tmp_path) == part
    assert find_image("x", tmp_path / "images") == part
    with pytest.raises(BuildError, match="image y is missing"):
        find_image("y", tmp_path)
