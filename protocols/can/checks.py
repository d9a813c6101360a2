"""What is wrong with a CAN device whose fields are right one by one, said at each field."""

import difflib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from protocols.base import Refused
from protocols.can.frame import FD_LENGTHS
from protocols.can.signals import protect
from protocols.can.signals.database import Database, Message, Signal
from protocols.can.signals.decoder import route
from protocols.can.signals.encoder import initial_values, raw_of, selection
from protocols.mistakes import Wrong

if TYPE_CHECKING:
    from protocols.can.config import CanDevice, Checksum, Counter
    from protocols.can.config import Message as Settings
    from protocols.can.point import CanPoint

_LISTED: Final = 16
_REPORT_LEAST_S: Final = 0.001
_LISTENS = "the bus is listen_only"
_INTEGERS: Final = (-(1 << 63), (1 << 64) - 1)
"""What an integer can be on the wire."""

Mistake = tuple[str, str]
"""A field of a point or a message, and what is wrong with it."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What follows a mistake about a word that is not known: the nearest known one, or all of few."""
    known = list(known)
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    if near:
        return f"; did you mean {by_folded[near[0]]!r}?"
    return f"; known here: {', '.join(known)}" if 0 < len(known) <= _LISTED else ""


def bind(device: "CanDevice", database: Database) -> Iterator[Wrong]:
    """Finds each point's signal, and says of which there is none."""
    if not device.database_files and any(point.signal or point.message for point in device.points.values()):
        yield ("database",), "the points are signals of a database: name its file in database"
        return
    for name, point in device.points.items():
        if point.bus is not None or point.signal is None:
            continue
        found = _find(database, point.message, point.signal)
        if isinstance(found, tuple) and isinstance(found[0], Message):
            point.bind(*found)
        else:
            field, text = found
            yield ("points", name, str(field)), str(text)


def _find(database: Database, message: str | None, signal: str) -> tuple[Message, Signal] | Mistake:
    if message is not None:
        if wrong := unknown_message(database, message):
            return "message", wrong
        found = [database.messages[message]]
    else:
        found = [each for each in database.messages.values() if signal in each.signals]
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        return "signal", f"several messages have such a signal: say which by message ({names})"
    if not found or signal not in found[0].signals:
        where = f"message {message}" if message else "the database"
        pool = found or database.messages.values()
        known = {name: None for each in pool for name in each.signals}
        return "signal", f"{where} has no signal {signal!r}" + did_you_mean(signal, known)
    return found[0], found[0].signals[signal]


def unknown_message(database: Database, name: str) -> str:
    """Why the profile cannot name a message of the database; empty where it can."""
    if name in database.ambiguous:
        return f"the database is ambiguous: {database.ambiguous[name]}"
    if name not in database.messages:
        return f"the database has no message {name!r}" + did_you_mean(name, database.messages)
    return ""


def mistakes(device: "CanDevice") -> Iterator[Wrong]:
    """All that is wrong with a device whose points are bound as far as they can be."""
    if not device.points and device.frames is None and not device.record.always:
        yield (), "has nothing to do: give it points, frames or record: {always: true}"
    for index, answer in enumerate(device.simulation.answers):
        if len(answer.respond) // 2 not in (FD_LENGTHS if device.connection.fd else range(9)):
            lengths = "0 to 8, 12, 16, 20, 24, 32, 48 or 64" if device.connection.fd else "0 to 8"
            yield ("simulation", "answers", index, "respond"), f"a frame of this bus carries {lengths} bytes"
    for name, point in device.points.items():
        for field, text in _point(device, point):
            yield ("points", name, field), text
    by_message: dict[str, list[CanPoint]] = {}
    for point in device.points.values():
        if point.is_bound and point.writable:
            by_message.setdefault(point.bound[0].name, []).append(point)
    for points in by_message.values():
        yield from _written(points, device)


def _point(device: "CanDevice", point: "CanPoint") -> Iterator[Mistake]:
    if (point.signal is None) == (point.bus is None):
        yield "signal" if point.signal else "bus", "give either signal or bus"
    elif point.bus is not None:
        for field in ("message", "labels", "initial"):
            if field in point.model_fields_set:
                yield field, "only signals have this"
        if point.writable:
            yield "access", "figures of the bus can only be read"
    if point.is_bound:
        message, signal = point.bound
        yield from _signal(message, signal, point)
        if message.fd and not device.connection.fd:
            yield "signal", f"message {message.name} needs CAN FD: say fd: true of the connection"
        if point.writable:
            yield from _writable(device, message, signal)


def _signal(message: Message, signal: Signal, point: "CanPoint") -> Iterator[Mistake]:
    if message.unsupported:
        yield "signal", f"message {message.name} {message.unsupported}: that is not supported"
    elif not message.holds(signal):
        yield "signal", f"does not fit into message {message.name}, which has {message.length} bytes"
    elif route(message, signal) is None:
        yield "signal", "is in no frame, by what the database says of its multiplexers"
    elif not signal.is_float and not _fits_wire(signal, point):
        yield "signal", "has values of more than 64 bits, which no event can hold"
    elif point.labels == "yes" and not signal.choices:
        yield "labels", f"the database has no labels for {signal.name}"
    elif point.initial is not None:
        try:
            if not (isinstance(point.initial, str) and point.initial in signal.choices.values()):
                point.meaning(point.typed(point.initial))
        except Refused as refused:
            yield "initial", str(refused)


