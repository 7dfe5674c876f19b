# SPDX-License-Identifier: Apache-2.0
"""The pages of docs/ that are tables of the program: written from the rows, compared with them by a test.

`python -m nvrc.pages.reference` writes them below ./docs, `--check` says which are out of date. Off the boot path.
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence

from guest_cdi.lean.coded import FailureCode
from guest_cdi.lean.errors import CODES as CDI_CODES
from nvrc.pages.host_preflight import render_preflight
from nvrc.pages.metrics import render_metrics
from nvrc.pages.privileges import render_privileges
from nvrc.pages.supervision import render_supervision
from nvrc.params.table import PARAMS, Param, Sensitivity
from nvrc.params.values import text
from nvrc.steps.hardening import HARDENING
from nvrc.vocabulary.errors import CODES
from nvrc.vocabulary.needs import NAMES, NEEDS, Need, Sign

_WIDTH = 120
_NOTICE = "<!-- Written by `python -m nvrc.pages.reference`; edit the table in {source} instead. -->"

_RULES = """\
Parameters are words of the kernel command line. A running guest shows what it made of them, with the source of each
value, in `/run/nvrc/boot.json`. Before a VM boots, `nvrc params check` says what it would refuse or ignore:

    $ nvrc params check nvrc.smi.lgc=fast nvrc.smi.src=1
    error    nvrc.smi.lgc: 'fast' is not a whole number of MHz from 1 to 10000
    warning  nvrc.smi.src: unknown, did you mean nvrc.smi.srs?
    1 of 2 findings would end the boot

## Rules

- **Quotes.** Words are split as the kernel splits them: double quotes protect white space, around a whole word or
  around a value, and are dropped there. What stands inside another parameter's quotes is not a parameter. A quote that
  never closes is a warning, and an error when it takes parameters of ours with it.
- **`--`.** The kernel passes what follows it to init. Init is this program, so those words are read like all others.
- **Names** are compared exactly, values that are words without regard to case.
- **No value** (`nvrc.dcgm`) or an **empty** one (`nvrc.dcgm=`) is an error; only `nvrc.log=` means something, off.
- **Booleans** are on, true, 1, yes and off, false, 0, no. Anything else is an error. NVIDIA's init takes it for off, so
  there `nvrc.uvm.persistence.mode=enabled` switches the mode off; here the boot ends and says why.
- **Numbers** are decimal digits within the range of the table.
- **Repeated.** The last one holds. Different values are a warning; different items for one extension image are an
  error.
