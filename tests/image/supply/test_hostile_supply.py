# SPDX-License-Identifier: Apache-2.0
"""What others hand to the factory, made by hostile hands: folders, answers of servers, packages, indexes of archives.

Each gives a finding, in time, and nothing outside the folder that was meant is read, written or moved.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import socket
import subprocess
import tarfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import tars
from fakes.archives import make_package
from nvrc_build.ground.cache import Cache
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.progress import silent
from nvrc_build.ground.run import find, save
from nvrc_build.products import components, given_kernel
from nvrc_build.products.products import _install_agent
from nvrc_build.supply import apt, given
from nvrc_build.supply.apt import Archive, Package, Source, describe, download, resolve
from nvrc_build.supply.archives import index_packages
from nvrc_build.supply.roots import unpack
from nvrc_build.supply.scripts import read_scripts
from nvrc_build.tree.tree import Origin, Tree

NO_HASH = "0" * 64
HEAD = b"HTTP/1.1 200 OK\r\n"


def socket_at(place: Path) -> None:
    before = os.getcwd()
    os.chdir(place.parent)  # the whole path is too long for a socket
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(place.name)
    finally:
        os.chdir(before)


@pytest.mark.parametrize("make", [
    pytest.param(os.mkfifo, id="pipe"),
    pytest.param(socket_at, id="socket"),
    pytest.param(lambda place: os.mknod(place, 0o20666, os.makedev(1, 5)), id="device",
                 marks=pytest.mark.skipif(os.geteuid() != 0, reason="makes a device: needs root")),
    pytest.param(lambda place: place.symlink_to("../../x"), id="link out"),
    pytest.param(lambda place: place.with_name("a\nb").write_text("x"), id="line end"),
])
def test_a_folder_has_files_folders_and_links(tmp_path: Path, make: Callable[[Path], object]) -> None:
    source = tmp_path / "given"
    (source / "usr").mkdir(parents=True)
    make(source / "usr/x")
    with pytest.raises(BuildError, match="not all of it is files, folders and links within") as caught:
        given.unpack("components", source, tmp_path / "out", given.identify(source))
    assert len(caught.value.findings) == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_with_holes_of_terabytes_is_neither_read_nor_copied(tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    for name in ("modules/x.ko", "vmlinuz", "config"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 12 << 40)
    with pytest.raises(BuildError, match=r"folder .*/modules has a file of more than 4\.3 GB; give one that an image can hold"):
        given.identify(tmp_path / "modules")
    with pytest.raises(BuildError, match=r"kernel modules .* has a file of more than 4\.3 GB"):
        given_kernel.check(tmp_path)
    (tmp_path / "modules/x.ko").unlink()
    with pytest.raises(BuildError, match="is not complete") as caught:
        given_kernel.check(tmp_path)
    assert caught.value.findings == ("vmlinuz has 13194.1 GB", "config has 13194.1 GB")


def test_a_module_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """As an image's own it may name any path; of this machine it was read to its end, as /dev/zero has none."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/x.ko").symlink_to("/dev/zero")
    (tmp_path / "modules/modules.builtin").touch()
    image = bytearray(0x1000)
    image[0x202:0x206], image[0x20E:0x210], image[0x600:0x606] = b"HdrS", (0x400).to_bytes(2, "little"), b"6.1.1 "
    (tmp_path / "vmlinuz").write_bytes(image)
    (tmp_path / "config").write_text("CONFIG_MODULES=y\n")
    os.truncate(tmp_path / "config", 2 << 30)
    assert given_kernel.check(tmp_path) == "6.1.1"


