"""The formats that frames are recorded in."""

from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, Final, Protocol

from protocols.can.frame import Frame
from protocols.can.recordings.asc import AscWriter
from protocols.can.recordings.blf import BlfWriter
from protocols.can.recordings.candump import CandumpWriter
from protocols.can.recordings.pcapng import PcapngWriter
from protocols.can.recordings.table import CsvWriter


class Writer(Protocol):
    """Writes frames into a file, which it leaves open."""

    @property
    def size(self) -> int:
        """Bytes in the file by now, about."""

    def write(self, frames: Sequence[Frame]) -> None:
        """Adds frames.

        Raises:
            OSError: the file does not take them.
        """

    def flush(self) -> None:
        """Gives the operating system what was written: a crash of this program leaves it.

        Raises:
            OSError: it does not take it.
        """

    def finish(self) -> None:
        """Completes the file.

        Raises:
            OSError: the file does not take it.
        """


WRITERS: Final[Mapping[str, Callable[[BinaryIO, str], Writer]]] = {
    "blf": lambda file, channel: BlfWriter(file),
    "asc": lambda file, channel: AscWriter(file),
    "log": CandumpWriter,
    "pcapng": PcapngWriter,
    "csv": lambda file, channel: CsvWriter(file),
}
"""By the suffix of the file: takes a new file that can seek, and the name of the bus."""
