"""Frames sent periodically by the kernel's broadcast manager (linux/can/bcm.h)."""

import errno
import logging
import math
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final

from protocols.base import DriverError
from protocols.can.buses.layout import pack
from protocols.can.frame import FDF, Frame, format_id

MAX_FRAMES: Final = 256
"""Frames that one task sends in turn (MAX_NFRAMES in net/can/bcm.c)."""
LONGEST_S: Final = 400 * 24 * 3600
"""Longest period (BCM_TIMER_SEC_MAX in net/can/bcm.c)."""
SHORTEST_S: Final = 1e-6

TX_SETUP, TX_DELETE = 1, 2
SETTIMER, STARTTIMER, CAN_FD_FRAME = 0x0001, 0x0002, 0x0800
_HEAD: Final = struct.Struct("@IIIllllII")
"""struct bcm_msg_head: opcode, flags, count, two intervals (s, us), can_id, number of frames."""
_ALIGNMENT: Final = 8
"""Of the frames after it: the data of struct can_frame is aligned to 8 bytes, whatever the machine."""
_GONE: Final = (errno.ENODEV, errno.ENXIO, errno.ENETDOWN)

log = logging.getLogger(__name__)


def message(opcode: int, flags: int, can_id: int, period: float, frames: Sequence[Frame]) -> bytes:
    """A message to the broadcast manager; `period` in seconds. Pure."""
    interval = divmod(round(period * 1e6), 1_000_000)
    head = _HEAD.pack(opcode, flags, 0, 0, 0, *interval, can_id, len(frames))
    return head + bytes(-len(head) % _ALIGNMENT) + b"".join(map(pack, frames))


class Task:
    """Frames of one identifier, sent in turn. Implements `protocols.can.bus.Periodic`."""

    def __init__(self, manager: "BroadcastManager", count: int) -> None:
        self._manager = manager
        self._count = count

    def update(self, frames: Sequence[Frame]) -> None:
        """Other content from the next turn on; which frame's turn it is stays.

        Raises:
            DriverError: `device-error` if these are not as many frames of the same identifier, or it was
                stopped; else as `BroadcastManager.start`.
        """
        self._manager.update(self, frames, self._count)

    def stop(self) -> None:
        """Ends it; safe to call twice."""
        self._manager.stop(self)


class BroadcastManager:
    """The periodic transmissions of one interface; of one identifier and kind (CAN or CAN FD) at most one."""

    def __init__(
        self, interface: str, unsendable: Callable[[Frame], str], stopped: Callable[[int], None]
    ) -> None:
        """`unsendable` says why the bus cannot carry a frame; `stopped` takes the `can_id` of what ended.

        Raises:
            DriverError: the kernel has no broadcast manager, or it cannot use the interface.
        """
        self._unsendable = unsendable
        self._stopped = stopped
        self._keys: dict[Task, _Key] = {}
        try:
            self._socket = socket.socket(socket.AF_CAN, socket.SOCK_DGRAM, socket.CAN_BCM)
        except OSError as error:
            text = f"this kernel has no broadcast manager (module can-bcm): {error.strerror}"
            raise DriverError("device-error", text) from None
        self._socket.setblocking(False)
        try:
            self._socket.connect((interface,))
        except OSError as error:
            self._socket.close()
            raise _refused(f"the broadcast manager cannot use {interface}", error) from None

    def start(self, frames: Sequence[Frame], period: float) -> Task:
        """Sends frames in turn, one each `period` seconds, the first at once.

        Raises:
            DriverError: `device-error` if the bus cannot carry them, they are none or too many or not of one
                identifier, that is sent already, or for the period; `disconnected` if the interface is gone.
        """
        if not 1 <= len(frames) <= MAX_FRAMES:
            raise DriverError("device-error", f"1 to {MAX_FRAMES} frames are sent in turn, not {len(frames)}")
        if not (math.isfinite(period) and SHORTEST_S <= period <= LONGEST_S):
            raise DriverError("device-error", f"a period is from 1 us to 400 days; got {period:g} s")
        key = self._key(frames)
        if key in self._keys.values():
            text = f"{format_id(key[0])} is sent periodically already: update that, or stop it first"
            raise DriverError("device-error", text)
        self._request(TX_SETUP, SETTIMER | STARTTIMER, key, frames, period)
        task = Task(self, len(frames))
        self._keys[task] = key
        return task

    def update(self, task: Task, frames: Sequence[Frame], count: int) -> None:
        """Gives a task `count` other frames; see `Task.update`."""
        key = self._keys.get(task)
        if key is None:
            raise DriverError("device-error", "this is no longer sent periodically")
        if len(frames) != count or self._key(frames) != key:
            text = f"periodic frames keep their number and identifier: {count} of {format_id(key[0])}"
            raise DriverError("device-error", text)
        self._request(TX_SETUP, 0, key, frames)

    def stop(self, task: Task) -> None:
        """Ends a task; nothing happens if it has ended."""
        key = self._keys.pop(task, None)
        if key is None:
            return
        self._stopped(key[0])
        try:
            self._request(TX_DELETE, 0, key, ())
        except DriverError as error:
            # The interface is gone, and the task with it.
            log.debug("stopping the periodic %s: %s", format_id(key[0]), error)

    def close(self) -> None:
        """Ends all tasks, as the kernel does with those of a closed socket."""
        self._keys.clear()
        self._socket.close()

    def _key(self, frames: Sequence[Frame]) -> "_Key":
        for frame in frames:
            if why := self._unsendable(frame):
                raise DriverError("device-error", why)
        keys = {(frame.can_id, frame.flags & FDF) for frame in frames}
        if len(keys) != 1:
            raise DriverError("device-error", "frames that are sent in turn have one identifier and one kind")
        return keys.pop()

    def _request(
        self, opcode: int, flags: int, key: "_Key", frames: Sequence[Frame], period: float = 0
    ) -> None:
        can_id, fd = key
        try:
            self._socket.send(message(opcode, flags | (CAN_FD_FRAME if fd else 0), can_id, period, frames))
        except OSError as error:
            raise _refused(f"the broadcast manager does not take {format_id(can_id)}", error) from None


_Key = tuple[int, int]
"""What the kernel tells tasks by: can_id, and FDF or 0."""


def _refused(what: str, error: OSError) -> DriverError:
    text = f"{what}: {error.strerror}"
    return DriverError("disconnected" if error.errno in _GONE else "device-error", text)
