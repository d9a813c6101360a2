"""The operations of `call`: polls and reads by hand, controls by index, clock, counters, classes, restarts.

Imported only when a device is made.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec
from py1815.control import ControlError

from protocols.base import DriverError, Refused
from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.controls import Code, Control, relay, setpoint
from protocols.dnp3.fragment import Block, NotSent, Outstation, Reply
from protocols.dnp3.objects import (
    DOUBLE_BIT,
    INDICES,
    LAYOUTS,
    STATIC_GROUP,
    AnalogOutput,
    Iin,
    PointType,
)
from protocols.dnp3.operate import carry_out as operate
from protocols.dnp3.plan import Range, class_headers
from protocols.dnp3.point import Mode
from protocols.dnp3.readings import names_of
from protocols.dnp3.refusals import accepted
from protocols.dnp3.timesync import delay_ms, synchronise
from protocols.timestamps import rfc3339

MOST_OBJECTS: Final = 1000
"""Objects that `read` gives; of more it says how many were left out."""

_READ = 0x01
_FREEZE, _FREEZE_CLEAR = 0x07, 0x09
_COLD_RESTART, _WARM_RESTART = 0x0D, 0x0E
_ENABLE, _DISABLE, _ASSIGN_CLASS = 0x14, 0x15, 0x16


class Station(Outstation, Protocol):
    """An outstation and what is known of the link to it."""

    last_iin: Iin
    """Indications of its last response."""
    heard_ns: int
    """When its last frame came, UTC; 0 before the first."""
    dropped: Counter[str]
    """Frames that were not taken, by reason."""


class Master(Protocol):
    """The polls of a master."""

    async def integrity(self) -> Reply:
        """Polls everything."""

    async def classes(self, classes: Sequence[int]) -> Reply:
        """Polls the events of these classes."""

    def disabling(self, classes: Sequence[int]) -> None:
        """Does not enable these classes' unsolicited responses of itself any more."""


class _At(msgspec.Struct, frozen=True):
    """Who is called."""

    device: Dnp3Device
    station: Station
    master: Master

    async def ask(self, what: str, function: int, body: bytes = b"", instead: str = "") -> Reply:
        """Sends a request that changes something: it is asked once, and accepted or refused.

        Raises:
            DriverError: refused, or whether it was carried out is not known.
        """
        what = f"{what} {self.station.name}"
        try:
            reply = await self.station.ask(function, body)
        except NotSent:
            raise
        except DriverError as error:
            text = f"{what} failed: {error}; whether it had effect is not known"
            raise DriverError(error.code, text) from error
        return accepted(reply, what, instead)


_Index = Annotated[int, msgspec.Meta(ge=0, lt=INDICES)]
_Octet = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
_Group = Annotated[int, msgspec.Meta(ge=1, le=0xFF)]
_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
_EventClasses = Annotated[tuple[Literal[1, 2, 3], ...], msgspec.Meta(min_length=1, max_length=3)]


class _Args(msgspec.Struct, forbid_unknown_fields=True):
    """A method with what it takes."""

    async def carry_out(self, at: _At) -> Any:
        """Carries the method out."""
        raise NotImplementedError


class _Span(_Args):
    """Indices from `start` to `stop`, one index without `stop`, and all without both."""

    start: _Index | None = None
    stop: _Index | None = None

    def header(self, group: int, variation: int = 0) -> bytes:
        """The object header with these indices: a range, or qualifier 06 for all.

        Raises:
            Refused: `out-of-range`.
        """
        if self.start is None:
            if self.stop is not None:
                raise Refused("malformed", "stop needs start; leave both out for all")
            return bytes((group, variation, 0x06))
        stop = self.start if self.stop is None else self.stop
        if stop < self.start:
            raise Refused("out-of-range", f"the indices {self.start} to {stop} end before they begin")
        return Range(group, variation, self.start, stop, ()).header()


