"""A bus behind a network interface of Linux, by a raw CAN socket (kernel documentation, networking/can)."""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Sequence
from typing import Final

from protocols.base import DriverError
from protocols.can.bus import BusState, BusStatus, Filter, Listener, Periodic
from protocols.can.buses import netlink
from protocols.can.buses.acceptance import Acceptance
from protocols.can.buses.bcm import BroadcastManager
from protocols.can.buses.echoes import Echoes
from protocols.can.buses.errors import ALL_CLASSES, RESTARTED, Controller, describe
from protocols.can.buses.interface import check, why_lost
from protocols.can.buses.layout import pack, why_unsendable
from protocols.can.buses.receive import BATCH, Receiver
from protocols.can.config import Connection
from protocols.can.frame import ERROR, LOCAL, OWN, Frame, format_id

ROUNDS: Final = 4
"""Most batches that are taken before others on the loop have their turn."""
_RETRY_S: Final = 0.002
"""How long to leave a full transmit queue alone; eight bytes take 0.2 ms at 500 kbit/s."""
_SO_RCVBUFFORCE: Final = 33
_CAN_RAW_ERR_FILTER: Final = 2
_FULL: Final = (errno.ENOBUFS, errno.EAGAIN)
_GONE: Final = (errno.ENETDOWN, errno.ENXIO, errno.ENODEV, errno.EBADF)

log = logging.getLogger(__name__)


