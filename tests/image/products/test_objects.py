# SPDX-License-Identifier: Apache-2.0
"""Modules as static objects: what the frozen program has in memory is what the interpreter makes of the marshalled form.

A program is compiled as the launcher is, of the objects of all modules of nvrc and guest_cdi and of one that has each kind
of constant, in two files that share objects; it compares each with its source, and runs the last. Needs root and the archives.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from nvrc_build import pipeline
from nvrc_build.ground.run import clean_env
from nvrc_build.products.freeze import RECIPE, TEXTS
from nvrc_build.sandbox.sandbox import sandbox_argv
from nvrc_build.supply.compile import compile_part, link_launcher

CHECKOUT = Path(__file__).resolve().parents[3]
# Sets of 1 to 100 entries, which fill tables of each density, and collide; numbers around what has objects of its own.
CONSTANTS = f'''
def constants():
    yield None, True, False, ..., 0, 1, -5, -6, 256, 257, {1 << 30}, -{1 << 61}, 0.0, -0.0, 1.5, 1e300
    yield "", "a", "é", "name", "two words", "größer", "→ wide", "\\U0001f600", b"", b"x", b"\\0\\xff", (), (("deep",), 1)
    word = input if False else "w7"
{"".join(f"    yield word in {{{', '.join(repr(f'w{index}') for index in range(count))}}}{chr(10)}" for count in range(1, 101))}
    yield 3 in {{1, 2, 3}}, 4 in {{1, 2, 3}}, None in {{None, "x"}}, {1 << 61} in {{{1 << 61}, 0, -1}}

class Cells:
    squares = [(lambda: number * number)() for number in range(4)]
    def outer(self, first, /, second, *rest, third, **more):
        return lambda: (self, first, second, rest, third, more, __class__)

async def generators(source):
    return [item async for item in source if item]
found = list(constants()), Cells.squares, Cells().outer(1, 2, 3, third=4, fifth=5)()[1:-1]
'''
WRITE = """
import marshal, sys
from pathlib import Path
from objects import Objects
objects = Objects(Path("/src/pycore_global_strings.h").read_text())
rows, first, externs = [], "", ""
paths = sorted(Path("/src").rglob("*.py"))
for path in paths:
    if path == paths[len(paths) // 2]:
        first = "".join(objects.lines)
        objects.begin()
    code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True, optimize=2)
    marshalled = marshal.dumps(code)
    # A name that code shares, so that one object stands in several places.
    name = objects.code(marshal.loads(marshalled), "module_%d" % len(rows))
    bytes_of_it = ",".join(map(str, marshalled))
    externs = externs + "CODE_ELSEWHERE(%s)\\n" % name if not first else externs
    rows.append('{ "%s", (PyObject *)&%s, (const char[]){ %s }, %d },\\n' % (path.stem, name, bytes_of_it, len(marshalled)))
Path("/out/first.c").write_text('#include "objects.h"\\n' + first)
Path("/out/rows.h").write_text('#include "objects.h"\\n' + "".join(objects.lines) + externs
    + "static const struct { const char *name; PyObject *object; const char *data; long size; } rows[] = {\\n" + "".join(rows) + "};\\n")
"""
MAIN = """
#include "rows.h"
#include <marshal.h>
PyObject *__real_PyMarshal_ReadObjectFromString(const char *data, Py_ssize_t size);
PyObject *__wrap_PyMarshal_ReadObjectFromString(const char *data, Py_ssize_t size)
{ return __real_PyMarshal_ReadObjectFromString(data, size); }

/* No more than the interpreter needs to begin: the archive's own table names modules of other libraries. */
#define BEGIN(row) PyObject *PyInit_##row(void);
#define MODULES(row) row(_imp) row(gc) row(posix) row(errno) row(_io) row(_signal) row(_codecs) row(_thread) row(_weakref) row(_abc) \\
	row(time) row(_stat) row(itertools) row(_collections) row(_functools) row(_operator) row(_sre)
MODULES(BEGIN)
PyObject *PyMarshal_Init(void), *_PyWarnings_Init(void);
#define ROW(row) { #row, PyInit_##row },
struct _inittab _PyImport_Inittab[] = { MODULES(ROW) { "marshal", PyMarshal_Init }, { "_warnings", _PyWarnings_Init },
	{ "builtins", NULL }, { "sys", NULL }, { NULL, NULL } };

static PyObject *run(PyObject *code)
{
	PyObject *names = PyDict_New();
	PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins());
	PyObject *done = PyEval_EvalCode(code, names, names);
	if (!done) PyErr_Print();
	return done ? PyObject_Repr(PyDict_GetItemString(names, "found")) : NULL;
}

int main(void)
{
	PyConfig config;
	PyConfig_InitIsolatedConfig(&config);
	config.use_hash_seed = 1; config.site_import = 0;
	Py_InitializeFromConfig(&config);
	int differ = 0, count = sizeof(rows) / sizeof(*rows);
	for (int i = 0; i < count; i++) {
		/* Of this version the form tells no references, which depend on who else has the object. */
		PyObject *read = PyMarshal_ReadObjectFromString(rows[i].data, rows[i].size);
		PyObject *ours = PyMarshal_WriteObjectToString(rows[i].object, 0), *theirs = PyMarshal_WriteObjectToString(read, 0);
		int equal = PyObject_RichCompareBool(ours, theirs, Py_EQ) == 1
			&& PyObject_RichCompareBool(rows[i].object, read, Py_EQ) == 1;
		if (equal && !strcmp(rows[i].name, "constants"))
			for (int time = 0; time < 100 && equal; time++)
				equal = PyObject_RichCompareBool(run(rows[i].object), run(read), Py_EQ) == 1;
		if (!equal) { printf("%s differs\\n", rows[i].name); differ++; }
	}
	PyGC_Collect();
	printf("%d modules\\n", count);
	return differ || Py_FinalizeEx();
}
"""

pytestmark = pytest.mark.qemu


def test_static_objects_are_those_that_the_interpreter_reads(tmp_path: Path) -> None:
    cache = CHECKOUT / "out/cache"
    compiler = pipeline.headers(cache, checkout=CHECKOUT)
    tools = next((cache / "stages").glob("root-tools-*"))
    source, work, out = tmp_path / "source", tmp_path / "work", tmp_path / "out"
    for package in ("nvrc", "guest_cdi"):
        shutil.copytree(CHECKOUT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    work.mkdir()
    out.mkdir()
    (source / "constants.py").write_text(CONSTANTS, encoding="utf-8")
    for place in (RECIPE / "objects.py", compiler / TEXTS):
        shutil.copyfile(place, source / place.name)
    argv = sandbox_argv(tools, ["/usr/bin/python3.13", "-S", "-c", WRITE], env=clean_env({"PYTHONPATH": "/src"}),
                        read_only={"/src": source}, writable={"/out": work})
    subprocess.run(argv, check=True, timeout=120)
    shutil.copyfile(RECIPE / "objects.h", work / "objects.h")
    (work / "main.c").write_text(MAIN, encoding="ascii")
    for name in ("main", "first"):
        compile_part(work / f"{name}.c", out, root=compiler, is_movable=False).rename(work / f"{name}.o")
    program = link_launcher([work / "main.o", work / "first.o"], out, root=compiler, is_movable=False)
    argv = sandbox_argv(tools, ["/out/program"], env=clean_env(), read_only={}, writable={"/out": program.parent})
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout == f"{len(list(source.rglob('*.py')))} modules\n"
