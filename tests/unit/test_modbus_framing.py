"""Frames come whole out of any pieces, and garbage never becomes one."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.modbus import pdu
from protocols.modbus.framing import (
    Frame,
    FramingError,
    MbapFramer,
    RtuAnswerFramer,
    RtuRequestFramer,
    crc,
    mbap,
    rtu,
)

bodies = st.binary(min_size=1, max_size=253)
cuts = st.lists(st.integers(1, 40), min_size=1, max_size=20)
requests = st.one_of(
    st.builds(pdu.read, st.integers(1, 4), st.integers(0, 65535), st.integers(1, 125)),
    st.builds(pdu.write_register, st.integers(0, 65535), st.binary(min_size=2, max_size=2)),
    st.builds(
        pdu.write_registers,
        st.integers(0, 65535),
        st.binary(min_size=2, max_size=246).map(lambda data: data[: len(data) // 2 * 2]),
    ),
)


def pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = 0
    for size in itertools.cycle(sizes):
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size


@given(st.lists(st.builds(Frame, st.integers(0, 65535), st.integers(0, 255), bodies), max_size=6), cuts)
def test_mbap_in_any_pieces(frames: list[Frame], sizes: list[int]) -> None:
    framer = MbapFramer()
    stream = b"".join(mbap(*frame) for frame in frames)
    assert [frame for piece in pieces(stream, sizes) for frame in framer.feed(piece)] == frames


@given(st.binary(max_size=600), cuts)
def test_mbap_of_garbage_has_an_outcome(data: bytes, sizes: list[int]) -> None:
    framer = MbapFramer()
    try:
        for piece in pieces(data, sizes):
            for frame in framer.feed(piece):
                assert mbap(*frame) in data
    except FramingError:
        pass


@pytest.mark.parametrize(
    "header", [b"\0\1\0\1\0\6\1", b"\0\1\0\0\0\1\1", b"\0\1\0\0\0\xff\1", b"\0\1\0\0\xff\xff\1"]
)
def test_a_header_that_is_none_ends_the_stream(header: bytes) -> None:
    with pytest.raises(FramingError):
        MbapFramer().feed(header)


def test_the_crc_of_the_standard() -> None:
    # Modbus over Serial Line V1.02, appendix B: 02 07 gives 41 12 on the line.
    assert rtu(2, b"\x07") == bytes.fromhex("02074112")
    assert crc(rtu(2, b"\x07")) == 0


@given(st.lists(st.tuples(st.integers(1, 247), requests), max_size=6), cuts)
def test_rtu_requests_in_any_pieces(sent: list[tuple[int, bytes]], sizes: list[int]) -> None:
    framer = RtuRequestFramer()
    stream = b"".join(rtu(*one) for one in sent)
    got = [frame for piece in pieces(stream, sizes) for frame in framer.feed(piece)]
    assert [(frame.unit, frame.pdu) for frame in got] == sent


@given(st.binary(max_size=1000), cuts)
def test_rtu_requests_are_found_again_after_garbage(noise: bytes, sizes: list[int]) -> None:
    framer = RtuRequestFramer()
    for piece in pieces(noise, sizes):
        framer.feed(piece)
    framer.silence()
    assert framer.feed(rtu(5, pdu.read(3, 0, 1))) == [Frame(0, 5, pdu.read(3, 0, 1))]


def test_an_unknown_rtu_request_ends_where_its_crc_is_right() -> None:
    frame = rtu(5, b"\x64\1\2\3")
    framer = RtuRequestFramer()
    assert framer.feed(frame[:4]) == []
    assert framer.feed(frame[4:]) == [Frame(0, 5, b"\x64\1\2\3")]


@given(st.binary(min_size=20, max_size=20), st.binary(max_size=60), cuts)
def test_an_rtu_answer_in_any_pieces_after_any_noise(data: bytes, noise: bytes, sizes: list[int]) -> None:
    answer = pdu.read_answer(3, data)
    framer = RtuAnswerFramer(9, pdu.read(3, 0, 10))
    noise = noise.replace(b"\x09", b"")  # the unit's number could begin a frame, which is waited for
    found = [found for piece in pieces(noise + rtu(9, answer), sizes) if (found := framer.feed(piece))]
    assert found == [answer]


@given(st.binary(max_size=600), cuts)
def test_garbage_is_no_rtu_answer(noise: bytes, sizes: list[int]) -> None:
    framer = RtuAnswerFramer(9, pdu.read(3, 0, 10))
    for piece in pieces(noise, sizes):
        found = framer.feed(piece)
        assert found is None or rtu(9, found) in noise


@pytest.mark.parametrize(
    "other",
    [
        rtu(8, pdu.read_answer(3, b"\0\1")),  # of another unit
        rtu(9, pdu.read_answer(4, b"\0\1")),  # to another function
        rtu(9, pdu.read_answer(3, b"\0\1\0\2")),  # to another count
        rtu(9, pdu.read_answer(3, b"\0\1"))[:-1] + b"\0",  # a wrong CRC
    ],
)
def test_what_is_no_answer_is_passed_over(other: bytes) -> None:
    framer = RtuAnswerFramer(9, pdu.read(3, 0, 1))
    assert framer.feed(other) is None
    assert framer.feed(rtu(9, pdu.read_answer(3, b"\0\7"))) == pdu.read_answer(3, b"\0\7")


def test_an_exception_and_an_unknown_answer_are_found() -> None:
    assert RtuAnswerFramer(9, pdu.read(3, 0, 1)).feed(rtu(9, b"\x83\2")) == b"\x83\2"
    framer = RtuAnswerFramer(9, b"\x64\1")
    frame = rtu(9, b"\x64\1\2\3")
    assert framer.feed(frame[:3]) is None
    assert framer.feed(frame[3:]) == b"\x64\1\2\3"
