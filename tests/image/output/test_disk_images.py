# SPDX-License-Identifier: Apache-2.0
"""Disk images with the pinned packers: equal bytes, files laid over them, and the rules of Kata's own builders.

Needs root and the package files of this checkout's cache, or the archives.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.elves import make_elf
from fakes.erofs import fold
from nvrc_build import pipeline
from nvrc_build.after.overlay import lay_over, overlay
from nvrc_build.declared.declared import Compression, FileSystem
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import clean_env, run
from nvrc_build.job import EPOCH, open_supply
from nvrc_build.output import disk
from nvrc_build.output.pack import detect_filesystem, read_filesystem, read_initrd, write_filesystem, write_initrd
from nvrc_build.output.verity import Verity, parse_parameters
from nvrc_build.sandbox.sandbox import sandbox_argv
from nvrc_build.supply import supply
from nvrc_build.supply.apt import file_sha256
from nvrc_build.supply.room import Room
from nvrc_build.tree.elf import read_needs
from nvrc_build.tree.tree import Origin, Tree

CHECKOUT = Path(__file__).resolve().parents[3]
CACHE = CHECKOUT / "out/cache"
ORIGIN = Origin(slice="test")
# File capabilities of version 2 (linux/capability.h): permitted and effective, CAP_NET_RAW.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")

pytestmark = pytest.mark.qemu
both = pytest.mark.parametrize("kind", list(FileSystem), ids=lambda kind: kind.value)


@pytest.fixture(scope="module")
def tools() -> Path:
    return supply.root(open_supply(cache=CACHE), "tools")


def small_tree() -> Tree:
    tree = Tree()
    tree.add_folder("/etc", ORIGIN)
    tree.add_file("/etc/motd", b"before\n", ORIGIN)
    tree.add_file("/usr/bin/ping", b"#!ping\n" * 4000, ORIGIN, 0o755, xattrs=(("security.capability", CAPABILITY),))
    tree.add_link("/bin", "usr/bin", ORIGIN)
    tree.add_folder("/private", ORIGIN, 0o700)
    return tree


def make_disk(kind: FileSystem, folder: Path, tools: Path) -> Path:
    folder.mkdir()
    write_filesystem(kind, small_tree(), folder / "data", tools=tools, epoch=EPOCH)
    disk.write_disk(folder / "data", folder / "disk.img")
    return folder / "disk.img"


def unpack(image: Path, folder: Path, tools: Path) -> tuple[FileSystem, Path]:
    folder.mkdir()
    disk.read_partition(image, 1, folder / "data")
    return read_filesystem(folder / "data", folder / "root", tools=tools), folder / "root"


def dump(root: Path) -> dict[str, str]:
    """Every entry below a folder: mode, and content or target."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode = f"{path.lstat().st_mode:o}"
        detail = str(path.readlink()) if path.is_symlink() else file_sha256(path)[:8] if path.is_file() else ""
        found[f"/{path.relative_to(root)}"] = f"{mode} {detail}".rstrip()
    return found


@both
def test_a_tree_comes_back_from_the_disk_as_it_went_in(kind: FileSystem, tmp_path: Path, tools: Path) -> None:
    found, root = unpack(make_disk(kind, tmp_path / "a", tools), tmp_path / "out", tools)
    assert found is kind
    assert {path: line.split()[0] for path, line in dump(root).items()} == {
        "/bin": "120777", "/etc": "40755", "/etc/motd": "100644", "/private": "40700", "/usr": "40755",
        "/usr/bin": "40755", "/usr/bin/ping": "100755"}
    assert os.getxattr(root / "usr/bin/ping", "security.capability") == CAPABILITY


def test_erofs_keeps_every_attribute_and_ext4_refuses_what_it_would_lose(tmp_path: Path, tools: Path) -> None:
    tree = small_tree()
    tree.add_file("/labelled", b"x", ORIGIN, xattrs=(("user.origin", b"\xff\x00 here"),))
    write_filesystem(FileSystem.EROFS, tree, tmp_path / "data", tools=tools, epoch=EPOCH)
    read_filesystem(tmp_path / "data", tmp_path / "root", tools=tools)
    assert os.getxattr(tmp_path / "root/labelled", "user.origin") == b"\xff\x00 here"
    with pytest.raises(BuildError) as caught:
        write_filesystem(FileSystem.EXT4, tree, tmp_path / "ext4", tools=tools, epoch=EPOCH)
    assert caught.value.findings == ("/labelled: user.origin",)


