# SPDX-License-Identifier: Apache-2.0
"""`./dev test`: the tiers of proof in order, each with its time, all of them run, and one line that sums them up.

The QEMU tier runs beside the others: its machines wait for GPUs, deadlines and agents.

A tier that runs no test has failed, and nothing is run a second time. Coverage is measured over the unit, long and
namespace tiers together, when its tier is asked for, since it doubles what they take; processes that they start are
counted when they inherit the environment (coverage's `patch = subprocess`). The QEMU tier is not traced: what runs in
its machines is out of reach.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from nvrc_lab.commands import parts
from nvrc_lab.commands.counts import Count, add_up, read_report
from nvrc_lab.ground.errors import LabError
from nvrc_lab.ground.hosttime import read_load
from nvrc_lab.ground.places import Places, checkout
from nvrc_lab.kit.image import build_image
from nvrc_lab.run.runner import default_workers

COVERAGE_BAR_PERCENT = 95
MOST_WORKERS = 4
MOST_TOLD = 20
OTHER_TIERS = ("namespace", "qemu", "gpu")  # folders of tests
THOROUGH = "--hypothesis-profile=thorough"  # tests/conftest.py has the profiles
PYTHON = sys.executable
ALONE = (PYTHON, "-m", "nvrc_lab.commands.tiers", "--tier")
LINTED = (".", "dev")
TYPED = ("-p", "nvrc", "-p", "guest_cdi", "-p", "nvrc_build", "-p", "nvrc_lab")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    name: str
    about: str
    run: Callable[[Job], Count]
    is_beside: bool = False  # runs beside all others, as it takes as long as they do, and waits for a third of that


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`is_traced`: whether coverage is wanted of this run, and of properties as many examples as they have."""

    places: Places
    is_traced: bool = False


def lint(job: Job) -> Count:
    checks: Mapping[str, Sequence[str]] = {
        "style": (PYTHON, "-m", "ruff", "check", *LINTED),
        "types": (PYTHON, "-m", "mypy", *TYPED),
        # Skipped wherever nothing of others is given, so that nothing else would notice a name that has gone.
        "types of conformance": (PYTHON, "-m", "mypy", "--disable-error-code", "explicit-any", "tests/conformance"),
        "types of ./dev": (PYTHON, "-m", "mypy", "--scripts-are-modules", "dev"),
        "generated documents": (PYTHON, "-m", "nvrc_lab.commands.docs", "--check"),
        "site": (PYTHON, "-m", "nvrc_lab.commands.site"),
        "words of messages": (PYTHON, "-m", "nvrc_lab.commands.words"),
        "commits": (PYTHON, "-m", "nvrc_lab.commands.subjects"),
    }
    failed = [name for name, argv in checks.items() if not _succeeds(argv, job.places.root)]
    return Count(passed=len(checks) - len(failed), failed=len(failed), note=", ".join(failed))


def unit(job: Job) -> Count:
    # They hardly wait, so as many sessions as there are processors.
    names = [name for name in _files(job.places.root) if Path(name).parts[1] not in OTHER_TIERS]
    return _dealt(job, "unit", names, min(os.cpu_count() or 1, MOST_WORKERS))


def long(job: Job) -> Count:
    # They wait for programs and clocks, as those of the namespace tier do.
    names = parts.naming(job.places.root, _files(job.places.root), "mark.long")
    return _dealt(job, "long", names, MOST_WORKERS, "-m", "long")


def namespace(job: Job) -> Count:
    become = () if os.geteuid() == 0 else _sudo()
    # They wait more than they work, each in namespaces of its own.
    return _marked(job, "namespace", MOST_WORKERS, become=become)


def qemu(job: Job) -> Count:
    try:
        build_image()
    except LabError as err:
        return Count(failed=1, note=str(err))
    # The tests of a file share machines, so a file stays with one worker. A machine waits now and then.
    return _marked(replace(job, is_traced=False), "qemu", default_workers(), "--dist", "loadfile")


