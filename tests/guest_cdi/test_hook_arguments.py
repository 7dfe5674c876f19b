# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest_cdi.hooks.arguments import HOOKS, parse_calls, usage
from guest_cdi.hooks.main import hook_arguments
from guest_cdi.lean.errors import CdiError

REFERENCE_NAMES = [
    "create-symlinks", "enable-cuda-compat", "update-ldcache", "disable-device-node-modification",
    "update-application-profile", "chmod",
]


def test_the_table_has_the_hooks_of_the_reference() -> None:
    assert [hook.name for hook in HOOKS] == REFERENCE_NAMES


def test_usage_names_every_hook_and_option() -> None:
    text = usage()
    for hook in HOOKS:
        assert f"  {hook.name}: " in text
        assert all(f"--{option.name} {option.value}" in text for option in hook.options)


@pytest.mark.parametrize("argv", [
    ["chmod", "--mode", "755", "--path", "/a", "--path", "/b"],
    ["chmod", "--mode=755", "--path=/a", "--path=/b"],
    ["chmod", "-mode", "755", "-path=/a", "--path", "/b"],
    ["chmod", "--container-spec", "-", "--mode", "755", "--path", "/a", "--path", "/b"],
], ids=["separate", "joined", "one-dash", "state-on-stdin"])
def test_spellings_mean_the_same(argv: list[str]) -> None:
    (call,) = parse_calls(argv)
    assert (call.name, call.state_file) == ("chmod", "")
    assert call.action.args == (("/a", "/b"), 0o755)  # type: ignore[attr-defined]


def test_values_may_hold_commas_and_equal_signs() -> None:
    (call,) = parse_calls(["create-symlinks", "--link=a=b,c::/d,e=f"])
    assert [(link.target, link.path) for link in call.action.args[0]] == [("a=b,c", "/d,e=f")]  # type: ignore[attr-defined]


def test_defaults_come_from_the_table() -> None:
    ldcache, compat = parse_calls(["run", "update-ldcache", "--", "enable-cuda-compat"])
    assert ldcache.action.args == ((), "/sbin/ldconfig")  # type: ignore[attr-defined]
    assert compat.action.args[1] == "/usr/local/cuda/compat"  # type: ignore[attr-defined]


def test_run_keeps_order_and_state_file() -> None:
    calls = parse_calls(["run", "update-application-profile", "--container-spec=s", "--", "chmod", "--mode", "700",
                         "--container-spec", "s"])
    assert [(call.name, call.state_file) for call in calls] == [("update-application-profile", "s"), ("chmod", "s")]


@pytest.mark.parametrize(("argv", "said"), [
    ([], "no hook is named"),
    (["mount-all"], "unknown hook 'mount-all'; known are create-symlinks, enable-cuda-compat"),
    (["chmod", "--mod", "755"], "chmod: unknown argument '--mod'"),
    (["chmod", "mode", "755"], "chmod: unknown argument 'mode'"),
    (["chmod", "---mode", "755"], "chmod: unknown argument '---mode'"),
    (["chmod", "--mode"], "chmod: --mode needs a value, OCTAL"),
    (["chmod", "--mode", "755", "--mode", "700"], "chmod: --mode is given twice"),
    (["chmod", "--path", "/a"], "chmod: --mode '' is not an octal number up to 777"),
    (["chmod", "--mode", "4755"], "chmod: --mode '4755' is not"),
    (["chmod", "--mode", "0o7"], "chmod: --mode '0o7' is not"),
    (["chmod", "--mode", "7", "--path", " "], "chmod: --path is empty"),
    (["create-symlinks", "--link", "a"], "--link 'a' is not TARGET::LINK"),
    (["create-symlinks", "--link", "a::b::c"], "--link 'a::b::c' is not TARGET::LINK"),
    (["create-symlinks", "--link", "::b"], "--link '::b' is not TARGET::LINK"),
    (["create-symlinks", "--link", "a::/.."], "--link 'a::/..' is not TARGET::LINK"),
    (["update-ldcache", "--folder", "lib"], "--folder 'lib' is not an absolute path"),
    (["update-ldcache", "--folder", "/a\n/b"], "is not an absolute path of one line"),
    (["update-ldcache", "--ldconfig-path", "ldconfig"], "--ldconfig-path 'ldconfig' is not an absolute path"),
    (["run", "chmod", "--mode", "9", "--", "nothing"], "--mode '9' is not an octal number up to 777; unknown hook"),
    (["run"], "no hook is named"),
    (["run", "chmod", "--mode=7", "--container-spec=a", "--", "chmod", "--mode=7"], "must be the same for all hooks"),
])
def test_mistakes_are_named(argv: list[str], said: str) -> None:
    with pytest.raises(CdiError) as caught:
        parse_calls(argv)
    assert caught.value.code == "E_CDI_USAGE"
    assert said in caught.value.what


WORDS = st.sampled_from([
    "run", "--", "", "-", "=", "--link", "--link=a::b", "a::b", "::", "chmod", "--mode=755", "--path", "/..", "\n", "--folder",
    "create-symlinks", "update-ldcache", "enable-cuda-compat", "--host-driver-version", "1.2", "--container-spec", "\udcff",
])


@given(st.lists(WORDS | st.text(max_size=5), max_size=8))
def test_any_command_line_is_calls_or_a_usage_error(argv: list[str]) -> None:
    try:
        calls = parse_calls(argv)
    except CdiError as err:
        assert err.code == "E_CDI_USAGE"
    else:
        assert all(call.name in REFERENCE_NAMES for call in calls)


@pytest.mark.parametrize(("argv", "expected"), [
    (["/usr/bin/nvidia-cdi-hook", "chmod", "--mode=7"], ["chmod", "--mode=7"]),
    (["nvidia-cdi-hook"], []),
    (["/x/nvidia-ctk", "hook", "chmod"], ["chmod"]),
    (["nvidia-ctk", "cdi", "generate"], None),
    (["guest-cdi", "hook", "chmod"], ["chmod"]),
    ([], None),
])
def test_the_program_name_says_that_it_is_a_hook(argv: list[str], expected: list[str] | None) -> None:
    assert hook_arguments(argv) == expected
