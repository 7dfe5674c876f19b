# SPDX-License-Identifier: Apache-2.0
"""One parser under a fuzzer, in a process of its own: `python -m fuzz.drive PARSER --seconds N --work DIR`.

With atheris (libFuzzer) where it is installed, else by mutation that keeps what reaches new lines. atheris watches in two
ways, one after the other: an eighth of the time with all of its probes, which count how often each branch is taken and
what is compared with what, and cost nine tenths of the time; then, from Python 3.12, by the interpreter's own events,
each of which is told once and costs nothing from then on: for an eighth inputs as long as the parser's row says, for the
rest a third of that, of which three to six are tried in the same time. Prints one line of JSON: executions, seconds, inputs
kept, and the file of a finding. Inputs that are new lie in DIR/corpus.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import CodeType, FrameType

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
LARGEST = 4096
PACKAGES = ["nvrc", "guest_cdi", "nvrc_build", "nvrc_lab"]
# Run so often that, watched, they take most of the time; what they answer to foreign bytes has tests of its own.
UNWATCHED = ["nvrc.vocabulary.nearmiss", "guest_cdi.lean.light"]
PROBES, EVENTS, SHORT = WATCHES = ("probes", "events", "short")
SHORTER = 3
# For instructions that are reached for the first time. libFuzzer looks at all of them after each execution: a microsecond.
COUNTERS = 1 << 14
# Objects until Python looks for circles of them. It did so several times for each input.
GARBAGE = 50_000
HAS_EVENTS = sys.version_info >= (3, 12)


def seeds_of(name: str) -> list[Path]:
    folder = CORPUS / name
    return sorted(folder.iterdir()) if folder.is_dir() else []


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz.drive")
    parser.add_argument("parser")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--work", type=Path, help="folder for the corpus, the log and what is found")
    parser.add_argument("--input", type=Path, metavar="FILE", help="try this one input, and show what happens")
    parser.add_argument("--child", choices=WATCHES, help=argparse.SUPPRESS)
    parser.add_argument("--written", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.input is not None:
        from fuzz.parsers import find

        find(args.parser).try_on(args.input.read_bytes())
        return 0
    if args.work is None:
        parser.error("--work or --input is needed")
    kept, found = args.work / "corpus", args.work / "found"
    for folder in (kept, found):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds_of(args.parser):
        (kept / seed.name).write_bytes(seed.read_bytes())
    if args.child:
        _run_libfuzzer(args, kept, found)
    began_s = time.monotonic()
    try:
        import atheris  # noqa: F401
    except ImportError:
        engine, executions = "mutation", mutate(args.parser, kept, found, args.seconds)
    else:
        engine, executions = "atheris", _supervise(args.parser, args.work, args.seconds)
    sys.stdout.write(json.dumps({"parser": args.parser, "engine": engine, "executions": executions,
                      "seconds": round(time.monotonic() - began_s, 1), "kept": len(list(kept.iterdir())),
                      "found": sorted(str(path) for path in found.iterdir())}) + "\n")
    return 1 if any(found.iterdir()) else 0


def _supervise(name: str, work: Path, seconds: int) -> int:
    eighth = max(1, seconds // 8)
    shares = {PROBES: eighth, EVENTS: eighth, SHORT: seconds - 2 * eighth} if HAS_EVENTS else {PROBES: seconds}
    executions = 0
    for watch, share in shares.items():
        if share > 0 and not any((work / "found").iterdir()):
            executions += _run_child(name, work, share, watch)
    return executions


def _run_child(name: str, work: Path, seconds: int, watch: str) -> int:
    """libFuzzer ends its process; what it counted is on its last lines."""
    from fuzz.runs import a_folder

    argv = [sys.executable, "-m", "fuzz.drive", name, "--seconds", str(seconds), "--work", str(work), "--child", watch]
    log = work / f"log-{watch}"
    with log.open("wb") as into, a_folder() as written:
        subprocess.run([*argv, "--written", str(written)], stdin=subprocess.DEVNULL, stdout=into, stderr=subprocess.STDOUT,
                       check=False)
    text = log.read_text(errors="replace")
    counted = [line.rpartition(":")[2] for line in text.splitlines() if "stat::number_of_executed_units" in line]
    return int(counted[-1]) if counted else 0


def _run_libfuzzer(args: argparse.Namespace, kept: Path, found: Path) -> None:
    import atheris

    probed = PACKAGES if args.child == PROBES else []
    with atheris.instrument_imports(include=probed, exclude=UNWATCHED) if probed else contextlib.nullcontext():
        from fuzz.haste import make_haste
        make_haste(args.written)  # first, as some take a function along as they are imported
        from fuzz.parsers import find
        parser = find(args.parser)
        run = parser.try_on
        with contextlib.suppress(Exception):
            run(b"")  # what it imports is instrumented, too; an error would be found again
    gc.freeze()
    gc.set_threshold(GARBAGE)
    largest = parser.largest // (SHORTER if args.child == SHORT else 1)
    atheris.Setup(["fuzz", str(kept), f"-max_total_time={args.seconds}", f"-max_len={largest}", f"-artifact_prefix={found}/",
                   "-print_final_stats=1", "-timeout=60", "-report_slow_units=1000", "-rss_limit_mb=2048", "-verbosity=1"], run)
    if args.child != PROBES:
        counters = [atheris._reserve_counter() for _ in range(COUNTERS)]

        def tell(counter: int) -> None:
            atheris._trace_branch(counter)  # by its name, as it is another function once it fuzzes

        _tell_first(counters, tell)
    atheris.Fuzz()


def _tell_first(counters: Sequence[int], tell: Callable[[int], None]) -> None:
    """Each instruction of ours that is reached for the first time is new to the fuzzer; it is not watched any longer."""
    if sys.version_info < (3, 12):
        return
    monitoring, free = sys.monitoring, itertools.cycle(counters)
    folders = tuple(f"{HERE.parents[1]}{os.sep}{part}" for part in ("nvrc", "guest_cdi", "build", "qemu-tests"))

    def reached(code: CodeType, _offset: int) -> object:
        if code.co_filename.startswith(folders):
            tell(next(free))
        return monitoring.DISABLE

    monitoring.use_tool_id(monitoring.COVERAGE_ID, "fuzz")
    monitoring.register_callback(monitoring.COVERAGE_ID, monitoring.events.INSTRUCTION, reached)
    monitoring.set_events(monitoring.COVERAGE_ID, monitoring.events.INSTRUCTION)


def mutate(name: str, kept: Path, found: Path, seconds: float) -> int:
    from fuzz.parsers import find

    return mutate_for(find(name).try_on, kept, found, seconds)


def mutate_for(run: Callable[[bytes], None], kept: Path, found: Path, seconds: float,
               packages: Sequence[str] = PACKAGES) -> int:
    """Without a fuzzer: change a kept input, keep the change when it reaches a line that none has reached."""
    chance, reached = random.Random(0), set[tuple[str, int]]()
    inputs = [path.read_bytes() for path in sorted(kept.iterdir())] or [b""]
    executions, until_s = 0, time.monotonic() + seconds
    while time.monotonic() < until_s:
        data = inputs[executions] if executions < len(inputs) else change(chance, inputs)
        executions += 1
        try:
            lines = traced(run, data, packages)
        except Exception:
            (found / f"crash-{executions}").write_bytes(data)
            (found.parent / "log").write_text(traceback.format_exc())
            break
        if lines - reached:
            reached |= lines
            inputs.append(data)
            (kept / f"kept-{len(inputs)}").write_bytes(data)
    return executions


def change(chance: random.Random, inputs: list[bytes]) -> bytes:
    data, other = bytearray(chance.choice(inputs)), chance.choice(inputs)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(data))
        match chance.randrange(4):
            case 0:
                data[at:at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at:at + chance.randint(1, 8)]
            case 2:
                piece = chance.randint(0, len(other))
                data[at:at] = other[piece:piece + chance.randint(1, 32)]
            case _:
                data[at:at] = data[at:at + chance.randint(1, 8)]
    return bytes(data[:LARGEST])


def traced(run: Callable[[bytes], None], data: bytes, packages: Sequence[str]) -> set[tuple[str, int]]:
    lines: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _arg: object) -> object:
        name = frame.f_code.co_filename
        if not any(f"{os.sep}{package}{os.sep}" in name for package in packages):
            return None
        if event == "line":
            lines.add((name, frame.f_lineno))
        return trace

    before = sys.gettrace()  # that of coverage, where the tests are measured
    sys.settrace(trace)  # type: ignore[arg-type]  # its own type says Any
    try:
        run(data)
    finally:
        sys.settrace(before)
    return lines


if __name__ == "__main__":
    sys.exit(main())
