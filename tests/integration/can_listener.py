"""A listener for CAN buses that keeps what it is told."""

from collections.abc import Sequence

from protocols.can.bus import BusStatus
from protocols.can.frame import OWN, Frame


class Kept:
    """Keeps everything in the order of the calls."""

    def __init__(self) -> None:
        self.all: list[Frame] = []
        self.calls: list[tuple[str, int]] = []
        self.lost = 0
        self.states: list[BusStatus] = []

    def frames(self, batch: Sequence[Frame]) -> None:
        self.calls.append(("frames", len(batch)))
        self.all.extend(batch)

    def dropped(self, count: int) -> None:
        self.calls.append(("dropped", count))
        self.lost += count

    def status(self, status: BusStatus) -> None:
        self.states.append(status)

    @property
    def own(self) -> list[Frame]:
        return [frame for frame in self.all if frame.flags & OWN]

    @property
    def others(self) -> list[Frame]:
        return [frame for frame in self.all if not frame.flags & OWN]


def content(frames: Sequence[Frame]) -> list[tuple[int, bytes, int]]:
    """Frames without their times."""
    return [(frame.can_id, frame.data, frame.flags) for frame in frames]
