"""tshark opens the bodies of frames events, and sees the frames that went in."""

import itertools
import random
from collections.abc import Callable

import pytest
from tshark import opened, why_missing

from protocols.base import Batch
from protocols.can.config import Frames
from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, FD_LENGTHS, FDF, LOCAL, OWN, REMOTE, Frame
from protocols.can.pcap import Gatherer
from protocols.can.view import FramesView

pytestmark = pytest.mark.peer("tshark")

START_NS = 1_790_000_000_123_456_789


@pytest.fixture(autouse=True)
def _tshark(need: Callable[[str, str | None, str], None]) -> None:
    need("tshark", why_missing(), "make peers")


def bodies_of(frames: list[Frame], most: int = 262_144) -> list[bytes]:
    """The files that a bus with these frames makes."""
    bodies: list[bytes] = []
    gatherer = Gatherer(most, lambda body, _time_ns: bodies.append(body))
    gatherer.extend(frames)
    gatherer.flush()
    return bodies


def test_every_kind_of_frame_is_seen_as_it_was_on_the_bus() -> None:
    contents: list[tuple[int, bytes, int]] = [
        (0x123, b"\x01\x02\x03", 0),
        (0x000, b"", 0),
        (0x7FF, b"\xff" * 8, 0),
        (0x18DAF110 | EXTENDED, bytes(range(8)), 0),
        (0x123 | EXTENDED, b"\x01", 0),
        (0x123 | REMOTE, bytes(5), 0),
        (0x1ABCDEF | EXTENDED | REMOTE, b"", 0),
        (0x100, b"", FDF),
        (0x101, bytes(range(64)), FDF | BRS),
        (0x1FFFFFFF | EXTENDED, bytes(range(12)), FDF | ESI),
        (0x102, b"\x01", FDF | BRS | ESI),
    ]
    frames = [Frame(START_NS + at, *content) for at, content in enumerate(contents)]
    (body,) = bodies_of(frames)
    assert [seen.frame for seen in opened(body)] == frames


def test_error_frames_are_seen_with_what_they_say() -> None:
    rx_warning, tx_passive, no_ack_slot = 0x04, 0x20, 0x1D
    frames = [
        Frame(START_NS, ERROR | 0x004, bytes([0, rx_warning | tx_passive, 0, 0, 0, 0, 96, 130])),
        Frame(START_NS + 1, ERROR | 0x088, bytes([0, 0, 0x04, no_ack_slot, 0, 0, 0, 0])),
        Frame(START_NS + 2, ERROR | 0x040, bytes(8)),
        Frame(START_NS + 3, ERROR | 0x100, bytes(8)),
    ]
    fields = ("can.err.ctrl.rx_warning", "can.err.ctrl.tx_passive", "can.err.ctrl.tx_warning")
    stuff, location = "can.err.prot.type.stuff", "can.err.prot.location"
    (body,) = bodies_of(frames)
    seen = opened(body, *fields, stuff, location)
    assert [(frame.time_ns, frame.can_id) for frame, _ in seen] == [
        (frame.time_ns, frame.can_id) for frame in frames
    ]
    assert [seen[0].more[field] for field in fields] == ["1", "1", "0"]
    assert seen[1].more[stuff] == "1"
    assert int(seen[1].more[location], 0) == no_ack_slot


def test_thousands_of_mixed_frames_are_seen_in_order() -> None:
    dice = random.Random(4)  # no secret

    def frame(time_ns: int) -> Frame:
        can_id = dice.choice([dice.randrange(0x800), dice.randrange(1 << 29) | EXTENDED])
        if dice.random() < 0.3:
            length = dice.choice(FD_LENGTHS)
            return Frame(time_ns, can_id, dice.randbytes(length), FDF | dice.choice([0, BRS, ESI, BRS | ESI]))
        length = dice.randrange(9)
        if dice.random() < 0.2:
            return Frame(time_ns, can_id | REMOTE, bytes(length))
        return Frame(time_ns, can_id, dice.randbytes(length))

    stamps = itertools.accumulate((dice.randrange(1_000_000) for _ in range(5000)), initial=START_NS)
    frames = [frame(time_ns) for time_ns in stamps]
    bodies = bodies_of(frames, most=65_536)
    assert len(bodies) > 2
    assert all(len(body) <= 65_536 for body in bodies)
    assert [seen.frame for body in bodies for seen in opened(body)] == frames


def test_what_the_agent_knows_beyond_the_bus_is_not_in_the_file() -> None:
    """Whether a frame is our own has no place in LINKTYPE_CAN_SOCKETCAN, and must not look like FD."""
    frames = [Frame(START_NS, 0x10, b"\x01", OWN), Frame(START_NS, 0x11, b"\x02", FDF | LOCAL)]
    bodies: list[bytes] = []
    view = FramesView(
        Frames(),
        Batch.model_validate({"window": "0s"}),
        lambda body, _time_ns: bodies.append(body),
        lambda _count, _reason: None,
    )
    view.take(frames)
    seen = [one.frame for body in bodies for one in opened(body)]
    assert seen == [Frame(START_NS, 0x10, b"\x01"), Frame(START_NS, 0x11, b"\x02", FDF)]