def coverage(job: Job) -> Count:
    folder, env = _data(job.places), environment(job.places)
    if not any(folder.glob(".coverage.*")):
        return Count(failed=1, note="no tier left any coverage data")
    _succeeds((PYTHON, "-m", "coverage", "combine", "--quiet"), job.places.root, env)
    report = _read((PYTHON, "-m", "coverage", "report"), job.places.root, env)
    total = _read((PYTHON, "-m", "coverage", "report", "--format=total", "--precision=1"), job.places.root, env).strip()
    (job.places.reports / "coverage.txt").write_text(report, encoding="utf-8")
    print(report, end="")
    return judge_coverage(total)


def judge_coverage(total: str) -> Count:
    try:
        percent = float(total)
    except ValueError:
        return Count(failed=1, note=f"coverage gave no figure but {total[:80]!r}")
    note = f"branch coverage of nvrc and guest_cdi {percent:.1f} %, the bar is {COVERAGE_BAR_PERCENT} %"
    good = percent >= COVERAGE_BAR_PERCENT
    return Count(passed=int(good), failed=int(not good), note=note)


TIERS = (
    Tier(name="lint", about="style, strict types, generated documents, site, words of messages, commits", run=lint),
    Tier(name="unit", about="steps and tables against a temporary root", run=unit),
    Tier(name="long", about="what takes a twentieth of a second or more: programs, floods, damage", run=long),
    Tier(name="namespace", about="the real PID 1 in namespaces of its own", run=namespace),
    Tier(name="qemu", about="the lab image under QEMU", run=qemu, is_beside=True),
    Tier(name="coverage", about="branches taken in nvrc and guest_cdi over the tiers above", run=coverage),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dev test", description="Run what must pass, tier by tier.",
                                     epilog="examples: ./dev test; ./dev test --tier unit --tier namespace")
    parser.add_argument("--tier", action="append", choices=[tier.name for tier in TIERS],
                        help="only this one; may be given several times")
    chosen: list[str] | None = parser.parse_args(argv).tier
    places = checkout()
    job = Job(places=places, is_traced=chosen is None or "coverage" in chosen)
    tiers = [tier for tier in TIERS if chosen is None or tier.name in chosen]
    _clear(job, tiers)
    return summarise(run_all(tiers, job))


def run_all(tiers: Sequence[Tier], job: Job, alone: Sequence[str] = ALONE) -> list[tuple[Tier, Count, float]]:
    beside = next((tier for tier in tiers if tier.is_beside and len(tiers) > 1), None)
    if beside is None:
        return [_run(tier, job) for tier in tiers]
    reports, argv = job.places.reports, (*alone, beside.name)
    print(f"\n== {beside.name}: beside the others, and told at the end", flush=True)
    started = time.monotonic()
    with ((reports / f"{beside.name}.txt").open("w+", encoding="utf-8") as output, ThreadPoolExecutor(1) as pool,
          subprocess.Popen(argv, cwd=job.places.root, stdin=subprocess.DEVNULL, stdout=output,
                           stderr=subprocess.STDOUT) as child):
        ended = pool.submit(_await_end, child.pid)
        results = [_run(tier, job) for tier in tiers if tier is not beside]
        seconds = ended.result() - started
        count = read_report(reports / f"{beside.name}.xml", is_good=child.wait() == 0)
        output.seek(0)
        print(output.read(), end="", flush=True)
    return sorted([*results, (beside, count, seconds)], key=lambda result: tiers.index(result[0]))


