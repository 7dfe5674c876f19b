# SPDX-License-Identifier: Apache-2.0
"""What the worker can be asked, on one screen. Runs in the forked child, where NVIDIA's library may crash or hang.

Each request has the code that a refused call of the library gets there; a CDI document has codes of its own.
"""

from __future__ import annotations

from guest_cdi.errors import CdiError
from guest_cdi.host import Host, LinuxHost
from guest_cdi.lean.light import TYPE_CHECKING, Callable, Mapping
from guest_cdi.nvml import RefusedError
from nvrc.nvml import cdi as nvml_cdi
from nvrc.nvml import confidential as nvml_confidential
from nvrc.nvml import fabric as nvml_fabric
from nvrc.nvml import links as nvml_links
from nvrc.nvml import mig as nvml_mig
from nvrc.nvml import nscq
from nvrc.nvml import ready as nvml_ready
from nvrc.nvml import settings as nvml_settings
from nvrc.nvml.answers import NvmlGpu
from nvrc.nvml.session import Session, describe
from nvrc.nvml.worker import Request, Value
from nvrc.vocabulary.errors import CDI_PREFIX, NvrcError

if TYPE_CHECKING:
    from nvrc.vocabulary.errors import Code

Action = Callable[[Session, Mapping[str, Value]], Value]


def list_gpus(session: Session, given: Mapping[str, Value]) -> list[NvmlGpu]:
    """With the boards' serial numbers where they are asked for: a call that a boot can do without may hang."""
    return [describe(gpu, session.serial(gpu) if given.get("serials") else "") for gpu in session.gpus()]


REQUESTS: tuple[tuple[str, Action, Code], ...] = (
    # asked       answered by                       a refused call is
    ("gpus",      list_gpus,                        "E_NVML"),
    ("settings",  nvml_settings.apply_settings,     "E_GPU_SETTING"),
    ("mig",       nvml_mig.make_layout,             "E_MIG"),
    ("cc",        nvml_confidential.read_mode,      "E_CC_UNKNOWN"),
    ("switches",  nscq.read_switches,               "E_CC_SWITCH"),
    ("certificates", nvml_confidential.read_certificates, "E_ATTEST_EVIDENCE"),
    ("fabric",    nvml_fabric.read_states,          "E_FABRIC_STATE"),
    ("links",     nvml_links.read_links,            "E_NVML"),
    ("cdi",       nvml_cdi.describe_document,       "E_CDI_NVML"),
    ("promise",   nvml_cdi.describe_promise,        "E_CDI_NVML"),
    ("keys",      nvml_ready.change_keys,           "E_KEY_ROTATION"),
    ("ready",     nvml_ready.change_state,          "E_READY_STATE"),
)

# What guest-cdi says about the library before there is any talk of a document, and advice that suits a boot.
OWN_CODES: Mapping[str, Code] = {"E_CDI_NVML": "E_NVML", "E_CDI_NVML_LIBRARY": "E_NVML_LIBRARY"}
VERSION_MISMATCH = 18  # of NVML, whichever call it is that finds out
WITHOUT_IT = "read the kernel's NVRM and Xid lines of that GPU; nvrc.gpus=min:N goes on without it"
OWN_HINTS = {"E_CDI_GPU": WITHOUT_IT, "E_CDI_GPU_NODE": WITHOUT_IT}


def make_requests(driver_root: str, *, root: str = "/", host: Host | None = None) -> Mapping[str, Request]:
    """The requests of a new session. Warms up first: whoever asks early waits no longer than without."""
    session = Session(host or LinuxHost(root), driver_root, root)
    session.warm()
    return {name: _bind(session, action, code) for name, action, code in REQUESTS}


def _bind(session: Session, action: Action, code: Code) -> Request:
    def request(given: Mapping[str, Value]) -> Value:
        try:
            return action(session, given)
        except RefusedError as err:
            raise NvrcError(_code_of(err, code), str(err), err.remedy) from err
        except CdiError as err:
            if isinstance(err.__cause__, RefusedError) and err.__cause__.code == VERSION_MISMATCH:
                raise NvrcError("E_DRIVER_VERSION", err.what, err.hint) from err
            raise NvrcError(_own_code(err, code), err.what, OWN_HINTS.get(err.code, err.hint)) from err

    return request


def _code_of(refused: RefusedError, code: Code) -> Code:
    return "E_DRIVER_VERSION" if refused.code == VERSION_MISMATCH else code


def _own_code(error: CdiError, of_request: Code) -> Code:
    return error.code if of_request.startswith(CDI_PREFIX) else OWN_CODES.get(error.code, error.code)