async def carry_out(
    method: str, args: Mapping[str, Any], device: Dnp3Device, outstation: Station, master: Master
) -> Any:
    """Carries out a method of `call`; the answer is JSON-able.

    Raises:
        Refused: unknown method or wrong arguments; nothing was sent.
        DriverError: the outstation refused it or did not answer.
    """
    kind = METHODS.get(method)
    if kind is None:
        raise Refused(
            "unknown-op", f"a dnp3 device has no method {method!r:.60}; it has {', '.join(METHODS)}"
        )
    known = kind.__struct_encode_fields__
    for name in args:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise Refused("malformed", f"{method} has no argument {name!r:.40}; {takes}")
    try:
        parsed = msgspec.convert(dict(args), kind)
    except msgspec.ValidationError as error:
        raise Refused("malformed", f"{method}: {error}") from error
    return await parsed.carry_out(_At(device, outstation, master))


def _iin(iin: Iin) -> list[str]:
    return [one.name.lower().replace("_", "-") for one in Iin if one & iin and one.name]


def _polled(reply: Reply, what: str) -> dict[str, Any]:
    """What is said of a poll, whose objects go the way of all samples."""
    accepted(reply, what)
    said: dict[str, Any] = {"objects": sum(len(one.indices) for one in reply.blocks), "iin": _iin(reply.iin)}
    return said | ({"problem": reply.problem} if reply.problem else {})


class _Integrity(_Args):
    async def carry_out(self, at: _At) -> Any:
        return _polled(await at.master.integrity(), f"the integrity poll of {at.station.name}")


class _ClassPoll(_Args):
    classes: _EventClasses = (1, 2, 3)

    async def carry_out(self, at: _At) -> Any:
        reply = await at.master.classes(sorted(set(self.classes)))
        return _polled(reply, f"the event poll of {at.station.name}")


class _Read(_Span, kw_only=True):
    """Events that it reads are samples too: the outstation forgets them."""

    group: _Group
    variation: _Octet = 0

    async def carry_out(self, at: _At) -> Any:
        what = f"reading group {self.group} of {at.station.name}"
        reply = accepted(await at.station.ask(_READ, self.header(self.group, self.variation)), what)
        count = sum(len(one.values) for one in reply.blocks)
        said: dict[str, Any] = {"objects": list(_described(reply.blocks)), "iin": _iin(reply.iin)}
        if count > MOST_OBJECTS:
            said["left_out"] = count - MOST_OBJECTS
        return said | ({"problem": reply.problem} if reply.problem else {})


def _described(blocks: Sequence[Block]) -> Iterator[dict[str, Any]]:
    room = MOST_OBJECTS
    for block in blocks:
        layout = LAYOUTS.get((block.group, block.variation))
        kind = layout.kind if layout is not None else None
        for place, value in enumerate(block.values[:room]):
            one: dict[str, Any] = {"group": block.group, "variation": block.variation}
            if block.indices:
                one["index"] = block.indices[place]
            one["value"] = _json(DOUBLE_BIT[value] if kind == "double_bit_input" else value)
            if block.flags is not None and kind is not None:
                one["flags"] = names_of(kind, block.flags[place])
            if block.times is not None:
                one["time"] = rfc3339(block.times[place] * 1_000_000)
                if not block.synchronised:
                    one["synchronised"] = False
            yield one
        room -= min(room, len(block.values))


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such numbers
    return value


class _Status(_Args):
    async def carry_out(self, at: _At) -> Any:
        station = at.station
        return {
            "outstation": station.name,
            "iin": _iin(station.last_iin),
            "heard": rfc3339(station.heard_ns) if station.heard_ns else None,
            "dropped": dict(station.dropped),
        }


_CODES: Final = {code.name.lower().replace("_", "-"): code for code in Code}


