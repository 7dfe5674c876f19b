# SPDX-License-Identifier: Apache-2.0
"""The worker, forked for real: answers, errors, crashes, silence."""

from __future__ import annotations

import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fakes.cases import Case
from fakes.system import FakeSystem
from guest_cdi.lean.errors import CODES as CDI_CODES
from nvrc.machine.linux_system import LinuxSystem
from nvrc.nvml.worker import Request, Value, Worker, _unwrap, answer, serve, start_worker
from nvrc.vocabulary.console import verdict_fatal
from nvrc.vocabulary.errors import CODES, NvrcError
from nvrc.vocabulary.transcript import parse_line
from nvrc.vocabulary.trouble import Trouble

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def echo(given: Mapping[str, Value]) -> Value:
    return given


def refuse(_given: Mapping[str, Value]) -> Value:
    raise NvrcError("E_MOUNT", "no", "do")


def cdi(_given: Mapping[str, Value]) -> Value:
    raise NvrcError("E_CDI_LIBCUDA", "libcuda is missing", "add it")


def foreign(_given: Mapping[str, Value]) -> Value:
    raise NvrcError("E_CDI_NONSENSE", "what", "hint")


def hang(_given: Mapping[str, Value]) -> Value:
    time.sleep(60)
    return None


def crash(_given: Mapping[str, Value]) -> Value:
    os.kill(os.getpid(), signal.SIGSEGV)
    return None


def garbage(_given: Mapping[str, Value]) -> Value:
    os.write(3, b"nothing\n")
    return None


def long(_given: Mapping[str, Value]) -> Value:
    return "x" * (5 << 20)


def take_back(_given: Mapping[str, Value]) -> Value:
    """Pieces of an answer, each of which is taken back if nobody was quicker."""
    mine = os.open("/proc/self/fd/3", os.O_RDONLY | os.O_NONBLOCK)
    while True:
        os.write(3, b"x")
        try:
            os.read(mine, 1)
        except BlockingIOError:
            pass


REQUESTS: Mapping[str, Request] = {
    "echo": echo, "cdi": cdi, "foreign": foreign, "refuse": refuse, "hang": hang, "crash": crash, "garbage": garbage, "long": long, "take_back": take_back,
    "error": lambda _given: 1 // 0, "exit": lambda _given: os._exit(3), "print": lambda _given: os.write(1, b"printed\n"),
}

Start = Callable[[], Worker]
PATIENCE_S = 60  # where an answer comes: a busy machine takes its time