def _fits_wire(signal: Signal, point: "CanPoint") -> bool:
    low, high = _INTEGERS
    factors = (signal.scale, signal.offset) if point.kind == "integer" else (1, 0)
    return all(low <= raw * factors[0] + factors[1] <= high for raw in signal.raw_range)


def _writable(device: "CanDevice", message: Message, signal: Signal) -> Iterator[Mistake]:
    settings = device.settings_of(message.name)
    if device.connection.listen_only:
        yield "access", _LISTENS
    if signal.scale == 0:
        yield "access", "cannot be written: its factor in the database is 0"
    for part, what in ((settings.counter, "counter"), (settings.checksum, "checksum")):
        if part is not None and part.signal == signal.name:
            yield "access", f"cannot be written: it is the {what} of message {message.name}"


def _written(points: "list[CanPoint]", device: "CanDevice") -> Iterator[Wrong]:
    """What is wrong with the points that may be written of one message together."""
    message = points[0].bound[0]
    selections = [selection(message, point.bound[1]) for point in points]
    several = len({tuple(sorted(values.items())) for values in selections if values}) > 1
    if several and device.settings_of(message.name).send == "cyclic":
        text = "its points are in different frames, by their multiplexers: only send: write can send them"
        yield ("messages", message.name, "send"), text
    bound = [point for point in device.points.values() if point.is_bound and point.bound[0] is message]
    said = {point.bound[1].name for point in bound if point.initial is not None}
    for name, value in initial_values(message, ()).items():
        if name in said:
            continue
        try:
            raw_of(message.signals[name], value)
        except ValueError as error:
            text = f"cannot be written: its message begins with {name} = {value!r}, but {error}"
            yield ("points", points[0].name, "access"), text


def message_mistakes(device: "CanDevice", database: Database) -> Iterator[Wrong]:
    """What is wrong with what the profile says of messages."""
    for name, settings in device.messages.items():
        if wrong := unknown_message(database, name):
            yield ("messages", name), wrong
            continue
        message = database.messages[name]
        if "send" in settings.model_fields_set and device.connection.listen_only:
            yield ("messages", name, "send"), _LISTENS
        elif settings.send == "cyclic" and (settings.cycle or message.cycle) is None:
            yield ("messages", name, "send"), "needs a cycle: the database has none for this message"
        if isinstance(settings.report, float) and settings.report < _REPORT_LEAST_S:
            yield ("messages", name, "report"), "is at least 1ms; every frame: report: every"
        for field, text in _protection(message, settings):
            yield ("messages", name, *field.split(".")), text
    for name in device.simulation.silent:
        if wrong := unknown_message(database, name):
            yield ("simulation", "silent"), wrong


def _protection(message: Message, settings: "Settings") -> Iterator[Mistake]:
    counter, checksum = settings.counter, settings.checksum
    for part, what in ((counter, "counter"), (checksum, "checksum")):
        if part is not None and (wrong := _part(message, part.signal)):
            yield f"{what}.signal", wrong
            return
    if checksum is not None and checksum.profile not in protect.PROFILES:
        known = did_you_mean(checksum.profile, protect.PROFILES)
        yield "checksum.profile", f"there is no checksum profile {checksum.profile!r}{known}"
        return
    if counter is not None:
        most = message.signals[counter.signal].raw_range[1]
        last = protect.last_count(message, settings)
        if counter.last is not None and last > most:
            yield "counter.last", f"is over {most}, which is all that {counter.signal} holds"
        elif counter.first > last:
            yield "counter.first", f"is over its last value {last}"
    if checksum is not None:
        yield from _checksum(message, counter, checksum)


def _part(message: Message, name: str) -> str:
    signal = message.signals.get(name)
    if signal is None:
        return f"message {message.name} has no signal {name!r}" + did_you_mean(name, message.signals)
    if signal.selector is not None or signal.is_float or not message.holds(signal):
        return "should be an integer that is in every frame"
    return ""


def _checksum(message: Message, counter: "Counter | None", checksum: "Checksum") -> Iterator[Mistake]:
    profile = protect.PROFILES[checksum.profile]
    first, length = protect.lies_at(message.signals[checksum.signal])
    if length != 8 or first % 8:
        yield "checksum.signal", "should be one whole byte"
    elif profile.is_e2e and (first, length) != protect.E2E_CHECKSUM:
        yield "checksum.signal", f"should be byte 0, by {checksum.profile}"
    if profile.is_e2e and counter is None:
        yield "checksum.profile", f"{checksum.profile} needs the counter of the message too"
    elif profile.is_e2e and counter is not None:
        if protect.lies_at(message.signals[counter.signal]) != protect.E2E_COUNTER:
            yield "counter.signal", f"should be the low half of byte 1, by {checksum.profile}"
        elif counter.last not in (None, profile.last):
            yield "counter.last", f"should be {profile.last}, by {checksum.profile}"
    for field, wanted in (("data_id", "e2e-p01"), ("data_ids", "e2e-p02")):
        given = field in checksum.model_fields_set
        if given and checksum.profile != wanted:
            yield f"checksum.{field}", f"is not for {checksum.profile}"
        elif not given and checksum.profile == wanted:
            yield f"checksum.{field}", f"{wanted} needs {field}"
        elif field == "data_ids" and given and len(checksum.data_ids) != protect.DATA_IDS:
            yield "checksum.data_ids", f"should be {protect.DATA_IDS}, one for each value of the counter"