class _Operate(_Args):
    """A binary output by `code`, or an analog one by `value` (raw) and `output`."""

    index: _Index
    code: str | _Octet | None = None
    count: _Octet = 1
    on_ms: _Milliseconds = 100
    off_ms: _Milliseconds = 0
    clear: bool = False
    value: float | None = None
    output: AnalogOutput = "float32"
    mode: Mode = "select"

    async def carry_out(self, at: _At) -> Any:
        control = self._control()
        if refused := await operate(at.station, self.mode, [control]):
            text = f"{at.station.name} did not operate {control.name}: {refused[control.name]}"
            raise DriverError("device-error", text)
        return {"status": "not asked for" if self.mode == "direct-no-ack" else "success"}

    def _control(self) -> Control:
        if (self.code is None) is (self.value is None):
            text = "operate takes code (of a binary output) or value (of an analog output)"
            raise Refused("malformed", text)
        if self.value is not None:
            return self._setpoint(self.value)
        code = _CODES.get(self.code) if isinstance(self.code, str) else self.code
        if code is None:
            raise Refused("malformed", f"code is one of {', '.join(_CODES)}, or a control code from 0 to 255")
        return relay(
            f"binary output {self.index}",
            self.index,
            code,
            count=self.count,
            on_s=self.on_ms / 1000,
            off_s=self.off_ms / 1000,
            clear=self.clear,
        )

    def _setpoint(self, value: float) -> Control:
        try:
            return setpoint(f"analog output {self.index}", self.index, self.output, value)
        except ControlError:
            raise Refused("out-of-range", f"{value:g} does not fit output {self.output}") from None


class _Freeze(_Span):
    clear: bool = False

    async def carry_out(self, at: _At) -> Any:
        function = _FREEZE_CLEAR if self.clear else _FREEZE
        body = self.header(STATIC_GROUP["counter"])
        return {"iin": _iin((await at.ask("freezing counters of", function, body)).iin)}


class _AssignClass(_Span, kw_only=True):
    type: PointType
    class_: Literal[0, 1, 2, 3] = msgspec.field(name="class")

    async def carry_out(self, at: _At) -> Any:
        body = class_headers((self.class_,)) + self.header(STATIC_GROUP[self.type])
        instead = "set its classes in its own configuration"
        return {"iin": _iin((await at.ask("assigning classes of", _ASSIGN_CLASS, body, instead)).iin)}


class _TimeSync(_Args):
    procedure: Literal["lan", "non-lan"] | None = None

    async def carry_out(self, at: _At) -> Any:
        procedure = self.procedure or ("lan" if at.device.time_sync == "never" else at.device.time_sync)
        delay = await synchronise(at.station, procedure, lambda: time.time_ns() // 1_000_000)
        return {"procedure": procedure, "delay_ms": delay}


class _Unsolicited(_Args):
    """Until the next restart or connection, when what the profile says is enabled again."""

    enable: bool
    classes: _EventClasses = (1, 2, 3)

    async def carry_out(self, at: _At) -> Any:
        function = _ENABLE if self.enable else _DISABLE
        body = class_headers(sorted(set(self.classes)))
        if not self.enable:
            at.master.disabling(self.classes)
        what = f"{'enabling' if self.enable else 'disabling'} unsolicited responses of"
        reply = await at.ask(what, function, body, "poll its events: set unsolicited: []")
        return {"iin": _iin(reply.iin)}


async def _restart(at: _At, what: str, function: int, instead: str) -> Any:
    reply = await at.ask(f"a {what} restart of", function, instead=instead)
    delay = delay_ms(reply.blocks)
    return {"seconds": None if delay is None else delay / 1000}


class _ColdRestart(_Args):
    async def carry_out(self, at: _At) -> Any:
        return await _restart(at, "cold", _COLD_RESTART, "")


class _WarmRestart(_Args):
    async def carry_out(self, at: _At) -> Any:
        return await _restart(at, "warm", _WARM_RESTART, "try cold-restart")


METHODS: Final[Mapping[str, type[_Args]]] = {
    "integrity": _Integrity,
    "class-poll": _ClassPoll,
    "read": _Read,
    "status": _Status,
    "operate": _Operate,
    "freeze": _Freeze,
    "assign-class": _AssignClass,
    "time-sync": _TimeSync,
    "unsolicited": _Unsolicited,
    "cold-restart": _ColdRestart,
    "warm-restart": _WarmRestart,
}
