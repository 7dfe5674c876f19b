# SPDX-License-Identifier: Apache-2.0
"""`./dev site`: the pages of the checkout as a web site below out/site, by MkDocs, every warning an error.

MkDocs knows one folder, so what is built is a copy: the README is its first page, and links are as the copy has them.
It is installed below out/site when it is first needed, from a lock with hashes. Nothing is fetched for a page: theme,
fonts and search are in the site.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nvrc_lab.ground.locked import install_locked
from nvrc_lab.ground.places import checkout

LOCK = "build/locks/site.txt"
# Pages of docs/ and of the top, by who reads them. The README is the first; a page without a place is in the last menu.
NAV: Mapping[str, tuple[str, ...]] = {
    "Pods": ("pod", "troubleshooting", "pod-events", "failure-codes", "failure-signatures", "kernel-parameters"),
    "Clusters and images": ("deploy", "images", "own-driver", "kata-extensions", "extensions", "policy",
                            "hardening", "host-preflight"),
    "The guest": ("architecture", "topologies", "gpu-bring-up", "kernel-modules", "kernel-needs", "boot-report",
                  "privileges", "threat-model", "SECURITY"),
    "CDI": ("guest-cdi", "guest-cdi-validate", "guest-cdi-hooks"),
    "Proof": ("lab", "virtual-hardware", "conformance", "fuzzing", "mutation", "CONTRIBUTING"),
    "Changes": ("CHANGELOG", "LICENSE"),
}
TOP = ("README", "CONTRIBUTING", "SECURITY", "CHANGELOG", "LICENSE")
TREE = "tree"  # sources that pages link, in the copy
FOLDERS = ("man", "completion")  # for programs; pages name them by their paths
CHECKED = {"nav": ("omitted_files", "not_found", "absolute_links"),
           "links": ("not_found", "absolute_links", "unrecognized_links", "anchors")}


def main(argv: Sequence[str] | None = None, root: Path | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="dev site", description="Build the web site of docs/ into out/site/html; a warning is an error.",
        epilog="exit status: 0 built, 1 a page has a mistake, 2 MkDocs cannot be installed")
    parser.add_argument("--out", type=Path, metavar="DIR", help="another folder than out/site for pages and site")
    args = parser.parse_args(argv)
    places, started = checkout(), time.monotonic()
    tools = install_locked(places.root / LOCK, places.out / "site")
    if tools is None:
        print("dev site: MkDocs cannot be installed; check that the package index can be reached", file=sys.stderr)
        return 2
    out = args.out or places.out / "site"
    count = lay_out(root or places.root, out / "pages")
    (out / "mkdocs.json").write_text(json.dumps(settings(out)), encoding="utf-8")  # JSON is YAML
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", "--config-file",
                           str(out / "mkdocs.json")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(tools)})
    if done.returncode:
        print(done.stdout, end="", file=sys.stderr)
        return 1
    print(f"site: {count} pages in {time.monotonic() - started:.1f} s: {out / 'html/index.html'}")
    return 0


def settings(out: Path) -> dict[str, object]:
    return {"site_name": "nvrc", "docs_dir": str(out / "pages"), "site_dir": str(out / "html"),
            "use_directory_urls": False, "theme": {"name": "mkdocs", "highlightjs": False},
            "validation": {part: dict.fromkeys(names, "warn") for part, names in CHECKED.items()},
            "nav": [{"nvrc": "index.md"}, *({name: [f"{page}.md" for page in listed]}
                                            for name, listed in menus(out / "pages"))]}


def menus(pages: Path) -> Iterator[tuple[str, list[str]]]:
    left = {path.stem for path in pages.glob("*.md")} - {"index"}
    for name, listed in NAV.items():
        yield name, [page for page in listed if page in left]
        left -= set(listed)
    if left:
        yield "More", sorted(left)


def lay_out(root: Path, pages: Path) -> int:
    """The copy that is built, and how many pages it has."""
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(root / "docs", pages, ignore=shutil.ignore_patterns(*FOLDERS))
    for path in pages.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        for name in re.findall(r"\]\(\.\./([\w./-]+)\)", text):
            copy_source(root / name, pages / TREE / name)
        path.write_text(adapt(text), encoding="utf-8")
    for name in TOP:
        source = next(path for path in (root / f"{name}.md", root / name) if path.is_file())
        text = source.read_text(encoding="utf-8")
        text = adapt(text) if source.suffix else f"# Licence\n\n```text\n{text}```\n"
        (pages / ("index.md" if name == "README" else f"{name}.md")).write_text(text, encoding="utf-8")
    return len(list(pages.glob("*.md")))


def copy_source(path: Path, target: Path) -> None:
    """A file of the checkout that a page links; a page's own is copied under its name."""
    if path.is_file() and path.stem not in TOP:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def adapt(text: str) -> str:
    """Links as the copy has them, and an empty line where MkDocs needs one to see a table after a comment."""
    text = re.sub(r"\]\((?:\.\./)?docs/", "](", text)
    text = re.sub(r"\]\(\.\./(?=[A-Z]+(?:\.md)?[)#])", "](", text)
    text = text.replace("](../", f"]({TREE}/")
    text = re.sub(r"^(#+ .*)<(\w+)>", r"\1&lt;\2&gt;", text, flags=re.MULTILINE)
    text = text.replace("](README.md", "](index.md").replace("](LICENSE)", "](LICENSE.md)")
    return re.sub(r"^(<!-- .* -->)\n(?=\|)", r"\1\n\n", text, flags=re.MULTILINE)


if __name__ == "__main__":
    sys.exit(main())
