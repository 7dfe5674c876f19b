# SPDX-License-Identifier: Apache-2.0
"""Images handed on: signed with a real key of OpenSSH, changed in every way, pushed to a registry that may lie."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.documents import unset
from fakes.firmware import make_firmware
from fakes.registry import Registry, sha256
from fakes.snp import report as snp_report
from nvrc_build.after import oci
from nvrc_build.after.measure import Launch, snp_digest
from nvrc_build.cli import main
from nvrc_build.ground.errors import BuildError

WHO = "builder@example.com"


def make_key(folder: Path, name: str) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name], check=True, stdin=subprocess.DEVNULL)
    return folder / name


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("builder", "stranger"):
        make_key(folder, name)
    public = (folder / "builder.pub").read_text().strip()
    (folder / "signers").write_text(f'{WHO} namespaces="nvrc-image" {public}\n')
    (folder / "elsewhere").write_text(f'{WHO} namespaces="git" {public}\n')
    (folder / "expired").write_text(f'{WHO} namespaces="nvrc-image",valid-before="20200101" {public}\n')
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = tmp_path / "images" / "small"
    folder.mkdir(parents=True)
    (folder / "vmlinuz").write_bytes(b"kernel")
    (folder / "initrd").write_bytes(b"initrd" * 1000)
    (folder / "values.json").write_text("{}")
    parts = {name: sha256((folder / name).read_bytes()).removeprefix("sha256:") for name in ("vmlinuz", "initrd")}
    (folder / "manifest.json").write_text(json.dumps({
        "version": 1, "image": "small", "format": "initrd", "parts": parts, "slices": {}, "files": [],
        "packages": [{"name": "libc6", "version": "2.41-12", "arch": "amd64", "sha256": "ab" * 32}]}))
    return folder


def sign(image: Path, keys: Path, key: str = "builder") -> int:
    return main(["sign", str(image), "--key", str(keys / key), "--builder", "https://ci.example.com"])


def verify(image: Path, keys: Path, signers: str = "signers", who: str = WHO) -> int:
    return main(["verify", str(image), "--signers", str(keys / signers), "--identity", who])


def test_a_signed_image_is_good(image: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (sign(image, keys), verify(image, keys)) == (0, 0)
    assert capsys.readouterr().out.endswith(f"{image}: good, signed by {WHO}\n")


def test_the_provenance_says_what_was_built_of_what(image: Path, keys: Path) -> None:
    sign(image, keys)
    first = (image / "provenance.intoto.json").read_bytes()
    sign(image, keys)
    assert (image / "provenance.intoto.json").read_bytes() == first
    document = json.loads(first)
    assert [row["name"] for row in document["subject"]] == ["initrd", "manifest.json", "values.json", "vmlinuz"]
    definition = document["predicate"]["buildDefinition"]
    assert definition["resolvedDependencies"] == [
        {"name": "libc6", "uri": "pkg:deb/debian/libc6@2.41-12?arch=amd64", "digest": {"sha256": "ab" * 32}}]
    assert document["predicate"]["runDetails"]["builder"]["id"] == "https://ci.example.com"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def put_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DIFFERENCES: dict[str, tuple[Callable[[Path], object], str]] = {
    "kernel": (lambda image: flip(image / "vmlinuz"), "vmlinuz: signed as sha256 "),
    "initrd": (lambda image: flip(image / "initrd"), "initrd: signed as sha256 "),
    "manifest": (lambda image: flip(image / "manifest.json"), "manifest.json: signed as sha256 "),
    "measurements": (lambda image: (image / "values.json").write_text("{ }"), "values.json: signed as sha256 "),
    "missing": (lambda image: (image / "vmlinuz").unlink(), "vmlinuz: is signed and missing"),
    "strange": (lambda image: (image / "other").write_text(""), "other: exists and is not signed"),
    "folder": (lambda image: (image / "other").mkdir(), "other: exists and is not signed"),
    "pipe": (lambda image: os.mkfifo(image / "other"), "other: exists and is not signed"),
    "link to nothing": (lambda image: (image / "other").symlink_to("none"), "other: exists and is not signed"),
    "name with a sequence for terminals": (lambda image: (image / "\x1b[2J").write_text(""), r"\x1b[2J: exists and is not signed"),
    "pipe in a file's place": (lambda image: put_pipe(image / "vmlinuz"), "vmlinuz: is signed and is not a file"),
}


@pytest.mark.long
@pytest.mark.parametrize(("change", "words"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_what_differs_is_named(image: Path, keys: Path, change: Callable[[Path], object], words: str, *,
                               capsys: pytest.CaptureFixture[str]) -> None:
    sign(image, keys)
    change(image)
    capsys.readouterr()
    assert verify(image, keys) == 1
    assert capsys.readouterr().out.startswith(words)


REFUSALS: dict[str, tuple[Callable[[Path, Path], object], str, str]] = {
    "statement": (lambda image, _keys: flip(image / "provenance.intoto.json"), "signers", "is not one of"),
    "signature": (lambda image, _keys: (image / "provenance.intoto.json.sig").write_text("x"), "signers", "is not one of"),
    "too large": (lambda image, _keys: os.truncate(image / "provenance.intoto.json.sig", 1 << 40), "signers", "more than 65536 bytes"),
    "no signature": (lambda image, _keys: (image / "provenance.intoto.json.sig").unlink(), "signers", "does not exist"),
    "no statement": (lambda image, _keys: (image / "provenance.intoto.json").unlink(), "signers", "does not exist"),
    "other key": (lambda image, keys: sign(image, keys, "stranger"), "signers", "is not one of"),
    "other namespace": (lambda _image, _keys: None, "elsewhere", "is not one of"),
    "too late": (lambda _image, _keys: None, "expired", "is not one of"),
}


@pytest.mark.long
@pytest.mark.parametrize(("change", "signers", "words"), REFUSALS.values(), ids=REFUSALS)
def test_a_signature_that_is_not_the_builders(image: Path, keys: Path, change: Callable[[Path, Path], object], signers: str, *, words: str,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    sign(image, keys)
    change(image, keys)
    capsys.readouterr()
    assert verify(image, keys, signers) == 2
    assert words in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(("is_changed", "is_other", "words"), [
    (False, False, ("good, signed by", "good: the report is one of this image")), (True, False, ("values.json: signed as sha256 ",)),
    (False, True, ("measurement: ",)), (True, True, ("values.json: signed as sha256 ", "measurement: ")),
])
def test_signature_and_report_in_one_call(image: Path, keys: Path, capsys: pytest.CaptureFixture[str], *, is_changed: bool, is_other: bool,
                                          words: tuple[str, ...]) -> None:
    (image.parent / "ovmf").write_bytes(make_firmware())
    started = Launch(firmware=image.parent / "ovmf", kernel=image / "vmlinuz", initrd=image / "initrd", cmdline="", vcpus=1, vcpu_type="EPYC-v4")
    (image.parent / "report").write_bytes(snp_report(bytes(48) if is_other else snp_digest(started)))
    sign(image, keys)
    if is_changed:
        (image / "values.json").write_text("{ }")
    capsys.readouterr()
    assert main(["verify", str(image), "--report", str(image.parent / "report"), "--signers", str(keys / "signers"), "--identity", WHO,
                 "--firmware", str(image.parent / "ovmf")]) == int(is_changed or is_other)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(words)
    assert all(word in line for word, line in zip(words, lines, strict=True)), lines


def test_somebody_else_of_the_list_is_not_enough(image: Path, keys: Path) -> None:
    sign(image, keys)
    assert verify(image, keys, who="other@example.com") == 2


def test_an_image_that_was_changed_after_its_build_is_not_signed(image: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(image / "initrd")
    assert sign(image, keys) == 1
    assert "initrd differs from manifest.json" in capsys.readouterr().err


def test_a_folder_with_more_than_files_is_not_signed(image: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image / "deploy").mkdir()
    assert sign(image, keys) == 1
    assert "deploy: only files are signed" in capsys.readouterr().err


@pytest.fixture
def registry() -> Iterator[Registry]:
    found = Registry()
    yield found
    found.close()


def push(image: Path, registry: Registry, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["push", str(image), f"{registry.host}/nvrc/small:1"]) == 0
    return capsys.readouterr().out.strip()


@pytest.mark.long
def test_an_image_goes_to_a_node_by_digest(image: Path, keys: Path, registry: Registry, tmp_path: Path,
                                           capsys: pytest.CaptureFixture[str]) -> None:
    sign(image, keys)
    reference = push(image, registry, capsys)
    target = tmp_path / "node" / "small"
    assert main(["pull", reference, "-o", str(target), "--signers", str(keys / "signers"), "--identity", WHO]) == 0
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {path.name: path.read_bytes() for path in image.iterdir()}
    before = registry.puts
    assert push(image, registry, capsys) == reference
    assert registry.puts == before  # what is there is not sent again


def test_a_registry_with_a_password(image: Path, registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    registry.password = "me:secret"
    assert main(["push", str(image), f"{registry.host}/nvrc/small:1"]) == 1
    assert "401" in capsys.readouterr().err
    reference = oci.parse_reference(f"{registry.host}/nvrc/small:1")
    assert oci.push(sorted(image.iterdir()), reference, oci.Registry(reference, "me:secret")).startswith("sha256:")


def layer_of(registry: Registry, name: str) -> str:
    (manifest,) = set(registry.manifests.values())
    return next(row["digest"] for row in json.loads(manifest)["layers"] if row["annotations"][oci.TITLE] == name)


LIES: dict[str, tuple[Callable[[Registry], object], str]] = {
    "manifest": (lambda registry: registry.lies.update({next(key for key in registry.manifests if key != "1"): b"{}"}), "is not sha256:"),
    "flipped": (lambda registry: registry.lies.update({layer_of(registry, "vmlinuz"): b"kernfl"}), "vmlinuz: 6 bytes with sha256 "),
    "short": (lambda registry: registry.lies.update({layer_of(registry, "vmlinuz"): b"ker"}), "vmlinuz: 3 bytes with sha256 "),
    "longer": (lambda registry: registry.lies.update({layer_of(registry, "vmlinuz"): b"kernel" + bytes(9 << 20)}), "has more bytes than the manifest says"),
    "gone": (lambda registry: registry.blobs.pop(layer_of(registry, "initrd")), "404"),
}


@pytest.mark.long
@pytest.mark.parametrize(("lie", "words"), LIES.values(), ids=LIES)
def test_a_registry_that_lies_leaves_no_folder(image: Path, registry: Registry, tmp_path: Path, lie: Callable[[Registry], object], *, words: str,
                                               capsys: pytest.CaptureFixture[str]) -> None:
    reference = push(image, registry, capsys)
    lie(registry)
    target = tmp_path / "node" / "small"
    assert main(["pull", reference, "-o", str(target)]) == 1
    assert words in capsys.readouterr().err
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


OK = b"HTTP/1.1 200 OK\r\n"


# What no server of http.server would say to the question for the manifest: what comes once, what comes again and again.
ANSWERS: dict[str, tuple[bytes, bytes, str]] = {
    "chunks that end": (OK + b"Transfer-Encoding: chunked\r\n\r\n50\r\n{", b"", "IncompleteRead"),
    "chunks that are none": (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{", b"", "IncompleteRead"),
    "error in such chunks": (b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{", b"", "IncompleteRead"),
    "error with a sequence": (b"HTTP/1.1 500 \x1b[2J\r\n\r\n", b"", r"500 \x1b[2J"),
    "no status": (b"hello\r\n\r\n", b"", "hello"),
    "sent elsewhere": (b"HTTP/1.1 307 x\r\nLocation: file:///etc/passwd\r\n\r\n", b"", "it sends the reader elsewhere: 'file:///etc/passwd'"),
    "continue for ever": (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "registry 127.0.0.1:"),
    "a head that never ends": (OK, b"a", "registry 127.0.0.1:"),
    "lines behind the last chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"A: b\r\n", "registry 127.0.0.1:"),
    "the size of a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", b"0", "registry 127.0.0.1:"),
    "lines behind an error": (b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"A: b\r\n", "registry 127.0.0.1:"),
    "drops": (OK + b"Content-Length: 900000\r\n\r\n", b"x", "bytes came in 1 s"),
    "endless": (OK + b"\r\n", bytes(1 << 16), "is not sha256:"),
}


@pytest.mark.long
@pytest.mark.parametrize(("once", "again", "words"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_is_none_ends_in_words_and_in_time(once: bytes, again: bytes, words: str, tmp_path: Path) -> None:
    def serve(listening: socket.socket) -> None:
        connected, _ = listening.accept()
        with connected, contextlib.suppress(OSError):
            connected.recv(1 << 16)
            connected.sendall(once)
            for _ in range(2000 if again else 0):
                connected.sendall(again)
                time.sleep(0.01)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = threading.Thread(target=serve, args=(listening,))
        server.start()
        reference = oci.parse_reference(f"127.0.0.1:{listening.getsockname()[1]}/nvrc/small@sha256:{'0' * 64}")
        with pytest.raises(BuildError, match=re.escape(words)):
            oci.pull(reference, oci.Registry(reference, timeout_s=1.0), tmp_path / "node", 1 << 20)
        server.join(30.0)
    assert not server.is_alive()
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_is_no_name_and_a_target_that_is_a_dangling_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "link").symlink_to("none")
    for host, target, words, status in ((f"{'a' * 70}.b", "x", "label", 1), ("127.0.0.1:1", "link", "exists already", 2)):
        assert main(["pull", f"{host}/a@sha256:{'0' * 64}", "-o", str(tmp_path / target)]) == status
        assert words in capsys.readouterr().err


def test_a_pull_with_signers_leaves_no_folder_that_nobody_signed(image: Path, keys: Path, registry: Registry, tmp_path: Path,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    sign(image, keys)
    (image / "extra").write_text("")
    reference = push(image, registry, capsys)
    target = tmp_path / "node" / "small"
    assert main(["pull", reference, "-o", str(target), "--signers", str(keys / "signers"), "--identity", WHO]) == 1
    assert "extra: exists and is not signed" in capsys.readouterr().err
    assert list(target.parent.iterdir()) == []


def test_a_link_in_an_images_folder_is_neither_signed_nor_pushed_nor_read(image: Path, keys: Path, registry: Registry, tmp_path: Path,
                                                                         capsys: pytest.CaptureFixture[str]) -> None:
    """Of a folder that somebody else made, a link to a key of the builder's was pushed as a file of the image."""
    sign(image, keys)
    (image / "initrd").rename(tmp_path / "elsewhere")
    (image / "initrd").symlink_to(tmp_path / "elsewhere")
    assert verify(image, keys) == 1
    assert "initrd: is signed and is not a file" in capsys.readouterr().out
    assert main(["push", str(image), f"{registry.host}/nvrc/small:1"]) == 1
    assert "initrd: a link may lead to any file of this machine" in capsys.readouterr().err
    assert registry.blobs == {}
    assert sign(image, keys) == 1
    assert "initrd: only files are signed" in capsys.readouterr().err


