# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal

import pytest

from nvrc.pid1.supervise import Supervisor, is_deaf_to
from nvrc.vocabulary.ending import Ending, Orderly
from nvrc.vocabulary.signals import signal_name
from nvrc.vocabulary.trouble import Trouble

AGENT = 50


def exited(status: int) -> int:
    return status << 8


def code_of(ending: Ending) -> str:
    """What has failed is told with advice."""
    assert isinstance(ending, Orderly) or (ending.hint and ending.step == "supervise")
    return "OK" if isinstance(ending, Orderly) else ending.code


def supervisor(*, own_pid_namespace: bool = True) -> Supervisor:
    return Supervisor(agent_pid=AGENT, own_pid_namespace=own_pid_namespace, started_s=10.0)


@pytest.mark.parametrize(("namespace", "status", "code", "what"), [
    pytest.param(True, int(signal.SIGINT), "OK", "powered off", id="power-off-in-namespace"),
    pytest.param(True, int(signal.SIGHUP), "OK", "restart", id="restart-in-namespace"),
    pytest.param(True, exited(0), "E_AGENT_EXIT", "exited with status 0 2.5 s after its start", id="exit-0-in-namespace"),
    pytest.param(True, exited(3), "E_AGENT_EXIT", "exited with status 3", id="exit-3"),
    pytest.param(True, int(signal.SIGSEGV) | 0x80, "E_AGENT_EXIT", "killed by SIGSEGV (core dumped)", id="crash"),
    pytest.param(True, int(signal.SIGKILL), "E_AGENT_EXIT", "killed by SIGKILL", id="kill"),
    pytest.param(False, exited(0), "OK", "exited with status 0", id="exit-0-ordinary-child"),
    pytest.param(False, int(signal.SIGINT), "E_AGENT_EXIT", "killed by SIGINT", id="sigint-ordinary-child"),
    pytest.param(False, int(signal.SIGHUP), "E_AGENT_EXIT", "killed by SIGHUP", id="sighup-ordinary-child"),
    pytest.param(False, exited(3), "E_AGENT_EXIT", "exited with status 3", id="exit-3-ordinary-child"),
])
def test_how_the_agent_can_end(namespace: bool, status: int, code: str, what: str) -> None:
    subject = supervisor(own_pid_namespace=namespace)
    subject.child_ended(AGENT, status, 12.5)
    assert subject.ending is not None
    assert code_of(subject.ending) == code
    assert what in subject.ending.what


def test_orphans_are_counted_and_end_nothing() -> None:
    subject = supervisor()
    for pid in range(100, 110):
        subject.child_ended(pid, 0, 11.0)
    assert (subject.orphans_reaped, subject.ending) == (10, None)


def test_only_the_first_end_counts() -> None:
    subject = supervisor()
    subject.child_ended(AGENT, exited(1), 11.0)
    subject.child_ended(AGENT, exited(2), 12.0)
    assert subject.ending is not None
    assert "status 1" in subject.ending.what


def test_a_stop_is_passed_on_once_and_ends_in_order() -> None:
    subject = supervisor()
    assert subject.stop_requested(signal.SIGTERM) is True
    assert subject.stop_requested(signal.SIGINT) is False
    subject.child_ended(AGENT, int(signal.SIGTERM), 12.0)
    assert subject.ending is not None
    assert isinstance(subject.ending, Orderly)
    assert subject.ending.what == "stopped by SIGTERM to PID 1; the agent was killed by SIGTERM"


def test_an_agent_that_ignores_the_request_is_killed_and_named() -> None:
    subject = supervisor()
    subject.stop_requested(signal.SIGTERM)
    assert subject.stop_overdue() is True
    subject.child_ended(AGENT, int(signal.SIGKILL), 22.0)
    assert isinstance(subject.ending, Trouble)
    assert subject.ending.code == "E_AGENT_STOP"
    assert subject.ending.what == "the agent ignored the request to stop (SIGTERM to PID 1) and was killed"


def test_an_agent_that_was_killed_is_not_blamed_for_an_error_it_had() -> None:
    subject = supervisor()
    subject.stop_requested(signal.SIGTERM)
    subject.stop_overdue()
    subject.child_ended(AGENT, int(signal.SIGKILL), 22.0, complaint="an error")
    assert isinstance(subject.ending, Trouble)
    assert subject.ending.what == "the agent ignored the request to stop (SIGTERM to PID 1) and was killed"


def test_who_asked_to_stop_waits_for_the_end() -> None:
    subject = supervisor()
    assert not subject.is_stopping
    subject.stop_requested(signal.SIGTERM)
    assert subject.is_stopping


