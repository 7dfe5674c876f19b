# SPDX-License-Identifier: Apache-2.0
"""`guest-cdi generate` as a user meets it, with the stand-in NVML library on a real tree.

A tree with device nodes can only be made by root; the tests that publish a document are skipped without it.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from fakes.documents import unset
from fakes.machine import ROOTS, DescribedHost, load
from fakes.nvml import MockNvml
from guest_cdi import __main__ as entry
from guest_cdi import cli
from guest_cdi.discover.hooks import HookStyle
from guest_cdi.generate import Options
from guest_cdi.host import FileInfo, LinuxHost
from guest_cdi.lean.errors import CdiError
from guest_cdi.locate import locate_nvml
from guest_cdi.naming import Strategy
from guest_cdi.versions import CURRENT, RELEASE_1_18, RELEASE_1_19

Describe = Callable[[str], MockNvml]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="device nodes need root")


def options(*words: str) -> Options:
    return cli.read_options(cli.build_parser().parse_args(list(words), cli.Arguments()))


@pytest.fixture(autouse=True)
def no_data_dirs() -> Iterator[None]:
    """The user's own XDG_DATA_DIRS is not one of these tests' business."""
    saved = os.environ.pop("XDG_DATA_DIRS", None)
    yield
    if saved is not None:
        os.environ["XDG_DATA_DIRS"] = saved


def test_defaults_are_those_of_the_reference() -> None:
    assert options() == Options()


@pytest.mark.parametrize(("words", "wanted"), [
    (("--driver-root=/d", "--dev-root", "/"), Options(driver_root="/d", dev_root="/")),
    (("--driver-root=",), Options()),
    (("--nvidia-ctk-path=/x",), Options(hook_path="/x")),
    (("--device-name-strategy=type-index",), Options(strategies=(Strategy.TYPE_INDEX,))),
    (("--device-name-strategy=uuid, index",), Options(strategies=(Strategy.UUID, Strategy.INDEX))),
    (("--device-id=0", "--device-ids=1:0"), Options(device_ids=("0", "1:0"))),
    (("--device-id=none",), Options(device_ids=("none",), all_device=False)),
    (("--vendor=a", "--class=b"), Options(vendor="a", kind_class="b")),
    (("--library-search-path=/a:/b", "--library-search-path=/c"), Options(library_search_paths=("/a", "/b", "/c"))),
    (("--config-search-path=/a",), Options(config_search_paths=("/a",))),
    (("--disable-hook=all", "--enable-hook=chmod"), Options(disabled_hooks=frozenset({"all"}),
                                                            enabled_hooks=frozenset({"chmod"}))),
    (("--no-all-device",), Options(all_device=False)),
    (("--ldconfig-path=/sbin/ldconfig",), Options(ldconfig_path="/sbin/ldconfig")),
    (("--compat=nvidia-ctk", "--disable-hook=of-tomorrow"), Options(
        strict=False, disabled_hooks=frozenset({"of-tomorrow"}))),
    (("--reference-release=1.19.1",), Options(release=RELEASE_1_19)),
    (("--reference-release=v1.18.1",), Options(release=RELEASE_1_18)),
    (("--reference-release=1.20",), Options(release=CURRENT)),
    (("--keep-going",), Options(keep_going=True)),
    (("--hook-style=combined",), Options(hook_style=HookStyle.COMBINED)),
    (("--hook-style=separate", "--compat=nvidia-ctk"), Options(hook_style=HookStyle.SEPARATE, strict=False)),
    (("--feature-flag=disable-ipc-discoverer,no-additional-gids-for-device-nodes,enable-explicit-driver-libraries",),
     Options(sockets=False, node_gids=False, explicit_libraries=True)),
], ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_flags(words: tuple[str, ...], wanted: Options) -> None:
    assert options(*words) == wanted


def test_data_directories_come_from_the_environment() -> None:
    os.environ["XDG_DATA_DIRS"] = "/a:/b"
    try:
        assert options().data_dirs == ("/a", "/b")
    finally:
        del os.environ["XDG_DATA_DIRS"]


def test_every_mistake_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(["--device-name-strategy=uuid,uuid,serial", "--disable-hook=chmo", "--enable-hook=all",
                       "--feature-flag=x", "--reference-release=2"])
    assert status == 2
    error = capsys.readouterr().err
    for part in ("--reference-release 2:", "--device-name-strategy serial:", "uuid is given twice",
                 "--disable-hook chmo:", "--enable-hook all:", "--feature-flag x:", "E_CDI_USAGE"):
        assert part in error


def test_roots_are_absolute(capsys: pytest.CaptureFixture[str]) -> None:
    """A relative one would stand in the document, where nobody knows relative to what."""
    assert cli.main(["--driver-root=d", "--dev-root=e", "--ldconfig-path=f"]) == 2
    error = capsys.readouterr().err
    for flag in ("--driver-root d", "--dev-root e", "--ldconfig-path f"):
        assert f"{flag}: must be an absolute path" in error


def test_a_root_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([f"--root={tmp_path}/none"]) == 1
    assert f"--root {tmp_path}/none is not a directory (E_CDI_DRIVER_ROOT)" in capsys.readouterr().err


def test_the_reference_has_no_combined_hook(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--compat=nvidia-ctk", "--hook-style=combined"]) == 2
    assert "--hook-style combined: the reference has no such hook" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--no-such-flag"], ["--mode=csv"], ["--format=toml"], ["--driver"]])
def test_a_wrong_command_line_exits_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2


def test_help_has_examples_and_every_flag_of_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        entry.main(["guest-cdi", "generate", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for flag in ("--output", "--format", "--driver-root", "--dev-root", "--nvidia-cdi-hook-path",
                 "--device-name-strategy", "--device-id", "--vendor", "--class", "--library-search-path",
                 "--disable-hook", "--no-all-device", "examples:"):
        assert flag in text


def test_dispatch(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["guest-cdi", "--help"]) == 0
    assert "generate" in capsys.readouterr().out
    assert entry.main(["guest-cdi"]) == 2
    assert entry.main([]) == 2
    assert entry.main(["guest-cdi", "generat"]) == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["validate", "--help"], ["inject", "--help"]])
def test_other_commands_are_reached(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        entry.main(["guest-cdi", *words])
    assert caught.value.code == 0
    assert words[0] in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.parametrize("words", [["guest-cdi", "hook", "--help"], ["/usr/bin/nvidia-cdi-hook", "--help"],
                                   ["nvidia-ctk", "hook", "--help"]])
def test_the_program_is_also_its_hooks(words: list[str]) -> None:
    code = f"import sys; sys.argv = {words!r}; from guest_cdi.__main__ import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          stdin=subprocess.DEVNULL)
    assert "create-symlinks" in done.stdout


def test_an_exception_that_nobody_expected_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["guest-cdi", "generate", 5]) == 1  # type: ignore[list-item]
    error = capsys.readouterr().err
    assert error.startswith("guest-cdi: error: TypeError at argparse.py:")
    assert "(E_CDI_INTERNAL): report it" in error
    assert entry.describe_internal(ValueError("x")).startswith("ValueError at unknown place: x")


# On a tree

ONE_GPU = 'gpu 0 name="NVIDIA H100" uuid=GPU-3f6c1a52-8e1d-4b0a-9c57-2d1f0b7e6a10 minor=0 bus=00000000:41:00.0'


class Stage:
    """The monolith of tests/roots as a real tree, an NVML that describes its GPU, and a place for the document."""

    def __init__(self, folder: Path, describe: Describe) -> None:
        self.root = load("monolith").build(folder / "root", nodes=os.geteuid() == 0)
        self.mock = describe(f"driver 595.58.03\n{ONE_GPU}")
        self.output = folder / "cdi" / "nvidia.yaml"

    def run(self, *words: str, output: str | None = None) -> int:
        return cli.main([f"--root={self.root}", f"--nvml-library={self.mock.library}",
                         f"--output={self.output if output is None else output}", *words])


@pytest.fixture
def stage(tmp_path: Path, nvml_mock: Describe) -> Stage:
    return Stage(tmp_path, nvml_mock)


@needs_root
def test_publishes_the_golden_document(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    assert stage.run() == 0
    assert stage.output.read_text() == (ROOTS / "monolith" / "expected.yaml").read_text()
    assert stat.S_IMODE(stage.output.stat().st_mode) == 0o644
    report = capsys.readouterr().err
    assert "CDI 0.5.0, driver 595.58.03, 3 devices" in report
    assert "nvidia-imex" in report
    assert "GPU-" not in report


@needs_root
@pytest.mark.parametrize("name", ["", "/"])
def test_a_directory_is_no_place_for_a_document(stage: Stage, tmp_path: Path, name: str,
                                                capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    assert stage.run(output=f"{tmp_path}/there{name}") == 1
    assert "is a directory (E_CDI_PUBLISH)" in capsys.readouterr().err
    assert os.listdir(tmp_path / "there") == []
    assert not (tmp_path / "there.yaml").exists()


OUTPUTS = {"full": ("exec > /dev/full", "No space left on device"), "closed": ("exec >&-", "standard output is closed"),
           "no reader": ("exec > >(:); sleep 0.05", "Broken pipe")}


@pytest.mark.long
@needs_root
@pytest.mark.parametrize(("shell", "said"), OUTPUTS.values(), ids=OUTPUTS)
def test_output_that_nobody_takes_is_a_failure_in_one_line(stage: Stage, shell: str, said: str) -> None:
    words = f"{sys.executable} -m guest_cdi generate --root={stage.root} --nvml-library={stage.mock.library} --quiet"
    done = subprocess.run(["bash", "-c", f"{shell}; exec {words}"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert said in done.stderr and "(E_CDI_PUBLISH)" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.long
def test_what_is_printed_last_is_taken_or_missed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    command = [sys.executable, "-m", "guest_cdi"]
    for words, status in ((["--help"], 1), (["validate", str(tmp_path / "a.json")], 1)):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([*command, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
        assert done.returncode == status
        assert "Exception ignored" not in done.stderr


@needs_root
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
                                  lambda path: os.mknod(path, stat.S_IFSOCK)], ids=["FIFO", "node", "socket"])
def test_what_only_looks_like_a_library_is_named_and_not_waited_for(
        stage: Stage, make: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    make(str(stage.root / "lib/x86_64-linux-gnu/libextra.so.595.58.03"))
    assert stage.run() == 1
    error = capsys.readouterr().err
    assert "libextra.so.595.58.03: it " in error and "(E_CDI_LIBRARY)" in error


@needs_root
def test_a_message_is_one_line_whatever_a_file_is_called(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    (stage.root / "lib/x86_64-linux-gnu/lib\n\x1b[2J.so.595.58.03").write_text("")
    assert stage.run() == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "lib\\n\\x1b[2J.so" in error


@pytest.mark.long
@needs_root
def test_generators_at_once_and_killed_leave_one_whole_document(stage: Stage) -> None:
    """Whoever is last wins; nothing else in the directory is a document to its readers."""
    words = [sys.executable, "-m", "guest_cdi", "generate", f"--root={stage.root}", "--quiet",
             f"--nvml-library={stage.mock.library}", f"--output={stage.output}"]
    running = [subprocess.Popen(words) for _ in range(4)]
    wanted = (ROOTS / "monolith" / "expected.yaml").read_text()
    while not stage.output.exists():
        assert any(process.poll() is None for process in running)
    running[-1].kill()
    assert stage.output.read_text() == wanted
    assert sorted(process.wait() for process in running)[1:] == [0, 0, 0]
    assert stage.output.read_text() == wanted
    assert [name for name in os.listdir(stage.output.parent) if not name.endswith(".tmp")] == ["nvidia.yaml"]


@needs_root
def test_a_published_document_passes_validate_and_inject(stage: Stage, tmp_path: Path) -> None:
    assert stage.run("--quiet") == 0
    assert entry.main(["guest-cdi", "validate", str(stage.output)]) == 0
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text("{}")
    assert entry.main(["guest-cdi", "inject", "--bundle", str(bundle), "--spec", str(stage.output),
                       "--root", str(stage.root), "nvidia.com/gpu=0"]) == 0
    config = json.loads((bundle / "config.json").read_text())
    assert "/dev/nvidia0" in [device["path"] for device in config["linux"]["devices"]]


@needs_root
def test_nvml_is_found_in_the_tree(stage: Stage) -> None:
    """Without --nvml-library it is the driver's own, here replaced by the stand-in."""
    library = stage.root / "lib/x86_64-linux-gnu/libnvidia-ml.so.595.58.03"
    library.write_bytes(Path(stage.mock.library).read_bytes())
    (library.parent / "nvml-mock.conf").write_text(f"driver 595.58.03\n{ONE_GPU}\n")
    assert cli.main([f"--root={stage.root}", f"--output={stage.output}", "--quiet"]) == 0
    assert "GPU-3f6c1a52" in stage.output.read_text()