def test_modules_of_a_kernel_are_files_as_well(tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    os.mkfifo(tmp_path / "modules/x.ko")
    with pytest.raises(BuildError, match=r"kernel modules .* cannot be taken"):
        given_kernel.check(tmp_path)


@pytest.mark.parametrize("place", [components.PROGRAMS, components.LIBRARIES, components.LOADED_FROM, "usr/local", components.BUNDLE])
def test_a_link_in_the_place_of_a_folder_moves_no_file_of_this_machine(tmp_path: Path, place: str) -> None:
    """Such a link is the image's own, and led into the build machine: its libraries went into the image, and were gone."""
    theirs, folder = tmp_path / "theirs", tmp_path / "out"
    for name in ("lib/libx.so.1", "bin/attestation-agent-nv", "libx.so.1", "attestation-agent-nv", "attestation-agent"):
        (theirs / name).parent.mkdir(parents=True, exist_ok=True)
        (theirs / name).write_text(name)
    before = sorted((path, path.read_text()) for path in theirs.rglob("*") if path.is_file())
    (folder / place).parent.mkdir(parents=True)
    (folder / place).symlink_to(theirs)
    if place == components.LOADED_FROM:
        (folder / components.LIBRARIES).mkdir(parents=True)
        (folder / components.LIBRARIES / "libx.so.1").write_text("new")
    with pytest.raises(BuildError, match="have links where files and folders belong"):
        components.arrange(folder)
    assert sorted((path, path.read_text()) for path in theirs.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize("make", [
    pytest.param(lambda bundle: (bundle / "config.json").symlink_to("/dev/zero"), id="configuration without an end"),
    pytest.param(lambda bundle: os.truncate(bundle / "config.json", 12 << 30), id="configuration of 12 GB"),
    pytest.param(lambda bundle: (bundle / "rootfs").symlink_to("/"), id="program of this machine"),
])
def test_a_bundle_is_judged_by_what_it_has(tmp_path: Path, make: Callable[[Path], object]) -> None:
    bundle = tmp_path / components.BUNDLE
    bundle.mkdir()
    text = '{"ociVersion": "1.0", "process": {"args": ["/bin/sh"], "cwd": "/"}, "root": {"path": "rootfs"}}'
    if make.__code__.co_names[0] != "symlink_to" or "config.json" not in make.__code__.co_consts:
        (bundle / "config.json").write_text(text)
    make(bundle)
    with pytest.raises(BuildError, match="are not as the agent needs them") as caught:
        components.check(tmp_path)
    assert any("config.json" in finding for finding in caught.value.findings)


@pytest.mark.parametrize(("make", "suffix"), [
    pytest.param(os.mkfifo, "", id="pipe"), pytest.param(os.mkfifo, f"#sha256={NO_HASH}", id="pipe with a hash"),
    pytest.param(lambda place: place.symlink_to("/dev/zero"), f"#sha256={NO_HASH}", id="no end"),
    pytest.param(Path.mkdir, f"#sha256={NO_HASH}", id="folder with a hash"),
])
def test_what_is_given_is_a_file_or_a_folder(tmp_path: Path, make: Callable[[Path], object], suffix: str) -> None:
    make(tmp_path / "x")
    with pytest.raises(BuildError, match="is not a file"):
        given.check_given(given.parse_given("agent", f"{tmp_path}/x{suffix}"))


def test_what_has_a_hash_is_taken_once_and_nothing_that_happens_to_it_later_counts(tmp_path: Path) -> None:
    (tmp_path / "agent").write_bytes(b"good")
    one = given.parse_given("agent", f"{tmp_path}/agent#sha256={hashlib.sha256(b'good').hexdigest()}")
    taken = given.open_given(one, Cache(tmp_path / "cache"), silent)
    (tmp_path / "agent").write_bytes(b"evil")
    assert taken.read_bytes() == b"good"


def test_an_agent_that_changes_while_it_is_copied_is_not_kept_under_the_hash_of_another(tmp_path: Path) -> None:
    (tmp_path / "agent").write_bytes(b"evil")
    with pytest.raises(BuildError, match="was changed while it was read"):
        _install_agent(tmp_path / "agent", tmp_path / "out", hashlib.sha256(b"good").hexdigest())


def test_components_that_change_while_they_are_copied_are_not_kept_either(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    before = given.identify(tmp_path / "given")
    (tmp_path / "given/x").write_text("later")
    with pytest.raises(BuildError, match="was changed while it was read"):
        given.unpack("components", tmp_path / "given", tmp_path / "out", before)


def serve(answer: bytes, again: bytes = b"") -> str:
    """The address of a server that gives one answer, and goes on with `again` for as long as anybody listens."""
    server = socket.create_server(("127.0.0.1", 0))

    def go() -> None:
        connection, _ = server.accept()
        with server, connection:
            connection.recv(65536)
            try:
                connection.sendall(answer)
                while again:
                    connection.sendall(again)
                    time.sleep(0.01)
            except OSError:
                return

    threading.Thread(target=go, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}/x#sha256={NO_HASH}"


@pytest.mark.parametrize("answer", [
    pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", id="no chunk"),
    pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\nabc", id="half a chunk"),
    pytest.param(b"hello\r\n\r\n", id="no protocol"), pytest.param(b"HTTP/1.1 abc OK\r\n\r\n", id="no status"),
    pytest.param(HEAD + b"X: " + b"a" * 70_000 + b"\r\n\r\n", id="a long line"),
    pytest.param(HEAD + b"X: a\r\n" * 200 + b"\r\n", id="many lines"), pytest.param(b"", id="nothing"),
    pytest.param(b"HTTP/1.1 302 x\r\nLocation: file:///etc/passwd\r\n\r\n", id="a file of this machine"),
    pytest.param(b"HTTP/1.1 302 x\r\nLocation: http://[::1\r\n\r\n", id="no address"),
])
def test_no_answer_of_a_server_is_a_traceback(tmp_path: Path, answer: bytes) -> None:
    with pytest.raises(BuildError, match="cannot be fetched: "):
        given.open_given(given.parse_given("agent", serve(answer)), Cache(tmp_path), silent)


@pytest.mark.parametrize("length", [b"abc", b"-5", b"1" * 5000])
def test_a_length_that_is_none_is_not_believed(tmp_path: Path, length: bytes) -> None:
    with pytest.raises(BuildError, match=r"was given|cannot be fetched"):
        given.open_given(given.parse_given("agent", serve(HEAD + b"Content-Length: " + length + b"\r\n\r\nxx")), Cache(tmp_path), silent)


@pytest.mark.long
@pytest.mark.parametrize(("most", "patience", "again"), [(1 << 20, 60.0, b"x" * 65536), (16 << 30, 0.2, b"x")],
                         ids=["no end", "a byte now and then"])
def test_an_answer_that_goes_on_ends(tmp_path: Path, most: int, patience: float, again: bytes) -> None:
    one = given.parse_given("agent", serve(HEAD + b"\r\n", again))
    with pytest.raises(BuildError, match="and no end"):
        given._download(one, tmp_path / "file", silent, most_bytes=most, patience_s=patience)


@pytest.mark.long
@pytest.mark.parametrize(("once", "again"), [
    pytest.param(HEAD + b"A: ", b"b", id="a head"),
    pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"A: b\r\n", id="lines behind the last chunk"),
    pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", b"0", id="the size of a chunk"),
    pytest.param(b"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:1/\r\n\r\n", bytes(1 << 20), id="what sends elsewhere"),
])
def test_what_stands_around_an_answer_ends_as_well(tmp_path: Path, once: bytes, again: bytes) -> None:
    """Of an answer that sends elsewhere urllib took the whole body into memory."""
    started = time.monotonic()
    with contextlib.suppress(BuildError):
        given._download(given.parse_given("agent", serve(once, again)), tmp_path / "file", silent, patience_s=1.0)
    assert time.monotonic() - started < 15
    assert not (tmp_path / "file").exists() or (tmp_path / "file").stat().st_size < 10


def test_a_file_url_of_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    with pytest.raises(BuildError, match="it is not a file"):
        given.open_given(given.parse_given("agent", f"file://{tmp_path}/x#sha256={NO_HASH}"), Cache(tmp_path / "cache"), silent)


def test_what_a_program_prints_has_a_limit(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"reading nothing gives more than 0\.0 GB"):
        save([find("cat", "coreutils"), "/dev/zero"], tmp_path / "out", 1 << 20, what="reading nothing")
    assert (tmp_path / "out").stat().st_size == 1 << 20
    with pytest.raises(BuildError, match="status 1"):
        save([find("cat", "coreutils"), "/nonexistent"], tmp_path / "out", 1 << 20, what="reading nothing")


Member = tuple[tarfile.TarInfo, bytes]


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(data)
    return info, data


def pack(*members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def write_package(debs: Path, name: str, data: bytes) -> Package:
    control = f"Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@x.test>\nDescription: x\n".encode()
    members = ((b"debian-binary", b"2.0\n"), (b"control.tar", pack(entry("./control", control))), (b"data.tar.gz", data))
    text = b"!<arch>\n" + b"".join(b"%-16s%-12d%-6d%-6d%-8s%-10d`\n%s%s" % (kind, 0, 0, 0, b"100644", len(part), part, b"\n" * (len(part) % 2))
                                    for kind, part in members)
    path = debs / f"{name}_1_amd64.deb"
    path.write_bytes(text)
    return Package(name=name, version="1", arch="amd64", size=len(text), sha256=hashlib.sha256(text).hexdigest())


CONTROL = b"Package: x\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@x.test>\nDescription: x\n"


def write_control(folder: Path, control: bytes) -> Path:
    """A package with these control files, packed as packages are."""
    members = ((b"debian-binary", b"2.0\n"), (b"control.tar.gz", zlib.compress(control + tars.END, 1, wbits=31)), (b"data.tar", tars.END))
    path = folder / "x_1_amd64.deb"
    path.write_bytes(b"!<arch>\n" + b"".join(b"%-16s%-12d%-6d%-6d%-8s%-10d`\n%s%s" % (kind, 0, 0, 0, b"100644", len(part), part, b"\n" * (len(part) % 2))
                                             for kind, part in members))
    return path


def unpacked(folder: Path, *packages: bytes) -> Path:
    debs = folder / "debs"
    debs.mkdir()
    rows = [write_package(debs, f"p{number}", zlib.compress(data, wbits=31)) for number, data in enumerate(packages)]
    unpack(rows, debs, folder / "root", silent)
    return folder / "root"


def test_a_package_does_not_write_through_a_link_that_another_one_left(tmp_path: Path) -> None:
    """tar follows it, out of the root and into the build machine."""
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(BuildError, match=r"package p1_1_amd64\.deb cannot be unpacked") as caught:
        unpacked(tmp_path, pack(entry("./l", kind=tarfile.SYMTYPE, target=str(outside))), pack(entry("./l/evil", b"x")))
    assert caught.value.findings == ("'./l/evil': lies below a link that leads out of the root",)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("named", [tars.gnu("./ok") + tars.pax(("path", "./l/evil")), tars.gnu("./ok") + tars.gnu("./l/evil")],
                         ids=["GNU and pax", "GNU twice"])
def test_a_member_of_two_names_is_looked_at_by_neither(tmp_path: Path, named: bytes) -> None:
    """GNU tar believes the second, Python the first: what was looked at was not what was written, out of the root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(BuildError, match=r"package p1_1_amd64\.deb cannot be read: two headers give one member a path"):
        unpacked(tmp_path, pack(entry("./l", kind=tarfile.SYMTYPE, target=str(outside))), named + tars.entry("./n", b"x") + tars.END)
    assert list(outside.iterdir()) == []


def test_a_package_does_not_replace_what_another_has(tmp_path: Path) -> None:
    """The compiler, for one; dpkg refuses it."""
    with pytest.raises(BuildError, match=r"package p1_1_amd64\.deb cannot be unpacked") as caught:
        unpacked(tmp_path, pack(entry("./usr/bin", kind=tarfile.DIRTYPE), entry("./bin", kind=tarfile.SYMTYPE, target="usr/bin"),
                                entry("./usr/bin/gcc", b"theirs")), pack(entry("./bin", kind=tarfile.DIRTYPE), entry("./bin/gcc", b"mine")))
    assert caught.value.findings == ("'./bin/gcc': is a file or link of another package",)
    assert (tmp_path / "root/usr/bin/gcc").read_bytes() == b"theirs"


def test_what_a_package_brings_is_roots_and_nobody_else_gets_at_it(tmp_path: Path) -> None:
    """A program with the set-user-ID bit lay open to every account of the build machine, or belonged to one."""
    program, data = entry("./su", b"#!")
    program.mode, program.uid, program.gid = 0o6755, 1234, 1234
    root = unpacked(tmp_path, pack((program, data)))
    state = (root / "su").stat()
    assert (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (os.geteuid(), os.getegid(), 0o6755)
    assert root.stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("name", ["postinst", "./postinst", "././postinst", ".//postinst", "/postinst", "//postinst", "x/../postinst"])
def test_a_script_is_one_under_each_spelling_of_its_name(tmp_path: Path, name: str) -> None:
    assert read_scripts(write_control(tmp_path, tars.entry("./control", CONTROL) + tars.entry(name, b"#!"))) == ("postinst",)


@pytest.mark.long
@pytest.mark.parametrize("member", [tars.entry("./junk", bytes(80 << 20)), tars.entry("./control", CONTROL + b"Note: " + b"x" * (80 << 20))],
                         ids=["a file", "a field"])
def test_control_files_without_an_end_are_not_laid_out_for_an_index(tmp_path: Path, member: bytes) -> None:
    write_control(tmp_path, tars.entry("./control", CONTROL) + member)
    with pytest.raises(BuildError, match=r"reading package x_1_amd64\.deb gives more than 0\.1 GB"):
        index_packages(tmp_path)


def test_a_package_may_lie_below_a_link_of_the_root_itself(tmp_path: Path) -> None:
    """/lib, that base-files makes a link to usr/lib."""
    root = unpacked(tmp_path, pack(entry("./usr/lib", kind=tarfile.DIRTYPE), entry("./lib", kind=tarfile.SYMTYPE, target="usr/lib")),
                    pack(entry("./lib/x", b"x")))
    assert (root / "usr/lib/x").read_bytes() == b"x"
    assert not (root / ".unpacking.tar").exists()


@pytest.mark.parametrize(("member", "words"), [
    pytest.param(entry("./../../evil", b"x"), "lies outside", id="dot-dot"),
    pytest.param(entry("/evil", b"x"), "lies outside", id="absolute"),
    pytest.param(entry("./f", kind=tarfile.FIFOTYPE), "is neither a file", id="pipe"),
    pytest.param(entry("./f", kind=tarfile.CHRTYPE), "is neither a file", id="device"),
    pytest.param(entry("./a\nb", b"x"), "not one line of text", id="line end"),
    pytest.param(entry("./\x1b[2J", b"x"), "not one line of text", id="escape"),
    pytest.param(entry("./" + "a/" * 100 + "x", b"x"), "of more than 64 folders", id="deep"),
])
def test_a_package_has_files_folders_and_links(tmp_path: Path, member: Member, words: str) -> None:
    with pytest.raises(BuildError, match=r"p0_1_amd64\.deb cannot be unpacked") as caught:
        unpacked(tmp_path, pack(member))
    assert words in caught.value.findings[0]


def test_a_package_that_says_it_has_more_than_an_image_is_not_unpacked(tmp_path: Path) -> None:
    large = tarfile.TarInfo("./x")
    large.size = 40 << 30
    with pytest.raises(BuildError, match=r"cannot be read: its files are 42\.9 GB together"):
        unpacked(tmp_path, large.tobuf(tarfile.GNU_FORMAT))


def test_a_tree_takes_files_and_plain_names(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    tree, origin = Tree(), Origin(slice="x")
    with pytest.raises(BuildError, match="is not a file where it was taken from"):
        tree.add_file("/f", tmp_path / "f", origin)
    with pytest.raises(BuildError, match="is not a plain absolute path"):
        tree.add_file("/a\nb", b"", origin)
    with pytest.raises(BuildError, match="a target that is not one line of text"):
        tree.add_link("/l", "a\x1b[2J", origin)


ROW = {"Package": "x", "Version": "1", "Architecture": "amd64", "Maintainer": "x", "Filename": "./x.deb", "Size": "5", "Description": "x",
       "SHA256": hashlib.sha256(b"hello").hexdigest()}


def read_index(folder: Path, **changed: str) -> Archive:
    """A folder of this machine with an index, as apt has read it."""
    repository = folder / "repository"
    repository.mkdir()
    (repository / "x.deb").write_bytes(b"hello")
    rows = {**ROW, **changed}
    (repository / "Packages").write_text("".join(f"{name}: {value}\n" for name, value in rows.items() if value))
    archive = Archive(sources=(Source(uri=f"file:{repository}", suite="./", components=(), keyring=None),), state=folder / "state")
    apt.update(archive)
    return archive


@pytest.mark.long
def test_an_index_is_read_and_its_package_taken(tmp_path: Path) -> None:
    archive = read_index(tmp_path)
    (tmp_path / "debs").mkdir()
    download(archive, describe(archive, ["x"]), tmp_path / "debs")
    assert (tmp_path / "debs/x_1_amd64.deb").read_bytes() == b"hello"


@pytest.mark.long
@pytest.mark.parametrize(("field", "value"), [
    ("SHA256", ""), ("SHA256", "abc"), ("Size", "abc"), ("Version", '1"'), ("Version", "1 2"), ("Version", "../../../x"), ("Version", "1\x1b[2J"),
    ("Version", "-o"), ("Version", "1/2"),
])
def test_an_odd_row_of_an_index_is_a_finding(tmp_path: Path, field: str, value: str) -> None:
    archive = read_index(tmp_path, **{field: value})
    with pytest.raises(BuildError, match="the archive's index has an odd package 'x'") as caught:
        describe(archive, ["x"])
    assert caught.value.findings[0].startswith(field)


@pytest.mark.long
@pytest.mark.parametrize("read", [describe, resolve])
def test_a_name_is_no_option_of_apt(tmp_path: Path, read: Callable[[Archive, list[str]], object]) -> None:
    with pytest.raises(BuildError, match="failed with status 100") as caught:
        read(read_index(tmp_path), ["-oAPT::x=y"])
    assert caught.value.findings[-1] in ("E: No packages found", "E: Unable to locate package -oAPT::x")


@pytest.mark.long
def test_what_the_machines_own_apt_lets_pass_does_not(tmp_path: Path) -> None:
    """A repository without signature, and a configuration of this machine that takes such."""
    loose = tmp_path / "apt.conf"
    loose.write_text('Acquire::AllowInsecureRepositories "true";\nAPT::Get::AllowUnauthenticated "true";\n')
    archive = read_index(tmp_path)
    words = (archive.state / "archive.sources").read_text().replace("Trusted: yes\n", "")
    (archive.state / "archive.sources").write_text(words)
    shutil.rmtree(archive.state / "lists")
    strict = archive.options()
    loosened = [text for pair in zip(strict[::2], strict[1::2], strict=True) if "Insecure" not in pair[1] for text in pair]
    found = {is_strict: subprocess.run(
        ["apt-get", *(strict if is_strict else loosened), "--error-on=any", "update"],
        env={"APT_CONFIG": str(loose), "PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)
        for is_strict in (True, False)}
    assert "does not have a Release file" in found[True].stderr
    assert (found[True].returncode, found[False].returncode) == (100, 0), found


@pytest.mark.parametrize("make", [
    pytest.param(os.mkfifo, id="pipe"), pytest.param(Path.mkdir, id="folder"),
    pytest.param(lambda place: place.symlink_to("/nonexistent"), id="dangling link"),
    pytest.param(lambda place: place.with_name("a\nSHA256: x\n.deb").write_bytes(b""), id="a name with a field"),
])
def test_an_index_is_made_of_files(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "a.deb")
    with pytest.raises(BuildError, match="is not a file, or has a name that is not one line of text"):
        index_packages(tmp_path)


def test_a_package_does_not_say_what_the_index_says_of_it(tmp_path: Path) -> None:
    make_package(tmp_path, "x", "1", {"/bin/x": b"x"}, depends=f"y\nSHA256: {NO_HASH}")
    with pytest.raises(BuildError, match="has a field that belongs to an index: SHA256"):
        index_packages(tmp_path)
