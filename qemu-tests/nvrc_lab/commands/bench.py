# SPDX-License-Identifier: Apache-2.0
"""`nvrc-lab bench`: boot scenarios again and again and tell how long what took, alone or beside another init.

One machine at a time, inits in turn, so that all of them meet the same host. Under emulation figures are for
comparison within one run of the bench; they say nothing about a processor. The modules that the agent needs are built
into Kata's kernel and not into a distribution's: `--modules` has the init load them, or puts them into the kernel
beforehand, and each row says which. Other inits never load them, so that is where they are compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nvrc.vocabulary.output import write_document
from nvrc.vocabulary.terminal import UNLIMITED, lay_table, width_of, write_text
from nvrc_lab.ground.errors import LabError

if TYPE_CHECKING:
    from nvrc_lab.kit.image import BootFiles
    from nvrc_lab.run.compose import Foreign
    from nvrc_lab.run.runner import Lab, Result
    from nvrc_lab.scenario.values import Scenario
    from nvrc_lab.watch.figures import Row, Spread

SUMMARY = "measure boots: times, memory, sizes; beside another init with --vs"
EXAMPLES = """\
examples:
  nvrc-lab bench                                the default scenarios, three runs each
  nvrc-lab bench gpu-8 --runs 10 --svg b.svg    one scenario, and a picture
  nvrc-lab bench --accel counted                instructions instead of time, whatever else the host does
  nvrc-lab bench cpu --modules both             with the agent's modules loaded by the init, and in the kernel before
  nvrc-lab bench --vs ./NVRC                    the same machines with another /init, in turn
  nvrc-lab bench --vs ./NVRC --vs ./NVRC-5ms    and with what a patch would make of it
  nvrc-lab bench --vs ./NVRC --vs-file /usr/bin/nvidia-ctk=./nvidia-ctk    which starts a real program of its own
"""
DEFAULT = ("cpu", "gpu-1", "gpu-8", "gpu-8-nvswitch")
OURS, EARLY = "nvrc", "nvrc-early"
# What lock_modules.py may load for the agent where the kernel has it as a module, in the order of loading.
BUILT_IN = ("overlay", "failover", "net_failover", "virtio_net", "vsock", "vmw_vsock_virtio_transport_common",
            "vmw_vsock_virtio_transport")
OTHERS = "other inits"
WHO_LOADS: Mapping[str, str] = {
    OURS: "it loads the modules that the agent needs on this machine, as with a distribution's kernel",
    EARLY: "these modules are in the kernel beforehand, as with Kata's",
    OTHERS: "these modules are in the kernel beforehand; they load none",
}
# The hand that reads PID 1's figures once the agent runs, from outside the agent's namespaces.
EVENTS = ("wait /run/lab-agent 60000", "cat /proc/1/stat", "grep /proc/1/status VmRSS", "grep /proc/1/status RssAnon")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("scenarios", nargs="*", metavar="SCENARIO", help=f"names or files (default: {', '.join(DEFAULT)})")
    add("--runs", type=int, default=3, metavar="N", help="runs of each (default: %(default)s)")
    add("--vs", type=Path, action="append", default=[], metavar="INIT",
        help="an ELF program to run as /init of the same machines; may be given several times")
    add("--modules", choices=("init", "early", "both"),
        help="who loads the modules that the agent needs: the init, or they are in the kernel beforehand "
             "(default: init; with --vs both)")
    add("--vs-file", action="append", default=[], metavar="PATH=FILE", type=read_file_word,
        help="a program that the other init finds at PATH; may be given several times")
    add("--image", type=Path, metavar="DIR", help="a folder with vmlinuz and initrd instead of the lab image")
    add("--accel", choices=("auto", "kvm", "tcg", "counted"), default="auto",
        help="auto tries KVM on a tiny guest first; counted measures instructions, one for a nanosecond")
    add("--svg", type=Path, metavar="FILE", help="write a picture")
    add("--json", action="store_true", help="print the figures as one JSON object")


def run(args: argparse.Namespace) -> int:
    from nvrc_lab.ground.places import checkout  # noqa: PLC0415
    from nvrc_lab.kit.image import BootFiles, build_image, check_agent, check_files  # noqa: PLC0415
    from nvrc_lab.qemu.qemu import find_qemu  # noqa: PLC0415
    from nvrc_lab.run.runner import choose_or_take  # noqa: PLC0415
    from nvrc_lab.scenario.scenario import find_scenario, read_scenario  # noqa: PLC0415

    if args.runs < 1:
        raise LabError(f"--runs {args.runs} is not above zero", "give a positive number")
    for program in [*args.vs, *(file for _, file in args.vs_file)]:
        check_agent(program)
    if args.vs_file and not args.vs:
        raise LabError("--vs-file without --vs", "name the init that starts the program")
    places, qemu = checkout(), find_qemu()
    scenarios = [read_scenario(find_scenario(word, places.scenarios)) for word in args.scenarios or DEFAULT]
    image = build_image() if args.image is None else BootFiles(kernel=args.image / "vmlinuz",
                                                               initrd=args.image / "initrd")
    check_files(image)
    choice = choose_or_take(args.accel, qemu, places)
    early = choose_early(image, args.modules or ("both" if args.vs else "init"), compared=bool(args.vs))
    labs = open_labs(image, [prepare(one) for one in scenarios], early, name_others(args.vs), dict(args.vs_file),
                     choice=choice, places=places, qemu=qemu)
    rows = measure_all(labs, scenarios, args.runs, is_json=args.json)
    sizes = {"image": image.initrd.stat().st_size,
             **{name: path.stat().st_size for name, path in name_others(args.vs).items()}}
    if args.svg is not None:
        from nvrc_lab.commands.chart import draw  # noqa: PLC0415

        args.svg.write_text(draw(rows), encoding="utf-8")
    if args.json:
        write_document(sys.stdout, as_json(rows, sizes, choice.accel.value))
    else:
        write_text(sys.stdout, "\n".join((*tables(rows, sizes, choice.accel.value, width_of(sys.stdout)), "")))
    return 1 if any(row.failed for row in rows) else 0


def prepare(scenario: Scenario) -> Scenario:
    """The same machine with the lab's clocks on, and time for a busy host."""
    return replace(scenario, deadline_s=scenario.deadline_s * 3)


