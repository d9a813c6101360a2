"""What writers have in common that only ever add to the end of their file."""

from typing import BinaryIO


class StreamWriter:
    """Adds to a file, which stays its owner's, and which is complete at any time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @property
    def size(self) -> int:
        """Bytes by now."""
        return self._file.tell()

    def flush(self) -> None:
        """Gives the operating system what was written.

        Raises:
            OSError: it does not take it.
        """
        self._file.flush()

    def finish(self) -> None:
        """Completes the file; it is still open.

        Raises:
            OSError: the file does not take it.
        """
        self._file.flush()
