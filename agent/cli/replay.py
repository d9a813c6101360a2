"""`hilgate replay`: a recording onto a bus, in the time that it was recorded in."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from agent.cli import options
from agent.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from protocols.can.bus import Bus, BusStatus
    from protocols.can.config import Connection
    from protocols.can.frame import Frame
    from protocols.can.recordings.logs import Recording
    from protocols.can.recordings.player import Played

_IN_FLIGHT = 64
"""Frames that may wait for the bus to take them."""
_SMALL = 4 * 1024 * 1024
"""A file up to so many bytes is read whole first: its mistakes are known before anything is sent."""
_SEND_S = 1.0
"""How long the bus may take to take a frame."""
_BUS = "Bus"


def replay(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A recording: .blf .asc .log .pcapng .pcap .csv .trc .mf4 (.gz)."
        ),
    ],
    channel: Annotated[
        str | None, typer.Option(help="Such as can0, or what python-can calls it.", rich_help_panel=_BUS)
    ] = None,
    interface: Annotated[
        str, typer.Option(help="socketcan, or an interface of python-can.", rich_help_panel=_BUS)
    ] = "socketcan",
    bitrate: Annotated[int | None, typer.Option(help="Bits a second.", rich_help_panel=_BUS)] = None,
    data_bitrate: Annotated[
        int | None, typer.Option(help="Bits a second in the data phase of CAN FD.", rich_help_panel=_BUS)
    ] = None,
    fd: Annotated[
        bool, typer.Option("--fd", help="The bus carries CAN FD frames.", rich_help_panel=_BUS)
    ] = False,
    profile: Annotated[
        str | None,
        typer.Option(help="Take the connection of a device from this profile.", rich_help_panel=_BUS),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="The device, if the profile has several buses.", rich_help_panel=_BUS)
    ] = None,
    speed: Annotated[float, typer.Option(min=0.001, max=1000, help="2: in half the time.")] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Again and again, until Ctrl-C.")] = False,
    times: Annotated[int, typer.Option(min=1, help="How often it is played.")] = 1,
    ids: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Only these: 0x123, 0x100..0x1FF, 0x18DAF110; may be repeated."),
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="ID=ID",
            help="Send as another id: 0x100=0x200, 0x100..0x1FF=0x500..0x5FF; may be repeated.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Play a recording onto a CAN bus with its original timing.

    Error frames cannot be sent: they are passed over and counted. Ctrl-C ends it and tells what was sent.
    """
    from agent.cli import loop as loops
    from agent.cli import output
    from agent.cli.convert import opened

    selection = Selection(_ranges(ids or []), _moves(mapping or []))
    connection = _connection(
        profile,
        device,
        {
            "interface": interface,
            "channel": channel,
            "bitrate": bitrate,
            "data_bitrate": data_bitrate,
            "fd": fd,
        },
    )
    recording = opened(file)
    outcome = loops.execute(
        lambda stop: _replay(stop, connection, recording, selection, speed, True if loop else times)
    )
    if as_json:
        output.json_line(outcome)
    else:
        output.say(_sentence(outcome))


class Move(NamedTuple):
    """Arbitration ids from `first` to `last` are sent from `to` on."""

    first: int
    last: int
    to: int


class Selection:
    """Which frames are sent, and as what."""

    def __init__(self, ids: Sequence[tuple[int, int]], moves: Sequence[Move]) -> None:
        self._ids = ids
        self._moves = moves
        self.filtered = 0
        """Frames that were not wanted."""

    def of(self, frames: "Iterable[Frame]") -> "_Selected":
        """The frames that are wanted, under their new ids; can be iterated over as often as `frames`."""
        return _Selected(self, frames)

    def apply(self, frame: "Frame") -> "Frame | None":
        """The frame as it is sent, if it is."""
        from protocols.can.frame import ERROR, EXTENDED, EXTENDED_MASK, REMOTE

        if frame.can_id & ERROR:
            return frame
        can_id = frame.can_id & (EXTENDED | EXTENDED_MASK)
        if self._ids and not any(first <= can_id <= last for first, last in self._ids):
            self.filtered += 1
            return None
        for move in self._moves:
            if move.first <= can_id <= move.last:
                return frame._replace(can_id=move.to + can_id - move.first | frame.can_id & REMOTE)
        return frame


