# SPDX-License-Identifier: Apache-2.0
"""The hooks as a program: environment, exit status, messages."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from guest_cdi.hooks import main as hooks
from guest_cdi.hooks.arguments import HOOKS, STATE
from guest_cdi.hooks.refusals import explain

pytestmark = pytest.mark.usefixtures("process_state")


def run(tree: Path, *argv: str) -> int:
    return hooks.main(list(argv), io.BytesIO(json.dumps({"root": str(tree)}).encode()))


def test_the_environment_is_gone_and_the_mask_is_set(tmp_path: Path) -> None:
    os.environ["LD_PRELOAD"] = "/evil.so"
    assert run(tmp_path, "create-symlinks", "--link", "t::/a/l") == 0
    assert dict(os.environ) == {}
    assert ((tmp_path / "a").stat().st_mode & 0o777) == 0o755


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["help"], ["chmod", "--help"], ["--debug", "help"]])
def test_help_has_examples(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert hooks.main(argv, io.BytesIO()) == 0
    assert "examples:\n  guest-cdi hook create-symlinks --link" in capsys.readouterr().out


def test_usage_errors_come_before_the_state_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert hooks.main(["chmod"], None) == 2  # type: ignore[arg-type]
    assert capsys.readouterr().err.startswith("guest-cdi hook: chmod: --mode '' is not an octal number")


def test_a_broken_state_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert hooks.main(["update-application-profile"], io.BytesIO(b"")) == 1
    assert "(E_CDI_HOOK_STATE)" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "variable", "expected"), [
    ([], None, ""), (["--quiet"], "true", ""), ([], "false", ""),
    ([], "true", "guest-cdi hook chmod: / mode 711\n"), (["-d"], None, "guest-cdi hook chmod: / mode 711\n"),
])
def test_debug_says_what_was_done(tmp_path: Path, flags: list[str], variable: str | None, expected: str,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    if variable:
        os.environ["NVIDIA_CTK_DEBUG"] = variable
    assert run(tmp_path, *flags, "chmod", "--mode=711", "--path=/") == 0
    assert capsys.readouterr().err == expected


def test_later_hooks_run_after_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dir").mkdir()
    assert run(tmp_path, "run", "create-symlinks", "--link", "t::/dir", "--", "create-symlinks", "--link", "t::/l",
               "--", "update-ldcache", "--ldconfig-path", "/no/ldconfig") == 1
    assert os.readlink(tmp_path / "l") == "t"
    err = capsys.readouterr().err
    assert "guest-cdi hook create-symlinks: /dir: Is a directory (E_CDI_HOOK): " in err
    assert "update-ldcache: /no/ldconfig cannot be used: No such file or directory (E_CDI_HOOK_LDCONFIG): put" in err


@pytest.mark.parametrize(("err", "code", "what"), [
    (OSError(38, "Function not implemented", "/etc"), "E_CDI_HOOK_KERNEL", "/etc: Function not implemented"),
    (OSError(40, "Too many levels of symbolic links", "/etc"), "E_CDI_HOOK_ROOT", "/etc: Too many levels"),
    (OSError(18, "Invalid cross-device link", "/etc"), "E_CDI_HOOK_ROOT", "/etc: Invalid"),
    (OSError(30, "Read-only file system", "/l"), "E_CDI_HOOK", "/l: Read-only"),
    (OSError(28, "No space left on device"), "E_CDI_HOOK", "No space left"),
])
def test_refusals_have_codes(err: OSError, code: str, what: str) -> None:
    found = explain(err)
    assert found.code == code
    assert what in found.what
    assert found.hint


HEAVY = {"argparse", "dataclasses", "inspect", "subprocess", "pathlib", "logging", "yaml", "pynvml", "ast", "socket"}


def test_what_a_hook_imports() -> None:
    code = ("import io, sys; sys.path.insert(0, sys.argv[1]); from guest_cdi.hooks import main as hooks;"
            "hooks.main(['create-symlinks'], io.BytesIO(b'{\"root\":\"/proc\"}')); print(*sys.modules)")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, TOP], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())
    assert "guest_cdi.hooks.symlinks" in done.stdout.split()


TOP = str(Path(hooks.__file__).parents[2])
START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from guest_cdi.hooks.main import run_and_exit; run_and_exit(sys.argv[1:])"


def start(*argv: str, state: str = "", stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-I", "-S", "-c", START, TOP, *argv], input=state, stdout=stdout, text=True,
                          stderr=subprocess.PIPE, check=False, timeout=60)


@pytest.mark.long
def test_as_a_process(tmp_path: Path) -> None:
    assert start("--help").stdout.startswith("usage: guest-cdi hook NAME")
    assert start("chmod").returncode == 2
    done = start("--debug", "create-symlinks", "--link=t::/l", state=json.dumps({"root": str(tmp_path)}))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "guest-cdi hook create-symlinks: /l -> t\n")


def test_output_that_nobody_takes_is_a_failure() -> None:
    with open("/dev/full", "wb") as full:
        assert start("--help", stdout=full.fileno()).returncode == 1


def test_the_page_has_every_hook_and_option() -> None:
    page = (Path(TOP) / "docs/guest-cdi-hooks.md").read_text()
    for hook in HOOKS:
        assert f"| `{hook.name}` |" in page
        for option in (*hook.options, STATE):
            assert f"`--{option.name} {option.value}`" in page
