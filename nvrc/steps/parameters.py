# SPDX-License-Identifier: Apache-2.0
"""Reads the kernel command line once, under the policy that the image owner baked in. Nobody reads it again."""

from __future__ import annotations

import stat

from nvrc.engine.facts import Facts, replace
from nvrc.engine.table import PATIENT, nothing
from nvrc.machine.system import System
from nvrc.params.parse import Parsed, parse
from nvrc.params.policy import NO_POLICY, Policy, load_policy
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError

deadline_s, tell = PATIENT, nothing


def run(system: System, facts: Facts) -> Facts:
    parsed = parse(_read_cmdline(system), _read_policy(system))
    problems = tuple(str(problem) for problem in parsed.problems)
    try:
        parsed.raise_on_error()
    except NvrcError as err:
        raise NvrcError(err.code, err.what, err.hint, problems) from err
    return replace(facts, parameters=parsed, warnings=facts.warnings + problems)


def read(system: System) -> Parsed:
    """The line as it is, with every mistake in it."""
    return parse(_read_cmdline(system), _read_policy(system))


def _read_cmdline(system: System) -> bytes:
    try:
        return system.read(paths.CMDLINE)
    except OSError as err:
        raise NvrcError("E_PARAMETERS", f"cannot read {paths.CMDLINE}: {err.strerror}",
                        "check that /proc is mounted") from err


def _read_policy(system: System) -> Policy:
    """A policy that is lost is not one that is absent: whatever has its name must be a file, and be read as one."""
    try:
        if not _is_there(system):
            return NO_POLICY
        return load_policy(system.read(paths.POLICY))
    except OSError as err:
        raise NvrcError("E_POLICY", f"cannot read {paths.POLICY}: {err.strerror}") from err


def _is_there(system: System) -> bool:
    """Links are not followed: one that leads nowhere, or to a FIFO, would be found out too late."""
    folder = system.find_node(paths.POLICY_FOLDER)
    if folder is not None and not stat.S_ISDIR(folder.mode):
        raise NvrcError("E_POLICY", f"{paths.POLICY_FOLDER} is {_kind(folder.mode)}, not a folder")
    found = system.find_node(paths.POLICY)
    if found is not None and not stat.S_ISREG(found.mode):
        raise NvrcError("E_POLICY", f"{paths.POLICY} is {_kind(found.mode)}, not a file")
    return found is not None


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISREG, "a file"), (stat.S_ISFIFO, "a FIFO"),
             (stat.S_ISSOCK, "a socket"))
    return next((name for claim, name in kinds if claim(mode)), "a device")
