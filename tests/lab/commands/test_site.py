# SPDX-License-Identifier: Apache-2.0
"""./dev site: every page is in a menu, links are as the copy has them, and a mistake of a page is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nvrc_lab.commands.site import NAV, TOP, adapt, lay_out, main, menus

ROOT = Path(__file__).resolve().parents[3]


def test_every_page_is_in_one_menu_and_one_without_a_place_in_the_last(tmp_path: Path) -> None:
    listed = [page for pages in NAV.values() for page in pages]
    pages = {*(path.stem for path in ROOT.glob("docs/*.md")), *TOP} - {"README"}
    assert len(listed) == len(set(listed))
    assert set(listed) <= pages, "a page that is not there any more"
    for name in (*pages, "new"):
        (tmp_path / f"{name}.md").touch()
    shown = [page for _, below in menus(tmp_path) for page in below]
    assert sorted(shown) == sorted({*pages, "new"})
    assert "new" in dict(menus(tmp_path))["More"]


@pytest.mark.parametrize(("text", "expected"), [
    pytest.param("[a](docs/pod.md#x)", "[a](pod.md#x)", id="from-the-readme"), pytest.param("[a](../SECURITY.md)", "[a](SECURITY.md)", id="the-top"),
    pytest.param("[a](../README.md)", "[a](index.md)", id="the-readme"), pytest.param("[a](LICENSE)", "[a](LICENSE.md)", id="the-licence"),
    pytest.param("[a](../kubectl/kubectl-nvrc)", "[a](tree/kubectl/kubectl-nvrc)", id="a-source"), pytest.param("[a](pod.md)", "[a](pod.md)", id="a-page"),
    pytest.param("### a.<name>.b", "### a.&lt;name&gt;.b", id="a-heading"), pytest.param("<!-- x -->\n| a |", "<!-- x -->\n\n| a |", id="a-table"),
    pytest.param("https://a.b/docs/x", "https://a.b/docs/x", id="elsewhere"),
])
def test_links(text: str, expected: str) -> None:
    assert adapt(text) == expected


def test_the_copy_has_all_that_pages_link(tmp_path: Path) -> None:
    assert lay_out(ROOT, tmp_path / "pages") == len(list(ROOT.glob("docs/*.md"))) + len(TOP)
    for name in ("index.md", "machine.svg", "examples/pod.yaml", "tree/kubectl/kubectl-nvrc"):
        assert (tmp_path / "pages" / name).is_file()
    assert not (tmp_path / "pages/man").exists()


@pytest.mark.long
def test_a_dead_link_and_a_dead_anchor_end_the_build(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "docs", tree / "docs")
    for name in TOP:
        source = next(path for path in (ROOT / f"{name}.md", ROOT / name) if path.is_file())
        shutil.copyfile(source, tree / source.name)
    for name in ("kubectl/kubectl-nvrc", "rootfs/files/policy-confidential.toml", "rootfs/files/policy-confidential-extensions.toml"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tree / name)
    assert main(["--out", str(tmp_path / "good")], tree) == 0
    assert (tmp_path / "good/html/index.html").read_text().count("<a ") > 30
    (tree / "docs/pod.md").write_text((tree / "docs/pod.md").read_text() + "\n[x](no-such.md) [y](lab.md#no-such)\n")
    capfd.readouterr()
    assert main(["--out", str(tmp_path / "bad")], tree) == 1
    told = capfd.readouterr().err
    for word in ("no-such.md", "lab.md#no-such"):
        assert word in told
