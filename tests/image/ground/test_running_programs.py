# SPDX-License-Identifier: Apache-2.0
"""The one door to programs, and the sandbox behind it (the latter as root, in namespaces of its own)."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nvrc_build.ground.errors import BuildError
from nvrc_build.ground.run import clean_env, find, run
from nvrc_build.sandbox.sandbox import MOUNT_POINTS, sandbox_argv


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-c", code]


def test_output_is_returned_and_nothing_of_the_callers_environment_is_seen() -> None:
    assert run(python("import os; print(sorted(os.environ))")).strip() == str(sorted(clean_env()))


def test_a_failure_carries_the_command_and_its_last_words() -> None:
    with pytest.raises(BuildError) as caught:
        run(python("import sys; print('a b'); sys.exit('why')"), what="the step")
    assert caught.value.what == "the step failed with status 1"
    assert caught.value.hint.startswith(f"run: {sys.executable} -I -c 'import sys;")
    assert caught.value.findings == ("a b", "why")


@pytest.mark.long
def test_a_program_that_prints_without_an_end_is_ended() -> None:
    code = "import os\nwhile True: os.write(2, b'block 7: no room\\n' * 4096)"
    with pytest.raises(BuildError, match="the step prints more than 64 MiB; give it files that are not damaged"):
        run(python(code), what="the step")


def test_a_file_that_grows_behind_its_limit_is_told_as_that() -> None:
    code = "import os, signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGXFSZ)"
    with pytest.raises(BuildError, match="the step was to write a file larger than any that an image may have"):
        run(python(code), what="the step")


@pytest.mark.long
@pytest.mark.parametrize("said", [(), ("version 1",)], ids=["nothing", "its version"])
def test_a_program_that_fails_only_in_words_has_failed(said: tuple[str, ...]) -> None:
    code = "import sys; print('done'); [print(line, file=sys.stderr) for line in {}]"
    assert run(python(code.format(said)), most_errors=len(said)) == "done\n"
    with pytest.raises(BuildError, match="failed with status 0") as caught:
        run(python(code.format((*said, "no room"))), most_errors=len(said))
    assert caught.value.findings[-1] == "no room"


def test_who_watches_a_program_ends_it() -> None:
    def watch() -> None:
        raise BuildError("enough")

    with pytest.raises(BuildError, match="enough"):
        run(python("import signal; signal.pause()"), watch=watch)


@pytest.mark.long
def test_a_program_that_hangs_is_ended_with_its_children() -> None:
    code = "import os, signal; print(os.fork() and os.getpid(), flush=True); signal.pause()"
    with pytest.raises(BuildError, match="did not end within"):
        run(python(code), timeout_s=0.3)


@pytest.mark.long
def test_what_a_program_has_started_is_over_too_when_it_is_ended(tmp_path: Path) -> None:
    """dpkg-deb dies at once; the tar below it would write into a folder that is being removed."""
    code = (f"import os, signal, time\n"
            f"def finish(*_):\n    time.sleep(0.4)\n    open({str(tmp_path / 'late')!r}, 'w')\n    os._exit(0)\n"
            f"if not os.fork():\n    signal.signal(signal.SIGTERM, finish)\nsignal.pause()")
    with pytest.raises(BuildError, match="did not end within"):
        run(python(code), timeout_s=0.5)
    assert (tmp_path / "late").exists()


@pytest.mark.long
def test_an_interrupt_while_a_program_starts_ends_that_too(tmp_path: Path) -> None:
    """It comes from the program itself, in its first moment: most often before the caller knows its number."""
    started, late = tmp_path / "started", tmp_path / "late"
    script = f"trap '' TERM; kill -INT $PPID; echo >{started}; sleep 0.3; echo >>{late}"
    code = (f"from nvrc_build.ground.run import run\n"
            f"for _ in range(8):\n"
            f"    try: run(['dash', '-c', {script!r}])\n"
            f"    except KeyboardInterrupt: print('ended', len(open({str(late)!r}).readlines()))")
    done = subprocess.run(["env", "--default-signal=INT", sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"ended {count}" for count in range(1, 9)], done.stderr
    assert started.exists()


def test_a_missing_program_names_its_package() -> None:
    with pytest.raises(BuildError, match=r"'no-such-program' is not installed; install the package pkg"):
        find("no-such-program", "pkg")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root that borrows this machine's /usr."""
    folder = tmp_path / "root"
    for name in (*MOUNT_POINTS, "usr", "etc"):
        (folder / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (folder / name).symlink_to(f"usr/{name}")
    (tmp_path / "out").mkdir()
    return folder


def inside(root: Path, script: str) -> list[str]:
    return sandbox_argv(root, ["/usr/bin/dash", "-c", script], env=clean_env(), read_only={"/usr": Path("/usr")},
                        writable={"/out": root.parent / "out"})


@pytest.mark.namespace
def test_inside_only_out_and_tmp_can_be_written_and_there_is_no_network(root: Path) -> None:
    script = ("for p in / /etc /usr /out /tmp /dev/shm; do (: >$p/x) 2>/dev/null && echo $p; done;"
              "cut -d: -f1 /proc/net/dev | tail -n +3; echo $$")
    assert run(inside(root, script)).split() == ["/out", "/tmp", "lo", "2"]
    assert [path.name for path in (root.parent / "out").iterdir()] == ["x"]
    assert list((root / "etc").iterdir()) == []


@pytest.mark.namespace
@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("/nonexistent", 127)])
def test_how_a_program_ended_is_passed_on(root: Path, script: str, status: int) -> None:
    with pytest.raises(BuildError, match=f"failed with status {status}"):
        run(inside(root, script))


@pytest.mark.namespace
def test_a_program_inside_is_ended_where_it_writes_too_large_a_file(root: Path) -> None:
    """As the first process of its namespace it was told of a full disk instead, and could end well."""
    argv = sandbox_argv(root, ["/usr/bin/dash", "-c", "head -c 1000000 /dev/zero >/out/x; echo $? >/out/status"], env=clean_env(),
                        read_only={"/usr": Path("/usr")}, writable={"/out": root.parent / "out"}, largest_file=1 << 16)
    run(argv)
    assert (root.parent / "out/status").read_text() == f"{128 + signal.SIGXFSZ}\n"
    assert (root.parent / "out/x").stat().st_size == 1 << 16


@pytest.mark.namespace
def test_killing_the_sandbox_leaves_no_process_and_no_mount(root: Path) -> None:
    with subprocess.Popen(inside(root, "echo $$ >/out/started; echo up; read x </out/fifo"), stdout=subprocess.PIPE,
                          text=True, env=clean_env(), start_new_session=True) as child:
        os.mkfifo(root.parent / "out/fifo")
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        inner, = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        handle = os.pidfd_open(int(inner))
        child.kill()
        child.wait()
    # A pidfd becomes readable when its process is gone.
    assert select.select([handle], [], [], 5)[0] == [handle]
    os.close(handle)
    assert str(root) not in Path("/proc/self/mountinfo").read_text()