class SocketCan:
    """Implements `protocols.can.bus.Bus`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._name = str(connection.channel)
        self._session: _Session | None = None

    async def open(self, listener: Listener, filters: Sequence[Filter] | None) -> None:
        """Checks the interface against the profile and begins to listen; see `Bus.open`."""
        self.close()
        link = check(self._connection)
        self._session = _Session(self._connection, listener, filters, link)

    def listen(self, filters: Sequence[Filter] | None) -> None:
        """Other filters from now on; does nothing while closed."""
        if self._session is not None:
            self._session.listen(filters)

    async def lost(self) -> str:
        """Returns why, once the interface was removed or brought down, or the bus was closed."""
        if self._session is None:
            return f"{self._name} is not open"
        return await asyncio.shield(self._session.lost)

    def status(self) -> BusStatus:
        """How the bus is now: by the interface's driver where it tells, else by the error frames."""
        return BusStatus() if self._session is None else self._session.status()

    async def send(self, frame: Frame, timeout: float) -> Frame:
        """Sends a frame; done when the controller says that it was on the bus. See `Bus.send`."""
        return await self._opened().send(frame, timeout)

    def periodic(self, frames: Sequence[Frame], period: float) -> Periodic:
        """Sends frames in turn by the kernel's broadcast manager; see `Bus.periodic`."""
        return self._opened().periodic(frames, period)

    def close(self) -> None:
        """Lets the bus go; safe to call at any time."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _opened(self) -> "_Session":
        if self._session is None:
            raise DriverError("disconnected", f"{self._name} is not open")
        return self._session


class _Session:
    """A bus from its opening to its loss or closing."""

    def __init__(
        self,
        connection: Connection,
        listener: Listener,
        filters: Sequence[Filter] | None,
        link: netlink.Link,
    ) -> None:
        self._connection = connection
        self._name = str(connection.channel)
        self._listener = listener
        self._link = link
        self._controller = Controller()
        self._controller.know(link)
        self._acceptance = Acceptance(filters)
        self._echoes = Echoes()
        self._turn = asyncio.Lock()
        self._gaps = 0
        self._manager: BroadcastManager | None = None
        self._repeated: set[int] = set()
        self._ending: set[int] = set()
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        try:
            self._socket = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
        except OSError as error:
            text = f"this kernel has no SocketCAN (module can-raw): {error.strerror}"
            raise DriverError("disconnected", text) from None
        try:
            self._set_up()
        except OSError as error:
            self._socket.close()
            raise DriverError("disconnected", f"cannot listen to {self._name}: {error.strerror}") from None
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def _set_up(self) -> None:
        sock, raw = self._socket, socket.SOL_CAN_RAW
        sock.setblocking(False)
        sock.setsockopt(raw, socket.CAN_RAW_RECV_OWN_MSGS, 1)
        sock.setsockopt(raw, _CAN_RAW_ERR_FILTER, ALL_CLASSES)
        sock.setsockopt(raw, socket.CAN_RAW_FD_FRAMES, int(self._connection.fd))
        self._set_filter()
        self._size_buffer(self._connection.receive_buffer)
        self._receiver = Receiver(
            sock, fd=self._connection.fd, hardware=self._connection.timestamps == "hardware"
        )
        sock.bind((self._name,))

    def _size_buffer(self, wanted: int) -> None:
        sock = self._socket
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
        # The kernel doubles what it is asked for, and counts its own overhead too (socket(7)).
        got = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        level = logging.WARNING if got < wanted else logging.DEBUG
        log.log(level, "%s: receive buffer of %d bytes, asked for %d", self._name, got, wanted)

    def _set_filter(self) -> None:
        try:
            self._socket.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FILTER, self._acceptance.kernel())
        except OSError as error:
            # Then there is an error to be read as well, by which the bus is lost.
            if error.errno not in _GONE:
                raise

    def listen(self, filters: Sequence[Filter] | None) -> None:
        if not self.lost.done():
            self._acceptance = Acceptance(filters, self._acceptance.sent)
            self._set_filter()

    # -- receiving ------------------------------------------------------------------------------

    def _readable(self) -> None:
        for _ in range(ROUNDS):
            try:
                got = self._take()
            except OSError as error:
                self._lose(error)
                return
            if got < BATCH or self.lost.done():
                return

    def _take(self) -> int:
        """Passes one batch on, with its losses where they were; how many frames there were."""
        receiver = self._receiver
        batch = receiver.read()
        given = 0
        for index, count in receiver.gaps:
            self._give(batch[given:index])
            given = index
            self._gaps += 1
            self._echoes.forget_given_up()
            self._listener.dropped(count)
        self._give(batch[given:] if given else batch)
        for index in receiver.marked:
            frame = batch[index]
            if frame.can_id & ERROR:
                self._controller_says(frame)
            else:
                self._echoes.take(frame)
        if len(batch) < BATCH and self._ending:
            # All is read that was on its way when they were stopped.
            self._repeated -= self._ending
            self._ending.clear()
        return len(batch)

    def _give(self, frames: list[Frame]) -> None:
        repeated = self._repeated
        if repeated:
            # The broadcast manager has a socket of its own: to ours it is another program on this machine.
            frames = [
                frame._replace(flags=frame.flags & ~LOCAL | OWN)
                if frame.flags & LOCAL and frame.can_id in repeated
                else frame
                for frame in frames
            ]
        if not self._acceptance.exact:
            wants = self._acceptance.wants
            frames = [frame for frame in frames if frame.flags & OWN or wants(frame.can_id)]
        if frames:
            self._listener.frames(frames)

    def _controller_says(self, frame: Frame) -> None:
        changed = self._controller.take(frame)
        if frame.can_id & RESTARTED:
            # What was in the controller when it went off will not come back.
            self._gaps += 1
            self._echoes.forget_given_up()
        if self._controller.state is BusState.BUS_OFF:
            self._echoes.fail(self._off())
        if changed:
            log.info("%s: %s", self._name, describe(frame))
            self._listener.status(self._status())

    def _lose(self, error: OSError) -> None:
        if self.lost.done():
            return
        with contextlib.suppress(OSError):
            # The error comes before the frames that were received before it.
            while self._take():
                pass
        reason = why_lost(self._connection, error)
        self._end(reason)

    # -- state ----------------------------------------------------------------------------------

    def status(self) -> BusStatus:
        try:
            self._link = netlink.link(self._name)
        except OSError as error:
            log.debug("%s: %s", self._name, error)
        else:
            self._controller.know(self._link)
        return self._status()

    def _status(self) -> BusStatus:
        controller = self._controller
        return BusStatus(
            state=controller.state,
            tx_errors=controller.tx_errors,
            rx_errors=controller.rx_errors,
            restarts=controller.restarts,
            bitrate=self._link.bitrate,
            data_bitrate=self._link.data_bitrate,
            dropped=self._receiver.dropped,
        )

    def _off(self) -> DriverError:
        text = f"{self._name} is bus-off and sends nothing until its controller is restarted"
        restart = f"ip link set {self._name} type can restart"
        return DriverError("device-error", f"{text} ({restart}, or restart-ms for it to do so by itself)")

    # -- sending --------------------------------------------------------------------------------

    async def send(self, frame: Frame, timeout: float) -> Frame:
        self._check_sendable([frame])
        echo: asyncio.Future[Frame] | None = None
        gaps = self._gaps
        try:
            async with asyncio.timeout(timeout):
                async with self._turn:
                    await self._hand_over(frame)
                    gaps = self._gaps
                    echo = self._echoes.expect(frame)
                return await echo
        except TimeoutError:
            text = self._late(frame, timeout, echo is not None, self._gaps != gaps)
            raise DriverError("timeout", text) from None
        finally:
            if echo is not None and self._gaps != gaps:
                self._echoes.drop(frame, echo)

    async def _hand_over(self, frame: Frame) -> None:
        data = pack(frame)
        while True:
            self._check_usable()
            if self._acceptance.admit(frame.can_id):
                self._set_filter()
            try:
                self._socket.send(data)
            except OSError as error:
                if error.errno not in _FULL:
                    raise self._refused(frame, error) from None
            else:
                return
            # Poll says writable while the interface's queue is full: there is nothing to wait for but time.
            await asyncio.sleep(_RETRY_S)

    def _late(self, frame: Frame, timeout: float, handed_over: bool, gap: bool) -> str:
        """Why a frame did not make it in time."""
        status = self.status()
        known = [f"state {status.state}"]
        if status.tx_errors is not None:
            known.append(f"{status.tx_errors} transmit errors")
        state = ", ".join(known)
        what = format_id(frame.can_id)
        if not handed_over:
            return (
                f"{what} was not sent: the transmit queue of {self._name} was full for {timeout:g} s, as it "
                f"gets when no other node acknowledges ({state})"
            )
        if gap:
            return (
                f"it is not known whether {what} was on {self._name}: within {timeout:g} s frames were lost "
                f"or the controller restarted ({state})"
            )
        return (
            f"nobody acknowledged {what} on {self._name} within {timeout:g} s ({state}); it is still in the "
            "transmit queue and may go out later"
        )

    def _refused(self, frame: Frame, error: OSError) -> DriverError:
        if error.errno in _GONE:
            return DriverError("disconnected", why_lost(self._connection, error))
        text = f"{self._name} does not take {format_id(frame.can_id)}: {error.strerror}"
        return DriverError("device-error", text)

    def _check_sendable(self, frames: Sequence[Frame]) -> None:
        if self._connection.listen_only:
            raise DriverError("device-error", f"{self._name} is listen-only by the profile")
        for frame in frames:
            if why := self._unsendable(frame):
                raise DriverError("device-error", why)

    def _check_usable(self) -> None:
        if self.lost.done():
            raise DriverError("disconnected", self.lost.result())
        # Not every driver tells by an error frame that it is back: ask before refusing.
        if self._controller.state is BusState.BUS_OFF and self.status().state is BusState.BUS_OFF:
            raise self._off()

    def _unsendable(self, frame: Frame) -> str:
        return why_unsendable(frame, self._connection.fd)

    def periodic(self, frames: Sequence[Frame], period: float) -> Periodic:
        self._check_sendable(frames)
        self._check_usable()
        if self._manager is None:
            self._manager = BroadcastManager(self._name, self._unsendable, self._ending.add)
        for frame in frames:
            if self._acceptance.admit(frame.can_id):
                self._set_filter()
        task = self._manager.start(frames, period)
        self._repeated.add(frames[0].can_id)
        self._ending.discard(frames[0].can_id)
        return task

    # -- end ------------------------------------------------------------------------------------

    def close(self) -> None:
        self._end(f"{self._name} was closed")

    def _end(self, reason: str) -> None:
        if self.lost.done():
            return
        self.lost.set_result(reason)
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        if self._manager is not None:
            self._manager.close()
        self._echoes.fail(DriverError("disconnected", reason))