def test_an_agent_that_has_ended_is_not_asked_to_stop() -> None:
    subject = supervisor()
    subject.child_ended(AGENT, exited(1), 11.0)
    assert subject.stop_requested(signal.SIGTERM) is False


@pytest.mark.parametrize(("status", "complaint", "code", "what", "hint"), [
    pytest.param(exited(1), "no such address", "E_AGENT_EXIT", "after its start; its last error: no such address", "last lines", id="exit"),
    pytest.param(int(signal.SIGINT), "no such address", "E_AGENT_EXIT", "; its last error: no such address", "agent.log=debug", id="power-off"),
    pytest.param(int(signal.SIGABRT), "Failed to initialize agent policy: No such file", "E_AGENT_EXIT", "SIGABRT", "nvrc-image", id="known"),
    pytest.param(exited(1), "cgroup: Unknown subsys name 'cpuset'", "E_CGROUP", "cpuset", "cgroup_no_v1=all", id="known-with-a-code"),
    pytest.param(exited(1), "", "E_AGENT_EXIT", "2.5 s after its start", "last lines", id="silent"),
])
def test_an_agent_that_gave_up_is_quoted(status: int, complaint: str, code: str, what: str, hint: str) -> None:
    subject = supervisor()
    subject.child_ended(AGENT, status, 12.5, had_sandbox=False, complaint=complaint)
    assert isinstance(subject.ending, Trouble)
    assert subject.ending.code == code
    assert what in subject.ending.what
    assert hint in subject.ending.hint
    assert ("its last error" in subject.ending.what) is bool(complaint)


def test_an_agent_that_was_asked_to_stop_is_not_blamed_for_an_error_it_had() -> None:
    subject = supervisor()
    subject.stop_requested(signal.SIGTERM)
    subject.child_ended(AGENT, exited(0), 12.0, had_sandbox=False, complaint="an error")
    assert subject.ending is not None
    assert "an error" not in subject.ending.what


def test_an_agent_that_powers_off_before_there_was_a_sandbox_has_failed() -> None:
    """kata-agent 4.1.0 with agent.server_addr=nonsense: not a word, then reboot(2)."""
    subject = supervisor()
    subject.child_ended(AGENT, int(signal.SIGINT), 11.5, had_sandbox=False)
    assert isinstance(subject.ending, Trouble)
    assert subject.ending.code == "E_AGENT_EXIT"
    assert subject.ending.what == "the agent powered off 1.5 s after its start, without ever having had a sandbox"
    assert subject.ending.hint.startswith("it gave up: check the agent.* parameters")


def test_an_agent_that_survives_the_kill_is_given_up() -> None:
    subject = supervisor()
    subject.stop_requested(signal.SIGTERM)
    subject.stop_overdue()
    subject.give_up()
    assert subject.ending is not None
    assert subject.ending.what == "the agent did not end after SIGKILL"


def test_timers_of_a_stop_do_nothing_once_the_agent_has_ended() -> None:
    subject = supervisor()
    subject.stop_requested(signal.SIGTERM)
    subject.child_ended(AGENT, exited(0), 12.0)
    before = subject.ending
    assert subject.stop_overdue() is False
    subject.give_up()
    assert subject.ending is before
    assert supervisor().stop_requested(signal.SIGTERM) is True


@pytest.mark.parametrize(("masks", "expected"), [
    pytest.param({}, True, id="left-to-the-default"),
    pytest.param({"SigCgt": 1 << 14}, False, id="handled"),
    pytest.param({"SigIgn": 1 << 14}, False, id="ignored-on-purpose"),
    pytest.param({"SigBlk": 1 << 14}, False, id="blocked-and-waited-for"),
    pytest.param({"SigCgt": 1 << 16}, True, id="another-signal"),
])
def test_who_does_not_get_sigterm(masks: dict[str, int], expected: bool) -> None:
    status = "Name:\tkata-agent\n" + "".join(
        f"{name}:\t{masks.get(name, 0):016x}\n" for name in ("SigPnd", "SigBlk", "SigIgn", "SigCgt"))
    assert is_deaf_to(signal.SIGTERM, status.encode()) is expected


def test_one_that_is_gone_is_not_said_to_be_deaf() -> None:
    assert not is_deaf_to(signal.SIGTERM, b"")


def test_a_status_without_masks_tells_nothing() -> None:
    assert not is_deaf_to(signal.SIGTERM, b"Name:\tkata-agent\n")


def test_signals_without_a_name_have_their_number() -> None:
    assert signal_name(33) == "signal 33"