def test_a_tag_is_not_pulled(registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", f"{registry.host}/nvrc/small:1", "-o", str(tmp_path / "x")]) == 2
    assert "has no digest" in capsys.readouterr().err


def test_uploads_are_not_sent_elsewhere(image: Path, registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    for registry.location in ("http://192.0.2.1/v2/x/blobs/uploads/1", "http://[", "x/y"):
        assert main(["push", str(image), f"{registry.host}/nvrc/small:1"]) == 1
        assert f"it sends the upload elsewhere: {registry.location!a}" in capsys.readouterr().err


GOOD = {"mediaType": oci.FILE, "annotations": {oci.TITLE: "a"}, "digest": "sha256:" + "0" * 64, "size": 1}


def manifest_of(*layers: object, **fields: object) -> dict[str, object]:
    return {"schemaVersion": 2, "mediaType": oci.MANIFEST, "artifactType": oci.ARTIFACT, "layers": list(layers), **fields}


MANIFESTS: dict[str, tuple[object, str]] = {
    "type": (manifest_of(GOOD, artifactType="x"), f"a type is 'x', not {oci.ARTIFACT}"),
    "index": (manifest_of(GOOD, mediaType="application/vnd.oci.image.index.v1+json"), f", not {oci.MANIFEST}"),
    "swapped types": (manifest_of(GOOD, mediaType=oci.FILE), f", not {oci.MANIFEST}"),
    "packed layer": (manifest_of({**GOOD, "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}), f", not {oci.FILE}"),
    "none": (manifest_of(), "it has 0 files"),
    "twice": (manifest_of(GOOD, GOOD), "or one twice"),
    "many": (manifest_of(*({**GOOD, "annotations": {oci.TITLE: f"f{i}"}} for i in range(65))), "it has 65 files"),
    "path": (manifest_of({**GOOD, "annotations": {oci.TITLE: "../../etc/passwd"}}), "not a plain file name"),
    "hidden": (manifest_of({**GOOD, "annotations": {oci.TITLE: ".ssh"}}), "not a plain file name"),
    "digest": (manifest_of({**GOOD, "digest": "sha512:00"}), "is not a digest"),
    "size": (manifest_of({**GOOD, "size": -1}), "not a size"),
    "true": (manifest_of({**GOOD, "size": True}), "not a size"),
    "endless": (manifest_of({**GOOD, "size": 10**300}), "not a size"),
    "large": (manifest_of({**GOOD, "size": 1 << 40}), "bytes together; at most 1048576"),
    "list": ([], "is not one of an image"),
    "no title": (manifest_of({"mediaType": oci.FILE, "digest": GOOD["digest"], "size": 1}), "is not one of an image"),
}


@pytest.mark.parametrize(("document", "words"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_is_refused(document: object, words: str) -> None:
    with pytest.raises(BuildError, match=re.escape(words)):
        oci.read_layers(json.dumps(document).encode(), 1 << 20)


@pytest.mark.parametrize("text", ["", "x", "host/Name:1", "host/a b:1", "http://host/a:1", "host/a@sha256:00", "host/../a:1", "host/a:1/b"])
def test_references_that_are_none(text: str) -> None:
    with pytest.raises(BuildError, match="is not a reference"):
        oci.parse_reference(text)


@pytest.mark.long
def test_what_they_print_as_json(image: Path, keys: Path, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str) -> dict[str, object]:
        assert main([*words, "--json"]) == 0
        document: dict[str, object] = json.loads(capsys.readouterr().out)
        assert type(document["schema"]) is int
        assert list(unset(document)) == []
        return document

    assert told("sign", str(image), "--key", str(keys / "builder"))["files"] == ["initrd", "manifest.json", "values.json", "vmlinuz"]
    assert told("verify", str(image), "--signers", str(keys / "signers"), "--identity", WHO)["ok"] is True
    reference = told("push", str(image), f"{registry.host}/nvrc/small:1")["reference"]
    assert told("pull", str(reference), "-o", str(tmp_path / "node"))["signed_by"] is None