def read_file_word(word: str) -> tuple[str, Path]:
    path, equals, file = word.partition("=")
    if not equals or not path.startswith("/") or not file:
        raise argparse.ArgumentTypeError(f"{word!r} is not /PATH/IN/THE/GUEST=FILE")
    return path, Path(file)


def list_built_in(initrd: Path) -> tuple[str, ...]:
    """Paths in the image of the modules that Kata's kernel has built in; none where no manifest says what is in it."""
    try:
        files = json.loads((initrd.parent / "manifest.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return ()
    found = {path.rpartition("/")[2].removesuffix(".ko"): path for path in (row["path"] for row in files)
             if path.endswith(".ko")}
    return tuple(found[name] for name in BUILT_IN if name in found)


def choose_early(image: BootFiles, choice: str, *, compared: bool) -> dict[str, tuple[str, ...]]:
    """Rows of this init, each with the modules that are in the kernel before it starts."""
    modules = list_built_in(image.initrd)
    if not modules and (compared or choice != "init"):
        raise LabError(f"{image.initrd.parent} has no manifest that names its modules",
                       "give an image of the factory's, or leave --vs and --modules out")
    rows: dict[str, tuple[str, ...]] = {OURS: (), EARLY: modules}
    return rows if choice == "both" else {name: rows[name] for name in ((OURS,) if choice == "init" else (EARLY,))}


def name_others(programs: Sequence[Path]) -> dict[str, Path]:
    """By the name of its file; a second one of that name by its folder as well."""
    found: dict[str, Path] = {}
    for path in programs:
        name = path.name if path.name not in (OURS, EARLY, *found) else f"{path.resolve().parent.name}/{path.name}"
        if name in found:
            raise LabError(f"two programs would be called {name}", "give one of them another name or folder")
        found[name] = path
    return found


def open_labs(image: BootFiles, scenarios: Sequence[Scenario], ours: Mapping[str, tuple[str, ...]],
              others: Mapping[str, Path], files: Mapping[str, Path], **more: object) -> dict[str, Lab]:
    from nvrc_lab.run.compose import Foreign  # noqa: PLC0415
    from nvrc_lab.run.runner import open_lab  # noqa: PLC0415

    inits: dict[str, tuple[Foreign | None, tuple[str, ...]]] = {name: (None, early) for name, early in ours.items()}
    for name, program in others.items():
        inits[name] = Foreign(program=program, files=files), list_built_in(image.initrd)
    return {name: replace(open_lab(more["places"], more["qemu"], image, scenarios,  # type: ignore[arg-type]
                                   choice=more["choice"], foreign=foreign), early=early)  # type: ignore[arg-type]
            for name, (foreign, early) in inits.items()}


def measure_all(labs: dict[str, Lab], scenarios: Sequence[Scenario], runs: int, *, is_json: bool) -> list[Row]:
    from nvrc_lab.ground.scratch import scratch_folder  # noqa: PLC0415
    from nvrc_lab.run.runner import run_scenario  # noqa: PLC0415

    rows = []
    with scratch_folder() as folder:
        for scenario in scenarios:
            results: dict[str, list[Result]] = {name: [] for name in labs}
            for number in range(runs):
                for name, lab in labs.items():
                    console = folder / f"{scenario.name}-{len(results)}-{number}.console"
                    results[name].append(run_scenario(replace(lab, events=EVENTS), prepare(scenario), console))
                    _tell(f"{scenario.name:<24} {name:<16} run {number + 1} of {runs}: "
                          f"{results[name][-1].seconds:.1f} s", is_json=is_json)
            rows += [make_row(scenario.name, name, found) for name, found in results.items()]
    return rows


def make_row(scenario: str, init: str, results: Sequence[Result]) -> Row:
    from nvrc_lab.watch.figures import Row, gather_figures, measure, measure_steps  # noqa: PLC0415

    told = [one.told for one in results if one.told is not None and not one.problems]
    return Row(scenario=scenario, init=init, figures=gather_figures(measure(one) for one in told),
               steps=gather_figures(measure_steps(one.report) for one in told if one.report is not None),
               failed=tuple(problem for one in results for problem in one.problems))


def tables(rows: Sequence[Row], sizes: dict[str, int], accel: str, width: int = UNLIMITED) -> list[str]:
    from nvrc_lab.watch.figures import ABOUT, MEASURES  # noqa: PLC0415

    lines = ["", f"median (lowest–highest), accelerator {accel}"]
    lines += [f"  {name}: {ABOUT[name]}, {unit}" for name, unit in MEASURES.items()]
    kinds = {_kind(row) for row in rows}
    lines += [f"  {name}: {text}" for name, text in WHO_LOADS.items() if name in kinds]
    names = [name for name in MEASURES if any(name in row.figures for row in rows)]
    table = [("scenario", "init", *names)]
    table += [(row.scenario, row.init, *(str(row.figures[name]) if name in row.figures else "–" for name in names))
              for row in rows]
    lines += ["", *lay_table(table, width, has_heads=True)]
    lines += [f"  FAILED: {row.scenario}, {row.init}: {problem}" for row in rows for problem in row.failed]
    lines += compare(rows)
    for row in rows:
        if row.steps:
            lines += ["", f"steps of {row.scenario}, ms"]
            lines += [f"  {name:<14} {spread}" for name, spread in row.steps.items()]
    lines += ["", *(f"size of {name}: {size / 1e6:.1f} MB" for name, size in sizes.items())]
    return lines


def _kind(row: Row) -> str:
    return row.init if row.init in (OURS, EARLY) else OTHERS


def compare(rows: Sequence[Row], name: str = "init_to_agent") -> list[str]:
    """A sentence for each scenario and other init: whose way to the agent is shorter, and by how much."""
    measured = [row for row in rows if name in row.figures]
    ours = {row.scenario: row.figures[name].median for row in measured if row.init == EARLY}
    lines = [_compare_two(row, name, ours[row.scenario], row.figures[name].median) for row in measured
             if _kind(row) == OTHERS and row.scenario in ours]
    return ["", *lines] if lines else []


def _compare_two(other: Row, name: str, ours_ms: float, theirs_ms: float) -> str:
    word = "shorter" if ours_ms <= theirs_ms else "longer"
    return (f"{other.scenario}: {name} of {EARLY} is {abs(theirs_ms - ours_ms):.0f} ms {word} than that of "
            f"{other.init} ({ours_ms:.0f} against {theirs_ms:.0f} ms)")


def as_json(rows: Sequence[Row], sizes: dict[str, int], accel: str) -> dict[str, object]:
    def plain(spreads: Mapping[str, Spread]) -> dict[str, object]:
        return {name: {"median": one.median, "low": one.low, "high": one.high, "runs": one.runs}
                for name, one in spreads.items()}

    return {"accel": accel, "sizes": sizes, "rows": [
        {"scenario": row.scenario, "init": row.init, "modules": "init" if row.init == OURS else "early",
         "failed": list(row.failed), "figures": plain(row.figures), "steps": plain(row.steps)} for row in rows]}


def _tell(text: str, *, is_json: bool) -> None:
    print(text, file=sys.stderr if is_json else sys.stdout, flush=True)
