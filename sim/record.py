"""Recorded values from CSV files."""

import csv
import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from protocols.base import Kind, Scalar

_LIMIT = 16 * 1024 * 1024
"""Bytes a file may have: its values are held in memory."""

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class Record(NamedTuple):
    """Values, each from its time (seconds, rising from 0) until the next one's, the last until `end`."""

    times: Sequence[float]
    values: Sequence[Scalar]
    end: float


def read_record(path: Path, column: str, time: str | None, interval: float | None, kind: Kind) -> Record:
    """Reads one column of a CSV file with a header line.

    The times come from the column `time`, in seconds, or are `interval` seconds apart.

    Raises:
        ValueError: the file cannot be read or is too large, has no such column, or a cell does not fit; the
            message says which line.
    """
    rows = _rows(path)
    if not rows:
        raise ValueError(f"{path}: no values below the header line")
    values = [_value(path, line, _cell(path, line, row, column), kind) for line, row in rows]
    if time is None:
        assert interval is not None
        return Record([n * interval for n in range(len(rows))], values, len(rows) * interval)
    stamps = [_number(path, line, _cell(path, line, row, time)) for line, row in rows]
    for (line, _), earlier, later in zip(rows[1:], stamps, stamps[1:], strict=False):
        if later <= earlier:
            raise ValueError(f"{path}:{line}: time {later:g} does not come after {earlier:g}")
    times = [stamp - stamps[0] for stamp in stamps]
    # The last value is held as long as the one before it.
    return Record(times, values, 2 * times[-1] - times[-2] if len(times) > 1 else math.inf)


def _rows(path: Path) -> list[tuple[int, Mapping[str, str | None]]]:
    try:
        if path.stat().st_size > _LIMIT:
            raise ValueError(f"{path}: larger than {_LIMIT >> 20} MiB")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            return [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV file in UTF-8 ({error})") from None


def _cell(path: Path, line: int, row: Mapping[str, str | None], column: str) -> str:
    if column not in row:
        names = [name for name in row if name is not None]
        near = difflib.get_close_matches(column, names, 1) or names[:10]
        raise ValueError(
            f"{path}: no column is called {column!r}; did you mean {' or '.join(map(repr, near))}?"
        )
    cell = row[column]
    if cell is None:
        raise ValueError(f"{path}:{line}: too few cells")
    return cell.strip()


def _number(path: Path, line: int, cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{path}:{line}: {cell[:40]!r} is not a number")
    return number


def _value(path: Path, line: int, cell: str, kind: Kind) -> Scalar:
    if kind == "boolean":
        if cell.lower() not in _BOOLEANS:
            raise ValueError(f"{path}:{line}: {cell[:40]!r} is neither true nor false")
        return _BOOLEANS[cell.lower()]
    if kind == "integer":
        try:
            return int(cell)  # exact also where a float is not
        except ValueError:
            return round(_number(path, line, cell))
    return _number(path, line, cell) if kind == "number" else cell
