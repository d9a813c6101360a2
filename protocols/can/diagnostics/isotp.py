"""Messages longer than a frame, by ISO 15765-2: the state machine is can-isotp's, frames go over any bus.

Its machine is run on the loop, without its threads: it is stepped when a frame comes, when it may send the
next one, and often enough for its timers.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from protocols.base import DriverError, Refused
from protocols.can.arguments import check_names, flag, hexadecimal, identifier, seconds
from protocols.can.config import Connection
from protocols.can.diagnostics.exchange import Exchange
from protocols.can.frame import BRS, EXTENDED, EXTENDED_MASK, FDF, OWN, REMOTE, Frame, format_id
from protocols.timestamps import rfc3339

MESSAGE_MOST: Final = 65_535
"""Bytes of a message, either way. The standard has no such limit since 2016; until then 4,095."""

LINK_ARGUMENTS: Final = ("tx", "rx", "extended", "padding", "stmin", "blocksize", "fd", "brs")

_DEFAULT_TIMEOUT_S: Final = 2.0
_STEP_S: Final = 0.02
_FRAMES_MOST: Final = 4096
_WAITS_MOST: Final = 16


class Link(msgspec.Struct, frozen=True):
    """Who talks to whom, and how (ISO 15765-2, normal addressing)."""

    tx: int
    rx: int
    padding: int | None = None
    """Byte that fills frames up; None: they are as short as they can be."""
    stmin: int = 0
    """Separation time that we ask for, in ms."""
    blocksize: int = 0
    """Frames that we take before the next flow control; 0: all."""
    fd: bool = False
    brs: bool = False

    @property
    def flags(self) -> int:
        """Those of the frames that are sent."""
        return (FDF if self.fd else 0) | (BRS if self.brs else 0)


def link_of(args: Mapping[str, Any], connection: Connection) -> Link:
    """The arguments of LINK_ARGUMENTS.

    Raises:
        Refused: `malformed`, or `out-of-range` for CAN FD on a bus without.
    """
    tx, rx = identifier(args, "tx"), identifier(args, "rx")
    if (tx ^ rx) & EXTENDED:
        raise Refused("malformed", "tx and rx are both of 11 or both of 29 bits")
    if tx == rx:
        raise Refused("malformed", "tx and rx are two arbitration ids: ours, and that of the answers")
    fd, brs = flag(args, "fd"), flag(args, "brs")
    if brs and not fd:
        raise Refused("malformed", "brs (bit rate switch) needs fd: true")
    if fd and not connection.fd:
        raise Refused("out-of-range", f"{connection} is no CAN FD bus; its profile would say fd: true")
    return Link(
        tx=tx,
        rx=rx,
        padding=None if args.get("padding") is None else number(args, "padding", 0, 255),
        stmin=number(args, "stmin", 0, 127, 0),
        blocksize=number(args, "blocksize", 0, 255, 0),
        fd=fd,
        brs=brs,
    )


def number(args: Mapping[str, Any], name: str, least: int, most: int, default: int | None = None) -> int:
    """A whole number, also as a text such as `0xF190`.

    Raises:
        Refused: `malformed`, also without a default.
    """
    value = args.get(name, default)
    if isinstance(value, str):
        try:
            value = int(value, 0)
        except ValueError:
            value = None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise Refused(
            "malformed", f"{name} is a number from {least} to {most}, such as {most} or '{most:#x}'"
        )
    return value


class Conversation:
    """Messages to and from one node, while its context is open."""

    def __init__(self, link: Link, exchange: Exchange) -> None:
        try:
            import isotp
        except ImportError as error:
            text = "ISO-TP and UDS need the package can-isotp; install hilgate[uds]"
            raise DriverError("device-error", text) from error
        self._link = link
        self._exchange = exchange
        self._incoming = deque[isotp.CanMessage](maxlen=_FRAMES_MOST)
        self._outgoing = deque[isotp.CanMessage]()
        self._errors = deque[Exception]()
        self._came = asyncio.Event()
        self._unsubscribe: Callable[[], None] | None = None
        self.time_ns = 0
        """When the last frame came."""
        mode = (
            isotp.AddressingMode.Normal_29bits if link.tx & EXTENDED else isotp.AddressingMode.Normal_11bits
        )
        self._layer = isotp.TransportLayerLogic(
            rxfn=self._next,
            txfn=self._outgoing.append,
            address=isotp.Address(mode, txid=link.tx & EXTENDED_MASK, rxid=link.rx & EXTENDED_MASK),
            error_handler=self._note,
            params={
                "stmin": link.stmin,
                "blocksize": link.blocksize,
                "tx_padding": link.padding,
                "tx_data_length": 64 if link.fd else 8,
                "can_fd": link.fd,
                "bitrate_switch": link.brs,
                "max_frame_size": MESSAGE_MOST,
                "wftmax": _WAITS_MOST,
            },
        )

    async def __aenter__(self) -> Self:
        self._unsubscribe = self._exchange.subscribe(self._link.rx, self._take)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()

    def _next(self, _timeout: float) -> Any:
        """The `isotp.CanMessage` that waits for the longest, or None."""
        if not self._incoming:
            return None
        # A frame that is here is in time, however late this process came to look for it.
        for timer in (self._layer.timer_rx_cf, self._layer.timer_rx_fc):
            if not timer.is_stopped():
                timer.start()
        return self._incoming.popleft()

    def _take(self, frame: Frame) -> None:
        import isotp

        if frame.flags & OWN or frame.can_id & REMOTE:
            return
        self.time_ns = frame.time_ns
        self._incoming.append(
            isotp.CanMessage(
                arbitration_id=frame.identifier,
                dlc=len(frame.data),
                data=frame.data,
                extended_id=bool(frame.can_id & EXTENDED),
                is_fd=bool(frame.flags & FDF),
                bitrate_switch=bool(frame.flags & BRS),
            )
        )
        self._came.set()

    async def send(self, data: bytes) -> None:
        """Sends a message; returns when the bus took its last frame.

        Raises:
            DriverError: `timeout` (no flow control came), `device-error` (the node does not take it), or as
                `Exchange.send`.
        """
        self._layer.send(data)
        while True:
            await self._step()
            if not self._layer.transmitting():
                return
            await self._wait()

    async def receive(self) -> bytes:
        """The next message.

        Raises:
            DriverError: `timeout` (it broke off), `device-error` (its frames are wrong), or as
                `Exchange.send`.
        """
        while True:
            await self._step()
            if (message := self._layer.recv()) is not None:
                return bytes(message)
            await self._wait()

    def _note(self, error: Exception) -> None:
        import isotp

        # What is no ISO-TP frame at all may be for somebody else, unless a message is coming in.
        if self._layer.is_rx_active() or not isinstance(error, isotp.InvalidCanDataError):
            self._errors.append(error)

    async def _step(self) -> None:
        import isotp

        self._came.clear()
        self._layer.process()
        while self._outgoing:
            message = self._outgoing.popleft()
            await self._exchange.send(Frame(0, self._link.tx, bytes(message.data), self._link.flags))
            if self._layer.is_tx_transmitting_cf():
                # The separation time counts from when the bus took a frame, not from when it was asked to.
                self._layer.timer_tx_stmin.start()
        while self._errors:
            error = self._errors.popleft()
            who = format_id(self._link.rx)
            if isinstance(error, isotp.FlowControlTimeoutError):
                raise DriverError("timeout", f"{who} sent no flow control: nobody takes the message")
            if isinstance(error, isotp.ConsecutiveFrameTimeoutError):
                raise DriverError("timeout", f"{who} broke off in the middle of its message")
            if isinstance(error, _fatal()):
                raise DriverError("device-error", f"{who}: {error}")

    async def _wait(self) -> None:
        if self._incoming:
            return  # the machine takes one flow control at a time
        delay = self._layer.next_cf_delay()
        try:
            async with asyncio.timeout(_STEP_S if delay is None else min(delay, _STEP_S)):
                await self._came.wait()
        except TimeoutError:
            pass


def _fatal() -> tuple[type[Exception], ...]:
    """Errors that end the exchange; can-isotp goes on after all others."""
    import isotp

    return (
        isotp.OverflowError,
        isotp.MaximumWaitFrameReachedError,
        isotp.FrameTooLongError,
        isotp.WrongSequenceNumberError,
        isotp.InvalidCanDataError,
    )


async def carry_out(args: Mapping[str, Any], exchange: Exchange, connection: Connection) -> Any:
    """`call isotp`: sends `data` and awaits a message, within `timeout`.

    Raises:
        Refused: wrong arguments; nothing was sent.
        DriverError: nobody answered in time, or the exchange failed.
    """
    check_names("isotp", args, *LINK_ARGUMENTS, "data", "timeout")
    link = link_of(args, connection)
    data = hexadecimal(args, "data")
    if not 1 <= len(data) <= MESSAGE_MOST:
        raise Refused("out-of-range", f"a message has 1 to {MESSAGE_MOST} bytes, not {len(data)}")
    timeout = seconds(args, "timeout", _DEFAULT_TIMEOUT_S)
    conversation = Conversation(link, exchange)
    try:
        async with asyncio.timeout(timeout), conversation:
            await conversation.send(data)
            answer = await conversation.receive()
    except TimeoutError as error:
        text = f"no message from {format_id(link.rx)} within {timeout:g} s"
        raise DriverError("timeout", text) from error
    return {"data": answer.hex(), "time": rfc3339(conversation.time_ns)}