@both
def test_a_file_system_that_hostile_hands_made_is_a_finding(kind: FileSystem, tmp_path: Path, tools: Path) -> None:
    """Damage all over it, in its metadata most of all; what is still read lies inside the folder that was given."""
    write_filesystem(kind, small_tree(), tmp_path / "whole", tools=tools, epoch=EPOCH)
    whole, chance, refused = (tmp_path / "whole").read_bytes(), random.Random(kind.value), 0
    for number in range(24):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 4, 40))):
            at = chance.randrange(1024, min(len(data), 1 << 16 if number % 2 else 4096))
            data[at] = chance.choice((0, 255, 0x2E, 0x2F, chance.randrange(256)))
        data[1024:1028 if kind is FileSystem.EROFS else 1024] = whole[1024:1028 if kind is FileSystem.EROFS else 1024]
        place = tmp_path / f"{number}"
        place.mkdir()
        (place / "data").write_bytes(bytes(data if number % 5 else data[:len(data) // 2]))
        try:
            read_filesystem(place / "data", place / "root", tools=tools)
        except BuildError as err:
            refused += 1
            assert str(err).replace("\n", "").isprintable()
        assert {path.name for path in place.iterdir()} <= {"data", "root", "root.owners", "debugfs"}
        shutil.rmtree(place)
    assert refused > 1


# What a test may write is some tens of MB.
SMALL = Room(size=12 << 20, members=400, file_size=6 << 20)


def make_filesystem(kind: FileSystem, folder: Path, tools: Path) -> None:
    """A file system of what lies below `folder`/src, as a supplier makes one."""
    argv = {FileSystem.EROFS: ["/usr/bin/mkfs.erofs", "--quiet", "-zlz4hc", "-Enosbcrc", "--all-root", "/out/data", "/out/src"],
            FileSystem.EXT4: ["/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-b4096", "-d", "/out/src", "/out/data", "4096"]}[kind]
    run(sandbox_argv(tools, argv, env=clean_env(), writable={"/out": folder}))


def holes(place: Path, size: int) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    os.truncate(place, size)


def six_names(source: Path) -> None:
    holes(source / "a", 3 << 20)
    for number in range(5):
        os.link(source / "a", source / f"a{number}")


@both
@pytest.mark.parametrize(("fill", "words"), [
    (lambda source: holes(source / "a", 40 << 20), "a file larger than any that an image may have"),
    (lambda source: [holes(source / f"a{number}", 5 << 20) for number in range(6)], "has files of more than 0.0 GB together"),
    (lambda source: [holes(source / f"a{number}", 0) for number in range(600)], "has more than 400 files, folders and links"),
    (lambda source: holes(source / ("d/" * 80 + "a"), 0), "has paths of more than 64 folders"),
], ids=["one file", "all files", "members", "deep"])
def test_what_a_file_system_unpacks_to_is_bounded_while_it_is_unpacked(kind: FileSystem, tmp_path: Path, tools: Path, words: str,
                                                                       fill: Callable[[Path], object]) -> None:
    fill(tmp_path / "src")
    make_filesystem(kind, tmp_path, tools)
    shutil.rmtree(tmp_path / "src")
    with pytest.raises(BuildError, match=words):
        read_filesystem(tmp_path / "data", tmp_path / "root", tools=tools, room=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_file_with_many_names_counts_once_for_each_where_it_is_written_for_each(tmp_path: Path, tools: Path) -> None:
    (tmp_path / "src").mkdir()
    six_names(tmp_path / "src")
    make_filesystem(FileSystem.EXT4, tmp_path, tools)
    with pytest.raises(BuildError, match="has files of more than"):
        read_filesystem(tmp_path / "data", tmp_path / "root", tools=tools, room=SMALL)


def test_folders_that_lead_to_one_another_in_many_ways_end(tmp_path: Path, tools: Path) -> None:
    """8 KB that unpack to 10^12 folders: ten entries of each folder are the next one."""
    for depth in range(12):
        for number in range(9):
            (tmp_path / "src" / Path(*["d"] * (depth + 1)) / f"x{number}").mkdir(parents=True)
    make_filesystem(FileSystem.EROFS, tmp_path, tools)
    shutil.rmtree(tmp_path / "src")
    (tmp_path / "data").write_bytes(fold((tmp_path / "data").read_bytes()))
    with pytest.raises(BuildError, match="has more than 400 files, folders and links"):
        read_filesystem(tmp_path / "data", tmp_path / "root", tools=tools, room=SMALL)


@pytest.mark.parametrize(("make", "finding"), [
    (os.mkfifo, "1 fifo"), (lambda place: os.mknod(place, 0o60600, os.makedev(8, 0)), "1 block device file"),
    (lambda place: [os.mknod(place.with_name(name), 0o20600, os.makedev(1, 1)) for name in "ab"], "2 character device files"),
], ids=["pipe", "disk", "nodes"])
def test_what_debugfs_would_pass_over_is_refused(tmp_path: Path, tools: Path, make: Callable[[Path], object], finding: str) -> None:
    (tmp_path / "src").mkdir()
    make(tmp_path / "src/x")
    make_filesystem(FileSystem.EXT4, tmp_path, tools)
    with pytest.raises(BuildError, match="neither a file, nor a folder, nor a link") as caught:
        read_filesystem(tmp_path / "data", tmp_path / "root", tools=tools)
    assert caught.value.findings == (finding,)


@pytest.mark.parametrize("compression", [Compression.ZSTD, Compression.LZ4], ids=lambda kind: kind.value)
def test_an_initrd_that_unpacks_to_more_than_its_header_could_tell_is_refused(compression: Compression, tmp_path: Path,
                                                                              tools: Path) -> None:
    tree = Tree()
    tree.add_file("/a", bytes(20 << 20), ORIGIN)
    write_initrd(tree, tmp_path / "initrd", compression, tools=tools, epoch=EPOCH)
    with pytest.raises(BuildError, match="unpacking the initrd was to write a file larger than any"):
        read_initrd(tmp_path / "initrd", tmp_path / "cpio", tools=tools, room=SMALL)
    assert (tmp_path / "cpio").stat().st_size <= SMALL.file_size


def test_attributes_that_fsck_erofs_gives_up_on_are_not_lost_in_silence(tmp_path: Path, tools: Path) -> None:
    """One without a value, as overlayfs makes them, ends its reading of a file's others; it ends with 0."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src/x").touch()
    for name, value in (("security.capability", CAPABILITY), ("trusted.overlay.metacopy", b"")):
        os.setxattr(tmp_path / "src/x", name, value)
    make_filesystem(FileSystem.EROFS, tmp_path, tools)
    with pytest.raises(BuildError, match="unpacking the image's file system failed with status 0") as caught:
        read_filesystem(tmp_path / "data", tmp_path / "root", tools=tools)
    assert "trusted.overlay.metacopy" in caught.value.findings[-1]


def test_capabilities_are_told_and_attributes_of_folders_refused(tmp_path: Path, tools: Path) -> None:
    image = make_disk(FileSystem.EROFS, tmp_path / "a", tools)
    (tmp_path / "over").mkdir()
    done = overlay(image, tmp_path / "over", tmp_path / "new.img", tools=tools, epoch=EPOCH)
    assert [row["xattrs"] for row in done.rows if "xattrs" in row] == [{"security.capability": CAPABILITY.hex()}]
    (tmp_path / "root/etc").mkdir(parents=True)
    os.setxattr(tmp_path / "root/etc", "user.label", b"x")
    with pytest.raises(BuildError) as caught:
        lay_over(tmp_path / "root", tmp_path / "over")
    assert caught.value.findings == ("/etc has attributes of a file: user.label",)


@both
def test_equal_trees_make_equal_disks_whenever_they_are_made(kind: FileSystem, tmp_path: Path, tools: Path) -> None:
    one, other = (make_disk(kind, tmp_path / name, tools) for name in ("a", "b"))
    assert file_sha256(one) == file_sha256(other)


@pytest.mark.skipif(shutil.which("e2fsck") is None, reason="e2fsck is not installed")
def test_ext4_has_a_clean_journal_because_kata_mounts_it_with_data_ordered(tmp_path: Path, tools: Path) -> None:
    make_disk(FileSystem.EXT4, tmp_path / "a", tools)
    subprocess.run(["e2fsck", "-f", "-n", tmp_path / "a/data"], check=True, capture_output=True)
    said = subprocess.run(["dumpe2fs", "-h", tmp_path / "a/data"], check=True, capture_output=True, text=True).stdout
    assert "has_journal" in said
    assert "needs_recovery" not in said


@both
def test_an_overlay_adds_and_replaces_and_keeps_all_else(kind: FileSystem, tmp_path: Path, tools: Path) -> None:
    image = make_disk(kind, tmp_path / "a", tools)
    before, was = file_sha256(image), parse_parameters(_verify(image, tmp_path / "v1", tools))
    over = tmp_path / "over"
    (over / "etc/new").mkdir(parents=True)
    (over / "etc/motd").write_bytes(b"after, and longer\n")
    (over / "etc/new/tool").write_bytes(b"#!")
    (over / "etc/new/tool").chmod(0o700)
    done = overlay(image, over, tmp_path / "new.img", tools=tools, epoch=EPOCH)
    assert done.changes == ("replaced /etc/motd (7 -> 18 bytes)", "added    /etc/new/tool (2 bytes)")
    assert file_sha256(image) == before
    assert parse_parameters(done.verity.parameters()).root_hash != was.root_hash
    old = dump(unpack(image, tmp_path / "old", tools)[1])
    found, root = unpack(tmp_path / "new.img", tmp_path / "fresh", tools)
    assert found is kind
    new = dump(root)
    assert {path for path in new if old.get(path) != new[path]} == {"/etc/motd", "/etc/new", "/etc/new/tool"}
    assert new["/etc/new/tool"].startswith("100755 ")
    assert os.getxattr(root / "usr/bin/ping", "security.capability") == CAPABILITY
    assert _verify(tmp_path / "new.img", tmp_path / "v2", tools) == done.verity.parameters()
    again = overlay(image, over, tmp_path / "again.img", tools=tools, epoch=EPOCH)
    assert again == done
    assert file_sha256(tmp_path / "again.img") == file_sha256(tmp_path / "new.img")


def _verify(image: Path, folder: Path, tools: Path) -> str:
    """The parameters of a disk, when a second computation and veritysetup agree that data and hashes belong together."""
    folder.mkdir()
    disk.read_partition(image, 1, folder / "data")
    disk.read_partition(image, 2, folder / "hashes")
    found = disk.write_disk(folder / "data", folder / "copy")
    assert file_sha256(folder / "copy") == file_sha256(image)
    veritysetup("verify", found, folder, tools)
    return found.parameters()


def veritysetup(action: str, verity: Verity, folder: Path, tools: Path) -> str:
    """The pinned one, over `folder`/data and `folder`/hashes; what it does not accept is an error."""
    argv = ["/usr/sbin/veritysetup", action, "--no-superblock", "--salt", verity.salt,
            "--data-blocks", str(verity.data_blocks), "/out/data", "/out/hashes"]
    argv += [verity.root_hash] if action == "verify" else []
    return run(sandbox_argv(tools, argv, env=clean_env(), writable={"/out": folder}), what="veritysetup")


def test_veritysetup_accepts_the_disk_makes_the_same_tree_and_sees_a_flipped_bit(kata_base: pipeline.Image,
                                                                                tmp_path: Path, tools: Path) -> None:
    for number, name in ((1, "data"), (2, "hashes")):
        disk.read_partition(kata_base.disk, number, tmp_path / name)
    verity = parse_parameters(kata_base.verity.read_text(encoding="ascii"))
    veritysetup("verify", verity, tmp_path, tools)
    ours = (tmp_path / "hashes").read_bytes()
    (tmp_path / "hashes").write_bytes(b"")
    assert f"Root hash:      \t{verity.root_hash}" in veritysetup("format", verity, tmp_path, tools)
    theirs = (tmp_path / "hashes").read_bytes()
    assert ours == theirs.ljust(len(ours), b"\0")
    damaged = bytearray((tmp_path / "data").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "data").write_bytes(damaged)
    with pytest.raises(BuildError, match="veritysetup failed"):
        veritysetup("verify", verity, tmp_path, tools)


def test_an_overlay_that_cannot_be_laid_names_why_and_writes_nothing(tmp_path: Path, tools: Path) -> None:
    image = make_disk(FileSystem.EROFS, tmp_path / "a", tools)
    over = tmp_path / "over"
    (over / "etc/motd").mkdir(parents=True)
    (over / "su").write_bytes(b"")
    (over / "su").chmod(0o4755)
    with pytest.raises(BuildError) as caught:
        overlay(image, over, tmp_path / "new.img", tools=tools, epoch=EPOCH)
    assert "/etc/motd is a folder in one and a file in the other" in caught.value.findings
    assert "slice 'overlay': /su is setuid or setgid" in caught.value.findings
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "over"]


@pytest.fixture(scope="module")
def kata_base(tmp_path_factory: pytest.TempPathFactory) -> pipeline.Image:
    folder = tmp_path_factory.mktemp("kata")
    (folder / "kata-agent").write_bytes(make_elf())
    return pipeline.build("kata-base", out=folder, cache=CACHE, agent=folder / "kata-agent")


def test_katas_image_builder_would_accept_the_root(kata_base: pipeline.Image, tmp_path: Path, tools: Path) -> None:
    """Its rules: sbin/init is a program or a link; without systemd the link's target must hold the text NVRC."""
    _, root = unpack(kata_base.disk, tmp_path / "base", tools)
    init = root / "sbin/init"
    assert init.is_symlink()
    assert "NVRC" in str(init.readlink())
    assert not [path for path in ("usr/lib/systemd/systemd", "lib/systemd/systemd") if (root / path).exists()]
    # The name is a link in the image's own /bin, and leads to a program.
    name = root / str(init.readlink()).lstrip("/")
    assert name.is_symlink()
    assert os.access(name.resolve(), os.X_OK)
    assert name.resolve().is_relative_to(root)
    # It touches etc/machine-id: that must change nothing.
    assert (root / "etc/machine-id").read_bytes() == b""
    # It copies with `cp -a ROOT/*`, which leaves out what begins with a dot.
    assert not list(root.glob(".*"))


def test_the_kernel_finds_a_program_without_a_loader_under_every_name_of_the_init(kata_base: pipeline.Image, tmp_path: Path,
                                                                                 tools: Path) -> None:
    """Whose environment is the command line's: what a loader would take from it, a host could choose."""
    _, root = unpack(kata_base.disk, tmp_path / "base", tools)
    for path in ("init", "sbin/init"):
        found = (root / str((root / path).readlink()).lstrip("/")).resolve()
        assert found == root / "usr/lib/nvrc/first", path
        needs = read_needs(found.read_bytes(), path)
        assert needs is not None
        assert (needs.interpreter, needs.libraries) == ("", ())
        assert found.stat().st_size < 4096
    frozen = read_needs((root / "usr/lib/nvrc/nvrc").read_bytes(), "frozen")
    assert frozen is not None
    assert frozen.interpreter


def test_katas_initrd_builder_would_accept_the_root(kata_base: pipeline.Image, tmp_path: Path, tools: Path) -> None:
    """It wants sbin/init and an executable usr/bin/kata-agent, and makes /init a link to sbin/init where there is none."""
    _, root = unpack(kata_base.disk, tmp_path / "base", tools)
    assert os.access(root / "usr/bin/kata-agent", os.X_OK)
    assert (root / "init").is_symlink()
    assert str((root / "init").readlink()) == str((root / "sbin/init").readlink())


def test_what_the_agent_binds_over_and_starts_is_in_the_root(kata_base: pipeline.Image, tmp_path: Path,
                                                             tools: Path) -> None:
    _, root = unpack(kata_base.disk, tmp_path / "base", tools)
    for path in ("etc/ld.so.cache", "etc/resolv.conf", "etc/hostname"):
        assert (root / path).is_file(), path
    for path in ("lib/firmware/nvidia", "lib/modules", "proc", "sys", "dev", "run", "tmp", "etc/ssl/certs"):
        assert (root / path).is_dir(), path
    for path in ("iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore", "mkfs.ext4", "ldconfig"):
        assert os.access(root / "sbin" / path, os.X_OK), path
    for path in ("bin/nvidia-cdi-hook", "usr/bin/nvidia-cdi-hook"):
        assert (root / path).resolve() == root / "usr/lib/nvrc/nvrc"
    bundle = (root / "etc/ssl/certs/ca-certificates.crt").read_text(encoding="ascii")
    assert bundle.count("-----BEGIN CERTIFICATE-----") == bundle.count("-----END CERTIFICATE-----") > 100


def test_ldconfig_needs_no_loader_because_hooks_start_it_over_another_root(kata_base: pipeline.Image, tmp_path: Path,
                                                                          tools: Path) -> None:
    _, root = unpack(kata_base.disk, tmp_path / "base", tools)
    said = subprocess.run(["readelf", "--program-headers", root / "sbin/ldconfig"], check=True, capture_output=True,
                          text=True).stdout
    assert "INTERP" not in said
    (tmp_path / "etc").mkdir()
    subprocess.run([root / "sbin/ldconfig", "-r", tmp_path], check=True, capture_output=True)


def test_the_disk_is_laid_out_as_katas_builder_lays_it_out(kata_base: pipeline.Image) -> None:
    """DOS label; partition 1 at 1 MiB with the boot flag, partition 2 the hash tree, at most 1 % or 1 MiB of the disk."""
    first, second = disk.read_partitions(kata_base.disk)
    assert (first.start, first.boot, second.boot) == (1 << 20, True, False)
    assert second.start >= first.start + first.size
    assert second.size <= max(1 << 20, kata_base.disk.stat().st_size // 100)
    if shutil.which("sfdisk") is not None:
        said = subprocess.run(["sfdisk", "--dump", kata_base.disk], check=True, capture_output=True, text=True).stdout
        assert "label: dos" in said
        assert len(re.findall(r"type=83", said)) == 2


def test_the_parameter_line_is_one_line_of_five_values(kata_base: pipeline.Image) -> None:
    line = kata_base.verity.read_text(encoding="ascii")
    assert re.fullmatch(r"root_hash=[0-9a-f]{64},salt=[0-9a-f]{64},data_blocks=\d+,data_block_size=4096,"
                        r"hash_block_size=4096\n", line)
    found = parse_parameters(line)
    assert found.data_blocks * 4096 == disk.read_partitions(kata_base.disk)[0].size


@pytest.mark.skipif(shutil.which("strip") is None, reason="binutils are not installed")
def test_a_builder_that_strips_every_program_leaves_an_init_that_starts(kata_base: pipeline.Image, tmp_path: Path,
                                                                        tools: Path) -> None:
    """Kata's builder strips programs and takes the execute bit from libraries; both must be harmless."""
    _, root = unpack(kata_base.disk, tmp_path / "base", tools)

    def start() -> list[str]:
        """The init without a command tells its version, as does what /init leads to, which gives it none."""
        told = []
        for words in (["/usr/bin/nvrc"], ["/init"]):
            done = subprocess.run(["chroot", root, *words], env={"PATH": "/usr/sbin:/usr/bin"}, capture_output=True, text=True,
                                  check=False)
            assert done.returncode == 0, done.stderr
            told.append(done.stdout)
        assert told[0].startswith("NVRC version=")
        return told

    before = start()
    for path in sorted((root / "usr/lib").rglob("*")):
        if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF":
            subprocess.run(["strip", path], check=True)
            if ".so" in path.name and not path.name.startswith("ld-"):
                path.chmod(0o644)
    assert start() == before
    assert before[0] == before[1]


def test_the_devkit_has_a_shell_that_starts_under_the_name_the_agent_looks_for(tmp_path: Path, tools: Path) -> None:
    (tmp_path / "kata-agent").write_bytes(make_elf())
    image = pipeline.build("devkit", out=tmp_path / "out", cache=CACHE, agent=tmp_path / "kata-agent")
    _, root = unpack(image.disk, tmp_path / "kit", tools)
    inside = tmp_path / "guest/run/kata-extensions"
    inside.mkdir(parents=True)
    root.rename(inside / "devkit")
    done = subprocess.run(["chroot", tmp_path / "guest", "/run/kata-extensions/devkit/bin/devkit-sh", "-c",
                           "echo $((6*7)); basename /a/b; which ls || echo applet"],
                          env={"PATH": "/usr/sbin:/usr/bin"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[:2]) == (0, ["42", "b"]), done.stderr


def test_what_is_no_file_system_of_kata_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\0" * 8192)
    with pytest.raises(BuildError, match="neither EROFS nor ext4"):
        detect_filesystem(tmp_path / "x")
