# SPDX-License-Identifier: Apache-2.0
"""Runs in the sandbox: compiles the init's modules, and writes the tables of all that are frozen and their code in C.

Given: the init's sources in /src, and in /site what PyInstaller has found (nvrc.spec). Left in /out: objects of code as
C files, those of others' modules in library.c, those of the init's own in some files by their names, so that one that
changes leaves most files as they were; tables.c with tables.bin, the code of modules that no start runs; frozen.h.
"""

from __future__ import annotations

import marshal
import pkgutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

sys.path.insert(0, "/src")

from objects import Objects  # type: ignore[import-not-found]

import nvrc.pid1
from nvrc.boot import BOOT
from nvrc.engine.conditions import always

PARTS = 8  # of the init's own objects
SOURCE, FOUND, OUT = Path("/src"), Path("/site"), Path("/out")
CODE = "/tmp/modules.marshal"

# Of the modules that Debian's interpreter has in itself: they need libexpat.
NOT_BUILT_IN = {"pyexpat", "_elementtree"}
OUR_MODULES = {"_kernel"}  # and _sha2 in the place of its own
BEGINS = {"marshal": "PyMarshal_Init", "_warnings": "_PyWarnings_Init", "builtins": "NULL", "sys": "NULL"}
BOOTSTRAP = ("_frozen_importlib", "_frozen_importlib_external")

# What is run as a whole, by the module whose import begins it (entry.py): what every boot needs, the worker with
# NVIDIA's library after its fork, a hook. Each process has one thread then.
TOGETHER = (
    ("nvrc.pid1.main", *(step.module for step in BOOT if step.when is always)),
    ("nvrc.nvml.requests", "pynvml"),
    ("guest_cdi.hooks.arguments", "guest_cdi.hooks.state", "guest_cdi.hooks.root"),
)
# What PID 1 and its steps run later.
LIFE = ("nvrc.boot", *(step.module for step in BOOT), "nvrc.report.publish", "nvrc.machine.control",
        *(f"nvrc.pid1.{row.name}" for row in pkgutil.iter_modules(nvrc.pid1.__path__)))
# Tells what is loaded for some modules, each after its own imports, and all that is loaded then.
ORDER = """
import marshal, sys
from importlib.machinery import SourceFileLoader
sys.path.insert(0, "/src")
with open(sys.argv[1], "rb") as stream:
    code = marshal.load(stream)
order, execute, read = [], SourceFileLoader.exec_module, SourceFileLoader.get_code
def get_code(self, name):
    return marshal.loads(code[name][1]) if name in code else read(self, name)
def exec_module(self, module):
    execute(self, module)
    order.append((module.__name__, hasattr(module, "__path__")))
SourceFileLoader.exec_module, SourceFileLoader.get_code = exec_module, get_code
kernel = sys.modules["_kernel"] = type(sys)("_kernel")
kernel.__getattr__ = str  # there is something by every name
for name in sys.argv[2:]:
    __import__(name)
sys.stdout.buffer.write(marshal.dumps((order, sorted(sys.modules))))
"""