@pytest.mark.parametrize(("place", "words", "strict", "lenient"), [
    ("/driver/usr/lib64", ["--driver-root=/driver"], True, True),
    ("/opt/lib", ["--library-search-path=/opt/lib"], True, True),
    ("/usr/lib64", ["--library-search-path=/opt/lib"], True, True),
    ("/usr/lib64", ["--driver-root=/driver"], False, True),
    ("/elsewhere", [], False, False),
])
def test_where_nvml_is_found(place: str, words: list[str], strict: bool, lenient: bool, tmp_path: Path) -> None:
    (tmp_path / "driver").mkdir()
    library = tmp_path / place.lstrip("/") / "libnvidia-ml.so.1"
    library.parent.mkdir(parents=True)
    library.write_text("")
    host = LinuxHost(str(tmp_path))
    for found, more in ((strict, []), (lenient, ["--compat=nvidia-ctk"])):
        if found:
            assert locate_nvml(host, options(*words, *more), str(tmp_path)) == str(library)
        else:
            with pytest.raises(CdiError, match=r"libnvidia-ml\.so\.1 is in none of"):
                locate_nvml(host, options(*words, *more), str(tmp_path))


def test_a_driver_root_that_is_not_there_is_told_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([f"--root={tmp_path}", "--driver-root=/driver"]) == 1
    assert "/driver: No such file or directory (E_CDI_DRIVER_ROOT)" in capsys.readouterr().err


