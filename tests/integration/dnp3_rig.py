"""DNP3 outstations that do what a test says, octet for octet, and drivers to meet them."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from py1815 import link, transport
from py1815.application import AppControl, FunctionCode
from waiting import until

from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.driver import Dnp3Driver
from protocols.dnp3.objects import Iin

PATIENCE_S = 30.0
SILENCE = "400ms"
"""Time-out where one is waited for."""
OUTSTATION, MASTER = 10, 1
NOON = 1_700_000_000_000
"""Some time by the outstation's clock, in milliseconds."""

POINTS: dict[str, Any] = {
    "breaker": {"type": "binary_input", "index": 0},
    "fault": {"type": "binary_input", "index": 1},
    "current": {"type": "analog_input", "index": 0},
    "voltage": {"type": "analog_input", "index": 1, "scale": 0.1},
    "close": {"type": "binary_output", "index": 3, "access": "wo", "operation": "trip-close"},
    "fan": {"type": "binary_output", "index": 4, "access": "wo", "mode": "direct"},
}

READ, WRITE, SELECT, OPERATE, DIRECT = 0x01, 0x02, 0x03, 0x04, 0x05
COLD, ENABLE, DISABLE, DELAY, RECORD = 0x0D, 0x14, 0x15, 0x17, 0x18
EVENTS_ONLY = b"\x3c\x02\x06\x3c\x03\x06\x3c\x04\x06"
INTEGRITY = EVENTS_ONLY + b"\x3c\x01\x06"
RESTART_CLEARED = b"\x50\x01\x00\x07\x07\x00"


# Objects, written down by hand.


def binaries(start: int, *states: bool, flags: int = 0x01) -> bytes:
    """Group 1 variation 2 by range."""
    return bytes((1, 2, 0x00, start, start + len(states) - 1)) + bytes(flags | state << 7 for state in states)


def analogs(start: int, *values: int, flags: int = 0x01) -> bytes:
    """Group 30 variation 1 by range."""
    objects = b"".join(struct.pack("<Bi", flags, value) for value in values)
    return bytes((30, 1, 0x00, start, start + len(values) - 1)) + objects


def binary_event(index: int, state: bool, ms: int, flags: int = 0x01) -> bytes:
    """Group 2 variation 2, one event with its time."""
    return bytes((2, 2, 0x17, 1, index, flags | state << 7)) + ms.to_bytes(6, "little")


def analog_event(index: int, value: int, ms: int | None = None, flags: int = 0x01) -> bytes:
    """Group 32 variation 3, one event with its time; variation 1 without."""
    time = b"" if ms is None else ms.to_bytes(6, "little")
    return bytes((32, 1 if ms is None else 3, 0x17, 1, index)) + struct.pack("<Bi", flags, value) + time


PRESENT = binaries(0, True, False) + analogs(0, 100, 2300)
RIGHT = {"breaker": True, "fault": False, "current": 100, "voltage": 230.0}
"""What the points are while the outstation answers with `PRESENT`."""


class Asked(msgspec.Struct, frozen=True):
    """One request as the outstation got it."""

    function: int
    body: bytes
    sequence: int
    time: float


