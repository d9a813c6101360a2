"""A master made by hand: it sends what it is told to, octet for octet, without a line between."""

from collections.abc import Mapping
from typing import Any

from py1815.application import FunctionCode, Response, build_confirm, parse_response
from py1815.link import FrameReader, LinkFrame, PrimaryFunction, SecondaryFunction, build, control_byte
from py1815.transport import Reassembler, segment

from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.objects import Iin
from sim.dnp3.line import Line
from sim.dnp3.outstation import SimulatedOutstation
from sim.dnp3.session import Session

BEGIN_MS = 1_750_000_000_000
POINTS: Mapping[str, Any] = {
    "door": {"type": "binary_input", "index": 0},
    "lamp": {"type": "binary_input", "index": 1},
    "switch": {"type": "binary_input", "index": 9},
    "breaker_state": {"type": "double_bit_input", "index": 0},
    "breaker": {
        "type": "binary_output",
        "index": 3,
        "access": "rw",
        "operation": "trip-close",
        "feedback": {"point": "breaker_state", "within": "2s"},
    },
    "heater": {
        "type": "binary_output",
        "index": 4,
        "access": "rw",
        "feedback": {"point": "lamp", "within": "2s"},
    },
    "pulses": {"type": "counter", "index": 0},
    "pulses_frozen": {"type": "frozen_counter", "index": 0},
    "voltage": {"type": "analog_input", "index": 0, "scale": 0.1, "offset": -5.0},
    "current": {"type": "analog_input", "index": 1, "variation": 1},
    "setpoint": {
        "type": "analog_output",
        "index": 2,
        "access": "rw",
        "scale": 0.5,
        "feedback": {"point": "setpoint_seen", "within": "2s", "tolerance": 0.01},
    },
    "setpoint_seen": {"type": "analog_input", "index": 300, "scale": 0.5},
    "label": {"type": "octet_string", "index": 0},
}


def outstation_device(
    points: Mapping[str, Any] = POINTS, sim: Mapping[str, Any] | None = None, **fields: Any
) -> Dnp3Device:
    raw = {
        "protocol": "dnp3",
        "connection": {"transport": "tcp", "host": "rtu.example"},
        "outstation": 10,
        "points": points,
        "sim": sim or {},
        **fields,
    }
    return Dnp3Device.model_validate(raw).named("rtu")


class ScriptedMaster:
    """Talks to one simulated outstation, with both its clocks in hand."""

    def __init__(self, device: Dnp3Device) -> None:
        self.now_ms = BEGIN_MS
        self.device = device
        self.outstation = SimulatedOutstation(device, lambda: self.now_ms)
        self.session = Session(self.outstation, lambda: self.now_ms / 1000)
        self.line = Line([self.session])
        self.fragments: list[bytes] = []
        """Every fragment that came."""
        self.frames: list[LinkFrame] = []
        """Every frame that came without user data."""
        self.hung_up = 0
        self.octets = 0
        self._sequence = 0
        self.connect()

    def connect(self) -> None:
        self._frames_in = FrameReader()
        self._reassembler = Reassembler()
        self._carrier = object()
        self.line.opened(self._carrier, self._take, self._hang_up)

    def disconnect(self) -> None:
        self.line.closed(self._carrier)

    def _hang_up(self) -> None:
        self.hung_up += 1

    def _take(self, data: bytes) -> None:
        self.octets += len(data)
        for frame in self._frames_in.feed(data):
            assert not frame.from_master
            assert (frame.destination, frame.source) == (self.device.master, self.device.outstation)
            if not frame.is_primary:
                self.frames.append(frame)
            elif (fragment := self._reassembler.add(frame.payload)) is not None:
                self.fragments.append(fragment)

    def feed(self, data: bytes) -> None:
        self.line.received(self._carrier, data)

    def link(
        self,
        function: PrimaryFunction,
        payload: bytes = b"",
        *,
        fcb: bool = False,
        to: int | None = None,
        by: int | None = None,
    ) -> int:
        """Sends one frame; gives the link function of the answer, or -1."""
        numbered = function in (PrimaryFunction.TEST_LINK_STATES, PrimaryFunction.CONFIRMED_USER_DATA)
        control = control_byte(from_master=True, primary=True, function=function, fcb=fcb, fcv=numbered)
        before = len(self.frames)
        whereto = self.device.outstation if to is None else to
        self.feed(build(control, whereto, self.device.master if by is None else by, payload))
        return self.frames[-1].function if len(self.frames) > before else -1

    def send(self, fragment: bytes, *, to: int | None = None, by: int | None = None) -> list[Response]:
        """Sends a fragment; gives what came at once."""
        before = len(self.fragments)
        for octets in segment(fragment):
            self.link(PrimaryFunction.UNCONFIRMED_USER_DATA, octets, to=to, by=by)
        return [parse_response(one) for one in self.fragments[before:]]

    def request(self, function: int, body: bytes = b"") -> Response:
        """The first fragment of the response to a new request."""
        (response,) = self.send(self.fragment(function, body))
        return response

    def fragment(self, function: int, body: bytes = b"") -> bytes:
        """A request with the next sequence number."""
        self._sequence = (self._sequence + 1) % 16
        return bytes((0xC0 | self._sequence, function)) + body

    def confirm(self, response: Response) -> list[Response]:
        return self.send(build_confirm(sequence=response.control.sequence, unsolicited=response.unsolicited))

    def read(self, body: bytes) -> bytes:
        """The objects of a whole response, confirmed to its end."""
        response = self.request(FunctionCode.READ, body)
        objects = response.body
        while response.control.con:
            following = self.confirm(response)
            if not following:
                break
            (response,) = following
            objects += response.body
        return objects

    def wait(self, ms: int) -> list[Response]:
        """Lets time pass; gives what came by itself."""
        before = len(self.fragments)
        self.now_ms += ms
        self.session.tick()
        return [parse_response(one) for one in self.fragments[before:]]


def quiet(
    points: Mapping[str, Any] = POINTS, sim: Mapping[str, Any] | None = None, **fields: Any
) -> ScriptedMaster:
    """A master of an outstation that says nothing by itself."""
    return ScriptedMaster(outstation_device(points, sim, **{"unsolicited": [], **fields}))


def iin(response: Response) -> Iin:
    return Iin(response.iin.first | response.iin.second << 8)


ACK, NACK = SecondaryFunction.ACK, SecondaryFunction.NACK