def test_without_nvml_the_searched_directories_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "driver").mkdir()
    assert cli.main([f"--root={tmp_path}", "--driver-root=/driver"]) == 1
    error = capsys.readouterr().err
    assert "E_CDI_NVML_LIBRARY" in error
    assert "/driver/usr/lib64" in error


@needs_root
def test_standard_output_and_json(stage: Stage, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert stage.run("--format=json", "--json", output="") == 0
    out, err = capfdbinary.readouterr()
    assert json.loads(out)["kind"] == "nvidia.com/gpu"
    report = json.loads(err)
    assert report["devices"] == 3
    assert report["skipped"] == []
    assert "nvidia-imex" in report["missing"]


FORMATS = {
    "x.json": ([], "x.json", "{"),
    "x.yml": ([], "x.yml", "-"),
    "x": ([], "x.yaml", "-"),
    "x.conf": (["--format=json"], "x.conf.json", "{"),
}


@needs_root
@pytest.mark.parametrize("name", FORMATS)
def test_the_format_follows_the_name(name: str, stage: Stage, tmp_path: Path) -> None:
    words, made, first = FORMATS[name]
    assert stage.run(*words, output=str(tmp_path / "out" / name)) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [made]
    text = (tmp_path / "out" / made).read_text()
    assert text[0] == first
    assert yaml.safe_load(text)["cdiVersion"] == "0.5.0"


@needs_root
@pytest.mark.parametrize(("name", "flag", "first"), [("x.yaml", "json", "-"), ("x.json", "yaml", "{")])
def test_a_format_that_readers_would_not_expect_is_not_written(name: str, flag: str, first: str, stage: Stage,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    target = stage.output.parent / name
    assert stage.run(f"--format={flag}", output=str(target)) == 0
    assert target.read_text()[0] == first
    assert f"--format {flag} is ignored" in capsys.readouterr().err


def test_a_failure_is_one_line_with_its_code(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.mock.describe("driver 580.1\n" + ONE_GPU)
    assert stage.run() == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "(E_CDI_DRIVER_MISMATCH): " in lines[0]
    assert stage.run("--json") == 1
    assert json.loads(capsys.readouterr().err)["code"] == "E_CDI_DRIVER_MISMATCH"


class Forgetful:
    """A machine whose GPU node goes away after it was looked at once."""

    def __init__(self, host: DescribedHost) -> None:
        self._host = host
        self._looked = False
        self.stat, self.resolve, self.read_link = host.stat, host.resolve, host.read_link
        self.scan, self.open = host.scan, host.open

    def lstat(self, path: str) -> FileInfo:
        if path == "/dev/nvidia0":
            if self._looked:
                raise FileNotFoundError(2, "No such file or directory", path)
            self._looked = True
        return self._host.lstat(path)


def test_what_could_not_be_injected_is_not_published(tmp_path: Path) -> None:
    machine = load("monolith")
    host = machine.host(tmp_path)
    assert len(cli.describe(host, machine.nvml(), Options()).spec.devices) == 3
    assert len(cli.describe(Forgetful(host), machine.nvml(), Options(strict=False)).spec.devices) == 3
    with pytest.raises(CdiError, match=r"/dev/nvidia0: No such file") as caught:
        cli.describe(Forgetful(host), machine.nvml(), Options())
    assert caught.value.code == "E_CDI_INJECT"


@needs_root
def test_keep_going_is_reported(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.mock.describe(f"driver 595.58.03\n{ONE_GPU}\ngpu 1 minor=7 bus=00000000:42:00.0 uuid=GPU-x")
    assert stage.run() == 1
    assert "GPU 1 (GPU-x) has no character device /dev/nvidia7" in capsys.readouterr().err
    assert stage.run("--keep-going") == 0
    assert "left out GPU 1 (GPU-x): " in capsys.readouterr().err
    assert stage.run("--keep-going", "--json") == 0
    told = json.loads(capsys.readouterr().err)
    assert [entry["code"] for entry in told["skipped"]] == ["E_CDI_GPU_NODE"]
    assert (told["schema"], list(unset(told))) == (1, [])


@pytest.mark.long
@needs_root
def test_nvml_that_fails_at_any_of_its_calls(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """Each call that a good run makes fails once: a code, its call named, and the old document untouched."""
    split = (f"driver 595.58.03\n{ONE_GPU}\ngpu 1 minor=0 mig=on bus=00000000:42:00.0 uuid=GPU-y\n"
             "mig gpu=1 gi=1 ci=0 profile=3g.40gb uuid=MIG-z")
    minors = stage.root / "proc/driver/nvidia-caps/mig-minors"
    minors.parent.mkdir()
    minors.write_text("gpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\n")
    (stage.root / "dev/nvidia-caps").mkdir()
    for number in (12, 13):
        os.mknod(stage.root / f"dev/nvidia-caps/nvidia-cap{number}", stat.S_IFCHR | 0o444, os.makedev(237, number))
    stage.mock.describe(split)
    assert stage.run("--quiet") == 0
    good = stage.output.read_bytes()
    functions = dict.fromkeys(stage.mock.names())
    assert len(functions) > 10
    for function in functions:
        stage.mock.describe(f"{split}\nfail {function} 999")
        status = stage.run("--quiet")
        error = capsys.readouterr().err
        if function == "nvmlShutdown":
            assert status == 0
            continue
        assert (status, stage.output.read_bytes()) == (1, good), function
        assert "E_CDI_NVML" in error or "E_CDI_GPU" in error, function
        assert "999" in error, function
        assert os.listdir(stage.output.parent) == ["nvidia.yaml"]


@needs_root
def test_a_full_disk_leaves_the_old_document(stage: Stage, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert stage.run(output=str(blocked / "nvidia.yaml")) == 1
    assert "E_CDI_PUBLISH" in capsys.readouterr().err