class Line:
    """One connection to the outstations at an end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def serve(self, stations: Mapping[int, "FarEnd"]) -> None:
        """Hands what comes to the outstations until the connection ends."""
        frames = link.FrameReader()
        for station in stations.values():
            station.line = self
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(4096):
                for frame in frames.feed(data):
                    if addressed := stations.get(frame.destination):
                        addressed.hear(frame)
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def write(self, octets: bytes) -> None:
        """Sends octets as they are; to nobody once the connection has ended."""
        if not self._writer.is_closing():
            self._writer.write(octets)

    def hang_up(self) -> None:
        """Ends the connection, after what was written."""
        self._writer.close()


Twist = Callable[[Asked], Awaitable[bool]]


class FarEnd:
    """One outstation. It answers as it should, but for what a test's `twist` answers in its place."""

    def __init__(self, address: int = OUTSTATION, master: int = MASTER) -> None:
        self.address = address
        self.master = master
        self.present = PRESENT
        self.events: list[bytes] = []
        """Events of class 1 that wait to be asked for."""
        self.iin = Iin(0)
        self.asked: list[Asked] = []
        self.confirmed: list[tuple[int, bool]] = []
        """Sequence number, and whether of an unsolicited response, of each confirmation."""
        self.loses_confirmations = 0
        """How many of the next confirmations are lost on their way."""
        self.when_confirmed: Callable[[], object] = lambda: None
        self.link_asked = 0
        """Requests for the link's status."""
        self.answers_link = True
        self.twist: Twist | None = None
        """Returns True when it has seen to the request itself."""
        self.line: Line | None = None
        self._segments = transport.Reassembler()
        self._requests: asyncio.Queue[Asked] = asyncio.Queue()
        self._awaited: tuple[int, int] | None = None
        self._unsolicited_sequence = -1

    def functions(self) -> list[int]:
        """Function codes of what was asked so far."""
        return [one.function for one in self.asked]

    def bodies(self, function: int) -> list[bytes]:
        """What requests of one function carried."""
        return [one.body for one in self.asked if one.function == function]

    # What comes.

    def hear(self, frame: link.LinkFrame) -> None:
        """Takes a frame that is addressed to this outstation."""
        if frame.source != self.master or not (frame.from_master and frame.is_primary):
            return
        match frame.function:
            case link.PrimaryFunction.REQUEST_LINK_STATUS:
                self.link_asked += 1
                if self.answers_link:
                    self._write_link(link.SecondaryFunction.LINK_STATUS)
            case link.PrimaryFunction.UNCONFIRMED_USER_DATA:
                if fragment := self._segments.add(frame.payload):
                    self._hear_fragment(fragment)

    def _write_link(self, function: int) -> None:
        control = link.control_byte(from_master=False, primary=False, function=function)
        self.write(link.build(control, self.master, self.address))

    def _hear_fragment(self, fragment: bytes) -> None:
        control = AppControl.from_byte(fragment[0])
        if fragment[1] == FunctionCode.CONFIRM:
            self.confirmed.append((control.sequence, control.uns))
            self.when_confirmed()
            if self.loses_confirmations:
                self.loses_confirmations -= 1
            elif self._awaited and self._awaited[0] == control.sequence and not control.uns:
                del self.events[: self._awaited[1]]
                self._awaited = None
            return
        asked = Asked(fragment[1], fragment[2:], control.sequence, asyncio.get_running_loop().time())
        self.asked.append(asked)
        self._requests.put_nowait(asked)

    async def live(self) -> None:
        """Answers requests, one after the other."""
        while True:
            asked = await self._requests.get()
            if self.twist is None or not await self.twist(asked):
                self.answer(asked)

    async def until_confirmed(self, sequence: int, *, unsolicited: bool = False) -> None:
        """Waits for a confirmation, whenever it came."""
        await until(lambda: (sequence, unsolicited) in self.confirmed)

    # What goes.

    def answer(self, asked: Asked) -> None:
        """Answers as an outstation should."""
        body = b""
        match asked.function:
            case 0x01:
                self.answer_read(asked)
                return
            case 0x02 if asked.body == RESTART_CLEARED:
                self.iin &= ~Iin.DEVICE_RESTART
            case 0x02 if asked.body[0] == 50:
                self.iin &= ~Iin.NEED_TIME
            case 0x03 | 0x04 | 0x05:
                body = asked.body
            case 0x0D | 0x0E | 0x17:
                body = b"\x34\x02\x07\x01\x0a\x00"
        self.respond(asked, body)

    def answer_read(self, asked: Asked) -> None:
        """Events if class 1 is asked for, then present values if anything else is."""
        events = self.events if b"\x3c\x02\x06" in asked.body else []
        rest = asked.body.replace(EVENTS_ONLY, b"")
        if events:
            self._awaited = (asked.sequence, len(events))
        self.respond(asked, b"".join(events) + (self.present if rest else b""), con=bool(events))

    def respond(
        self,
        asked: Asked,
        body: bytes = b"",
        *,
        con: bool = False,
        fir: bool = True,
        fin: bool = True,
        later: int = 0,
    ) -> None:
        """Sends one response fragment; `later` is added to the sequence number of the request."""
        self.send(self.fragment(asked.sequence + later, body, con=con, fir=fir, fin=fin))

    def fragment(
        self, sequence: int, body: bytes, *, con: bool = False, fir: bool = True, fin: bool = True
    ) -> bytes:
        """A response fragment's octets."""
        control = AppControl(fir=fir, fin=fin, con=con, sequence=sequence % 16)
        return bytes((control.to_byte(), FunctionCode.RESPONSE)) + self._indications() + body

    def _indications(self) -> bytes:
        iin = self.iin | (Iin.CLASS_1_EVENTS if self.events else 0)
        return int(iin).to_bytes(2, "little")

    def report(self, body: bytes, *, repeat: bool = False, con: bool = True) -> int:
        """Sends an unsolicited response; gives its sequence number, the last one with `repeat`."""
        if not repeat:
            self._unsolicited_sequence = (self._unsolicited_sequence + 1) % 16
        control = AppControl(con=con, uns=True, sequence=self._unsolicited_sequence)
        head = bytes((control.to_byte(), FunctionCode.UNSOLICITED_RESPONSE))
        self.send(head + self._indications() + body)
        return self._unsolicited_sequence

    def send(self, fragment: bytes) -> None:
        """Sends a fragment as it should be sent."""
        self.write(b"".join(self.frames(fragment)))

    def frames(
        self,
        fragment: bytes,
        *,
        source: int | None = None,
        destination: int | None = None,
        control: int = 0x44,
    ) -> list[bytes]:
        """The link frames that carry a fragment."""
        source = self.address if source is None else source
        destination = self.master if destination is None else destination
        segments = transport.segment(fragment)
        return [link.build(control, destination, source, segment) for segment in segments]

    def write(self, octets: bytes) -> None:
        """Sends octets as they are."""
        assert self.line is not None
        self.line.write(octets)