@pytest.fixture
def worker() -> Iterator[Worker]:
    subject = start_worker(LinuxSystem(), lambda: REQUESTS)
    subject.reaper_s = 0  # nobody reaps here
    yield subject
    subject.stop()
    try:
        os.kill(subject.pid, signal.SIGKILL)
        os.waitpid(subject.pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_it_answers_request_after_request(worker: Worker) -> None:
    assert worker.ask("echo", 5, a=1, b=["x", None, 2.5]) == {"a": 1, "b": ["x", None, 2.5]}
    assert worker.ask("echo", PATIENCE_S) == {}


def test_a_refused_request_carries_its_code_and_the_worker_lives(worker: Worker) -> None:
    with pytest.raises(NvrcError) as caught:
        worker.ask("refuse", PATIENCE_S)
    assert (caught.value.code, caught.value.what, caught.value.hint) == ("E_MOUNT", "no", "do")
    assert worker.ask("echo", PATIENCE_S) == {}


@pytest.mark.parametrize("name", ["error", "unknown"])
def test_an_unforeseen_error_is_internal(worker: Worker, name: str) -> None:
    with pytest.raises(NvrcError, match=name) as caught:
        worker.ask(name, PATIENCE_S)
    assert caught.value.code == "E_INTERNAL"


def test_a_hang_ends_at_the_deadline_and_takes_the_worker_with_it(worker: Worker) -> None:
    with pytest.raises(NvrcError, match=r"no answer to 'hang' .* within 0.05 s") as caught:
        worker.ask("hang", 0.05)
    assert caught.value.code == "E_NVML_HANG"
    assert os.WTERMSIG(os.waitpid(worker.pid, 0)[1]) == signal.SIGKILL


def test_what_was_there_to_read_and_was_taken_back_is_not_waited_for(worker: Worker) -> None:
    """PID 1's loop reads when it is told that there is something. It read without a limit, for as long as the worker liked."""
    assert not os.get_blocking(worker.answers)
    assert worker.begin("hang")
    assert worker.take() is None
    worker.abandon()


@pytest.mark.long
def test_an_answer_that_is_taken_back_all_the_time_is_a_hang(worker: Worker) -> None:
    with pytest.raises(NvrcError, match=r"no answer to 'take_back' .* within 0.3 s"):
        worker.ask("take_back", 0.3)


@pytest.mark.parametrize("name", ["crash", "exit"])
def test_a_crash_is_a_failed_request(worker: Worker, name: str) -> None:
    with pytest.raises(NvrcError, match=f"ended during '{name}'") as caught:
        worker.ask(name, PATIENCE_S)
    assert caught.value.code == "E_NVML_CRASH"
    with pytest.raises(NvrcError):
        worker.ask("echo", PATIENCE_S)


def leave_unread() -> Mapping[str, Request]:
    select.select([0], [], [])
    os._exit(3)


def test_an_end_before_the_question_is_read_is_a_crash_as_well() -> None:
    subject = start_worker(LinuxSystem(), leave_unread)
    subject.reaper_s = 0
    with pytest.raises(NvrcError, match="ended during 'echo'") as caught:
        subject.ask("echo", 30)
    assert caught.value.code == "E_NVML_CRASH"
    os.waitpid(subject.pid, 0)


def test_the_reaper_is_waited_for_to_tell_how_it_died(worker: Worker) -> None:
    worker.reaper_s = 30
    reaper = threading.Thread(target=lambda: worker.ended(*os.waitpid(worker.pid, 0)))
    reaper.start()
    with pytest.raises(NvrcError, match=r"ended during 'exit' with status 3 "):
        worker.ask("exit", PATIENCE_S)
    reaper.join()


def test_how_it_died_is_told_when_it_is_known() -> None:
    subject = Worker(LinuxSystem(), -1, -1, 1 << 22)
    subject.ended(subject.pid, int(signal.SIGSEGV))
    with pytest.raises(NvrcError, match="killed by SIGSEGV"):
        subject.ask("echo", 1)


@pytest.mark.long
@pytest.mark.parametrize(("name", "code"), [("garbage", "E_NVML_CRASH"), ("long", "E_NVML_HANG")])
def test_answers_that_are_none(worker: Worker, name: str, code: str) -> None:
    with pytest.raises(NvrcError) as caught:
        worker.ask(name, PATIENCE_S)
    assert caught.value.code == code


def test_an_unknown_code_from_the_worker_is_not_passed_on() -> None:
    def strange(_given: Mapping[str, Value]) -> Value:
        error = NvrcError("E_MOUNT", "what")
        error.code = "E_NONSENSE"
        raise error

    assert b"E_NONSENSE" in answer(b'{"ask": "x", "given": {}}', {"x": strange})


def test_a_code_of_the_cdi_document_is_passed_on(worker: Worker) -> None:
    with pytest.raises(NvrcError) as caught:
        worker.ask("cdi", PATIENCE_S)
    assert (caught.value.code, caught.value.hint) == ("E_CDI_LIBCUDA", "add it")
    with pytest.raises(NvrcError) as caught:
        worker.ask("foreign", PATIENCE_S)
    assert caught.value.code == "E_INTERNAL"


def test_threads_take_turns(worker: Worker) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: worker.ask("echo", 20, number=number), range(64)))
    assert answers == [{"number": number} for number in range(64)]


