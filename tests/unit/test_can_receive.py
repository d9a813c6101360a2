"""The batched receiver, on datagram sockets of this kernel: a CAN socket differs in the family only."""

import ctypes
import errno
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.can.buses import receive
from protocols.can.buses.layout import CLASSIC, FD, pack, why_unsendable
from protocols.can.buses.receive import BATCH, Receiver, prefer_hardware
from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, FD_LENGTHS, FDF, REMOTE, Frame

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Where datagrams go in and come out; a whole batch fits between."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        theirs.setblocking(False)
        yield ours, theirs


@pytest.fixture
def udp() -> Iterator[Pair]:
    """The same by UDP, whose receive buffer overflows as that of a CAN socket."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs,
    ):
        theirs.setblocking(False)
        theirs.bind(("127.0.0.1", 0))
        ours.connect(theirs.getsockname())
        yield ours, theirs


def drain(receiver: Receiver) -> list[Frame]:
    frames: list[Frame] = []
    while batch := receiver.read():
        frames += batch
    return frames


def test_a_classical_frame_comes_out_as_it_went_in_with_the_time_of_its_arrival(pair: Pair) -> None:
    ours, theirs = pair
    receiver = Receiver(theirs)
    before = time.time_ns()
    ours.send(pack(Frame(0, 0x18DAF110 | EXTENDED, b"\x01\x02\x03")))
    after = time.time_ns()
    (frame,) = receiver.read()
    assert frame[1:] == (0x18DAF110 | EXTENDED, b"\x01\x02\x03", 0)
    assert isinstance(frame, Frame)
    assert before <= frame.time_ns <= after
    assert receiver.read() == []
    assert (receiver.dropped, receiver.gaps, receiver.marked) == (0, [], [])


def test_a_remote_frame_has_as_many_zeros_as_it_asks_for(pair: Pair) -> None:
    ours, theirs = pair
    ours_frame = CLASSIC.pack(0x123 | REMOTE, 5, 0, b"garbage!")
    receiver = Receiver(theirs)
    ours.send(ours_frame)
    assert [frame[1:] for frame in receiver.read()] == [(0x123 | REMOTE, bytes(5), 0)]


def test_both_kinds_of_frames_come_on_a_bus_with_fd(pair: Pair) -> None:
    ours, theirs = pair
    receiver = Receiver(theirs, fd=True)
    sent = [
        Frame(0, 0x1, bytes(range(64)), FDF | BRS),
        Frame(0, 0x2, b"12345678"),
        Frame(0, 0x3, b"", FDF | ESI),
        Frame(0, 0x4, b"x"),
    ]
    for frame in sent:
        ours.send(pack(frame))
    assert [frame[1:] for frame in receiver.read()] == [frame[1:] for frame in sent]


def test_a_classical_frame_has_neither_flags_nor_more_than_eight_bytes_of_an_older_frame(pair: Pair) -> None:
    ours, theirs = pair
    receiver = Receiver(theirs, fd=True)
    ours.send(FD.pack(0x1, 64, BRS, b"\xff" * 64))
    receiver.read()
    ours.send(struct.pack("=IBBxx8s", 0x2, 64, BRS | ESI, b"12345678"))
    assert [frame[1:] for frame in receiver.read()] == [(0x2, b"12345678", 0)]


def test_more_than_a_batch_comes_in_order_in_several(pair: Pair) -> None:
    ours, theirs = pair
    receiver = Receiver(theirs)
    for n in range(BATCH + 10):
        ours.send(CLASSIC.pack(0x100, 2, 0, n.to_bytes(2)))
    first, second = receiver.read(), receiver.read()
    assert (len(first), len(second)) == (BATCH, 10)
    assert [int.from_bytes(frame.data) for frame in (*first, *second)] == list(range(BATCH + 10))
    assert [frame.time_ns for frame in first] == sorted(frame.time_ns for frame in first)


def test_what_is_no_frame_counts_as_lost_where_it_was(pair: Pair) -> None:
    ours, theirs = pair
    receiver = Receiver(theirs)
    for datagram in (pack(Frame(0, 1, b"")), b"short", pack(Frame(0, 2, b"")), b""):
        ours.send(datagram)
    assert [frame.can_id for frame in receiver.read()] == [1, 2]
    assert receiver.gaps == [(1, 1), (2, 1)]
    assert receiver.dropped == 2


def test_error_frames_are_marked(pair: Pair) -> None:
    ours, theirs = pair
    receiver = Receiver(theirs)
    for can_id in (0x1, ERROR | 0x40, 0x2):
        ours.send(CLASSIC.pack(can_id, 8, 0, bytes(8)))
    assert len(receiver.read()) == 3
    assert receiver.marked == [1]
    receiver.read()
    assert receiver.marked == []


@pytest.mark.parametrize("hardware", [False, True])
def test_received_and_lost_are_together_what_was_sent(udp: Pair, hardware: bool) -> None:
    ours, theirs = udp
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    receiver = Receiver(theirs, hardware=hardware)
    before = time.time_ns()
    for n in range(300):
        ours.send(CLASSIC.pack(0x100, 4, 0, n.to_bytes(4)))
    frames = drain(receiver)
    assert 0 < len(frames) < 300
    # Nothing came after the last that was lost: only asking tells of it.
    assert len(frames) + receiver.dropped == 300
    assert [int.from_bytes(frame.data) for frame in frames] == list(range(len(frames)))
    assert all(before <= frame.time_ns <= time.time_ns() for frame in frames)

    for n in range(5):
        ours.send(CLASSIC.pack(0x200, 4, 0, n.to_bytes(4)))
    assert len(drain(receiver)) == 5
    assert len(frames) + receiver.dropped == 300


def test_a_loss_stands_before_the_first_frame_that_came_after_it(udp: Pair) -> None:
    ours, theirs = udp
    receiver = Receiver(theirs)
    for _ in range(50):  # in arrays that were used before, when nothing was lost
        ours.send(CLASSIC.pack(0x100, 0, 0, b""))
    assert len(receiver.read()) == 50
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(300):
        ours.send(CLASSIC.pack(0x100, 0, 0, b""))
    # Reading past the receiver makes room for one more, which knows of the loss that the receiver does not.
    for _ in range(3):
        theirs.recv(16)
    ours.send(CLASSIC.pack(0x200, 0, 0, b""))
    frames = receiver.read()
    assert frames[-1].can_id == 0x200
    assert receiver.gaps == [(len(frames) - 1, 300 - 3 - (len(frames) - 1))]


def test_the_kernels_counter_may_wrap_around(udp: Pair) -> None:
    ours, theirs = udp
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    receiver = Receiver(theirs)
    receiver._counter = 0xFFFF_FFFF - 9
    for _ in range(300):
        ours.send(pack(Frame(0, 1, b"")))
    assert len(drain(receiver)) + receiver.dropped == 300 + 10


def test_the_controllers_stamp_is_taken_where_a_frame_has_one() -> None:
    slots = [(1, 2, 7, 8, 0), (1, 2, 0, 0, 3), (1, 2, 0, 5, 4)]
    assert list(prefer_hardware(slots)) == [(7, 8, 0), (1, 2, 3), (0, 5, 4)]


def test_an_error_of_the_socket_is_raised(pair: Pair) -> None:
    _, theirs = pair
    receiver = Receiver(theirs)
    theirs.close()
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        receiver.read()
    assert caught.value.errno == errno.EBADF


class _MsgHdr(ctypes.Structure):
    _fields_: ClassVar[Sequence[tuple[str, type]]] = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MMsgHdr(ctypes.Structure):
    _fields_: ClassVar[Sequence[tuple[str, type]]] = (("header", _MsgHdr), ("length", ctypes.c_uint))


def test_the_layouts_are_those_of_c_on_this_machine() -> None:
    assert receive._HEADER.size == receive._GOT.size == ctypes.sizeof(_MMsgHdr)
    header = _MMsgHdr()
    header.header.control_length, header.header.flags, header.length = 11, 22, 33
    assert receive._GOT.unpack(bytes(header)) == (11, 22, 33)


@given(
    st.lists(st.one_of(st.binary(max_size=80), st.binary(min_size=16, max_size=16)), max_size=8),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_whatever_comes_is_a_frame_or_a_loss(datagrams: list[bytes], fd: bool) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        theirs.setblocking(False)
        receiver = Receiver(theirs, fd=fd)
        for datagram in datagrams:
            ours.send(datagram)
        frames = receiver.read()
        assert len(frames) + receiver.dropped == len(datagrams)
        for frame in frames:
            assert len(frame.data) <= (64 if frame.flags & FDF else 8)
            assert not frame.flags & ~(BRS | ESI | FDF)


classical = st.builds(
    Frame,
    st.just(0),
    st.one_of(st.integers(0, 0x7FF), st.integers(0, 0x1FFF_FFFF).map(lambda i: i | EXTENDED)),
    st.binary(max_size=8),
    st.just(0),
)
flexible = st.builds(
    lambda frame, length, flags: frame._replace(data=bytes(range(length)), flags=FDF | flags),
    classical,
    st.sampled_from(FD_LENGTHS),
    st.integers(0, 3),
)


@given(st.lists(st.one_of(classical, flexible), max_size=8))
@settings(max_examples=200, deadline=None)
def test_every_frame_that_can_be_sent_comes_out_again(frames: list[Frame]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        theirs.setblocking(False)
        receiver = Receiver(theirs, fd=True)
        for frame in frames:
            assert why_unsendable(frame, fd=True) == ""
            ours.send(pack(frame))
        assert [frame[1:] for frame in receiver.read()] == [frame[1:] for frame in frames]


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (Frame(0, 0x800, b""), "an identifier of 11 bits is at most 0x7FF"),
        (Frame(0, 0x123 | ERROR, b""), "error frames are told by a controller and cannot be sent"),
        (Frame(0, 0x123, bytes(9)), "123: a classical frame holds at most 8 bytes, not 9"),
        (Frame(0, 0x123, b"", BRS), "123: only CAN FD frames have BRS and ESI"),
        (Frame(0, 0x123 | REMOTE, b"", FDF), "123: CAN FD has no remote frames"),
        (
            Frame(0, 0x123 | EXTENDED, bytes(9), FDF),
            "00000123: a CAN FD frame holds 0 to 8, 12, 16, 20, 24, 32, 48 or 64 bytes, not 9",
        ),
    ],
)
def test_a_frame_that_cannot_be_is_not_sent(frame: Frame, why: str) -> None:
    assert why_unsendable(frame, fd=True) == why


def test_a_bus_without_fd_carries_no_fd_frame() -> None:
    why = why_unsendable(Frame(0, 0x123, b"", FDF), fd=False)
    assert why == "123 is a CAN FD frame, and the profile does not say fd: true"