class _Selected:
    def __init__(self, selection: Selection, frames: "Iterable[Frame]") -> None:
        self._selection = selection
        self._frames = frames

    def __iter__(self) -> "Iterator[Frame]":
        apply = self._selection.apply
        return (selected for frame in self._frames if (selected := apply(frame)) is not None)


def _ranges(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Ranges of ids.

    Raises:
        Failure: one is none.
    """
    from pydantic import TypeAdapter, ValidationError

    from protocols.can.config import IdRange

    adapter: TypeAdapter[tuple[int, int]] = TypeAdapter(IdRange)
    found = []
    for text in texts:
        try:
            found.append(adapter.validate_python(text))
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise Failure(f"{text!r}: {reason}", Exit.USAGE) from None
    return found


def _moves(texts: Sequence[str]) -> list[Move]:
    """What `--map` says.

    Raises:
        Failure: a text is no `ID=ID`, or the two ranges differ in length.
    """
    moves = []
    for text in texts:
        old, equals, new = text.partition("=")
        if not equals:
            raise Failure(f"--map {text!r} should be such as 0x100=0x200", Exit.USAGE)
        (first, last), (to, to_last) = _ranges([old, new])
        if last - first != to_last - to:
            raise Failure(f"--map {text!r}: both sides need the same number of ids", Exit.USAGE)
        moves.append(Move(first, last, to))
    return moves


def _connection(profile: str | None, device: str | None, given: dict[str, Any]) -> "Connection":
    """The connection that the command line or a profile describes.

    Raises:
        Failure: it does not describe one.
    """
    from pydantic import ValidationError

    from protocols.can.config import CanDevice, Connection

    if profile is None:
        if given["channel"] is None:
            raise Failure("Onto which bus? Give --channel, or --profile and --device", Exit.USAGE)
        try:
            return Connection(**given)
        except ValidationError as error:
            first = error.errors()[0]
            field = "-".join(map(str, first["loc"])).replace("_", "-")
            raise Failure(f"--{field}: {first['msg']}", Exit.USAGE) from None
    if given["channel"] is not None:
        raise Failure("Give --channel or --profile, not both", Exit.USAGE)
    from agent.cli import configuration

    devices = configuration.profile(profile).devices
    buses = {name: found for name, found in devices.items() if isinstance(found, CanDevice)}
    if device is None and len(buses) == 1:
        return next(iter(buses.values())).connection
    if device not in buses:
        known = ", ".join(buses) or "none"
        wanted = "give --device" if device is None else f"there is no CAN bus {device!r}"
        raise Failure(f"{wanted}; profile {profile} has {known}", Exit.USAGE)
    return buses[device].connection


class _Nobody:
    """Listens to a bus that is only sent to."""

    def frames(self, batch: "Sequence[Frame]") -> None:
        """Nothing is asked for; our own come back."""

    def dropped(self, count: int) -> None:
        """Nothing is missed."""

    def status(self, status: "BusStatus") -> None:
        """A send says what this means for it."""


async def _replay(
    stop: asyncio.Event,
    connection: "Connection",
    recording: "Recording",
    selection: Selection,
    speed: float,
    loop: bool | int,
) -> dict[str, Any]:
    """Plays until the end, the signal or the loss of the bus; says what was sent.

    Raises:
        Failure: the recording is damaged, or the bus refuses.
    """
    from agent.cli.convert import mistakes
    from protocols.base import DriverError
    from protocols.can.bus import make_bus

    with mistakes():
        seconds = await asyncio.to_thread(_length, recording)
        bus = make_bus(connection)
        try:
            await bus.open(_Nobody(), ())
            return await _play(stop, bus, recording, selection, speed, loop, seconds)
        except DriverError as error:
            raise Failure(f"{connection}: {error}") from None
        finally:
            bus.close()


def _length(recording: "Recording") -> float | None:
    """Seconds that a small recording takes; None for a large one, which is not read before."""
    if recording.size > _SMALL:
        return None
    total, last = 0, None
    for frame in recording:
        total += 0 if last is None else max(0, frame.time_ns - last)
        last = frame.time_ns
    return total / 1e9


async def _play(
    stop: asyncio.Event,
    bus: "Bus",
    recording: "Recording",
    selection: Selection,
    speed: float,
    loop: bool | int,
    seconds: float | None,
) -> dict[str, Any]:
    from protocols.can.recordings.player import Played, play

    clock = asyncio.get_running_loop().time
    began, played, complete = clock(), Played(), False
    with _progress(recording, seconds) as show:

        def on_progress(now: "Played") -> None:
            nonlocal played
            played = now
            show(now)

        async def work() -> None:
            nonlocal complete
            async with asyncio.TaskGroup() as group:
                free = asyncio.Semaphore(_IN_FLIGHT)

                async def hand_over(frame: "Frame") -> None:
                    try:
                        await bus.send(frame, _SEND_S)
                    finally:
                        free.release()

                async def send(frame: "Frame") -> None:
                    await free.acquire()
                    group.create_task(hand_over(frame))

                await play(selection.of(recording), send, speed, loop, on_progress)
            complete = True

        await _until_first(work(), stop.wait(), _lost(bus))
    lasted = clock() - began
    return {
        "complete": complete,
        "sent": played.sent,
        "errors": played.errors,
        "filtered": selection.filtered,
        "loops": played.loops,
        "seconds": round(lasted, 3),
        "frames_per_s": round(played.sent / lasted, 1) if lasted else 0.0,
        "late_ms": {
            name: round(played.lateness(share) * 1000, 3)
            for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
        },
    }


async def _lost(bus: "Bus") -> None:
    from protocols.base import DriverError

    raise DriverError("disconnected", await bus.lost())


async def _until_first(*works: Coroutine[Any, Any, object]) -> None:
    """Runs all until one of them ends, and raises what that one raised; the others are cancelled."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        error = task.exception()
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if error is not None:
            raise error


@contextmanager
def _progress(recording: "Recording", seconds: float | None) -> "Iterator[Callable[[Played], None]]":
    """Shows how far it is, on a terminal: by time where that is known, else by bytes."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    words = "{task.fields[position]:.1f} s  {task.fields[sent]:,} frames  {task.fields[rate]:,.0f}/s"
    late = "{task.fields[late]:.2f} ms late"
    columns = (BarColumn(), TextColumn(words), TextColumn(late))
    total = recording.size if seconds is None else seconds
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, position=0.0, sent=0, rate=0.0, late=0.0)

        def show(played: "Played") -> None:
            progress.update(
                task,
                completed=recording.position if seconds is None else played.position,
                position=played.position,
                sent=played.sent,
                rate=played.sent / (progress.tasks[0].elapsed or 1.0),
                late=played.late * 1000,
            )

        yield show


def _sentence(outcome: dict[str, Any]) -> str:
    end = "" if outcome["complete"] else "ended before its end: "
    late = outcome["late_ms"]
    passed = [
        f"{outcome[what]:,} {word}"
        for what, word in (("filtered", "not wanted"), ("errors", "error frames"))
        if outcome[what]
    ]
    over = f"; passed over: {', '.join(passed)}" if passed else ""
    return (
        f"{end}{outcome['sent']:,} frames sent in {outcome['seconds']:.1f} s{over}; "
        f"late by {late['p50']:.2f} ms (median), {late['p99']:.2f} ms (99 %), {late['max']:.2f} ms (most)"
    )
