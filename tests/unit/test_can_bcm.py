"""Messages to the broadcast manager, held against the layout of C on this machine."""

import ctypes
from collections.abc import Sequence
from typing import ClassVar

from protocols.can.buses.bcm import CAN_FD_FRAME, SETTIMER, STARTTIMER, TX_DELETE, TX_SETUP, message
from protocols.can.buses.layout import CLASSIC, FD, pack
from protocols.can.frame import BRS, EXTENDED, FDF, Frame


class _Interval(ctypes.Structure):
    _fields_: ClassVar[Sequence[tuple[str, type]]] = (("s", ctypes.c_long), ("us", ctypes.c_long))


class _Head(ctypes.Structure):
    """struct bcm_msg_head; the last field, of no size, has the alignment of the frames."""

    _fields_: ClassVar[Sequence[tuple[str, type]]] = (
        ("opcode", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("first", _Interval),
        ("then", _Interval),
        ("can_id", ctypes.c_uint32),
        ("frames_count", ctypes.c_uint32),
        ("frames", ctypes.c_uint64 * 0),
    )


def test_a_start_has_the_layout_of_c() -> None:
    frames = [Frame(0, 0x18DAF110 | EXTENDED, b"one"), Frame(0, 0x18DAF110 | EXTENDED, b"two")]
    data = message(TX_SETUP, SETTIMER | STARTTIMER, frames[0].can_id, 2.5, frames)
    head = _Head.from_buffer_copy(data)
    assert (head.opcode, head.flags, head.count) == (1, 3, 0)
    assert (head.first.s, head.first.us, head.then.s, head.then.us) == (0, 0, 2, 500_000)
    assert (head.can_id, head.frames_count) == (0x18DAF110 | EXTENDED, 2)
    assert data[ctypes.sizeof(_Head) :] == pack(frames[0]) + pack(frames[1])
    assert len(data) == ctypes.sizeof(_Head) + 2 * CLASSIC.size


def test_frames_of_can_fd_are_longer() -> None:
    frame = Frame(0, 0x123, bytes(12), FDF | BRS)
    data = message(TX_SETUP, CAN_FD_FRAME, 0x123, 0, [frame])
    assert len(data) == ctypes.sizeof(_Head) + FD.size
    assert FD.unpack(data[ctypes.sizeof(_Head) :])[:3] == (0x123, 12, BRS | FDF)


def test_an_end_is_a_head_alone() -> None:
    data = message(TX_DELETE, 0, 0x123, 0, ())
    assert len(data) == ctypes.sizeof(_Head)
    assert _Head.from_buffer_copy(data).opcode == 2


def test_the_shortest_period_is_not_rounded_to_none() -> None:
    assert _Head.from_buffer_copy(message(TX_SETUP, 0, 0x1, 1e-6, ())).then.us == 1