- **Malformed value of a known name**: the boot ends with `E_PARAMETERS`, and the message lists every mistake.
- **Unknown name** in `nvrc.` or `kata.extension.`, or a name that is one typing mistake away from there: a warning that
  reaches the console at any log level, with the name that was probably meant. All other names belong to the kernel and
  to the agent. In an image without a policy they are left alone; under a policy each ends the boot unless it is among
  the [words](policy.md#words-that-are-not-nvrcs) that the policy allows.
- **Old names** work and are pointed out.
- **`nvrc.strict=on`** turns every warning into an error: such a VM boots only lines for which `check` exits 0.
- **Bytes that are not UTF-8** are kept in parameters of other programs and are not a value of any parameter here.
- **Length.** x86-64 and arm64 kernels keep 2047 bytes. A line that long is a warning, since its end may be lost.
- A **policy** in the image can fix, refuse or bound any of them: see [policy.md](policy.md).

A parameter whose step is not part of the boot (`nvrc plan` lists the steps) is checked like the others and changes
nothing.
"""

_ALSO_READ = """\
## Words of others that are read too

| word | meaning here |
|---|---|
| `cgroup_no_v1=all` | cgroup version 2 is mounted for the agent |
| `systemd.unified_cgroup_hierarchy=1` | the same, as does `true`; other words count as no, as kata-agent reads it |
"""

_SENSITIVITY: Mapping[Sensitivity, str] = {
    Sensitivity.DIAGNOSTIC: "shows more or less",
    Sensitivity.AVAILABILITY: "can end or slow the boot, or a workload",
    Sensitivity.TRUST: "affects what is verified or confidential: fix or bound it by policy",
}


def render_parameters() -> str:
    summary = ((f"[`{row.name}`](#{_anchor(row.name)})", _code(row.kind.form), _default(row), row.step,
                row.sensitivity.value, row.help)
               for row in PARAMS)
    return "\n".join([
        "# Kernel parameters", "", _NOTICE.format(source="nvrc/params/table.py"), "", _RULES,
        "## All of them", "",
        *_table(("name", "value", "default", "read by", "worst case", "what it does"), summary), "",
        "Worst case, set by an attacker:", "",
        *(f"- **{kind.value}**: {meaning}" for kind, meaning in _SENSITIVITY.items()), "",
        _ALSO_READ, "## Old names", "",
        *_table(("old", "now"), ((f"`{old}`", f"`{row.name}`") for row in PARAMS for old in row.aliases)), "",
        "## One by one", "", *(line for row in PARAMS for line in _section(row)),
    ]).rstrip("\n") + "\n"


def render_codes() -> str:
    head = ("code", "step", "what happened", "what to do", "who acts")
    # What guest-cdi says as a program of its own, to its caller or inside a container, is on its own page.
    at_boot = (row._replace(step="cdi") for row in CDI_CODES if row.step in ("any", "generate", "inject"))
    return "\n".join([
        "# Failure codes", "", _NOTICE.format(source="nvrc/vocabulary/errors.py"), "",
        "A boot that fails ends with one line on the console. The code in it is an interface: match on it, never on",
        "the words around it. Codes are not reused.", "",
        *_table(head, map(_code_row, CODES)), "",
        "## The CDI document", "", "The step `cdi` passes on the codes of `guest-cdi`, which makes the document.", "",
        *_table(head, map(_code_row, at_boot)),
    ]) + "\n"


def _code_row(row: FailureCode) -> tuple[str, ...]:
    return f"`{row.code}`", row.step, row.meaning, row.remedy, row.who


_HARDENING = """\
The step `hardening` sets these as soon as `/proc` is mounted, before any program but PID 1 runs, in every machine and
without a parameter. A row that the kernel does not have is passed over and named in the step's line. Where every kernel
has it, or where the kernel refuses the value, the boot ends with `E_HARDENING`. A value *at least* leaves a higher one.

The kernel acts on `sysctl.NAME=VALUE` of its command line before any program runs. What has a row here is set back;
other such words stay, as no program knows what the value was before.

It gives the kernel's audit one rule as well: what programs send it is dropped, where the kernel has audit at all. With
`CAP_AUDIT_WRITE`, which containers have by default, they would write what they like into the kernel's log, line ends
included, and as much as they like; no auditd runs that would take it. Records of the kernel itself stay.

What containers cannot do because of it: dump core, use io_uring, load BPF programs or make user namespaces (Debian's
kernels) without the capability for it, trace processes that are not their own children. kata-agent and NVIDIA's daemons
do none of these except as root.

The step `lock-modules` locks the loading of modules, and then the kernel itself: its lockdown, at `integrity`, where
the kernel has it (Debian's and most distributions' have, Kata's own has not) and `nvrc.lockdown.kernel` is not off.
Without it root of any container reads what a GPU, a NIC or another PCI function has of registers and memory from the
files `resource0` to `resource5` of /sys, as far as the driver has not claimed them for itself, also of a GPU that it
was not given: that takes no capability and no device node. A privileged container could write there, and to ports and
model-specific registers. Drivers of the kernel are not affected, and modules are in by then, signed or not.
"""


def render_hardening() -> str:
    return "\n".join([
        "# Hardening", "", _NOTICE.format(source="nvrc/steps/hardening.py"), "", _HARDENING,
        *_table(("sysctl", "value", "in every kernel", "why"), (
            (f"`{row.name}`", f"{'at least ' if row.at_least else ''}{row.value or '(empty)'}",
             "yes" if row.required else "", row.why) for row in HARDENING)),
    ]) + "\n"


_NEEDS = """\
Once the guest is up no module can be loaded any more, so what agent and containers need comes before, for each need
that is recognised on the machine. An image says under `serves` which of these it carries the modules for. The init
reads that list in `nvrc.serves` beside `modules.dep`; where there is none (an image of other makers), every need
counts that has a file. A kernel that has the modules built in has no files of them, and nothing is done. Virtio
devices are named by their number; where the kernel shows no virtio bus, none is said to be missing.

What comes with a module by dependency, soft dependency or symbol is not named. A driver that finds no device of its
own (`aesni_intel` on a processor without AES) is passed over silently; any other refusal is a warning. *Where
there*: some kernels do not have it, and the image goes without. An entry of an image's `kernel_options` that the
kernel has as a module counts when the file of its row here is in the image.
"""


def render_needs() -> str:
    return "\n".join([
        "# What a guest needs of its kernel", "", _NOTICE.format(source="nvrc/vocabulary/needs.py"), "", _NEEDS,
        *_table(("need", "what for", "recognised by", "usually built in"), (
            (f"[`{need.name}`](#{need.name})", need.why, " or ".join(map(_sign, need.signs)), need.builtin)
            for need in NEEDS)), "",
        *(line for name in NAMES for line in (f"## {name}", "", *_table(("module", "kernel option", ""), (
            *((f"`{module}`", f"`CONFIG_{option}`", "")
              for need in _rows(name) for module, option in need.modules.items()),
            *((f"`{module}`", f"`CONFIG_{option}`", "where there")
              for need in _rows(name) for module, option in need.where_there.items()),
            *((f"`{module}`", f"`CONFIG_{option}`", "by mode")
              for need in _rows(name) for module, option in need.elsewhere.items()),
        )), "")),
    ]).rstrip("\n") + "\n"


def _rows(name: str) -> tuple[Need, ...]:
    return tuple(need for need in NEEDS if need.name == name)


def _sign(sign: tuple[Sign, str]) -> str:
    kind, value = sign
    return f"{kind.value} `{value}`" if value else kind.value


PAGES: Mapping[str, Callable[[], str]] = {
    "kernel-parameters.md": render_parameters,
    "failure-codes.md": render_codes,
    "hardening.md": render_hardening,
    "kernel-needs.md": render_needs,
    "host-preflight.md": lambda: render_preflight(_table),
    "supervision.md": lambda: render_supervision(_table),
    "metrics.md": lambda: render_metrics(_table),
    "privileges.md": lambda: render_privileges(_table),
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nvrc.pages.reference",
                                     description="Write the pages made from tables.")
    parser.add_argument("--check", action="store_true", help="write nothing, name what is out of date and exit 1")
    parser.add_argument("--docs", default="docs", metavar="DIR", help="where the pages are (%(default)s)")
    args = parser.parse_args(argv)
    stale = [name for name, render in PAGES.items() if _content(os.path.join(args.docs, name)) != render()]
    for name in stale:
        path = os.path.join(args.docs, name)
        if args.check:
            print(f"{path}: out of date, run python -m nvrc.pages.reference")
            continue
        with open(path, "w", encoding="utf-8") as file:
            file.write(PAGES[name]())
        print(f"{path}: written")
    return 1 if args.check and stale else 0


def _content(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _section(row: Param) -> list[str]:
    facts = f"Value: {_code(row.kind.form)}. Default: {_default(row)}. Read by: {row.step}. Since {row.since}."
    old = f"Old names: {', '.join(f'`{name}`' for name in row.aliases)}." if row.aliases else ""
    paragraphs = [f"{row.help}.", row.more, f"{facts} {old}".strip()]
    body = (line for paragraph in paragraphs if paragraph for line in (*textwrap.wrap(paragraph, _WIDTH), ""))
    return [f"### {row.name}", "", *body]


def _anchor(name: str) -> str:
    """The fragment that common Markdown viewers make of a heading."""
    return "".join(char for char in name if char.isalnum() or char in "_-")


def _default(row: Param) -> str:
    return "" if row.default is None else f"`{text(row.default)}`"


def _code(form: str) -> str:
    return f"`{form}`" if any(mark in form for mark in "|=:*") else form


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


if __name__ == "__main__":
    sys.exit(main())
