# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's library for NVSwitches says of each one: where it is, and its protected PCIe mode. Child side.

The library answers by calling back, once for each switch, and a call may be refused for one switch alone. Nothing is
decided here: a switch that is listed twice, or is silent, becomes a row that says so. Names, paths and layouts are
those of nscq.h as DCGM and nvtrust use them.
"""

from __future__ import annotations

import ctypes
import os

from guest_cdi.elf import ElfError
from guest_cdi.generate import Options
from guest_cdi.lean.light import Callable, Mapping, NamedTuple
from guest_cdi.locate import find_library
from guest_cdi.nvml import open_library
from nvrc.nvml.answers import SwitchTold
from nvrc.nvml.session import Session
from nvrc.nvml.worker import Value
from nvrc.vocabulary.errors import NvrcError

SONAME = "libnvidia-nscq.so.2"
MOUNT_DEVICES = 1
LISTED, PLACES, MODES = b"/drv/nvswitch/{device}/uuid", b"/{nvswitch}/pcie/location", b"/{nvswitch}/config/pcie_mode"
MOST = 256      # answers to one question; a machine has four switches or eighteen
NOT_TOLD = -1


class _Uuid(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint8 * 16)]


class _Label(ctypes.Structure):
    _fields_ = [("data", ctypes.c_char * 64)]


class _Place(ctypes.Structure):
    _fields_ = [("domain", ctypes.c_uint32), ("bus", ctypes.c_uint8), ("device", ctypes.c_uint8),
                ("function", ctypes.c_uint8)]


class _Created(ctypes.Structure):
    _fields_ = [("rc", ctypes.c_int8), ("session", ctypes.c_void_p)]


class _Answer(NamedTuple):
    """One call back: about which switch, with which code. `value` is text or a number."""

    switch: bytes
    code: int
    value: str | int


def read_switches(session: Session, _given: Mapping[str, Value]) -> list[SwitchTold]:
    library = _open(session)
    created = library.nscq_session_create(MOUNT_DEVICES)
    if created.rc < 0:
        raise NvrcError("E_CC_SWITCH", f"nscq_session_create returned {created.rc}")
    try:
        listed = _observe(library, created.session, LISTED, ctypes.POINTER(_Uuid), lambda _value: "")
        places = _observe(library, created.session, PLACES, _Place, _spell)
        modes = _observe(library, created.session, MODES, ctypes.c_int8, _number)
    finally:
        library.nscq_session_destroy(created.session)
    known = {answer.switch for answer in listed}
    strangers = dict.fromkeys(answer.switch for answer in (*places, *modes) if answer.switch not in known)
    return [*(_row(library, answer.switch, answer.code, places, modes) for answer in listed),
            *(SwitchTold(_name(library, switch), "", NOT_TOLD, "is not listed") for switch in strangers)]


def _open(session: Session) -> ctypes.CDLL:
    found = find_library(session.host, Options(driver_root=session.driver_root), SONAME)
    if found is None:
        raise NvrcError("E_CC_SWITCH", f"{SONAME} is missing, so the NVSwitches cannot be asked for their mode")
    path = os.path.realpath(session.root).rstrip("/") + found
    try:
        library = open_library(path)
        library.nscq_session_create.argtypes, library.nscq_session_create.restype = (ctypes.c_uint32,), _Created
        library.nscq_session_destroy.argtypes, library.nscq_session_destroy.restype = (ctypes.c_void_p,), None
        library.nscq_uuid_to_label.argtypes = (ctypes.POINTER(_Uuid), ctypes.POINTER(_Label), ctypes.c_uint32)
        library.nscq_uuid_to_label.restype = ctypes.c_int8
        library.nscq_session_path_observe.restype = ctypes.c_int8
    except (OSError, ElfError, AttributeError) as err:
        raise NvrcError("E_CC_SWITCH", f"{path} cannot be loaded: {err}") from err
    return library


def _observe(library: ctypes.CDLL, session: int, path: bytes, kind: type, read: Callable[[object], str | int],
             ) -> list[_Answer]:
    """All answers to one question. Nothing may be raised in what the library calls: it is C."""
    answers: list[_Answer] = []

    def hear(switch: object, code: int, value: object, _data: object) -> None:
        if len(answers) <= MOST:
            whose = bytes(switch.contents.bytes) if switch else b""  # type: ignore[attr-defined]
            answers.append(_Answer(whose, code, "" if code else read(value)))

    heard = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Uuid), ctypes.c_int8, kind, ctypes.c_void_p)(hear)
    code = library.nscq_session_path_observe(ctypes.c_void_p(session), path, heard, None, ctypes.c_uint32(0))
    if code < 0 or len(answers) > MOST:
        why = f"returned {code}" if code < 0 else f"gave more than {MOST} answers"
        raise NvrcError("E_CC_SWITCH", f"nscq_session_path_observe of {path.decode()} {why}")
    return answers


def _spell(value: object) -> str:
    return (f"{value.domain:04x}:{value.bus:02x}:{value.device:02x}.{value.function:x}"
            if isinstance(value, _Place) else "")


def _number(value: object) -> int:
    return value if isinstance(value, int) else NOT_TOLD


def _row(library: ctypes.CDLL, switch: bytes, code: int, places: list[_Answer], modes: list[_Answer]) -> SwitchTold:
    place = [answer for answer in places if answer.switch == switch]
    mode = [answer for answer in modes if answer.switch == switch]
    error = next((text for text in (_fault("its UUID", code, 1), *(_fault(name, *_code_of(answers))
                  for name, answers in (("its place", place), ("its mode", mode)))) if text), "")
    bdf = str(place[0].value) if len(place) == 1 and not place[0].code else ""
    told = _number(mode[0].value) if len(mode) == 1 else NOT_TOLD
    return SwitchTold(_name(library, switch), bdf, told, error)


def _code_of(answers: list[_Answer]) -> tuple[int, int]:
    return (answers[0].code if answers else 0), len(answers)


def _fault(name: str, code: int, count: int) -> str:
    if count != 1:
        return f"{name} was answered {count} times"
    return f"{name} was answered with the code {code}" if code else ""


def _name(library: ctypes.CDLL, switch: bytes) -> str:
    if len(switch) != ctypes.sizeof(_Uuid):
        return ""
    label = _Label()
    if library.nscq_uuid_to_label(ctypes.byref(_Uuid.from_buffer_copy(switch)), ctypes.byref(label), 0):
        return ""
    text: bytes = label.data
    return text.decode("ascii", "backslashreplace")
