# SPDX-License-Identifier: Apache-2.0
"""Options for modules on the command line: which words they are, and how far a policy lets a line go with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvrc.params.cmdline import Token, tokenise
from nvrc.params.module_options import driver_option, read_options
from nvrc.params.parse import Severity, parse
from nvrc.params.policy import NO_POLICY, load_policy
from nvrc.vocabulary.errors import NvrcError


@pytest.mark.parametrize(("cmdline", "found"), [
    (b"nvidia.NVreg_A=1 nvidia-uvm.b", (("nvidia", "NVreg_A=1"), ("nvidia_uvm", "b"))),
    (b'nvidia.NVreg_RegistryDwords="a=1; b=2"', (("nvidia", 'NVreg_RegistryDwords="a=1; b=2"'),)),
    (b"nvidia.a= quiet nvidia nvidia. .a", (("nvidia", "a="),)),
    (b"a.b.c=1", (("a", "b.c=1"),)),
    (b'a.b="x\xa0y" a.c="\xc3\xa0"', (("a", 'b="x\udca0y"'), ("a", 'c="\u00e0"'))),
    (b'a.b=x"y"', (("a", 'b=x"y"'),)),
    (b'a.b=x"y c=1 z"w a.d=1', (("a", "d=1"),)),
    (b'a.-- a.d=1 a.--=1', (("a", "d=1"), ("a", "--=1"))),
])
def test_options_on_the_command_line(cmdline: bytes, found: tuple[tuple[str, str], ...]) -> None:
    assert read_options(tokenise(cmdline)) == found
    assert parse(cmdline).settings.module_options == found


@given(st.lists(st.sampled_from(["nvidia.A", "x.B", "nvidia.", "=", '"', " ", "a", "--", "-", "\xa0", "\xe0", "\t", "C=1", "."]), max_size=14))
def test_what_a_module_is_given_it_reads_as_it_is_on_the_line(parts: list[str]) -> None:
    """As the kernel reads both; so what a policy says of a word holds for what becomes of it."""
    for line in ("".join(parts).encode("latin-1"), "".join(parts).encode()):
        tokens = tokenise(line)
        known = {(token.key.partition(".")[2], token.value) for token in tokens}
        given = " ".join(option for _module, option in read_options(tokens))
        read = tokenise(given.encode("utf-8", "surrogateescape"))
        assert len(read) == len(read_options(tokens))
        assert {(token.key, token.value) for token in read} <= known
        assert not any(token.unclosed or token == Token("--") for token in read)


@pytest.mark.parametrize("word", [b'nvidia.NVreg_A=x"y NVreg_B=1 z"w', b'"nvidia.NVreg_A NVreg_B=1"', b'nvidia.NVreg_A=x"y', b"nvidia.--"])
@pytest.mark.parametrize("policy", ['allow = ["nvidia.*"]', None])
def test_an_option_that_is_another_one_to_the_module_is_refused(word: bytes, policy: str | None) -> None:
    parsed = parse(word, NO_POLICY if policy is None else load_policy(policy.encode()))
    assert "is not read by the module as this one option" in str(parsed.errors[0])
    assert parsed.settings.module_options == ()


@pytest.mark.parametrize(("key", "name"), [
    ("nvidia.NVreg-A-b", "nvidia.NVreg_A_b"), ("nvidia.NVreg_A", "nvidia.NVreg_A"), ("nvidia-uvm.x", "nvidia_uvm.x"), ("nvidia_drm.modeset", "nvidia_drm.modeset"),
    ("nvidiafb.x", None), ("nvidia", None), ("nvidia.", None), ("nvrc.gpus", None), ("mlx5_core.x", None),
])
def test_which_words_are_the_drivers(key: str, name: str | None) -> None:
    assert driver_option(key) == name


def test_without_a_policy_the_drivers_options_pass_and_are_told() -> None:
    parsed = parse(b"nvidia.NVreg_A=1 systemd.unified_cgroup_hierarchy=1 nvrc.strict=on")
    assert [str(problem) for problem in parsed.problems] == ["nvidia.NVreg_A: goes to the driver's module as it is"]
    assert parsed.problems[0].severity is Severity.NOTICE
    assert parsed.is_clean


@pytest.mark.parametrize(("policy", "word", "refusal"), [
    ('deny = ["nvidia.*"]', "nvidia.NVreg_A=1", "is denied by the image's policy"),
    ('deny = ["nvidia*"]', "nvidia-uvm.x=1", "is denied by the image's policy"),
    ('deny = ["nvidia_uvm.x"]', "nvidia-uvm.x=1", "is denied by the image's policy"),
    ('allow = ["nvidia.*"]\ndeny = ["nvidia.NVreg_B"]', "nvidia.NVreg-B=1", "is denied by the image's policy"),
    ('allow = ["nvidia.NVreg_B"]', "nvidia.NVreg-B=1", ""),
    ('allow = ["nvrc.*"]', "nvidia.NVreg_A=1", "is not on the list that the image's policy allows"),
    ('allow = ["nvrc.*", "nvidia.NVreg_B"]', "nvidia.NVreg_A=1", "is not on the list that the image's policy allows"),
    ('allow = ["nvidia.NVreg_A"]', "nvidia.NVreg_A=1", ""),
    ('deny = ["nvidia.NVreg_B"]', "nvidia.NVreg_A=1",
     "is an option of the driver, and the image's policy has no allow list that names it"),
    ("", "nvidia.NVreg_A=1", "is an option of the driver, and the image's policy has no allow list that names it"),
    ('words = ["*"]', "nvidia-uvm.x=1", "is an option of the driver, and the image's policy has no allow list that names it"),
])
def test_a_policy_bounds_them(policy: str, word: str, refusal: str) -> None:
    errors = [str(problem) for problem in parse(word.encode(), load_policy(policy.encode())).errors]
    assert errors == ([f"{word.partition('=')[0]}: {refusal}"] if refusal else [])


@pytest.mark.parametrize("entry", ["nvidia", "nvidia-uvm.x", "nvidia.x-y", "nouveau.x", "nvidia."])
def test_a_policy_names_them_in_the_kernels_spelling(entry: str) -> None:
    with pytest.raises(NvrcError, match="is not a parameter"):
        load_policy(f'deny = ["{entry}"]'.encode())


def test_values_of_a_modules_option_cannot_be_pinned() -> None:
    with pytest.raises(NvrcError, match="is not a parameter"):
        load_policy(b'[pin]\n"nvidia.NVreg_A" = 1')
