"""Frames, or decoded signals, as ASAM MDF 4 files (asammdf). Imported only where one is written."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Final, NamedTuple, cast

import can  # noqa: F401  # first: python-can does without MF4 for good when asammdf was imported before it
import numpy as np
from asammdf import MDF, Signal, Source
from can.io.mf4 import ERR_DTYPE, RTR_DTYPE, STD_DTYPE

from protocols.base import Value
from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, EXTENDED_MASK, FDF, LOCAL, OWN, REMOTE, Frame
from protocols.can.recordings.decoded import Decoder, Known
from protocols.can.signals.database import Database
from protocols.can.signals.database import Signal as DatabaseSignal

_ROWS: Final = 32 * 1024
"""Rows of a group that are handed to asammdf at once: one by one costs 157 us each, and so 0.7."""
_DLC_OF: Final = {length: dlc for dlc, length in enumerate((*range(9), 12, 16, 20, 24, 32, 48, 64))}


class _Mdf:
    """A file of groups of rows. What is written waits in asammdf's temporary file until it is finished."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._mdf = MDF(version="4.10")
        self._start_ns: int | None = None

    @property
    def size(self) -> int:
        """Always 0: nothing is in the file before it is finished."""
        return 0

    def _seconds(self, stamps: Sequence[int]) -> Any:
        """Stamps as MDF has them, since the start of the file."""
        return (np.array(stamps, dtype=np.int64) - (self._start_ns or 0)).astype(np.float64) / 1e9

    def _begin(self, time_ns: int) -> None:
        if self._start_ns is None:
            microseconds = time_ns // 1000
            self._start_ns = microseconds * 1000
            start = datetime.datetime.fromtimestamp(microseconds // 1_000_000, datetime.UTC)
            self._mdf.header.start_time = start + datetime.timedelta(microseconds=microseconds % 1_000_000)

    def _hand_over(self) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        """Hands what waits to asammdf."""
        self._hand_over()

    def finish(self) -> None:
        """Writes the file; it is still open.

        Raises:
            OSError: the file does not take it.
        """
        self._hand_over()
        try:
            self._mdf.save(cast(Any, self._file), compression=1)
        finally:
            self._mdf.close()


class _Kind(NamedTuple):
    """Frames of one kind, as ASAM's bus logging has them."""

    name: str
    dtype: Any
    rows: list[Frame]


class Mf4Writer(_Mdf):
    """Writes frames by ASAM's convention for bus logging; stamps are floats of seconds since the first."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._kinds = (
            _Kind("CAN_DataFrame", STD_DTYPE, []),
            _Kind("CAN_ErrorFrame", ERR_DTYPE, []),
            _Kind("CAN_RemoteFrame", RTR_DTYPE, []),
        )
        source = Source(
            name="CAN", path="CAN", comment="", source_type=Source.SOURCE_BUS, bus_type=Source.BUS_TYPE_CAN
        )
        for kind in self._kinds:
            empty = np.array([], dtype=kind.dtype)
            self._mdf.append(Signal(empty, np.array([], dtype="<f8"), name=kind.name, source=source))

    def write(self, frames: Sequence[Frame]) -> None:
        """Adds frames."""
        data, errors, remotes = (kind.rows for kind in self._kinds)
        for frame in frames:
            self._begin(frame.time_ns)
            rows = errors if frame.can_id & ERROR else remotes if frame.can_id & REMOTE else data
            rows.append(frame)
        if max(len(kind.rows) for kind in self._kinds) >= _ROWS:
            self._hand_over()

    def _hand_over(self) -> None:
        for index, kind in enumerate(self._kinds):
            if kind.rows:
                stamps = self._seconds([frame.time_ns for frame in kind.rows])
                samples = _samples(kind)
                self._mdf.extend(index, [(stamps, None), (samples, None)])
                kind.rows.clear()


def _samples(kind: _Kind) -> Any:
    """The rows of a kind as an array of its structure."""
    stamps, can_ids, payloads, flags = zip(*kind.rows, strict=True)
    ids, bits = np.array(can_ids, dtype=np.uint32), np.array(flags, dtype=np.uint32)
    lengths = [len(data) for data in payloads]
    data = np.frombuffer(b"".join(data.ljust(64, b"\0") for data in payloads), dtype=np.uint8)
    fields = {
        "BusChannel": 1,
        "ID": ids & EXTENDED_MASK,
        "IDE": ids & EXTENDED != 0,
        "DLC": [_DLC_OF[length] for length in lengths],
        "DataLength": lengths,
        "DataBytes": data.reshape(len(stamps), 64),
        "Dir": bits & (OWN | LOCAL) != 0,
        "EDL": bits & FDF != 0,
        "BRS": bits & BRS != 0,
        "ESI": bits & ESI != 0,
    }
    samples = np.zeros(len(stamps), dtype=kind.dtype)
    for name in kind.dtype.names:
        samples[name] = fields[name.removeprefix(f"{kind.name}.")]
    return samples


class _Group(NamedTuple):
    """Decoded frames that have the same signals."""

    known: Known
    stamps: list[int]
    columns: Mapping[str, list[Value]]


class Mf4SignalWriter(_Mdf):
    """Writes decoded signals: a group for each message, and for each set of signals that a frame of it has.

    Values are scaled, as doubles (integers over 2**53 are rounded), with labels as a conversion to text.
    """

    def __init__(self, file: BinaryIO, database: Database) -> None:
        super().__init__(file)
        self.decoder = Decoder(database)
        self._groups: dict[tuple[int, tuple[str, ...]], _Group] = {}
        self._numbers: dict[tuple[int, tuple[str, ...]], int] = {}

    def write(self, frames: Sequence[Frame]) -> None:
        """Adds frames."""
        for time_ns, known, values in self.decoder(frames):
            if not values:
                continue
            self._begin(time_ns)
            key = known.message.can_id, tuple(values)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group(known, [], {name: [] for name in values})
            group.stamps.append(time_ns)
            for name, value in values.items():
                group.columns[name].append(value)
            if len(group.stamps) >= _ROWS:
                self._hand_over()

    def _hand_over(self) -> None:
        for key, group in self._groups.items():
            if not group.stamps:
                continue
            stamps = self._seconds(group.stamps)
            columns = {name: np.array(values, dtype=np.float64) for name, values in group.columns.items()}
            if key in self._numbers:
                more = [(column, None) for column in columns.values()]
                self._mdf.extend(self._numbers[key], [(stamps, None), *more])
            else:
                signals = group.known.message.signals
                made = [_channel(signals[name], column, stamps) for name, column in columns.items()]
                name = group.known.message.name
                self._numbers[key] = self._mdf.append(made, acq_name=name, comment=name)
            group.stamps.clear()
            for values in group.columns.values():
                values.clear()


def _channel(signal: DatabaseSignal, samples: Any, stamps: Any) -> Signal:
    conversion: dict[str, Any] | None = None
    if signal.choices:
        conversion = {"default_addr": ""}
        for number, (raw, label) in enumerate(signal.choices.items()):
            conversion[f"val_{number}"] = float(raw * signal.scale + signal.offset)
            conversion[f"text_{number}"] = label
    return Signal(
        samples, stamps, name=signal.name, unit=signal.unit, comment=signal.comment, conversion=conversion
    )