# By name: whether it is a package, and its code, marshalled.
Modules = Mapping[str, tuple[bool, bytes]]
Rows = list[tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class Loads:
    """What the import of some modules loads: in the order in which it can run, and all of it."""

    order: Rows
    loaded: frozenset[str]


def main() -> None:
    library, own = marshal.loads((FOUND / "modules.marshal").read_bytes())
    modules = {**library, **{name: (is_package, compile_own(name, is_package)) for name, is_package in own.items()}}
    modules["__main__"] = (False, compile_text((SOURCE / "entry.py").read_bytes(), "entry.py"))
    lacking = sorted({step.module for step in BOOT} - modules.keys())
    if lacking:
        raise SystemExit(f"rows of the boot table without a module in nvrc/steps: {', '.join(lacking)}")
    Path(CODE).write_bytes(marshal.dumps(modules))
    *together, life = ask_order([*TOGETHER, LIFE])
    orders = {names[0]: tuple(choose(names[0], loads.order, modules))
              for names, loads in zip(TOGETHER, together, strict=True)}
    modules["start"] = (False, compile_text(f"ORDERS = {orders!r}\n".encode(), "start"))
    # What PID 1 and its steps, its worker and a hook run is static objects; all other modules are marshalled.
    at_a_start = {"__main__", "start", *BOOTSTRAP}.union(life.loaded, *(loads.loaded for loads in together))
    static = {name: f"module_{name.replace('.', '_')}" for name in sorted(at_a_start & modules.keys())}
    write_objects(modules, static, library)
    # The interpreter looks through the table from its beginning: first what it begins with, and then what PID 1 runs.
    write_tables(modules, static, soon={*BOOTSTRAP, *together[0].loaded})


def compile_own(name: str, is_package: bool) -> bytes:
    shown = f"{name.replace('.', '/')}{'/__init__' if is_package else ''}.py"
    return compile_text((SOURCE / shown).read_bytes(), shown)


def compile_text(text: bytes, shown: str) -> bytes:
    return marshal.dumps(compile(text, shown, "exec", dont_inherit=True, optimize=2))


def ask_order(several: Iterable[tuple[str, ...]]) -> list[Loads]:
    """Each in a process of its own, beside the others."""
    argv = [sys.executable, "-I", "-S", "-B", "-c", ORDER, CODE]
    running = [subprocess.Popen([*argv, *names], stdout=subprocess.PIPE) for names in several]
    answers = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit("modules of the init could not be loaded")
    return [Loads(order, frozenset(loaded)) for order, loaded in map(marshal.loads, answers)]


def choose(first: str, order: Rows, modules: Modules) -> Rows:
    """What is run ahead for a module: all but itself, which is left to its import."""
    ran = [row for row in order if row[0] in modules and row[0] != first]
    # A module that its own package imports as it runs is left to that package.
    before = {name: number for number, (name, _) in enumerate(ran)}
    return [row for row in ran if before.get(row[0].rpartition(".")[0], -1) < before[row[0]]]


def write_objects(modules: Modules, static: Mapping[str, str], library: Modules) -> None:
    objects = Objects((SOURCE / "pycore_global_strings.h").read_text())
    for part in ("library", *(f"part{number}" for number in range(PARTS))):
        objects.begin()
        for name in static:
            if part == ("library" if name in library else f"part{crc32(name.encode()) % PARTS}"):
                objects.code(marshal.loads(modules[name][1]), static[name])
        (OUT / f"{part}.c").write_text('#include "objects.h"\n' + "".join(objects.lines))


def write_tables(modules: Modules, static: Mapping[str, str], soon: set[str]) -> None:
    """All modules: of code that is an object the interpreter asks no size."""
    rows, code = "", b""
    order = sorted(modules, key=lambda name: (name not in soon, name not in static, name))
    for name in order:
        is_package, data = modules[name]
        if name in static:
            place, size = f"(const unsigned char *)&{static[name]}", 1
        else:
            place, size = f"frozen_code + {len(code)}", len(data)
            code += data
        rows += f'\t{{ "{name}", {place}, {size}, {int(is_package)} }},\n'
    elsewhere = "".join(f"CODE_ELSEWHERE({name})\n" for name in static.values())
    inside = sorted({*sys.builtin_module_names, *OUR_MODULES} - NOT_BUILT_IN)
    built_in = {name: BEGINS.get(name, f"PyInit_{name}") for name in inside}
    functions = "".join(f"PyObject *{begin}(void);\n" for begin in built_in.values() if begin != "NULL")
    built_in_rows = "".join(f'\t{{ "{name}", {begin} }},\n' for name, begin in built_in.items())
    (OUT / "tables.bin").write_bytes(code)
    (OUT / "tables.c").write_text(f"""#include "objects.h"
#include "frozen.h"
__asm__(".section .rodata\\n.balign 16\\nfrozen_code: .incbin \\"/src/tables.bin\\"\\n.previous");
extern const unsigned char frozen_code[] HIDDEN;
{elsewhere}const struct _frozen frozen_modules[] = {{
{rows}\t{{ 0, 0, 0, 0 }},
}};
{functions}
struct _inittab _PyImport_Inittab[] = {{
{built_in_rows}\t{{ NULL, NULL }},
}};
""")
    version = f"#define FROZEN_WITH {sys.hexversion:#x}\n"
    (OUT / "frozen.h").write_text(f"{version}extern const struct _frozen frozen_modules[];\n")


main()
