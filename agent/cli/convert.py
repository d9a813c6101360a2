"""`hilgate convert`: a recording of a CAN bus into another format."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from agent.cli import options
from agent.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from protocols.can.recordings.logs import Recording
    from protocols.can.recordings.writers import Writer
    from protocols.can.signals.database import Database

_PIECE = 4096
"""Frames that are taken at once."""
_EXTRAS = {"asammdf": "convert", "numpy": "convert", "pyarrow": "convert"}
_DECODED = ("csv", "parquet", "mf4")


def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", help="A recording: .blf .asc .log .pcapng .pcap .csv .trc .mf4 (.gz)."),
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="A new file: .blf .asc .log .pcapng .csv .parquet .mf4."),
    ],
    database: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="DBC, KCD, SYM or ARXML: write decoded signals; OUT is .csv, .parquet or .mf4.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite OUT.")] = False,
    as_json: options.Json = False,
) -> None:
    """Convert a recording of a CAN bus into another format, as frames or as decoded signals.

    OUT appears once it is complete. What a format cannot hold is listed in docs/recordings.md.
    """
    from agent.cli import output

    suffix = target.suffix.lower().removeprefix(".")
    if target.exists() and not force:
        raise Failure(f"{target} is there already; --force overwrites it", Exit.USAGE)
    recording, contents = opened(source), _contents(database or [])
    with _complete_or_not(target) as file:
        writer = _writer(file, suffix, source, contents)
        frames = _pass_on(recording, writer)
        writer.finish()
    unknown = writer.decoder.unknown if hasattr(writer, "decoder") else 0
    summary = {"file": str(target), "frames": frames, "unknown": unknown, "bytes": target.stat().st_size}
    if as_json:
        output.json_line(summary)
        return
    output.say(f"{frames:,} frames written to {target}")
    if unknown:
        output.say(f"{unknown:,} of them are of no message that the database can decode")


def opened(path: Path) -> "Recording":
    """A recording.

    Raises:
        Failure: the file's name says nothing.
        OSError: it cannot be opened.
    """
    from protocols.can.recordings import logs

    try:
        return logs.read(path)
    except ValueError as error:
        raise Failure(str(error), Exit.USAGE) from None


@contextmanager
def mistakes() -> Iterator[None]:
    """What is wrong with a recording, or missing to read or write one, as a sentence.

    Raises:
        Failure: instead of ValueError and ModuleNotFoundError.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(str(error.name), "can")
        raise Failure(f"this needs the package {error.name}: install hilgate[{extra}]") from None
    except ValueError as error:
        raise Failure(str(error)) from None


def _contents(files: list[Path]) -> "Database | None":
    if not files:
        return None
    from protocols.can.signals.database import load

    with mistakes():
        return load(files)


def _writer(file: BinaryIO, suffix: str, source: Path, contents: "Database | None") -> Any:
    """What writes the target.

    Raises:
        Failure: no such format, or a package is missing.
    """
    from protocols.can.recordings.decoded import SignalCsvWriter
    from protocols.can.recordings.writers import WRITERS

    with mistakes():
        match suffix:
            case "parquet":
                from protocols.can.recordings.parquet import ParquetSignalWriter, ParquetWriter

                return ParquetWriter(file) if contents is None else ParquetSignalWriter(file, contents)
            case "mf4":
                from protocols.can.recordings.mf4 import Mf4SignalWriter, Mf4Writer

                return Mf4Writer(file) if contents is None else Mf4SignalWriter(file, contents)
            case "csv" if contents is not None:
                return SignalCsvWriter(file, contents)
            case _ if suffix in WRITERS and contents is None:
                return WRITERS[suffix](file, source.name.partition(".")[0] or "can0")
    if suffix in WRITERS:
        known = ", ".join(f".{name}" for name in _DECODED)
        raise Failure(f"Signals go into one of {known}; .{suffix} holds frames", Exit.USAGE)
    known = ", ".join(f".{name}" for name in (*WRITERS, "parquet", "mf4"))
    raise Failure(f"OUT should end in one of {known}", Exit.USAGE)


@contextmanager
def _complete_or_not(target: Path) -> Iterator[BinaryIO]:
    """A file that takes the target's name at the end of the body, or else is removed."""
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _pass_on(recording: "Recording", writer: "Writer") -> int:
    """Gives all frames to the writer, and shows how far it is; returns how many."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console, count = Console(stderr=True), 0
    columns = (
        TextColumn("{task.fields[frames]:,} frames"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with mistakes(), Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=recording.size, frames=0)
        frames = iter(recording)
        while piece := list(islice(frames, _PIECE)):
            writer.write(piece)
            count += len(piece)
            progress.update(task, completed=recording.position, frames=count)
    return count
