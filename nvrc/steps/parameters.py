# SPDX-License-Identifier: Apache-2.0
"""Reads the kernel command line once, under the policy that the image owner baked in. Nobody reads it again.

Where a disk, a TEE or the policy says that the pod may have given initdata, what that adds is read first.
"""

from __future__ import annotations

import stat

from guest_cdi.lean.light import TYPE_CHECKING
from nvrc.engine.facts import Facts, FailedWithFacts, replace
from nvrc.engine.table import PATIENT
from nvrc.extensions.disks import BLOCK_DEVICE, SCSI_HOST, disk_names, has_controller
from nvrc.hardware.needs import Guest, is_recognised
from nvrc.machine.system import Files, System
from nvrc.params.parse import Parsed, Problem, Severity, parse
from nvrc.params.policy import NO_POLICY, Policy, load_policy
from nvrc.params.table import asked
from nvrc.params.values import CcMode, CountRule
from nvrc.steps.filesystems import mount_optional
from nvrc.vocabulary import paths
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.needs import CCA_SIGNS, SNP_SIGNS, TDX_SIGNS
from nvrc.vocabulary.trouble import remark

if TYPE_CHECKING:
    from nvrc.params.initdata import Initdata
    from nvrc.params.settings import Settings

deadline_s = PATIENT


def run(system: System, facts: Facts) -> Facts:
    policy, line = _read_policy(system), _read_cmdline(system)
    parsed, found = parse(line, policy), replace(facts, policy=policy.sha256, verifier=policy.verifier)
    if may_have_initdata(system, policy):
        from nvrc.confidential.initdata import find_initdata  # what most boots go without
        from nvrc.params.initdata import parse_both

        # A line with a mistake ends the boot; until then no module is given what the policy may refuse.
        options = () if parsed.errors else parsed.settings.module_options
        pod, remarks = find_initdata(system, policy, options, mount_optional, is_strict=parsed.settings.strict)
        found = replace(found, initdata=pod.told() if pod else "", pod_topology=pod.topology if pod else "",
                        warnings=facts.warnings + remarks)
        parsed = _add_initdata(parsed, parse_both(line, policy, pod.initdata), pod.initdata) if pod else parsed
    if parsed.settings.agent_early:
        why_not = refuse_early(parsed.settings) or ("this is a confidential guest" if is_tee(system) else "")
        notes = (remark(f"{asked('agent_early', True)} has no effect: {why_not}"),) if why_not else ()
        found = replace(found, early=not why_not, warnings=found.warnings + notes)
    problems = tuple(str(problem) for problem in parsed.problems)
    try:
        parsed.raise_on_error()
    except NvrcError as err:
        raise FailedWithFacts(NvrcError(err.code, err.what, err.hint, problems), found) from err
    return replace(found, parameters=parsed, warnings=found.warnings + tuple(map(remark, problems)))


def tell(facts: Facts) -> str:
    """Which policy the line was read under: its hash is in the manifest of the image, too. And which initdata."""
    return "; ".join(filter(None, (f"policy sha256={facts.policy}" if facts.policy else "", facts.initdata)))


def may_have_initdata(system: Files, policy: Policy) -> bool:
    """Asked at every boot, so it loads nothing that a boot does not load anyway."""
    return (policy.requires_initdata or bool(disk_names(system))
            or has_controller(system, BLOCK_DEVICE, SCSI_HOST)
            or is_tee(system))


def is_tee(system: Files) -> bool:
    return is_recognised(system, SNP_SIGNS + TDX_SIGNS + CCA_SIGNS, Guest())


def refuse_early(settings: Settings) -> str:
    """Why the agent has to wait for the GPUs, as far as the line says; "" if it need not."""
    reasons = (
        (settings.cc in (CcMode.ON, CcMode.PPCIE), "confidential GPUs are asked for"),
        (settings.is_attested, "GPUs are held back until they are attested"),
        (settings.mig is not None, "the names of MIG devices are known only after the attach"),
        (settings.gpus.rule is CountRule.AT_LEAST, "which GPUs are left out is known only after the attach"),
        (not settings.cgroup_v2 and settings.agent_pidns, "it takes cgroup v2, cgroup_no_v1=all"),
    )
    return next((why for holds, why in reasons if holds), "")


def _add_initdata(line: Parsed, both: Parsed, pod: Initdata) -> Parsed:
    """The agent leaves aside what it does not know of initdata; here it is a problem like one of the line."""
    severity = Severity.ERROR if both.settings.strict or line.settings.strict else Severity.WARNING
    return both._replace(problems=(*both.problems, *(Problem(severity, "initdata", what) for what in pod.remarks)))


def read(system: Files) -> Parsed:
    """The line as it is, with every mistake in it."""
    return parse(_read_cmdline(system), _read_policy(system))


def _read_cmdline(system: Files) -> bytes:
    try:
        return system.read(paths.CMDLINE)
    except OSError as err:
        raise NvrcError("E_PARAMETERS", f"cannot read {paths.CMDLINE}: {err.strerror}",
                        "check that /proc is mounted") from err


def _read_policy(system: Files) -> Policy:
    """A policy that is lost is not one that is absent: whatever has its name must be a file, and be read as one."""
    try:
        if not _is_there(system):
            return NO_POLICY
        return load_policy(system.read(paths.POLICY))
    except OSError as err:
        raise NvrcError("E_POLICY", f"cannot read {paths.POLICY}: {err.strerror}", path=paths.POLICY) from err


def _is_there(system: Files) -> bool:
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
