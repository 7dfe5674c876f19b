# SPDX-License-Identifier: Apache-2.0
"""What of a module PyInstaller is given, and that it finds in it what it finds in the whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nvrc.boot import BOOT
from nvrc_build.products.freeze import BINDING, ENTRY, PACKAGES, SPEC, outline_all, read_sources
from nvrc_build.products.outline import outline, step_modules

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("source", "left"), [
    pytest.param("import os\nimport a.b as c, d\n", "import os\nimport a.b as c, d\n", id="plain"),
    pytest.param("from . import x\nfrom ..y import z as w\n", "from . import x\nfrom ..y import z as w\n", id="relative"),
    pytest.param('"""import no"""\n# import no\nX = "import no"\n', "", id="text"),
    pytest.param("def f():\n    import a\n    class B:\n        async def g(self):\n            from b import c\n", "import a\nfrom b import c\n",
                 id="in-functions"),
    pytest.param("try:\n    import a\nexcept ImportError:\n    import b\nelse:\n    import c\nfinally:\n    import d\n",
                 "import a\nimport c\nimport d\nimport b\n", id="try"),
    pytest.param("if x:\n    import a\nelif y:\n    import b\nfor i in z:\n    import c\nelse:\n    import d\nwhile x:\n    import e\nwith x:\n    import f\n",
                 "import a\nimport b\nimport c\nimport d\nimport e\nimport f\n", id="blocks"),
    pytest.param("match x:\n    case 1:\n        import a\n    case _:\n        import b\n", "import a\nimport b\n", id="match"),
    pytest.param("import a\ndef f():\n    import a\n", "import a\n", id="twice"),
    pytest.param("A = 1\ndef f(): ...\n", "", id="names-of-a-module"),
])
def test_imports_stay_wherever_they_stand_and_nothing_else(source: str, left: str) -> None:
    assert outline(source, is_package=False) == left


def test_names_that_a_package_binds_are_no_modules_of_it() -> None:
    source = "import a\nB: int = 1\nC, (D, E) = 1, (2, 3)\ndef f(): g = 1\nclass H: i = 1\nif B:\n    J = 1\nprint(K)\n"
    assert outline(source, is_package=True) == "import a\nB = None\nC = None\nD = None\nE = None\nf = None\nH = None\nJ = None\n"


def test_rows_of_the_boot_table_are_read_as_the_init_reads_them() -> None:
    """And a file that no row names is no part of it."""
    assert sorted(step_modules((ROOT / "nvrc/boot.py").read_text(encoding="utf-8"))) == sorted(step.module for step in BOOT)


def test_a_change_that_imports_nothing_leaves_all_outlines_as_they_were() -> None:
    every = read_sources(ROOT)
    chosen = (SPEC, ENTRY, "nvrc/boot.py", "nvrc/pid1/main.py", "guest_cdi/__init__.py")
    sources = {**{name: every[name] for name in chosen}, BINDING: "import ctypes\nLIMIT = 1\n"}
    before = outline_all(sources)
    assert before.keys() == {*sources, "steps.txt"}
    main = sources["nvrc/pid1/main.py"]
    assert outline_all({**sources, "nvrc/pid1/main.py": f"{main}\nCHANGED = 'import json'\n"}) == before
    assert outline_all({**sources, "nvrc/pid1/main.py": f"{main}\ndef f() -> None:\n    import json\n"}) != before
    assert outline_all({**sources, "nvrc/pid1/new.py": ""}) != before
    boot = sources["nvrc/boot.py"].replace('Step("topology"', 'Step("topography"')
    assert outline_all({**sources, "nvrc/boot.py": boot}) != before
    assert outline_all({**sources, SPEC: ""}) != before


# As PyInstaller reads modules: their compiled code, functions included, for instructions that import.
IMPORTS = """
import dis, sys
from pathlib import Path
from types import CodeType

def imports(code):
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            yield step.argval
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from imports(part)

for path in sorted(Path(sys.argv[1]).rglob("*.py")):
    print(path.relative_to(sys.argv[1]), *sorted(set(imports(compile(path.read_bytes(), str(path), "exec", dont_inherit=True)))))
"""


@pytest.mark.long
def test_the_compiled_outlines_import_what_the_compiled_sources_do(tmp_path: Path) -> None:
    sources = read_sources(ROOT)
    own = {name: text for name, text in sources.items() if name.startswith(tuple(f"{package}/" for package in PACKAGES))}
    outlines, found = outline_all({**sources, BINDING: ""}), {}
    for kind, texts in (("whole", own), ("outline", outlines)):
        for name in own:
            (tmp_path / kind / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / kind / name).write_text(texts[name], encoding="utf-8")
        argv = [sys.executable, "-I", "-c", IMPORTS, str(tmp_path / kind)]
        found[kind] = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(found["whole"]) == len(own) > 100
    assert found["outline"] == found["whole"]
