"""What a simulated outstation does on each function and how it answers (IEEE 1815-2012, clause 4)."""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from py1815.application import FunctionCode, ObjectHeader, RequestError, parse_header_list
from py1815.control import CommandStatus

from protocols.dnp3.objects import STATIC_GROUP, Iin
from sim.dnp3 import controls
from sim.dnp3.encoder import Part, count_of_one
from sim.dnp3.outstation import SimulatedOutstation
from sim.dnp3.reading import Reading, Unreadable, existing

LARGEST_FRAGMENT: Final = 2048
RESPONSE_HEADER: Final = 4
"""Octets of a response before its objects."""
RESTART_MS: Final[Mapping[int, int]] = {FunctionCode.COLD_RESTART: 500, FunctionCode.WARM_RESTART: 100}
"""How long an outstation is away after each kind of restart."""

_COUNTERS: Final = STATIC_GROUP["counter"]
_TIME_OBJECT: Final = 6
_FINE_DELAY: Final = (52, 2)
"""Time delay in milliseconds."""


class Answer(NamedTuple):
    """What is sent: fragments, and what was wrong with the request."""

    parts: Sequence[Part] = (Part(b""),)
    iin: Iin = Iin(0)


class _Request(NamedTuple):
    sequence: int
    function: int
    body: bytes


def room(outstation: SimulatedOutstation) -> int:
    """Octets of objects that fit one response fragment."""
    return min(LARGEST_FRAGMENT, outstation.device.max_fragment) - RESPONSE_HEADER


def answer(outstation: SimulatedOutstation, fragment: bytes) -> Answer | None:
    """Carries out one request, of at least two octets; None: it is one that is never answered.

    Never raises. A restart is answered here and begun by the session.
    """
    request = _Request(fragment[0] & 0x0F, fragment[1], fragment[2:])
    handle = _HANDLERS.get(request.function)
    if handle is None:
        return Answer(iin=Iin.FUNCTION_NOT_SUPPORTED)
    outstation.advance()
    if request.function != FunctionCode.OPERATE:
        outstation.disarm()
    try:
        given = handle(outstation, request)
    except (Unreadable, controls.Malformed) as wrong:
        given = Answer(iin=wrong.iin)
    except RequestError as wrong:
        given = Answer(iin=Iin(wrong.bit << 8))
    return None if request.function in _UNANSWERED else given


def _read(outstation: SimulatedOutstation, request: _Request) -> Answer:
    headers = parse_header_list(request.body)
    reading = Reading(outstation.database, outstation.buffer, room(outstation))
    parts = reading.answer(headers, outstation.clock_ms, not outstation.need_time)
    return Answer(parts, reading.iin)


def _write(outstation: SimulatedOutstation, request: _Request) -> Answer:
    """Understands what masters write: the restart bit cleared, and the time."""
    body = request.body
    time_ms = int.from_bytes(body[4:], "little")
    if body[:2] == b"\x50\x01":
        if body not in (b"\x50\x01\x00\x07\x07\x00", b"\x50\x01\x01\x07\x00\x07\x00\x00"):
            return Answer(iin=Iin.PARAMETER_ERROR)
        outstation.restarted = False
    elif body[:2] in (b"\x32\x01", b"\x32\x03"):
        if body[2:4] != b"\x07\x01" or len(body) != 4 + _TIME_OBJECT:
            return Answer(iin=Iin.PARAMETER_ERROR)
        if body[1] == 1:
            outstation.set_clock(time_ms)
        elif not outstation.set_recorded_clock(time_ms):
            return Answer(iin=Iin.PARAMETER_ERROR)
    else:
        return Answer(iin=Iin.OBJECT_UNKNOWN)
    return Answer()


def _select(outstation: SimulatedOutstation, request: _Request) -> Answer:
    named = controls.parse(request.body)
    return _echo(request, named, outstation.select(request.body, named, request.sequence))


def _operate(outstation: SimulatedOutstation, request: _Request) -> Answer:
    named = controls.parse(request.body)
    return _echo(request, named, outstation.operate(request.body, named, request.sequence))


