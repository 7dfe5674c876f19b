# SPDX-License-Identifier: Apache-2.0
"""An agent or guest components from a path or a URL with its hash; loopback and file URLs only."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvrc_build.ground.cache import Cache, digest_tree
from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.progress import silent
from nvrc_build.supply.given import Given, identify, open_given, parse_given, unpack

DATA = b"an agent\n" * 300_000
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        if self.path != "/agent":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        self.wfile.write(DATA)

    def log_message(self, *_args: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    Server.asked = []
    with http.server.HTTPServer(("127.0.0.1", 0), Server) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


@pytest.mark.parametrize(("text", "expected"), [
    ("./agent", Given(what="agent", path=Path("agent"))),
    (f"https://host.test/a#sha256={SHA256}", Given(what="agent", url="https://host.test/a", sha256=SHA256)),
    (f"file:///srv/a#sha256={SHA256}", Given(what="agent", url="file:///srv/a", sha256=SHA256)),
])
def test_a_path_or_a_url_with_its_hash(text: str, expected: Given) -> None:
    assert parse_given("agent", text) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("https://host.test/a", "agent https://host.test/a has no hash, so anything could come from there"),
    ("https://host.test/a#sha256=abc", "has no hash"), (f"https://host.test/a#md5={SHA256}", "has no hash"),
    (f"https://host.test/a#sha256={SHA256.upper()}", "has no hash"),
    (f"ftp://host.test/a#sha256={SHA256}", "only http, https, file can be fetched"),
])
def test_a_url_without_a_hash_is_refused(text: str, expected: str) -> None:
    with pytest.raises(BuildError, match=expected):
        parse_given("agent", text)


def test_what_a_url_names_is_fetched_once(server: str, tmp_path: Path) -> None:
    given, cache, seen = parse_given("agent", f"{server}/agent#sha256={SHA256}"), Cache(tmp_path), []
    first = open_given(given, cache, lambda what, done, total: seen.append((what, done, total)))
    assert first.read_bytes() == DATA
    assert open_given(given, cache, silent) == first
    assert Server.asked == ["/agent"]
    assert seen[-1] == ("agent 3 MB", len(DATA), len(DATA))


def test_what_was_fetched_is_compared_with_its_hash_again(server: str, tmp_path: Path) -> None:
    given = parse_given("agent", f"{server}/agent#sha256={SHA256}")
    fetched = open_given(given, Cache(tmp_path), silent)
    fetched.write_bytes(DATA[::-1])
    (tmp_path / "seals" / fetched.parent.name).write_text(f"{digest_tree(fetched.parent)} x")
    with pytest.raises(BuildError, match=f"{SHA256} was given"):
        open_given(given, Cache(tmp_path), silent)


def test_a_file_url_is_fetched_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "agent").write_bytes(DATA)
    given = parse_given("agent", f"file://{tmp_path}/agent#sha256={SHA256}")
    assert open_given(given, Cache(tmp_path / "cache"), silent).read_bytes() == DATA


@pytest.mark.parametrize(("path", "sha256", "expected"), [
    pytest.param("/agent", "0" * 64, f"sha256 is {SHA256}, {'0' * 64} was given", id="wrong-hash"),
    pytest.param("/gone", SHA256, "cannot be fetched: Not Found", id="not-found"),
])
def test_what_is_not_as_given_is_refused_and_leaves_nothing(server: str, tmp_path: Path, path: str, sha256: str,
                                                            expected: str) -> None:
    with pytest.raises(BuildError, match=expected):
        open_given(parse_given("agent", f"{server}{path}#sha256={sha256}"), Cache(tmp_path), silent)
    assert list((tmp_path / "stages").iterdir()) == []


def test_no_network_says_which_address_and_what_else_will_do(tmp_path: Path) -> None:
    given = parse_given("agent", f"http://127.0.0.1:1/agent#sha256={SHA256}")
    with pytest.raises(BuildError, match=r"127.0.0.1:1/agent cannot be fetched: .*; check .* or give a local path"):
        open_given(given, Cache(tmp_path), silent)


def archive(path: Path, mode: str, *members: tuple[str, bytes | str]) -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_an_archive_is_laid_out_as_in_the_image(tmp_path: Path, mode: str) -> None:
    source = archive(tmp_path / "a.tar", mode, ("./usr/local/bin/agent", b"#!"), ("./bin", "usr/bin"),
                     ("./etc/x", "/usr/local/etc/x"))
    unpack("components", source, tmp_path / "out", identify(source))
    assert (tmp_path / "out/usr/local/bin/agent").stat().st_mode & 0o777 == 0o755
    assert str((tmp_path / "out/bin").readlink()) == "usr/bin"
    assert str((tmp_path / "out/etc/x").readlink()) == "/usr/local/etc/x"


@pytest.mark.parametrize("members", [
    pytest.param((("../outside", b"x"),), id="dot-dot"),
    pytest.param((("a/../../outside", b"x"),), id="dot-dot-inside"),
    pytest.param((("a", "../.."), ("a/outside", b"x")), id="link-out"),
    pytest.param((("a", "/"), ("a/outside", b"x")), id="absolute-link-and-a-file-below-it"),
])
def test_an_archive_must_not_leave_its_folder(tmp_path: Path, members: tuple[tuple[str, bytes | str], ...]) -> None:
    source = archive(tmp_path / "a.tar", "w", *members)
    with pytest.raises(BuildError, match=r"(?s)components a.tar cannot be unpacked: .*\n  .*outside"):
        unpack("components", source, tmp_path / "deep/out", identify(source))
    assert not list(tmp_path.rglob("outside"))


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\0" * 100 + b"text")
    with pytest.raises(BuildError, match="components x cannot be unpacked"):
        unpack("components", tmp_path / "x", tmp_path / "out", identify(tmp_path / "x"))


def test_a_folder_is_known_by_everything_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/a").write_text("1")
    seen = [identify(folder)]
    (folder / "bin/a").chmod(0o755)
    seen.append(identify(folder))
    (folder / "link").symlink_to("bin/a")
    seen.append(identify(folder))
    (folder / "bin/a").write_text("2")
    seen.append(identify(folder))
    assert len(set(seen)) == 4
    assert identify(folder) == seen[-1]