def _await_end(pid: int) -> float:
    """Without taking it away: what it used would be counted for whatever tier is then running."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return time.monotonic()


def summarise(results: Sequence[tuple[Tier, Count, float]]) -> int:
    print("\n" + "\n".join(f"{'ok  ' if not count.failed else 'FAIL'}  {tier.name:<10} {seconds:7.1f} s  {count}"
                           f"{f'  ({count.note})' if count.note else ''}" for tier, count, seconds in results))
    total = add_up([count for _, count, _ in results])
    if total.culprits:  # a log is often kept by its end alone
        print("\n".join(f"failed: {line}" for line in total.culprits[:MOST_TOLD]))
    print(total, flush=True)
    return 1 if total.failed else 0


def _run(tier: Tier, job: Job) -> tuple[Tier, Count, float]:
    print(f"\n== {tier.name}: {tier.about}", flush=True)
    started, before_s = time.monotonic(), _processor_s()
    count = tier.run(job)
    seconds = time.monotonic() - started
    print(f"== {tier.name}: {count} in {seconds:.1f} s, {_processor_s() - before_s:.0f} s of processor time, load "
          f"{read_load():.1f}{f'; {count.note}' if count.note else ''}", flush=True)
    return tier, count, seconds


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _files(root: Path) -> Sequence[str]:
    return [str(path.relative_to(root)) for path in sorted(root.glob("tests/**/test_*.py"))]


def _dealt(job: Job, name: str, names: Sequence[str], count: int, *words: str) -> Count:
    """In sessions side by side, each with some of the files: workers would each collect all of them."""
    root, times = job.places.root, job.places.cache / f"{name}-seconds.json"
    # Those that look at all modules are of one session: it takes a second and a half to parse them.
    together = parts.naming(root, names, "fakes.sources")
    shares = parts.deal(parts.weigh(root, names, times), count, together)
    reports = [job.places.reports / f"{name}-{number}.xml" for number in range(1, len(shares) + 1)]
    env = environment(job.places)
    with contextlib.ExitStack() as stack:
        told = [stack.enter_context(report.with_suffix(".txt").open("w+", encoding="utf-8")) for report in reports]
        calls = [_argv(job, report, (*words, *share)) for report, share in zip(reports, shares, strict=True)]
        sessions = [stack.enter_context(subprocess.Popen(argv, cwd=root, env=env, stdin=subprocess.DEVNULL,
                                                         stdout=output, stderr=subprocess.STDOUT))
                    for argv, output in zip(calls, told, strict=True)]
        counts = []
        for session, report, output in zip(sessions, reports, told, strict=True):
            counts.append(read_report(report, is_good=session.wait() == 0))
            output.seek(0)
            print(output.read(), end="", flush=True)
    if not any(count.failed for count in counts):
        parts.remember(reports, times)
    return add_up(counts)


def _marked(job: Job, name: str, workers: int, *words: str, become: Sequence[str] = ()) -> Count:
    """Tests with a mark, by workers that read the files that have it: each collects all that it is given."""
    root, report, env = job.places.root, job.places.reports / f"{name}.xml", environment(job.places)
    files = parts.naming(root, _files(root), f"mark.{name}")
    argv = _argv(job, report, ("-m", name, "-n", str(workers), *words, *files))
    if become:
        argv = [*become, "env", f"COVERAGE_FILE={env['COVERAGE_FILE']}", *argv]
    good = _succeeds(argv, job.places.root, env)
    return read_report(report, is_good=good)


def _argv(job: Job, report: Path, words: Sequence[str]) -> list[str]:
    traced = ("coverage", "run", "--parallel-mode", "-m") if job.is_traced else ()
    return [PYTHON, "-m", *traced, "pytest", "-q", "-o", f"cache_dir={job.places.cache / 'pytest'}",
            f"--junitxml={report}", *((THOROUGH,) if job.is_traced else ()), *words]


def _sudo() -> Sequence[str]:
    """Nothing, when there is no sudo: the tests that need root then say so."""
    return ("sudo",) if shutil.which("sudo") else ()


def _data(places: Places) -> Path:
    return places.reports / "coverage"


def _clear(job: Job, tiers: Sequence[Tier]) -> None:
    """What these tiers are going to write."""
    data, reports = _data(job.places), job.places.reports
    data.mkdir(parents=True, exist_ok=True)
    for path in (*(data.glob(".coverage*") if job.is_traced else ()),
                 *(path for tier in tiers for path in reports.glob(f"{tier.name}*.xml"))):
        path.unlink()


def environment(places: Places, given: Mapping[str, str] = os.environ) -> Mapping[str, str]:
    """pytest rewrites 250 modules, which takes 6 s of a processor each time unless it may keep them."""
    return {**{name: value for name, value in given.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "PYTHONPYCACHEPREFIX": str(places.cache / "pycache"), "COVERAGE_FILE": str(_data(places) / ".coverage")}


def _succeeds(argv: Sequence[str], root: Path, env: Mapping[str, str] | None = None) -> bool:
    sys.stdout.flush()
    return subprocess.run(argv, cwd=root, env=env, stdin=subprocess.DEVNULL, check=False).returncode == 0


def _read(argv: Sequence[str], root: Path, env: Mapping[str, str]) -> str:
    return subprocess.run(argv, cwd=root, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                          check=False).stdout


if __name__ == "__main__":
    sys.exit(main())
