# SPDX-License-Identifier: Apache-2.0
"""What went wrong, or is worth a remark, as one value from where it is seen to where it is told.

nvrc.vocabulary.console makes text of it, and nothing else does; of text it is made again only where logs are read.
"""

from __future__ import annotations

from guest_cdi.lean.light import dataclass

AFTER_THE_BOOT = "supervise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """`code`: empty for a remark, which asks for no action. `hint`: what to do. Whatever else is not empty says where.

    Made by nvrc.vocabulary.errors, which checks codes and knows the advice of each.
    """

    code: str
    step: str = ""
    what: str
    hint: str = ""
    gpu: str = ""
    uuid: str = ""
    service: str = ""
    path: str = ""


def remark(what: str) -> Trouble:
    """What is told and has no code."""
    return Trouble(code="", what=what)