def _direct_operate(outstation: SimulatedOutstation, request: _Request) -> Answer:
    named = controls.parse(request.body)
    return _echo(request, named, outstation.direct_operate(named))


def _echo(request: _Request, named: Sequence[controls.Control], statuses: Sequence[CommandStatus]) -> Answer:
    return Answer((Part(controls.echo(request.body, named, statuses)),))


def _freeze(outstation: SimulatedOutstation, request: _Request) -> Answer:
    clear = request.function in (FunctionCode.FREEZE_CLEAR, FunctionCode.FREEZE_CLEAR_NR)
    headers = parse_header_list(request.body)
    if any(header.group != _COUNTERS for header in headers):
        return Answer(iin=Iin.OBJECT_UNKNOWN)
    iin = Iin(0) if headers else Iin.PARAMETER_ERROR
    for header in headers:
        points, missing = existing(outstation.database, header)
        for point in points:
            outstation.freeze(point, clear=clear)
        if missing:
            iin |= Iin.PARAMETER_ERROR
    return Answer(iin=iin)


def _restart(outstation: SimulatedOutstation, request: _Request) -> Answer:
    delay = struct.pack("<H", RESTART_MS[request.function])
    return Answer((Part(count_of_one(*_FINE_DELAY, delay)),))


def _unsolicited(outstation: SimulatedOutstation, request: _Request) -> Answer:
    headers = parse_header_list(request.body)
    if not all(header.event_class for header in headers):
        return Answer(iin=Iin.OBJECT_UNKNOWN)
    classes = {header.event_class for header in headers if header.event_class}
    if request.function == FunctionCode.ENABLE_UNSOLICITED:
        outstation.unsolicited |= classes
    else:
        outstation.unsolicited -= classes
    return Answer()


def _assign_class(outstation: SimulatedOutstation, request: _Request) -> Answer:
    """Each class header is followed by the headers of what is to be of that class."""
    assigned: list[tuple[int, ObjectHeader]] = []
    chosen: int | None = None
    for header in parse_header_list(request.body):
        if header.event_class is not None:
            chosen = header.event_class
        elif chosen is None:
            return Answer(iin=Iin.PARAMETER_ERROR)
        else:
            assigned.append((chosen, header))
    iin = Iin(0)
    for event_class, header in assigned:
        points, missing = existing(outstation.database, header)
        for point in points:
            point.event_class = event_class
        if missing:
            iin |= Iin.PARAMETER_ERROR
    return Answer(iin=iin)


def _delay_measure(outstation: SimulatedOutstation, request: _Request) -> Answer:
    return Answer((Part(count_of_one(*_FINE_DELAY, b"\0\0")),))


def _record_time(outstation: SimulatedOutstation, request: _Request) -> Answer:
    outstation.record_time()
    return Answer()


_HANDLERS: Final[Mapping[int, Callable[[SimulatedOutstation, _Request], Answer]]] = {
    FunctionCode.READ: _read,
    FunctionCode.WRITE: _write,
    FunctionCode.SELECT: _select,
    FunctionCode.OPERATE: _operate,
    FunctionCode.DIRECT_OPERATE: _direct_operate,
    FunctionCode.DIRECT_OPERATE_NR: _direct_operate,
    FunctionCode.IMMED_FREEZE: _freeze,
    FunctionCode.IMMED_FREEZE_NR: _freeze,
    FunctionCode.FREEZE_CLEAR: _freeze,
    FunctionCode.FREEZE_CLEAR_NR: _freeze,
    FunctionCode.COLD_RESTART: _restart,
    FunctionCode.WARM_RESTART: _restart,
    FunctionCode.ENABLE_UNSOLICITED: _unsolicited,
    FunctionCode.DISABLE_UNSOLICITED: _unsolicited,
    FunctionCode.ASSIGN_CLASS: _assign_class,
    FunctionCode.DELAY_MEASURE: _delay_measure,
    FunctionCode.RECORD_CURRENT_TIME: _record_time,
}
_UNANSWERED: Final = (
    FunctionCode.DIRECT_OPERATE_NR,
    FunctionCode.IMMED_FREEZE_NR,
    FunctionCode.FREEZE_CLEAR_NR,
)
