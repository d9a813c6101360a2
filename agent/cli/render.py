"""Tables for people. Whatever came from a bus or a broker is shown without its control characters."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from agent.cli.board import (
    TREND_COLUMNS,
    Availability,
    Board,
    DeviceStatus,
    Fleet,
    LeaseView,
    PointView,
    is_lost,
)

if TYPE_CHECKING:
    from sim.broker.statistics import Statistics

_STATE_STYLES = {
    "online": "green",
    "available": "green",
    "leased": "cyan",
    "starting": "yellow",
    "connecting": "yellow",
    "degraded": "yellow",
    "maintenance": "magenta",
    "stopping": "yellow",
    "fault": "bold red",
    "lost": "bold red",
    "offline": "red",
    "disabled": "dim",
}
_OTHER_COLUMNS = 72
"""What the columns beside the trend take, with names of usual length."""
_WIDEST = 24
"""Characters of an array or an object in the table of points."""
_BARS = "▁▂▃▄▅▆▇█"

Units = Mapping[tuple[str, str], str]
"""Engineering units by (device, point)."""


def plain(value: Any) -> Text:
    """Text of anything, so that what a peer sent cannot steer the terminal."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value)))


def table(*columns: str) -> Table:
    """A table in the one style that all of hilgate's have; a column named `>x` is set to the right."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left")
    return made


def state(word: str) -> Text:
    """A state with its dot, coloured by how bad it is."""
    return Text.assemble(("● ", _STATE_STYLES.get(word, "white")), plain(word))


def sparkline(values: Iterable[float], columns: int = TREND_COLUMNS) -> str:
    """A line of bars, the newest at the end, between the lowest and the highest value."""
    trend = list(values)
    trend = trend[max(len(trend) - columns, 0) :]
    if not trend:
        return ""
    # Halves, because the span of all there is would be infinite.
    low = min(trend) / 2
    span = max(trend) / 2 - low
    if span == 0:
        return _BARS[0] * len(trend)
    top = len(_BARS) - 1
    return "".join(_BARS[round((value / 2 - low) / span * top)] for value in trend)


def bench(board: Board, units: Units, now: float, width: int, *, rows: int | None = None) -> RenderableType:
    """All points of one bench, under their devices.

    Args:
        board: What came so far.
        units: Shown beside the values.
        now: Wall clock in seconds, for the ages.
        width: Columns of the terminal; trends get what the rest leaves.
        rows: At most so many lines, where the terminal has no more; the rest is counted.
    """
    made = table("point", ">value", "unit", "trend", ">age", "quality")
    trend = min(max(width - _OTHER_COLUMNS, 0), TREND_COLUMNS)
    made.columns[3].min_width = trend
    lines = list(_bench_rows(board, units, now, trend))
    shown = lines if rows is None else lines[: max(rows, 1)]
    for line in shown:
        made.add_row(*line)
    if len(shown) < len(lines):
        made.add_row(Text(f"… and {len(lines) - len(shown)} more", "dim"))
    return Group(_bench_head(board, now), made)


def _bench_head(board: Board, now: float) -> Text:
    known = board.availability
    if known is None:
        return Text.assemble((board.bench, "bold"), "  no availability seen yet")
    events, values = board.tick(now)
    word = "lost" if is_lost(known, board.heard, now) else known.state
    parts: list[Any] = [
        *((plain(board.bench), "  ", state(word), "  ", plain(known.mode), "  ", plain(known.profile.name))),
        (f"   {events:.0f} events/s  {values:.0f} values/s", "cyan"),
        (f"  {board.lost} lost", "bold red" if board.lost else "dim"),
    ]
    if board.malformed:
        parts.append((f"  {board.malformed} malformed", "bold red"))
    if known.lease is not None:
        parts.append(Text.assemble("\n", _lease(known.lease), style="cyan"))
    if known.reason:
        parts.append(Text.assemble("\n", plain(known.reason), style="yellow"))
    return Text.assemble(*parts)


def _lease(lease: LeaseView) -> Text:
    what = "" if lease.devices is None else f" ({', '.join(lease.devices)})"
    until = "is being prepared" if lease.expires is None else f"until {lease.expires:%H:%M:%S} UTC"
    return plain(f"leased by {lease.holder}{what} {until}")


def _bench_rows(board: Board, units: Units, now: float, trend: int) -> Iterable[list[RenderableType]]:
    statuses = board.availability.devices if board.availability else {}
    for device in [*statuses, *(name for name in board.points if name not in statuses)]:
        yield _device_row(device, statuses.get(device))
        for name, point in board.points.get(device, {}).items():
            yield _point_row(name, point, units.get((device, name), ""), now, trend)


def _device_row(device: str, status: DeviceStatus | None) -> list[RenderableType]:
    name = Text.assemble(plain(device), style="bold")
    if status is None:
        return [name]
    about = Text.assemble(plain(status.protocol), " ", plain(status.mode), style="dim")
    return [name, state(status.state), "", about, "", plain(status.reason)]


def _point_row(name: str, point: PointView, unit: str, now: float, trend: int) -> list[RenderableType]:
    age = "" if point.time is None else f"{max(0.0, now - point.time):.1f} s"
    quality = Text.assemble(plain(point.bad), style="bold red") if point.bad else Text("good", "green")
    return [
        Text.assemble("  ", plain(name)),
        value(point.value, _WIDEST),
        plain(unit),
        Text(sparkline(point.trend, trend), "blue", no_wrap=True),
        Text(age, "dim"),
        Text("not heard yet", "dim") if point.time is None else quality,
    ]


def value(item: Any, widest: int = sys.maxsize) -> Text:
    """A value as people read it; no value is a dash. Arrays and objects are cut to so many characters."""
    if item is None:
        return Text("-", "dim")
    if isinstance(item, bool):
        return Text("● true", "green") if item else Text("○ false", "dim")
    if isinstance(item, float):
        return Text(f"{item:.6g}", "bold")
    if isinstance(item, list | dict):
        text = _json(item)
        return Text.assemble(plain(text if len(text) <= widest else text[: widest - 1] + "…"), style="bold")
    return Text.assemble(plain(item), style="bold")


def fleet(benches: Fleet, now: float) -> RenderableType:
    """Availability of all benches, a line each."""
    if not benches.benches:
        return Text("no bench has been heard yet", "dim")
    made = table("bench", "state", "enabled", "mode", "devices", "profile", ">since", ">heard", "reason")
    for known, heard in benches.rows():
        online = sum(device.state == "online" for device in known.devices.values())
        made.add_row(
            Text.assemble(plain(known.bench), style="bold"),
            state("lost" if is_lost(known, heard, now) else known.state),
            "yes" if known.enabled else Text("no", "magenta"),
            plain(known.mode),
            f"{online}/{len(known.devices)} online",
            Text.assemble(plain(known.profile.name), " ", (_short_digest(known), "dim")),
            span(now - known.since.timestamp()),
            f"{max(0.0, now - heard):.1f} s ago",
            plain(_why(known)),
        )
    return made


def _short_digest(known: Availability) -> str:
    return str(plain(known.profile.digest.removeprefix("sha256:")[:8]))


def _why(known: Availability) -> str:
    if known.reason:
        return known.reason
    ill = (f"{name}: {device.reason}" for name, device in known.devices.items() if device.reason)
    return next(ill, "")


def span(seconds: float) -> str:
    """A time span in the largest unit that it fills."""
    whole = max(0, int(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole >= length:
            return f"{whole // length} {unit}"
    return f"{whole} s"


def result(body: Mapping[str, Any], seconds: float) -> RenderableType:
    """The result of a command (wire.md section 4)."""
    status = str(body.get("status"))
    style = {"ok": "green", "rejected": "yellow"}.get(status, "red")
    head = Text.assemble(
        (f"{plain(body.get('op'))} ", "bold"),
        (str(plain(status)), style),
        (f"  {seconds * 1000:.0f} ms", "dim"),
    )
    if body.get("code"):
        head.append_text(Text.assemble("  ", plain(body["code"]), ": ", plain(body.get("message", ""))))
    data = body.get("data")
    if isinstance(data, Mapping) and "values" in data and "time" in data:
        head.append_text(Text.assemble("  at ", plain(data["time"]), style="dim"))
    return Group(head, *_data(body.get("op"), data)) if isinstance(data, Mapping) else head


def _data(op: Any, data: Mapping[str, Any]) -> Iterable[RenderableType]:
    if op == "describe" and isinstance(data.get("devices"), Mapping):
        return [_described(str(name), device) for name, device in data["devices"].items()]
    if op == "safe" and isinstance(data.get("points"), list):
        return [safe_points(data["points"])]
    if isinstance(data.get("values"), Mapping):
        return [_readings(data)]
    made = table("field", "value")
    for key, item in data.items():
        made.add_row(plain(key), value(item))
    return [made] if data else []


def _json(item: Any) -> str:
    return json.dumps(item, ensure_ascii=False)


def safe_points(points: Iterable[Any]) -> Table:
    """What came of each safe value: the `points` of a safety event."""
    made = table("device", "point", ">safe value", "reached", "reads back", "")
    words = {True: "yes", False: "no", None: ""}
    for one in (one for one in points if isinstance(one, Mapping)):
        reached, verified = one.get("reached") is True, one.get("verified")
        said = (words[reached], words[verified if isinstance(verified, bool) else None])
        made.add_row(
            plain(one.get("device")),
            plain(one.get("point")),
            value(one.get("value")),
            *said,
            plain(one.get("reason", "")),
            style="" if reached and verified is not False else "bold red",
        )
    return made


def _readings(data: Mapping[str, Any]) -> Table:
    """Values that were read, or written and (with --verify) read back."""
    back = data.get("read_back")
    made = table("point", ">value", ">read back" if back else "")
    done = Text("good" if "time" in data else "written", "green")
    for name, item in data["values"].items():
        made.add_row(plain(name), value(item), value(back.get(name)) if isinstance(back, Mapping) else done)
    bad = data.get("bad")
    for name, reason in bad.items() if isinstance(bad, Mapping) else ():
        made.add_row(plain(name), value(None), Text.assemble(plain(reason), style="bold red"))
    return made


def _described(name: str, device: Any) -> RenderableType:
    if not isinstance(device, Mapping) or not isinstance(device.get("points"), Mapping):
        return plain(f"{name}: {device}")
    head = Text.assemble(
        (str(plain(name)), "bold"),
        "  ",
        state(str(device.get("state"))),
        "  ",
        plain(device.get("protocol", "")),
    )
    head.append_text(Text.assemble("  ", plain(device.get("description", "")), style="dim"))
    made = table("point", "type", "access", "unit", ">min", ">max", ">max rate", ">safe", "about")
    for point, about in device["points"].items():
        known = about if isinstance(about, Mapping) else {}
        made.add_row(
            plain(point),
            *(plain(known.get(key, "")) for key in ("type", "access", "unit")),
            *(value(known[key]) if key in known else "" for key in ("min", "max", "max_rate", "safe")),
            plain("; ".join(_about(known))),
        )
    methods = device.get("methods")
    calls = Table.grid(padding=(0, 2))
    for method, about in methods.items() if isinstance(methods, Mapping) else ():
        calls.add_row(" call", Text(str(plain(method)), "cyan"), Text(str(plain(about)), "dim"))
    return Group(head, made, calls, "")


def _about(point: Mapping[str, Any]) -> Iterable[str]:
    """What a description says of a point beside its numbers."""
    choices, requires = point.get("choices"), point.get("requires")
    if about := point.get("description") or (isinstance(choices, list) and ", ".join(map(str, choices))):
        yield str(about)
    if isinstance(requires, Mapping):
        yield f"requires {', '.join(_wanted(key, wanted) for key, wanted in requires.items())}"


def _wanted(name: str, value: object) -> str:
    """What an interlock wants of another point, such as `level max 3.8` or `door: true`."""
    if isinstance(value, Mapping):
        return " and ".join(f"{name} {bound} {limit}" for bound, limit in value.items())
    return f"{name}: {value}"


def commands(lines: Sequence[str]) -> RenderableType:
    """Commands that a reader can copy into a second terminal."""
    return Panel(
        Text("\n".join(lines), "bold cyan"),
        title="from a second terminal",
        title_align="left",
        border_style="dim",
        expand=False,
    )


def queues(statistics: "Statistics") -> RenderableType:
    """What the embedded broker holds now."""
    counters = statistics.counters
    made = table("queue", ">messages", ">bytes", ">unsettled", ">consumers", "")
    for queue in statistics.queues:
        made.add_row(
            plain(queue.subscription or queue.name),
            str(queue.messages),
            str(queue.bytes),
            str(queue.unsettled),
            str(queue.consumers),
            Text("full", "bold red") if queue.full else "",
        )
    head = f"{statistics.connections} connections  " + "  ".join(
        f"{name} {count}" for name, count in msgspec.structs.asdict(counters).items()
    )
    return Group(Text(head, "cyan"), made)