async def started(far: FarEnd) -> None:
    """Waits until the master is through with its startup, but for the last answer."""
    await until(lambda: ENABLE in far.functions())


async def asked_again(far: FarEnd, times: int) -> None:
    """Waits until so many more requests came."""
    count = len(far.asked) + times
    await until(lambda: len(far.asked) >= count)


class Place:
    """Where outstations are found, and the connections that were made to them."""

    def __init__(self, connection: Mapping[str, Any]) -> None:
        self.connection = connection
        self.lines: list[Line] = []


@contextlib.asynccontextmanager
async def outstations(*stations: FarEnd) -> AsyncIterator[Place]:
    """Lets outstations be called on one port of loopback."""
    by_address = {one.address: one for one in stations}
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        place.lines.append(line := Line(reader, writer))
        await line.serve(by_address)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    place = Place({"transport": "tcp", "host": host, "port": port})
    async with server, alive(stations):
        yield place
        server.close()
        late = {task for task in serving if not task.done()}
        if late:
            _, late = await asyncio.wait(late, timeout=PATIENCE_S)
        assert not late, "the driver left a connection open"
    for task in serving:
        task.result()


@contextlib.asynccontextmanager
async def alive(stations: Iterable[FarEnd]) -> AsyncIterator[None]:
    """Lets outstations answer; what fails in one fails the test."""
    tasks = [asyncio.create_task(one.live()) for one in stations]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError):
                raise AssertionError("an outstation's script failed") from ended


@contextlib.asynccontextmanager
async def calling(station: FarEnd, port: int) -> AsyncIterator[Line]:
    """An outstation that calls a master as soon as it listens."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
    line = Line(reader, writer)
    serving = asyncio.create_task(line.serve({station.address: station}))
    await asyncio.sleep(0)  # let it take the line
    try:
        yield line
    finally:
        line.hang_up()
        async with asyncio.timeout(PATIENCE_S):
            await serving


def device(connection: Mapping[str, Any], **fields: Any) -> Dnp3Device:
    """An outstation's device with `POINTS`, and a poll that is not due, unless said otherwise."""
    whole = {"protocol": "dnp3", "connection": connection, "outstation": OUTSTATION, "points": POINTS}
    return Dnp3Device.model_validate(whole | {"poll": "1h", "timeout": "10s"} | fields).named("rtu")


@contextlib.asynccontextmanager
async def connected(
    connection: Mapping[str, Any], shared: dict[Any, Any] | None = None, **fields: Any
) -> AsyncIterator[Dnp3Driver]:
    """A driver that has connected; whatever happens, it ends in time and is closed."""
    driver = Dnp3Driver(device(connection, **fields), {} if shared is None else shared)
    try:
        async with asyncio.timeout(PATIENCE_S):
            await driver.connect()
            yield driver
    finally:
        await driver.close()


def told(samples: Sequence[Any], point: str) -> list[tuple[int, Any]]:
    """What was said of one point: time in milliseconds and value, in the order it came."""
    return [(one.time_ns // 1_000_000, one.values[point]) for one in samples if point in one.values]