@pytest.mark.long
@pytest.mark.parametrize("times", [1, 3])
def test_it_gets_ready_when_it_is_woken_and_not_before(tmp_path: Path, times: int) -> None:
    """So that a daemon which the boot waits for has the processor meanwhile. To be woken is no question."""
    def requests() -> Mapping[str, Request]:
        (tmp_path / "ready").touch()
        return REQUESTS

    system = LinuxSystem()
    worker = start_worker(system, requests)
    time.sleep(0.1)
    assert not (tmp_path / "ready").exists()
    woken_s = system.now()
    for _ in range(times):
        worker.wake()
    until = woken_s + 10
    while not (tmp_path / "ready").exists() and system.now() < until:
        time.sleep(0.01)
    assert (tmp_path / "ready").exists()
    assert worker.ask("echo", 5, a=1) == {"a": 1}
    assert worker.warmed is not None and worker.warmed[0] >= woken_s
    worker.stop()
    os.waitpid(worker.pid, 0)
    worker.wake()  # finds nobody, and says nothing


def test_it_ends_when_nobody_asks_any_more(worker: Worker) -> None:
    worker.stop()
    os.waitpid(worker.pid, 0)


def stay(_given: Mapping[str, Value]) -> Value:
    """As one that was taken over: it answers, and is deaf to the end of the conversation."""
    os.write(3, b'{"ok": "good"}\n')
    time.sleep(600)
    return None


def test_one_that_would_stay_ends_as_well() -> None:
    subject = start_worker(LinuxSystem(), lambda: {"stay": stay})
    assert subject.ask("stay", PATIENCE_S) == "good"
    subject.stop()
    limit = time.monotonic() + PATIENCE_S
    while not (found := os.waitpid(subject.pid, os.WNOHANG))[0] and time.monotonic() < limit:
        time.sleep(0.01)
    if not found[0]:
        os.kill(subject.pid, signal.SIGKILL)
        os.waitpid(subject.pid, 0)
    assert os.WTERMSIG(found[1]) == signal.SIGKILL


def test_one_that_was_reaped_has_no_pid_to_be_killed_by(tmp_path: Path) -> None:
    system = FakeSystem(str(tmp_path))
    subject = Worker(system, *os.pipe(), 4711)
    subject.ended(4711, 0)
    subject.stop()
    assert system.effects == []


def test_serving_in_this_process() -> None:
    hearing, questions = os.pipe()
    answers, answering = os.pipe()
    os.write(questions, b'{"ask": "echo", "given": {"a": 1}}\n')
    os.close(questions)
    serve(hearing, answering, REQUESTS, (1.0, 2.5))
    reply = json.loads(os.read(answers, 200))
    for descriptor in (hearing, answers, answering):
        os.close(descriptor)
    assert (reply["ok"], reply["warmed"]) == ({"a": 1}, [1.0, 2.5])
    assert 0 <= reply["cpu_s"] < 1


@pytest.mark.parametrize(("reply", "waited_s", "warmed"), [
    ({"ok": 1, "cpu_s": 0.25, "warmed": [1.5, 2.0]}, 1.75, (1.5, 2.0)),
    ({"ok": 1, "cpu_s": 9.0, "warmed": None}, 0.0, None),
    ({"ok": 1, "cpu_s": "many", "warmed": ["a", 1.0]}, 2.0, None),
    ({"ok": 1}, 2.0, None),
], ids=["honest", "more-than-it-took", "nonsense", "silent"])
def test_what_a_worker_says_of_its_time_is_taken_as_far_as_it_makes_sense(
        reply: Mapping[str, Value], waited_s: float, warmed: tuple[float, float] | None) -> None:
    worker = Worker(LinuxSystem(), -1, -1, -1)
    worker._account(reply, 2.0)
    assert (worker.system.waits.take(), worker.warmed) == (waited_s, warmed)
    assert worker.system.waits.take() == 0.0


def test_an_answer_with_any_code_and_no_advice_is_told_in_words() -> None:
    for row in (*CODES, *CDI_CODES):
        with Case(row.code):
            with pytest.raises(NvrcError) as caught:
                _unwrap({"code": row.code, "what": "it broke", "hint": ""})
            found = caught.value.trouble
            assert (found.code, found.what, found.hint) == (row.code, "it broke", row.remedy)
            told = parse_line(verdict_fatal(found))
            assert isinstance(told, Trouble) and (told.code, told.what, told.hint) == (row.code, "it broke", row.remedy)
