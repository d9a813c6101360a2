"""A channel without I/O: what a station sends is kept, and what its outstation says is handed to it."""

import asyncio
from typing import Any, cast

from py1815 import link, transport
from py1815.application import AppControl, FunctionCode
from py1815.link import PrimaryFunction, SecondaryFunction

from protocols.dnp3.channel import Channel
from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.fragment import Fragment, NotSent, Reply
from protocols.dnp3.station import Station

OUTSTATION, MASTER = 10, 1
NOW_NS = 1_700_000_000_000_000_000
BINARY_1_ON = b"\x01\x02\x00\x01\x01\x81"
"""Group 1 variation 2, index 1: online and on."""
CLASS_1 = b"\x3c\x02\x06"
UNKNOWN = b"\xf0\x01\x00\x00\x00\x00"
"""An object of group 240."""


class Wire:
    """Stands in for `Channel`, and speaks as the outstation."""

    def __init__(self, **fields: Any) -> None:
        whole = {
            "protocol": "dnp3",
            "connection": {"transport": "tcp", "host": "rtu.bench.example"},
            "outstation": OUTSTATION,
            "master": MASTER,
            "points": {},
            "timeout": "60s",
        }
        self.name = "rtu.bench.example:20000"
        self.turn = asyncio.Lock()
        self.is_open = True
        self.log: list[str] = []
        self.sent: list[bytes] = []
        """Fragments that the station sent, whole."""
        self.link_sent: list[int] = []
        """Functions of the other frames that it sent."""
        self.delivered: list[Fragment] = []
        self.silences: list[bool] = []
        """Each call of `unanswered`, and whether the link was taken for lost."""
        self._segments = transport.Reassembler()
        self.station = Station(cast(Channel, self), Dnp3Device.model_validate(whole | fields))
        self.station.deliver = self._deliver

    def _deliver(self, fragment: Fragment) -> None:
        self.delivered.append(fragment)
        self.log.append("delivered")

    # What the station calls.

    def send(self, station: Station, octets: bytes) -> None:
        """See `Channel.send`."""
        if not self.is_open:
            raise NotSent("disconnected", "the wire is cut")
        self._take(octets)

    def unanswered(self, station: Station, *, link_lost: bool = False) -> None:
        """See `Channel.unanswered`."""
        self.silences.append(link_lost)

    def _take(self, octets: bytes) -> None:
        for frame in link.FrameReader().feed(octets):
            assert (frame.destination, frame.source, frame.from_master) == (OUTSTATION, MASTER, True)
            if frame.is_primary and frame.function == PrimaryFunction.UNCONFIRMED_USER_DATA:
                if fragment := self._segments.add(frame.payload):
                    self.sent.append(fragment)
                    self.log.append(FunctionCode(fragment[1]).name.lower())
            else:
                self.link_sent.append(frame.function)

    # What the outstation says.

    def say(
        self,
        sequence: int,
        body: bytes = b"",
        *,
        fir: bool = True,
        fin: bool = True,
        con: bool = False,
        uns: bool = False,
        iin: int = 0,
    ) -> None:
        """One response fragment."""
        control = AppControl(fir=fir, fin=fin, con=con, uns=uns, sequence=sequence)
        function = FunctionCode.UNSOLICITED_RESPONSE if uns else FunctionCode.RESPONSE
        self.say_fragment(bytes((control.to_byte(), function)) + iin.to_bytes(2, "little") + body)

    def say_fragment(self, fragment: bytes) -> None:
        """Any fragment, in as many segments as it needs."""
        for segment in transport.segment(fragment):
            self.say_segment(segment)

    def say_segment(self, segment: bytes) -> None:
        """One segment."""
        self.say_frame(0x44, segment)

    def say_frame(
        self, control: int, payload: bytes = b"", source: int = OUTSTATION, destination: int = MASTER
    ) -> None:
        """One frame; what the station sends back is kept."""
        self._take(self.station.take(link.LinkFrame(control, destination, source, payload), NOW_NS))

    def answers(self) -> list[SecondaryFunction]:
        """What the station's link layer answered, since this was last asked."""
        answers, self.link_sent = self.link_sent, []
        return [SecondaryFunction(one) for one in answers]

    async def asked(self, count: int) -> bytes:
        """The fragment that was sent as number `count`, as soon as it was."""
        async with asyncio.timeout(20):
            while len(self.sent) < count:
                await asyncio.sleep(0)
        return self.sent[count - 1]


async def asking(wire: Wire, function: int = 1, body: bytes = CLASS_1) -> "asyncio.Task[Reply]":
    """An ask that is under way."""
    task = asyncio.create_task(wire.station.ask(function, body))
    await wire.asked(len(wire.sent) + 1)
    return task


def confirmation(sequence: int, *, uns: bool = False) -> bytes:
    """The confirmation that a fragment is to get."""
    return bytes((0xC0 | 0x10 * uns | sequence, 0))
