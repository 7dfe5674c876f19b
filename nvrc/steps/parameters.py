# SPDX-License-Identifier: Apache-2.0
"""Reads the kernel command line once, under the policy that the image owner baked in. Nobody reads it again."""

from __future__ import annotations

from nvrc.engine.facts import Facts, replace
from nvrc.engine.table import SHORT, nothing
from nvrc.machine.system import System
from nvrc.params.parse import parse
from nvrc.params.policy import NO_POLICY, Policy, load_policy
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

deadline_s, tell = SHORT, nothing


def run(system: System, facts: Facts) -> Facts:
    parsed = parse(_read_cmdline(system), _read_policy(system))
    problems = tuple(str(problem) for problem in parsed.problems)
    try:
        parsed.raise_on_error()
    except NvrcError as err:
        raise NvrcError(err.code, err.what, err.hint, problems) from err
    return replace(facts, parameters=parsed, warnings=facts.warnings + problems)


def _read_cmdline(system: System) -> bytes:
    try:
        return system.read(paths.CMDLINE)
    except OSError as err:
        raise NvrcError("E_PARAMETERS", f"cannot read {paths.CMDLINE}: {err.strerror}",
                        "check that /proc is mounted") from err


def _read_policy(system: System) -> Policy:
    try:
        return load_policy(system.read(paths.POLICY))
    except FileNotFoundError:
        return NO_POLICY
    except OSError as err:
        raise NvrcError("E_POLICY", f"cannot read {paths.POLICY}: {err.strerror}") from err
