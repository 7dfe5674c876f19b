# SPDX-License-Identifier: Apache-2.0
"""The agent's output on its way to the console: every byte, in order, and its last complaint in bounded memory."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.full_loop import FullLoop
from fakes.system import FakeSystem, bare_guest
from nvrc.machine.loop import Loop
from nvrc.pid1.agent_output import BACKLOG_BYTES, LINE_BYTES, TOLD_BYTES, AgentOutput, LastWords


def log(message: str, level: str = "ERRO", **more: str) -> bytes:
    return json.dumps({"msg": message, "level": level, "ts": "x", "pid": "1", "source": "agent", **more},
                      separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


PANIC = b"\nthread 'main' panicked at src/agent/src/main.rs:3:5:\ncalled `Option::unwrap()` on a `None` value\nnote: run with `RUST_BACKTRACE=1`\n"


@pytest.mark.parametrize(("data", "expected"), [
    pytest.param(b"", "", id="nothing"),
    pytest.param(b"agent: all is well\n" + log("started", "INFO"), "", id="no-complaint"),
    pytest.param(log("Failed to initialize agent policy: No such file"), "Failed to initialize agent policy: No such file", id="log"),
    pytest.param(log("no") + log("yes", "INFO"), "no", id="older-than-the-last-line"),
    pytest.param(log("first") + log("second"), "second", id="the-last-one"),
    pytest.param(log("cannot", error="EIO"), "cannot: EIO", id="with-its-error"),
    pytest.param(log("cannot: EIO", error="EIO"), "cannot: EIO", id="error-said-already"),
    pytest.param(log("", error="EIO"), "EIO", id="error-alone"),
    pytest.param(log("gone", "CRIT"), "gone", id="critical"),
    pytest.param(log("two\nlines\tand more"), "two lines and more", id="one-line"),
    pytest.param(log("unfinished")[:-1], "unfinished", id="no-end-of-line"),
    pytest.param(log("x").replace(b'"msg"', b'"mes"'), '{"mes":"x","level":"ERRO","ts":"x","pid":"1","source":"agent"}', id="other-keys"),
    pytest.param(b'{"level":"ERRO","msg":7}\n', '{"level":"ERRO","msg":7}', id="other-types"),
    pytest.param(b'{"level":"ERRO",\n', '{"level":"ERRO",', id="no-json"),
    pytest.param(PANIC, "thread 'main' panicked at src/agent/src/main.rs:3:5: called `Option::unwrap()` on a `None` value", id="panic"),
    pytest.param(b"thread 'main' panicked at 'why', src/x.rs:1:2\nnote: x\n", "thread 'main' panicked at 'why', src/x.rs:1:2", id="panic-of-old"),
    pytest.param(PANIC + log("after"), "after", id="after-a-panic"),
    pytest.param(b"thread 'main' panicked at x.rs:1:1:\n", "thread 'main' panicked at x.rs:1:1:", id="panic-without-a-message"),
    pytest.param(b"Error: cannot parse the address\n", "Error: cannot parse the address", id="end-of-main"),
    pytest.param(log("\x1b[2Jforged"), "\x1b[2Jforged", id="control-characters-are-the-consoles-business"),
    pytest.param(b'{"msg":"\xff\xfe","level":"ERRO"}\n', '{"msg":"\ufffd\ufffd","level":"ERRO"}', id="no-utf-8"),
    pytest.param(b'{"level":"ERRO"}' + b"[" * 100_000 + b"\n", '{"level":"ERRO"}' + "[" * 281 + "...", id="deep"),
    pytest.param(log("a" * 5000), "a" * 297 + "...", id="long"),
    pytest.param(log("é" * 400), "é" * 148 + "...", id="long-in-bytes"),
])
def test_the_last_complaint(data: bytes, expected: str) -> None:
    words = LastWords()
    words.hear(data)
    assert words.tell() == expected
    for size in (1, 7, 4096):
        again = LastWords()
        for start in range(0, len(data), size):
            again.hear(data[start:start + size])
        assert again.tell() == expected, f"in pieces of {size}"


def test_no_stream_takes_more_memory_than_two_lines() -> None:
    words, source = LastWords(), random.Random(7)
    for _ in range(300):
        words.hear(source.choice((b"\n", b'{"level":"ERRO"', b"thread 'x' panicked at :", source.randbytes(3000), b"x" * 70_000)))
        assert len(words._line) + len(words._complaint) <= 3 * LINE_BYTES + 1
    assert len(words.tell().encode()) <= TOLD_BYTES


class World:
    """An agent at one end, a console that takes as much as a pipe at the other."""

    def __init__(self, root: str) -> None:
        self.system: FakeSystem = bare_guest(root)
        self.loop = FullLoop(self.system.now)
        source, self.agent = os.pipe2(os.O_NONBLOCK)
        self.console, sink = os.pipe2(os.O_NONBLOCK)
        self.output = AgentOutput(self.system, self.loop, source, sink, flush_s=0.05)

    def shown(self) -> bytes:
        found = b""
        try:
            while data := os.read(self.console, 1 << 16):
                found += data
        except BlockingIOError:
            pass
        return found

    def say(self, data: bytes) -> int:
        """As much of it as the agent gets rid of without waiting."""
        sent = 0
        try:
            while sent < len(data):
                sent += os.write(self.agent, data[sent:sent + 65536])
                self.loop.turn()
        except BlockingIOError:
            pass
        return sent


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(str(tmp_path))
    yield world
    world.loop.close()
    os.close(world.agent)


def test_what_the_agent_says_is_shown_at_once_and_to_the_byte(world: World) -> None:
    data = b"one\ntwo\x00\xff\r\n" + log("x")
    world.say(data)
    assert world.shown() == data
    assert world.output.finish() == "x"


@pytest.mark.long
def test_a_console_that_stands_still_loses_nothing_and_bounds_what_is_kept(world: World) -> None:
    data = b"".join(b"line %d\n" % number for number in range(200_000))
    sent = world.say(data)
    assert BACKLOG_BYTES < sent < 2 * BACKLOG_BYTES, "the agent got rid of more than a console would have taken"
    assert len(world.output._backlog) <= BACKLOG_BYTES + 65536
    shown = world.shown()
    for _ in range(400):
        sent += world.say(data[sent:])
        world.loop.turn()
        shown += world.shown()
    assert sent == len(data)
    assert shown == data


def test_what_root_has_used_up_of_the_loop_costs_nothing(world: World) -> None:
    """The agent was not listened to while the console stood still, and epoll has no room for it when it takes more."""
    data = b"x" * (4 * BACKLOG_BYTES)
    sent, shown = world.say(data), b""
    world.loop.is_full = True
    for _ in range(400):
        sent += world.say(data[sent:])
        world.loop.turn()
        shown += world.shown()
    assert shown == data


def test_words_that_are_still_in_the_pipe_are_shown_and_heard(world: World) -> None:
    os.write(world.agent, log("at the very end"))
    assert world.output.finish() == "at the very end"
    assert world.shown() == log("at the very end")


def test_a_console_that_never_takes_more_does_not_hold_up_the_end(world: World) -> None:
    assert world.say(b"x" * 2_000_000) < 2_000_000
    assert world.output.finish() == ""


def test_a_console_that_is_gone_is_given_up_and_the_agent_goes_on(world: World) -> None:
    os.close(world.console)
    data = log("heard all the same") * 10_000
    assert world.say(data) == len(data)
    assert world.output.finish() == "heard all the same"


def test_nothing_is_read_along_once_there_is_a_sandbox(world: World) -> None:
    world.say(log("before"))
    world.system.put("/run/kata-containers/x")
    world.say(log("said by a container"))
    assert world.output.finish() == ""
    assert world.shown() == log("before") + log("said by a container")


def test_the_end_of_the_output_is_the_end_of_watching(world: World) -> None:
    os.write(world.agent, b"bye\n")
    replacement = os.open("/dev/null", os.O_WRONLY)
    os.dup2(replacement, world.agent)
    os.close(replacement)
    for _ in range(3):
        world.loop.turn()
    assert world.shown() == b"bye\n"
    assert world.output.finish() == ""


def test_a_console_that_is_a_file_takes_everything(tmp_path: Path) -> None:
    system, reading = bare_guest(str(tmp_path)), os.pipe2(os.O_NONBLOCK)
    loop = Loop(system.now)
    sink = os.open(tmp_path / "console", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    output = AgentOutput(system, loop, reading[0], sink)
    os.write(reading[1], log("x"))
    loop.turn()
    assert output.finish() == "x"
    assert (tmp_path / "console").read_bytes() == log("x")
    loop.close()
    os.close(sink)
    os.close(reading[1])
