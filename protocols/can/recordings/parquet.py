"""Frames, or decoded signals, as Apache Parquet files (pyarrow). Imported only where one is written."""

from collections.abc import Sequence
from typing import Any, BinaryIO, Final

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from protocols.base import number
from protocols.can.frame import (
    BRS,
    ERROR,
    ESI,
    EXTENDED,
    EXTENDED_MASK,
    FDF,
    LOCAL,
    OWN,
    REMOTE,
    STANDARD_MASK,
    Frame,
)
from protocols.can.recordings.decoded import Decoder
from protocols.can.recordings.table import kind_of
from protocols.can.signals.database import Database

_TIME: Final = pa.timestamp("ns", tz="UTC")
_WORD: Final = pa.dictionary(pa.int32(), pa.string())
_FRAMES: Final = pa.schema(
    [
        ("time", _TIME),
        ("id", pa.uint32()),
        ("extended", pa.bool_()),
        ("type", _WORD),
        ("direction", _WORD),
        ("fd", pa.bool_()),
        ("brs", pa.bool_()),
        ("esi", pa.bool_()),
        ("length", pa.uint8()),
        ("data", pa.binary()),
    ]
)
_SIGNALS: Final = pa.schema(
    [
        ("time", _TIME),
        ("message", _WORD),
        ("signal", _WORD),
        ("value", pa.float64()),
        ("label", _WORD),
        ("unit", _WORD),
    ]
)
_ROWS: Final = 128 * 1024
"""Rows of a row group: what is held in memory."""


class _Table:
    """Rows that become a row group when there are enough."""

    def __init__(self, file: BinaryIO, schema: Any) -> None:
        self._file = file
        self._schema = schema
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")
        self._rows: list[tuple[Any, ...]] = []

    @property
    def size(self) -> int:
        """Bytes by now, without what is in memory."""
        return self._file.tell()

    def _add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self._rows += rows
        if len(self._rows) >= _ROWS:
            self.flush()

    def flush(self) -> None:
        """Writes what is in memory as a row group.

        Raises:
            OSError: the file does not take it.
        """
        if self._rows:
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
            ]
            self._rows = []
            self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))

    def finish(self) -> None:
        """Completes the file; it is still open.

        Raises:
            OSError: the file does not take it.
        """
        self.flush()
        self._writer.close()


class ParquetWriter(_Table):
    """Writes frames, a row for each; nothing is lost but whether OWN or LOCAL."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, _FRAMES)

    def write(self, frames: Sequence[Frame]) -> None:
        """Adds frames.

        Raises:
            OSError: the file does not take them.
        """
        self._add(
            [
                (
                    frame.time_ns,
                    frame.can_id & (EXTENDED_MASK if frame.can_id & (EXTENDED | ERROR) else STANDARD_MASK),
                    bool(frame.can_id & EXTENDED),
                    kind_of(frame),
                    "tx" if frame.flags & (OWN | LOCAL) else "rx",
                    bool(frame.flags & FDF),
                    bool(frame.flags & BRS),
                    bool(frame.flags & ESI),
                    len(frame.data),
                    b"" if frame.can_id & REMOTE else frame.data,
                )
                for frame in frames
            ]
        )


class ParquetSignalWriter(_Table):
    """Writes decoded signals, a row for each; integers over 2**53 are rounded."""

    def __init__(self, file: BinaryIO, database: Database) -> None:
        super().__init__(file, _SIGNALS)
        self.decoder = Decoder(database)

    def write(self, frames: Sequence[Frame]) -> None:
        """Adds frames.

        Raises:
            OSError: the file does not take them.
        """
        self._add(
            [
                (
                    time_ns,
                    message.name,
                    name,
                    number(value),
                    labels[name].get(value),
                    units[name],
                )
                for time_ns, (message, _, labels, units), values in self.decoder(frames)
                for name, value in values.items()
            ]
        )
