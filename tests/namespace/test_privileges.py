# SPDX-License-Identifier: Apache-2.0
"""Each row of the table of privileges, on real processes: what an attacker inside tries, and what /proc says of it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from namespace.guest import NAMESPACES, REPOSITORY
from nvrc.machine.confine import CAPABILITIES
from nvrc.machine.privileges import (
    DOCUMENTS,
    FABRIC_MANAGER,
    HOST_ENGINE,
    LAST_WORDS,
    METRICS,
    PERSISTENCED,
    PRIVILEGES,
    WORKER,
)
from nvrc.machine.rights import Calls, Privileges
from nvrc.vocabulary import paths

pytestmark = [
    pytest.mark.namespace,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces: needs root"),
]
HERE = Path(__file__).parent
FOLDERS = ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr/bin", "var/log", "var/cache")
# What a row may do although others may not, with the reason.
ALLOWED = {
    # That is what it is for, and no foreign code runs in it.
    DOCUMENTS.name: {"document"},
    # Our own code, which must find the agent's root; it never runs foreign code.
    LAST_WORDS.name: {"containers", "report", "document", "disk", "console", "see-others", "init-status", "daemon-status", "container-status",
                      "init-root", "daemon-root", "container-root", "container-memory", "container-maps", "init-maps",
                      "daemon-maps", "preload", "agent-program", "core-pattern", "sysrq", "cgroup", "init-memory",
                      "daemon-memory", "init-signal", "daemon-signal", "container-signal", "signal-by-owner", "sysfs", "kcore",
                      "init-command", "daemon-command", "container-command", "new-process", "init-limits", "daemon-limits", "container-limits", "memory-types", "page-flags", "etc", "new-cgroup",
                      "daemon-group-signal", "container-group-signal", "init-pidfd-signal", "init-thread-signal",
                      *(f"init-{name}" for name in ("environ", "auxv", "fd", "fdinfo/0", "exe", "cwd", "pagemap", "pages", "syscall", "stack",
                                                    "ns/mnt", "io", "smaps", "timers", "map_files", "patch_state", "robust-list"))},
}
# All that there is of these it sees, as PID 1 does.
ALLOWED_KINDS = {LAST_WORDS.name: ("sysctl-", "sysfs-", "device-")}


AS_ROOT = {"nvidia-persistenced as root": PERSISTENCED, "nvrc-metrics as root": METRICS}
# It starts a process of its own and ends that by a signal, so it may send some, and those of one user reach another.
SIGNALS = {"daemon-signal", "daemon-group-signal", "container-signal", "init-thread-signal", "init-pidfd-signal"}
# What there is to see of a process of the same user: that it has descriptors, what it waits for.
SEEN = {"init-fd", "init-map_files", "init-syscall", "init-stack", "init-io"}


def promised(row: Privileges) -> set[str]:
    """What the row itself says that it shows. That others exist and what they use, never what is in them."""
    view = row.view
    if view is None:
        return set()
    others = {"see-others", *(f"{whose}-{what}" for whose in ("init", "daemon", "container") for what in ("status", "command"))} \
        if view.all_processes else set()
    others |= {"new-process"} if row.calls in (Calls.DAEMON, Calls.ALONE) else set()
    return others | ({"report"} if paths.REPORT in view.shown else set())


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, users: Callable[[int], AbstractContextManager[None]]) -> dict[str, dict[str, str]]:
    """Row to what its attacker told."""
    root = tmp_path_factory.mktemp("privileges")
    root.chmod(0o755)
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    (root / "usr/bin/kata-agent").write_text("")
    source, library = (HERE / "attacker.c", HERE / "intruder.c"), root.parent / "attacker.so"
    flags = ["-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "-static", "-o", root / "bin/attacker", *source], check=True)
    subprocess.run(["gcc", *flags, "-shared", "-fPIC", "-DLIBRARY", "-o", library, *source], check=True)
    rest = root.parent / "rest.c"
    rest.write_text("#include <unistd.h>\nint main(void) { sleep(600); return 0; }\n")
    subprocess.run(["gcc", *flags, "-static", "-o", root / "bin/rest", rest], check=True)
    with users(fcntl.LOCK_EX):  # one of the tries is to use up the processes of a user
        done = subprocess.run(["unshare", *NAMESPACES, sys.executable, HERE / "privileges_cell.py", root, library],
                              env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY}/tests"}, capture_output=True,
                              text=True, timeout=120, check=False)
    rows: dict[str, dict[str, str]] = {}
    for line in done.stdout.splitlines():
        word, _, rest_of_line = line.partition(" ")
        if word == "row":
            rows[rest_of_line] = {}
        elif word == "status":
            name, _, value = rest_of_line.partition("\t")
            rows[next(reversed(rows))][f"status {name.strip()}"] = value.strip()
        elif rows:
            rows[next(reversed(rows))][word] = rest_of_line
    assert list(rows) == ["nobody", *(row.name for row in PRIVILEGES), *AS_ROOT], done.stdout + done.stderr
    assert all("end" in row for row in rows.values()), done.stdout + done.stderr
    return rows


def test_the_attacker_can_do_these_things_where_nobody_confines_it(told: dict[str, dict[str, str]]) -> None:
    done = {name for name, how in told["nobody"].items() if how == "done"}
    assert {"init-memory", "init-ptrace", "daemon-memory", "container-root", "mount", "new-namespace", "core-pattern", "preload",
            "containers", "report", "see-others", "signal-by-owner", "daemon-signal", "become-root", "init-processors", "init-scheduler", "init-niceness", "init-io", "follow",
            "uevents", "process-events", "lease", "node-folder", "init-environ", "init-descriptor", "init-namespaces", "low-port", "forged-pid",
            "forged-user", "forged-group", "sysctl-kernel/hostname", "device-fuse", "page-faults", "tree", "freeze", "stop-file-system",
            "entropy", "etc"} <= done  # not every kernel can poison a page


@pytest.mark.parametrize("row", PRIVILEGES, ids=lambda row: row.name)
def test_code_inside_a_program_reaches_nothing_outside(told: dict[str, dict[str, str]], row: Privileges) -> None:
    done = {name for name, how in told[row.name].items()
            if how == "done" and not name.startswith(ALLOWED_KINDS.get(row.name, ("status",)))}
    # The kernel lets it write any pid into its credentials; who reads them goes by the group as well.
    forged = {"forged-pid"} if "CAP_SYS_ADMIN" in row.capabilities else set()
    assert done - forged <= ALLOWED.get(row.name, set()) | promised(row)


@pytest.mark.parametrize("name", AS_ROOT)
def test_one_that_the_driver_wants_to_be_root_reaches_no_more(told: dict[str, dict[str, str]], name: str) -> None:
    row = AS_ROOT[name]
    done = {which for which, how in told[name].items() if how == "done"}
    more = SIGNALS | SEEN if row is METRICS else set()
    assert done <= promised(row) | {"new-process", "processes"} | more


@pytest.mark.parametrize("row", PRIVILEGES, ids=lambda row: row.name)
def test_the_kernel_says_what_the_row_says(told: dict[str, dict[str, str]], row: Privileges) -> None:
    status = {name.removeprefix("status "): value for name, value in told[row.name].items() if name.startswith("status ")}
    mask = f"{sum(1 << CAPABILITIES[name] for name in row.capabilities):016x}"
    assert {name: status[name] for name in ("CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp")} == {
        "CapEff": mask, "CapPrm": mask, "CapBnd": mask, "NoNewPrivs": "1", "Seccomp": "2"}
    assert status["CapAmb"] == (mask if row.account.uid else "0" * 16)
    assert (status["Uid"].split(), status["Gid"].split()) == ([str(row.account.uid)] * 4, [str(row.account.gid)] * 4)
    assert status["Groups"].split() == [str(paths.DEV_LOG_GROUP)]


def test_who_writes_documents_can_and_the_worker_with_the_library_cannot(told: dict[str, dict[str, str]]) -> None:
    assert (told[DOCUMENTS.name]["document"], told[WORKER.name]["document"]) == ("done", "refused")


@pytest.mark.parametrize("row", [PERSISTENCED, FABRIC_MANAGER], ids=lambda row: row.name)
def test_a_link_in_place_of_a_socket_is_handed_to_nobody(told: dict[str, dict[str, str]], row: Privileges) -> None:
    """The daemon can make it, in its own folder; PID 1 takes sockets only, and others see PID 1's folder."""
    found = told[row.name]
    assert found["handed"].endswith("/socket to other programs: what is in its place is not a socket")
    assert "follow" not in found


def test_no_two_rows_share_a_group() -> None:
    groups = [row.account.gid for row in PRIVILEGES]
    assert len(set(groups)) == len(groups)
    assert not {0, paths.DEV_LOG_GROUP} & set(groups)
    assert {row.name for row in (PERSISTENCED, HOST_ENGINE) if row.account.uid == 0} == set()
    assert WORKER.account.uid == 0


def test_a_limit_of_processes_is_only_where_the_kernel_holds_it() -> None:
    """It spares root and whoever has CAP_SYS_ADMIN; that it holds for others the attacker tells."""
    limited = [row for row in PRIVILEGES if row.processes is not None]
    assert limited
    for row in limited:
        assert row.account.uid != 0 and "CAP_SYS_ADMIN" not in row.capabilities, row.name
