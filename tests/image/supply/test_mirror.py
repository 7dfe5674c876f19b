# SPDX-License-Identifier: Apache-2.0
"""Which mirror a build uses, from made-up apt configurations."""

from pathlib import Path

import pytest

from nvrc_build.supply.mirror import Source, host_mirror, parse_deb822, parse_one_line

DEB822 = """\
# the distribution
Types: deb deb-src
URIs: http://one.test/debian/
Suites: bookworm bookworm-updates
Components: main
  contrib
Signed-By: /usr/share/keyrings/a.gpg

Types: deb
Enabled: no
URIs: http://two.test/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://three.test/debian
Suites: bookworm
Components: main
"""

ONE_LINE = """\
# deb http://zero.test/debian bookworm main
deb-src http://one.test/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] http://two.test/debian/ bookworm main contrib # comment
deb broken
"""


def test_deb822_gives_one_source_per_uri_and_suite_and_skips_what_is_disabled() -> None:
    assert parse_deb822(DEB822) == (
        Source(uri="http://one.test/debian", suite="bookworm", components=("main", "contrib")),
        Source(uri="http://one.test/debian", suite="bookworm-updates", components=("main", "contrib")),
    )


def test_one_line_form_skips_comments_sources_and_options() -> None:
    assert parse_one_line(ONE_LINE) == (
        Source(uri="http://two.test/debian", suite="bookworm", components=("main", "contrib")),)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    (tmp_path / "etc/apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
    return tmp_path


@pytest.mark.parametrize(("name", "text", "expected"), [
    pytest.param("sources.list.d/debian.sources", DEB822, "http://one.test/debian", id="deb822"),
    pytest.param("sources.list", ONE_LINE, "http://two.test/debian", id="one-line"),
    pytest.param("sources.list.d/x.list", "deb http://x.test/d bookworm-security main\n", None, id="other-suite"),
    pytest.param("sources.list.d/x.list", "deb http://x.test/d bookworm contrib\n", None, id="without-main"),
    pytest.param("sources.list.d/x.list.bak", ONE_LINE, None, id="not-a-source-file"),
])
def test_host_mirror(machine: Path, name: str, text: str, expected: str | None) -> None:
    (machine / "etc/apt" / name).write_text(text)
    assert host_mirror("debian", machine) == expected


def test_a_machine_of_another_distribution_has_no_mirror_for_this_one(machine: Path) -> None:
    (machine / "etc/apt/sources.list").write_text(ONE_LINE)
    (machine / "etc/os-release").write_text("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=bookworm\n")
    assert host_mirror("debian", machine) is None
