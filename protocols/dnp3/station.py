"""One outstation as its master's link, transport and application layers see it. I/O is `channel`'s.

Frames come in by `take`, which gives the octets to send back; requests go out by `ask`, one at a time on a
channel.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from py1815.application import (
    SEQUENCE_MODULUS,
    AppControl,
    FunctionCode,
    Response,
    ResponseError,
    build_confirm,
    build_request,
    parse_response,
)
from py1815.link import Broadcast, LinkFrame, PrimaryFunction, SecondaryFunction, build, control_byte
from py1815.transport import SEQUENCE_MODULUS as SEGMENTS
from py1815.transport import Reassembler, TransportError, segment

from protocols.base import DriverError
from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.decoder import decode
from protocols.dnp3.fragment import Fragment, Reply
from protocols.dnp3.objects import EVENT_GROUP, Iin
from protocols.dnp3.request import Request
from protocols.units import format_duration

if TYPE_CHECKING:
    from protocols.dnp3.channel import Channel

_LARGEST_RESPONSE = 16 * 2**20
"""Octets of one response in all its fragments: more than every point of an outstation takes."""
_MOST_CONFIRMING: Final = 256
"""Fragments that wait to be stored and confirmed: an outstation that waits for that has two at most."""
_EVENTS: Final = frozenset(EVENT_GROUP.values())
_CAN_WAIT: Final = frozenset({FunctionCode.ENABLE_UNSOLICITED, FunctionCode.DISABLE_UNSOLICITED})
"""What is held back while an outstation rests, as polls are; a command is tried at any time."""


class Station:
    """An outstation: `fragment.Outstation`, and its place on the channel."""

    def __init__(self, channel: "Channel", device: Dnp3Device) -> None:
        self.channel = channel
        self.address = device.outstation
        self.name = f"outstation {device.outstation} at {channel.name}"
        self.timeout = device.timeout
        self.deliver: Callable[[Fragment], None] = lambda _: None
        """Takes each fragment before it is confirmed."""
        self.kept: Callable[[], Awaitable[None]] | None = None
        """Waits until events that were handed on may be forgotten by the outstation."""
        self._confirming: set[asyncio.Task[None]] = set()
        self.dropped: Counter[str] = Counter()
        """What came and was not taken, by reason. What names no outstation counts for each on the channel."""
        self.last_iin = Iin(0)
        self.heard_ns = 0
        """When the last valid frame came, UTC; 0: never."""
        self.answers = False
        """It answered the last request on this connection."""
        self.failures = 0
        """Requests without an answer, in a row."""
        self._loop = asyncio.get_running_loop()
        self._master = device.master
        self._retries = device.retries
        self._keep_alive = None if device.keep_alive == "never" else device.keep_alive
        self._reassembler = Reassembler(max_fragment=device.max_fragment)
        self._request: Request | None = None
        self._selected = False
        self._sequence = 0
        self._segment = 0
        self._unsolicited = b""
        self._frame_count_bit: bool | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._status_asked = False
        self._watch: asyncio.TimerHandle | None = None
        self._awake = asyncio.Event()
        self._awake.set()
        self._rest: asyncio.TimerHandle | None = None

    # Requests.

    async def ask(
        self, function: int, body: bytes = b"", *, responds: bool = True, report: bool = False
    ) -> Reply:
        """See `fragment.Outstation`. While the outstation rests, what is no command waits for that to end.

        To have the OPERATE sent next, await it right after the SELECT, in the same task.
        """
        if report or function in _CAN_WAIT:
            await self._awake.wait()
        if self._selected and function == FunctionCode.OPERATE:
            self._selected = False  # it has the turn that its SELECT had
        else:
            await self.channel.turn.acquire()
        try:
            reply = await self._ask(function, body, responds, report)
            self._selected = function == FunctionCode.SELECT
            return reply
        finally:
            if self._selected:
                self._loop.call_soon(self._not_operated)
            else:
                self.channel.turn.release()

    def _not_operated(self) -> None:
        """Gives the turn back if who was answered a SELECT went on without its OPERATE."""
        if self._selected:
            self._selected = False
            self.channel.turn.release()

    async def _ask(self, function: int, body: bytes, responds: bool, report: bool) -> Reply:
        code, sequence = FunctionCode(function), self._sequence
        octets = build_request(code, sequence=sequence, body=body)
        self._transmit(octets)
        sent_ns = time.time_ns()
        self._sequence = (sequence + 1) % SEQUENCE_MODULUS
        if not responds:
            return Reply(Iin(0), (), sent_ns, sent_ns=sent_ns)
        request = Request(octets, sequence, self._retries if code is FunctionCode.READ else 0, report)
        request.sent_ns = sent_ns
        request.crossed = bool(self._confirming)
        self._request = request
        self._extend()
        self._timer = self._loop.call_at(self._deadline, self._overdue)
        try:
            return await request.done
        finally:
            self._request = None
            self._timer.cancel()

    def _transmit(self, fragment: bytes) -> None:
        self.channel.send(self, self._segments(fragment))

    def _extend(self) -> None:
        self._deadline = self._loop.time() + self.timeout

    def _overdue(self) -> None:
        """Sends a read again, or fails the request; parts of a response that came have put that off."""
        request = self._request
        if request is None or request.done.done():
            return
        if request.storing:  # that takes as long as it takes, and the outstation waits for it
            self._extend()
        if self._deadline > self._loop.time():
            self._timer = self._loop.call_at(self._deadline, self._overdue)
            return
        if request.retries and not request.begun:
            request.retries -= 1
            self.channel.unanswered(self)
            if not request.done.done():  # else the channel was given up
                self._transmit(request.octets)
                request.sent_ns = time.time_ns()
                self._extend()
                self._timer = self._loop.call_at(self._deadline, self._overdue)
            return
        if request.begun:
            text = f"{self.name} stopped in the middle of its response"
        else:
            text = f"{self.name} did not answer in {format_duration(self.timeout)}"
        request.done.set_exception(DriverError("timeout", text))
        self.answers = False
        self.failures += 1
        self.channel.unanswered(self)

    def rest(self, seconds: float) -> None:
        """Leaves the outstation alone, unless it is heard from or there is a command."""
        self.wake()
        self._awake.clear()
        self._rest = self._loop.call_later(seconds, self.wake)

    def wake(self) -> None:
        """Ends its rest."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
            self._awake.set()

    # Connections.

    def connected(self) -> None:
        """Forgets what another connection left behind. Sequence numbers are the association's and go on."""
        self._reassembler.reset()
        self._unsolicited = b""
        self._frame_count_bit = None
        self.answers = False
        self.failures = 0
        self._heard_at = self._loop.time()
        self._status_asked = False
        self._look()

    def disconnected(self, reason: str) -> None:
        """Fails the request that is under way."""
        for task in self._confirming:
            task.cancel()
        self.wake()
        if self._watch is not None:
            self._watch.cancel()
        if self._request is not None and not self._request.done.done():
            self._request.done.set_exception(DriverError("disconnected", reason))

    def _look(self) -> None:
        """Asks for the link's status when nothing came for long; the link is lost when nothing comes then."""
        if self._keep_alive is None:
            return
        now = self._loop.time()
        again = self._heard_at + self._keep_alive
        if again <= now and self._status_asked:
            self._status_asked = False
            self.answers = False
            self.failures += 1
            again = now + self._keep_alive
            self.channel.unanswered(self, link_lost=True)
            if not self.channel.is_open:
                return
        elif again <= now:
            again = now + self.timeout
            if not self.channel.turn.locked():  # else the request under way shows whether it lives
                self.channel.send(self, self._frame(PrimaryFunction.REQUEST_LINK_STATUS))
                self._status_asked = True
        self._watch = self._loop.call_at(again, self._look)

    # The link layer (IEEE 1815-2012, clause 9).

    def take(self, frame: LinkFrame, time_ns: int) -> bytes:
        """Takes a frame from the outstation's address, and gives the octets to send back.

        Raises only what `deliver` raises.
        """
        if frame.destination != self._master:
            broadcast = frame.destination in tuple(Broadcast)
            return self._drop("broadcast" if broadcast else "other destination")
        if frame.from_master:
            return self._drop("sent by a master")
        self.heard_ns = time_ns
        self._heard_at = self._loop.time()
        if self._status_asked:
            self._status_asked = False
            self.answers = True
            self.failures = 0
        self.wake()
        if not frame.is_primary:
            return b""
        match frame.function:
            case PrimaryFunction.UNCONFIRMED_USER_DATA:
                return self._take_segment(frame.payload, time_ns)
            case PrimaryFunction.CONFIRMED_USER_DATA | PrimaryFunction.TEST_LINK_STATES:
                return self._take_counted(frame, time_ns)
            case PrimaryFunction.RESET_LINK_STATES:
                self._frame_count_bit = True
                return self._frame(SecondaryFunction.ACK)
            case PrimaryFunction.REQUEST_LINK_STATUS:
                return self._frame(SecondaryFunction.LINK_STATUS)
        self._drop("link function not known")
        return self._frame(SecondaryFunction.NOT_SUPPORTED)

    def _take_counted(self, frame: LinkFrame, time_ns: int) -> bytes:
        """A frame with a count bit: one that comes again because our ACK was lost is not taken again."""
        if not frame.fcv:
            return self._drop("frame count bit not valid")
        if self._frame_count_bit is None:
            self._drop("link not reset")
            return self._frame(SecondaryFunction.NACK)
        acknowledged = self._frame(SecondaryFunction.ACK)
        if frame.fcb != self._frame_count_bit:
            self._drop("frame repeated")
            return acknowledged
        self._frame_count_bit = not self._frame_count_bit
        if frame.function == PrimaryFunction.TEST_LINK_STATES:
            return acknowledged
        return acknowledged + self._take_segment(frame.payload, time_ns)

    def _drop(self, reason: str) -> bytes:
        self.dropped[reason] += 1
        return b""

    def _frame(self, function: PrimaryFunction | SecondaryFunction, payload: bytes = b"") -> bytes:
        primary = isinstance(function, PrimaryFunction)
        control = control_byte(from_master=True, primary=primary, function=function)
        return build(control, destination=self.address, source=self._master, payload=payload)

    # Transport function and application layer (clauses 8 and 4).

    def _segments(self, fragment: bytes) -> bytes:
        segments = segment(fragment, first_sequence=self._segment)
        self._segment = (self._segment + len(segments)) % SEGMENTS
        return b"".join(self._frame(PrimaryFunction.UNCONFIRMED_USER_DATA, one) for one in segments)

    def _take_segment(self, payload: bytes, time_ns: int) -> bytes:
        try:
            octets = self._reassembler.add(payload)
        except TransportError:
            return self._drop("segments out of order")
        if octets is None:
            self._extend()
            return b""
        try:
            response = parse_response(octets)
        except ResponseError:
            return self._drop("not a response")
        if response.unsolicited:
            return self._take_unsolicited(response, octets, time_ns)
        return self._take_solicited(response, time_ns)

    def _take_unsolicited(self, response: Response, octets: bytes, time_ns: int) -> bytes:
        if not (response.control.fir and response.control.fin):
            return self._drop("unsolicited response in pieces")
        repeated = octets == self._unsolicited
        self._unsolicited = octets
        if self._request is not None:
            self._request.crossed = True
        fragment = self._hand_on(response, time_ns, unsolicited=True, repeated=repeated)
        return self._confirm(response, fragment)

    def _take_solicited(self, response: Response, time_ns: int) -> bytes:
        """One that is not waited for is not confirmed either: the outstation would forget its events."""
        request, control = self._request, response.control
        if request is None or request.done.done():
            return self._drop("late response")
        if control.fir == request.begun or control.sequence != request.expected:
            return self._drop("response out of sequence")
        fragment = self._hand_on(response, time_ns, report=request.report, crossed=request.crossed)
        request.add(fragment, len(response.body))
        request.expected = (control.sequence + 1) % SEQUENCE_MODULUS
        # The next request has a number that no fragment of this response has, should one come late.
        self._sequence = (request.expected + (not control.fin)) % SEQUENCE_MODULUS
        self._extend()
        return self._confirm(response, fragment, request)

    def _go_on(self, request: Request, control: AppControl, time_ns: int) -> None:
        """A fragment was taken and confirmed: the response is whole, or its next part may come."""
        if control.fin:
            self.answers = True
            self.failures = 0
            request.done.set_result(request.reply(time_ns))
        elif request.size > _LARGEST_RESPONSE:
            text = f"{self.name} sends a response without end"
            request.done.set_exception(DriverError("device-error", text))
        else:
            self._extend()

    def _hand_on(self, response: Response, time_ns: int, **how: bool) -> Fragment:
        self.last_iin = Iin(response.iin.first | response.iin.second << 8)
        fragment = Fragment(time_ns, self.last_iin, decode(response.body), **how)
        self.deliver(fragment)
        return fragment

    def _confirm(self, response: Response, fragment: Fragment, request: Request | None = None) -> bytes:
        """Confirms where that is asked for; what holds events, once they are kept."""
        events = any(block.group in _EVENTS for block in fragment.decoded.blocks)
        if response.control.con and events and self.kept is not None:
            if len(self._confirming) >= _MOST_CONFIRMING:
                return self._drop("confirmation left out")  # the outstation sends the events again
            if request is not None and request.octets[1] != FunctionCode.READ:
                self._go_on(request, response.control, fragment.time_ns)
                request = None  # nothing is stored before a first request was answered: never wait for that
            elif request is not None:
                request.storing = True
            task = self._loop.create_task(self._confirm_kept(self.kept, response, fragment, request))
            self._confirming.add(task)
            task.add_done_callback(self._confirming.discard)
            return b""
        if request is not None:
            self._go_on(request, response.control, fragment.time_ns)
        return self._confirmation(response) if response.control.con else b""

    async def _confirm_kept(
        self,
        kept: Callable[[], Awaitable[None]],
        response: Response,
        fragment: Fragment,
        request: Request | None,
    ) -> None:
        await kept()
        if request is not None:
            if request is not self._request or request.done.done():
                return  # given up: the outstation keeps the events and sends them again
            request.storing = False
            self._go_on(request, response.control, fragment.time_ns)
        self.channel.send(self, self._confirmation(response))

    def _confirmation(self, response: Response) -> bytes:
        return self._segments(
            build_confirm(sequence=response.control.sequence, unsolicited=response.unsolicited)
        )
