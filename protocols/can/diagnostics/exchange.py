"""What a conversation of several frames needs of a driver."""

from collections.abc import Callable
from typing import Protocol

from protocols.can.frame import Frame


class Exchange(Protocol):
    """Sends frames, and calls back for those of one identifier."""

    def subscribe(self, can_id: int, callback: Callable[[Frame], None]) -> Callable[[], None]:
        """Calls back, on the loop, for each data frame with this identifier; returns what ends it.

        Own frames come too, marked OWN.
        """

    async def send(self, frame: Frame, timeout: float | None = None) -> Frame:
        """Sends a frame, and returns it with its time once the bus took it.

        Raises:
            DriverError: as `Bus.send`.
        """
