"""The Exchange of a bus, for what talks over it without a driver."""

from collections.abc import Callable, Sequence

from protocols.can.bus import Bus, BusStatus
from protocols.can.frame import Frame


class BusExchange:
    """Sends on a bus, and hands out what comes by identifier."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.sent: list[Frame] = []
        self.came: list[Frame] = []
        self._callbacks: dict[int, list[Callable[[Frame], None]]] = {}

    async def open(self) -> None:
        await self.bus.open(self, None)

    def frames(self, batch: Sequence[Frame]) -> None:
        for frame in batch:
            for callback in self._callbacks.get(frame.can_id, ()):
                self.came.append(frame)
                callback(frame)

    def dropped(self, count: int) -> None:
        raise AssertionError(f"{count} frames were dropped")

    def status(self, status: BusStatus) -> None:
        pass

    def subscribe(self, can_id: int, callback: Callable[[Frame], None]) -> Callable[[], None]:
        self._callbacks.setdefault(can_id, []).append(callback)
        return lambda: self._callbacks[can_id].remove(callback)

    @property
    def subscriptions(self) -> int:
        return sum(map(len, self._callbacks.values()))

    async def send(self, frame: Frame, timeout: float | None = None) -> Frame:
        self.sent.append(await self.bus.send(frame, timeout or 2.0))
        return self.sent[-1]
