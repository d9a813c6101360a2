"""Our reader of link frames takes what py1815's takes, however the octets come, and counts the rest."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from py1815 import crc, link

from protocols.dnp3.link import FrameReader

HEADER = bytes.fromhex("05 64 05 c0 01 00 00 04 e9 21")
"""A reset of link states from 1024 to 1, octet by octet."""

frames = st.builds(
    link.build, st.integers(0, 255), st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=250)
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A frame with an octet changed, or cut short."""
    frame = bytearray(draw(frames))
    at = draw(st.integers(0, len(frame) - 1))
    if draw(st.booleans()):
        return bytes(frame[:at])
    frame[at] ^= draw(st.integers(1, 255))
    return bytes(frame)


@st.composite
def impossible(draw: st.DrawFn) -> bytes:
    """A header with a right CRC and a length that no frame has."""
    return crc.encode(link.START + bytes([draw(st.integers(0, 4))]) + draw(st.binary(min_size=5, max_size=5)))


noise = st.one_of(st.binary(max_size=20), st.sampled_from([b"\x05", b"\x64", b"\x05\x64", b"\x05\x05\x64"]))
streams = st.lists(st.one_of(frames, frames, damaged(), impossible(), noise), max_size=6).map(b"".join)


@settings(max_examples=150, deadline=None)
@given(streams, st.lists(st.integers(0, 2000), max_size=5))
def test_the_same_frames_as_py1815_from_any_stream_in_any_pieces(stream: bytes, cuts: list[int]) -> None:
    ours, theirs = FrameReader(), link.FrameReader()
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, stop in pairwise(edges):
        piece = stream[start:stop]
        assert ours.feed(piece) == theirs.feed(piece)


@settings(max_examples=100, deadline=None)
@given(frames, st.data())
def test_one_changed_octet_is_found(frame: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(frame) - 1))
    wrong = bytearray(frame)
    wrong[at] ^= data.draw(st.integers(1, 255))
    reader = FrameReader()
    assert link.parse(frame) not in reader.feed(bytes(wrong) + HEADER)


def test_what_is_dropped_is_counted_by_reason() -> None:
    reader = FrameReader()
    whole = link.build(0x44, 1, 10, bytes(range(40)))
    bad_block = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
    bad_header = bytearray(whole)
    bad_header[5] ^= 1
    assert [one.payload for one in reader.feed(b"\xff\xff\xff" + bad_block + whole)] == [bytes(range(40))]
    assert reader.dropped == {"octets between frames": 3, "bad CRC": 1}
    reader.dropped.clear()
    assert len(reader.feed(bytes(bad_header) + whole)) == 1
    assert reader.dropped == {"bad frame header": 1, "octets between frames": len(whole) - 2}


def test_a_known_frame() -> None:
    (frame,) = FrameReader().feed(HEADER)
    assert (frame.control, frame.destination, frame.source, frame.payload) == (0xC0, 1, 1024, b"")


def test_the_end_of_a_frame_is_not_taken_for_the_beginning_of_one() -> None:
    frame = next(
        frame
        for number in range(65536)
        if (frame := link.build(0x44, 1, 10, number.to_bytes(2))).endswith(link.START[:1])
    )
    reader = FrameReader()
    assert len(reader.feed(frame)) == 1
    assert reader.feed(link.START[1:]) == []
    assert reader.dropped == {"octets between frames": 1}


def test_half_a_frame_waits_for_its_rest() -> None:
    reader = FrameReader()
    frame = link.build(0x44, 1, 10, b"x" * 250)
    taken = [one for octet in frame for one in reader.feed(bytes([octet]))]
    assert [one.payload for one in taken] == [b"x" * 250]
    assert not reader.dropped
