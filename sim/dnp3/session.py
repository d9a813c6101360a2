"""A simulated outstation's talk with its master: link, transport, sequence numbers, confirmations.

No I/O: octets are written by a function that the line gives.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Final

from py1815.application import AppControl, FunctionCode
from py1815.link import LinkFrame, PrimaryFunction, SecondaryFunction, build, control_byte
from py1815.transport import SEQUENCE_MODULUS, Reassembler, TransportError, segment

from protocols.dnp3.objects import Iin
from sim.dnp3 import requests
from sim.dnp3.encoder import Part
from sim.dnp3.events import Event
from sim.dnp3.outstation import SimulatedOutstation
from sim.dnp3.reading import unsolicited

CONFIRM_TIMEOUT_S: Final = 5.0
"""How long a confirmation is awaited; an unsolicited response is then sent again."""
_SEQUENCES: Final = 16
_RESPONSES: Final = 0x80
"""Function codes from here on are responses: no master sends them."""

Write = Callable[[bytes], None]


@dataclasses.dataclass(slots=True)
class _Awaited:
    """A fragment that is to be confirmed."""

    sequence: int
    octets: bytes
    events: Sequence[Event]
    told: bool
    """It says that events were dropped."""
    deadline: float


class Session:
    """One outstation on a line. `opened` and `closed` follow the line; `tick` is to be called often."""

    def __init__(
        self,
        outstation: SimulatedOutstation,
        monotonic: Callable[[], float],
        confirm_timeout: float = CONFIRM_TIMEOUT_S,
    ) -> None:
        self.outstation = outstation
        self._monotonic = monotonic
        self._confirm_timeout = confirm_timeout
        self._write: Write | None = None
        self._hang_up: Callable[[], None] = lambda: None
        self._deaf_until = 0.0
        self._unsolicited_sequence = 0
        self._reported_start = self._announced_start = 0
        self._broadcast = Iin(0)
        self._reset()

    def _reset(self) -> None:
        """Forgets the conversation, as a new connection does."""
        self._reassembler = Reassembler(max_fragment=requests.LARGEST_FRAGMENT)
        self._transport_sequence = 0
        self._expected_fcb: bool | None = None
        self._last_request = self._last_response = b""
        self._parts: collections.deque[Part] = collections.deque()
        self._errors = Iin(0)
        self._solicited: _Awaited | None = None
        self._spontaneous: _Awaited | None = None
        self._deferred = b""

    # The line.

    def opened(self, write: Write, hang_up: Callable[[], None]) -> None:
        """The line is open: `write` sends octets, `hang_up` closes it once they are sent."""
        self.closed()
        self._write, self._hang_up = write, hang_up

    def closed(self) -> None:
        """The line was lost: what was not confirmed is to be reported again."""
        self._abandon()
        self._give_up_spontaneous()
        self._reset()
        self._write = None

    @property
    def restarting(self) -> bool:
        """It is on its way down or up, and hears nothing."""
        return self._monotonic() < self._deaf_until

    @property
    def _away(self) -> bool:
        return self._write is None or self.restarting

    def tick(self) -> None:
        """Lets time pass: points change, confirmations are late, events are reported unsolicited."""
        self.outstation.advance()
        if self._away:
            return
        now = self._monotonic()
        if self._solicited is not None and now >= self._solicited.deadline:
            self._abandon()
        if self._spontaneous is not None and now >= self._spontaneous.deadline:
            self._unconfirmed(self._spontaneous, now)
        if self._spontaneous is None and self._solicited is None and self.outstation.device.unsolicited:
            self._report()

    # The link layer.

    def frame(self, frame: LinkFrame) -> None:
        """Takes a frame of the line. Never raises."""
        outstation = self.outstation.device
        if not frame.from_master or frame.source != outstation.master or not frame.is_primary or self._away:
            return
        if frame.is_broadcast:
            if frame.function == PrimaryFunction.UNCONFIRMED_USER_DATA:
                self._segment(frame.payload, broadcast=True)
        elif frame.destination == outstation.outstation:
            self._addressed(frame)

    def _addressed(self, frame: LinkFrame) -> None:
        match frame.function:
            case PrimaryFunction.UNCONFIRMED_USER_DATA:
                self._segment(frame.payload)
            case PrimaryFunction.REQUEST_LINK_STATUS:
                self._link(SecondaryFunction.LINK_STATUS)
            case PrimaryFunction.RESET_LINK_STATES:
                self._expected_fcb = True
                self._link(SecondaryFunction.ACK)
            case PrimaryFunction.TEST_LINK_STATES | PrimaryFunction.CONFIRMED_USER_DATA:
                if self._expected_fcb is None:
                    self._link(SecondaryFunction.NACK)
                    return
                self._link(SecondaryFunction.ACK)
                if frame.fcb == self._expected_fcb:  # else it is a repeat
                    self._expected_fcb = not self._expected_fcb
                    if frame.function == PrimaryFunction.CONFIRMED_USER_DATA:
                        self._segment(frame.payload)
            case _:
                self._link(SecondaryFunction.NOT_SUPPORTED)

    def _link(self, function: SecondaryFunction) -> None:
        self._send_frame(control_byte(from_master=False, primary=False, function=function))

    def _send_frame(self, control: int, payload: bytes = b"") -> None:
        if self._write is not None and not self.outstation.silent:
            outstation = self.outstation.device
            self._write(build(control, outstation.master, outstation.outstation, payload))

    # The transport function.

    def _segment(self, octets: bytes, *, broadcast: bool = False) -> None:
        try:
            fragment = self._reassembler.add(octets)
        except TransportError:
            return  # a broken series is no request: the master hears nothing and asks again
        if fragment is not None and len(fragment) >= 2:
            self._fragment(fragment, broadcast)

    def _transmit(self, fragment: bytes) -> None:
        control = control_byte(
            from_master=False, primary=True, function=PrimaryFunction.UNCONFIRMED_USER_DATA
        )
        for octets in segment(fragment, first_sequence=self._transport_sequence):
            self._send_frame(control, octets)
            self._transport_sequence = (self._transport_sequence + 1) % SEQUENCE_MODULUS

    # The application layer.

    def _fragment(self, fragment: bytes, broadcast: bool) -> None:
        control, function = AppControl.from_byte(fragment[0]), fragment[1]
        if not (control.fir and control.fin) or function >= _RESPONSES:
            return
        if broadcast:
            if function == FunctionCode.READ:
                return  # nobody would get the events that it takes
            requests.answer(self.outstation, fragment)
            self._broadcast = Iin.BROADCAST
            self._restart_after(function)
        elif function == FunctionCode.CONFIRM:
            self._confirmed(control)
        elif function == FunctionCode.READ and self._spontaneous is not None:
            self._deferred = fragment  # which events it may have is known with the confirmation
        else:
            self._deferred = b""
            self._request(fragment)

    def _request(self, fragment: bytes) -> None:
        self._abandon()
        function = fragment[1]
        if fragment == self._last_request and function != FunctionCode.READ:
            if self._last_response:
                self._transmit(self._last_response)
            return
        self._last_request, self._last_response = fragment, b""
        answer = requests.answer(self.outstation, fragment)
        if answer is None:
            return
        self._parts.extend(answer.parts)
        self._errors = answer.iin
        self._respond(fragment[0] % _SEQUENCES, first=True)
        self._restart_after(function)

    def _restart_after(self, function: int) -> None:
        """Starts again, if that is what was asked for: with what was going on, the connection ends."""
        if function not in requests.RESTART_MS:
            return
        self._abandon()
        self._give_up_spontaneous()
        self._deferred = b""
        self.outstation.restart(cold=function == FunctionCode.COLD_RESTART)
        self._deaf_until = self._monotonic() + requests.RESTART_MS[function] / 1000
        self._hang_up()

    def _respond(self, sequence: int, *, first: bool) -> None:
        """Sends the next fragment of the response."""
        part = self._parts.popleft()
        final = not self._parts
        confirm = bool(part.events) or not final
        control = AppControl(first, final, confirm, False, sequence)
        octets, told = self._response(FunctionCode.RESPONSE, control, part, self._errors)
        if confirm:
            deadline = self._monotonic() + self._confirm_timeout
            self._solicited = _Awaited(sequence, octets, part.events, told, deadline)
        self._last_response = octets
        self._transmit(octets)

    def _response(
        self, function: FunctionCode, control: AppControl, part: Part, errors: Iin
    ) -> tuple[bytes, bool]:
        """A response fragment, and whether it says that events were dropped."""
        iin = self.outstation.indications() | errors | self._broadcast
        self._broadcast = Iin(0)
        octets = bytes((control.to_byte(), function)) + iin.to_bytes(2, "little") + part.body
        return octets, bool(iin & Iin.EVENT_BUFFER_OVERFLOW)

    def _confirmed(self, control: AppControl) -> None:
        if control.uns:
            awaited = self._spontaneous
            if awaited is not None and awaited.sequence == control.sequence:
                self._spontaneous = None
                self._unsolicited_sequence = (awaited.sequence + 1) % _SEQUENCES
                self._announced_start = self._reported_start
                self.outstation.buffer.confirmed(awaited.events, awaited.told)
                self._answer_deferred()
            return
        awaited = self._solicited
        if awaited is not None and awaited.sequence == control.sequence:
            self._solicited = None
            self.outstation.buffer.confirmed(awaited.events, awaited.told)
            if self._parts:
                self._respond((awaited.sequence + 1) % _SEQUENCES, first=False)

    def _abandon(self) -> None:
        """Gives up a response that was not confirmed to its end."""
        if self._solicited is not None:
            self.outstation.buffer.release(self._solicited.events)
            self._solicited = None
        for part in self._parts:
            self.outstation.buffer.release(part.events)
        self._parts.clear()

    # Unsolicited responses.

    def _report(self) -> None:
        """Says that it has started, or what has happened since in the classes that are enabled."""
        part = Part(b"")
        self._reported_start = self.outstation.starts
        if self._announced_start == self._reported_start:
            classes = sorted(self.outstation.unsolicited)
            room = requests.room(self.outstation)
            part = unsolicited(self.outstation.buffer, classes, room, not self.outstation.need_time)
            if not part.events:
                return
        control = AppControl(True, True, True, True, self._unsolicited_sequence)
        octets, told = self._response(FunctionCode.UNSOLICITED_RESPONSE, control, part, Iin(0))
        deadline = self._monotonic() + self._confirm_timeout
        self._spontaneous = _Awaited(self._unsolicited_sequence, octets, part.events, told, deadline)
        self._transmit(octets)

    def _unconfirmed(self, awaited: _Awaited, now: float) -> None:
        """Sends the same octets again, unless a read waits or these classes are not wanted any more."""
        wanted = all(event.event_class in self.outstation.unsolicited for event in awaited.events)
        if wanted and not self._deferred:
            awaited.deadline = now + self._confirm_timeout
            self._transmit(awaited.octets)
        else:
            self._give_up_spontaneous()
            self._unsolicited_sequence = (awaited.sequence + 1) % _SEQUENCES
            self._answer_deferred()

    def _give_up_spontaneous(self) -> None:
        if self._spontaneous is not None:
            self.outstation.buffer.release(self._spontaneous.events)
            self._spontaneous = None

    def _answer_deferred(self) -> None:
        deferred, self._deferred = self._deferred, b""
        if deferred:
            self._request(deferred)
