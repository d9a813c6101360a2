"""Recordings as signals: every frame that a database knows, decoded, as rows of a table."""

from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO, Final, NamedTuple

import msgspec

from protocols.base import Value
from protocols.can.frame import ERROR, EXTENDED, EXTENDED_MASK, REMOTE, Frame
from protocols.can.recordings.stream import StreamWriter
from protocols.can.signals.database import Database, Message, Signal
from protocols.can.signals.decoder import Decode, compile_decoder
from protocols.timestamps import rfc3339

SIGNAL_COLUMNS: Final = ("time", "message", "signal", "value", "label", "unit")
"""A row for each signal of each frame: time in UTC, the value scaled, and its label if it has one."""


class Known(NamedTuple):
    """A message of the database with what decodes it."""

    message: Message
    decode: Decode
    labels: Mapping[str, Mapping[Value, str]]
    """By the name of a signal, and its scaled value."""
    units: Mapping[str, str]
    """By the name of a signal."""


class Decoder:
    """Decodes frames by their identifiers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[int, Known | None] = {}
        self.unknown = 0
        """Data frames that the database does not know, or cannot decode."""

    def __call__(self, frames: Sequence[Frame]) -> Iterator[tuple[int, Known, Mapping[str, Value]]]:
        """The time, message and numbers by signal of each data frame that is known."""
        for time_ns, can_id, data, _ in frames:
            if can_id & (ERROR | REMOTE):
                continue
            try:
                known = self._known[can_id]
            except KeyError:
                known = self._known[can_id] = self._look_up(can_id)
            if known is None:
                self.unknown += 1
            else:
                yield time_ns, known, known.decode(data)

    def _look_up(self, can_id: int) -> Known | None:
        message = self._database.by_id.get(can_id & (EXTENDED | EXTENDED_MASK))
        if message is None or message.unsupported:
            return None
        # Without labels: what a table holds is a number; its label stands beside it.
        bare = {name: msgspec.structs.replace(signal, choices={}) for name, signal in message.signals.items()}
        numbers = msgspec.structs.replace(message, signals=bare)
        labels = {name: labels_of(signal) for name, signal in message.signals.items()}
        units = {name: signal.unit for name, signal in message.signals.items()}
        return Known(message, compile_decoder(numbers, {name: name for name in bare}), labels, units)


def labels_of(signal: Signal) -> Mapping[Value, str]:
    """The labels of a signal by scaled value, computed as the decoder does."""
    return {raw * signal.scale + signal.offset: label for raw, label in signal.choices.items()}


class SignalCsvWriter(StreamWriter):
    """Writes decoded signals as lines of CSV, a line for each."""

    def __init__(self, file: BinaryIO, database: Database) -> None:
        super().__init__(file)
        self.decoder = Decoder(database)
        file.write(f"{','.join(SIGNAL_COLUMNS)}\n".encode())

    def write(self, frames: Sequence[Frame]) -> None:
        """Adds frames.

        Raises:
            OSError: the file does not take them.
        """
        lines = []
        for time_ns, (message, _, labels, units), values in self.decoder(frames):
            head = f"{rfc3339(time_ns)},{_field(message.name)}"
            for name, value in values.items():
                label = _field(labels[name].get(value, ""))
                lines.append(f"{head},{_field(name)},{value},{label},{_field(units[name])}\n")
        self._file.write("".join(lines).encode())


def _field(text: str) -> str:
    """A field of CSV (RFC 4180)."""
    if any(mark in text for mark in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text
