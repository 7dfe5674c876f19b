# SPDX-License-Identifier: Apache-2.0
"""The whole kernel command line of a class's guests under the policy of the image: as the guest would judge it.

A class is more than its kernel_params: the runtime writes words of its own, and one for each extension. What a guest
with a policy refuses ends the boot, so it is said here, before a node has the drop-in. The words are those of Kata 4.1.
"""

from __future__ import annotations

from nvrc.params.cmdline import word
from nvrc.params.parse import Severity, parse
from nvrc.params.policy import Policy, load_policy
from nvrc.vocabulary.errors import NvrcError
from nvrc.vocabulary.paths import POLICY
from nvrc_build.ground.errors import BuildError
from nvrc_build.kata.classes import KataClass, Runtime, Tee
from nvrc_build.kata.extensions import Extension
from nvrc_build.output.verity import parse_parameters
from nvrc_build.papers.inventory import Inventory

# virtcontainers/qemu_amd64.go and agent parameters; runtime-rs, kernel_param.rs
_OF_GO = ("tsc=reliable no_timer_check rcupdate.rcu_expedited=1 i8042.direct=1 i8042.dumbkbd=1 i8042.nopnp=1 "
          "i8042.noaux=1 noreplace-smp reboot=k cryptomgr.notests net.ifnames=0 pci=lastbus=0 console=hvc0 "
          "console=hvc1")
_OF_RUST = "reboot=k panic=1 console=hvc0 agent.passfd_listener_port=1027"
_OF_SYSTEMD = ("systemd.unit=kata-containers.target systemd.mask=systemd-networkd.service "
               "systemd.mask=systemd-networkd.socket")
_QUIET = "quiet systemd.show_status=false"
_LOUD = "debug systemd.show_status=true systemd.log_level=debug agent.log=debug"


def whole_line(image: Inventory, kata: KataClass, params: str, extensions: tuple[Extension, ...], *, verity: str = "",
               is_debug: bool = False) -> str:
    """What such a guest finds in /proc/cmdline. `verity`: of an image that is a disk."""
    own = [_OF_GO if kata.runtime is Runtime.GO else _OF_RUST, _LOUD if is_debug else _QUIET]
    if is_debug and kata.runtime is Runtime.RUST:
        own.append("agent.log_vport=1025")
    if verity:
        own += [parse_parameters(verity).root_parameters(fstype=image.filesystem), "ro"]
    own += ["panic=1", "selinux=0", *(["nr_cpus=1"] if kata.tee is Tee.NONE else []),
            *([_OF_SYSTEMD] if verity else [])]
    return " ".join((*own, params, *(word(f"kata.extension.{row.name}.verity_params", row.parameters.strip())
                                     for row in extensions)))


def check_line(image: Inventory, line: str) -> None:
    """BuildError with everything for which the image's own policy would end the boot."""
    findings = tuple(str(problem) for problem in parse(line.encode(), _policy(image)).problems
                     if problem.severity is Severity.ERROR)
    if findings:
        raise BuildError(f"image {image.image} would not boot with the line of this class: its policy refuses it",
                         "correct the class's kernel_params or --kernel-params, or build the image with a policy that "
                         "allows them; nvrc policy explain shows what its own allows", findings=findings)


def _policy(image: Inventory) -> Policy:
    try:
        return load_policy(image.policy.encode(), f"{POLICY} of image {image.image}")
    except NvrcError as wrong:
        raise BuildError(f"policy {wrong.what}", "build the image again") from wrong
