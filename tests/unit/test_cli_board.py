"""What `watch` and `demo` know from events, and how they show it."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent.cli import render
from agent.cli.board import AVAILABILITY, SAMPLES, TREND_COLUMNS, Availability, Board, Fleet, is_lost
from protocols.amqp.cloudevents import Event

NOW = datetime(2026, 11, 22, 2, 30, 46, 500_000, tzinfo=UTC)


def event(
    kind: str, body: Any, source: str = "/benches/rig-07/devices/pump", *, sequence: int = 1, epoch: int = 1
) -> Event:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    time_ns = int(NOW.timestamp() * 1e9)
    return Event(
        id=f"x-{sequence}",
        source=source,
        type=kind,
        time_ns=time_ns,
        sequence=sequence,
        epoch=epoch,
        mode="sil",
        data=data,
    )


def sample(
    values: dict[str, Any], bad: dict[str, str] | None = None, *, seconds: float = 0.0
) -> dict[str, Any]:
    time = (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%f") + "789Z"
    return {"time": time, "values": values} | ({"bad": bad} if bad else {})


def availability(bench: str = "rig-07", **more: Any) -> dict[str, Any]:
    return {
        "bench": bench,
        "epoch": 3,
        "revision": 7,
        "state": "available",
        "since": "2026-11-22T02:30:00.000000000Z",
        "reason": "",
        "enabled": True,
        "interval_s": 5.0,
        "mode": "sil",
        "devices": {"pump": {"protocol": "modbus", "state": "online", "mode": "sil", "reason": ""}},
        "profile": {"name": "small-rig", "digest": "sha256:0123456789abcdef"},
    } | more


def text(picture: Any, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(picture)
    return out.getvalue()


def board(*events: Event) -> Board:
    made = Board("rig-07")
    for one in events:
        made.take(one, NOW.timestamp())
    return made


def test_the_last_value_of_each_point_stands() -> None:
    one = board(
        event(
            SAMPLES, {"samples": [sample({"speed": 1.5, "on": True}), sample({"speed": 2.5}, seconds=0.1)]}
        ),
        event(SAMPLES, {"samples": [sample({}, {"on": "timeout"}, seconds=0.2)]}, sequence=2),
    )
    points = one.points["pump"]
    assert (points["speed"].value, points["speed"].bad) == (2.5, "")
    assert (points["on"].value, points["on"].bad) == (None, "timeout")
    assert points["speed"].time == pytest.approx(NOW.timestamp() + 0.1, abs=1e-3)
    assert (one.events, one.values, one.lost) == (2, 3, 0)


def test_arrays_and_objects_stand_in_the_table_cut_to_their_column() -> None:
    values = {"short": [1, 2.5], "recipe": {"name": "a long one"}, "curve": list(range(100))}
    one = board(event(SAMPLES, {"samples": [sample(values)]}))
    shown = text(render.bench(one, {}, NOW.timestamp(), 120))
    for words in ("[1, 2.5]", '{"name": "a long one"}', "[0, 1, 2, 3, 4, 5, 6, 7…"):
        assert words in shown
    assert (one.values, one.malformed) == (3, 0)


@pytest.mark.parametrize(
    ("numbers", "lost"),
    [
        ([(1, 5), (1, 6), (1, 7)], 0),
        ([(1, 5), (1, 8)], 2),
        ([(1, 5), (1, 5), (1, 6)], 0),
        ([(1, 5), (2, 6), (2, 7)], 0),
        ([(1, 5), (1, 8), (1, 9), (1, 11)], 3),
    ],
)
def test_a_hole_in_the_sequence_is_loss(numbers: list[tuple[int, int]], lost: int) -> None:
    one = board(
        *(event(SAMPLES, {"samples": []}, sequence=sequence, epoch=epoch) for epoch, sequence in numbers)
    )
    assert one.lost == lost


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"samples": 3}', b'{"samples": [{"time": "now", "values": {}}]}']
)
def test_a_body_that_is_none_is_counted(body: bytes) -> None:
    assert board(event(SAMPLES, body), event(AVAILABILITY, body, "/benches/rig-07")).malformed == 2


@given(st.binary())
def test_any_body_is_taken_or_counted(body: bytes) -> None:
    one = board(event(SAMPLES, body), event(AVAILABILITY, body, "/benches/rig-07"))
    fleet = Fleet()
    fleet.take(event(AVAILABILITY, body, "/benches/rig-07"), 0.0)
    text(render.bench(one, {}, 0.0, 120))
    text(render.fleet(fleet, 0.0))


@pytest.mark.parametrize(
    "number", [10**400, -(10**400), 2**64, 1.7e308, "x" * 10_000], ids=lambda number: f"{number!r:.9}"
)
@pytest.mark.parametrize("year", ["0001", "9999"])
def test_extreme_values_can_be_shown(number: Any, year: str) -> None:
    one = board(
        event(SAMPLES, {"samples": [{"time": f"{year}-01-01T00:00:00Z", "values": {"a": number}}] * 2})
    )
    text(render.bench(one, {}, NOW.timestamp(), 120))
    assert one.points or one.malformed


def test_the_trend_keeps_one_value_a_step() -> None:
    samples = [sample({"speed": float(step)}, seconds=step * 0.25) for step in range(100)]
    trend = board(event(SAMPLES, {"samples": samples})).points["pump"]["speed"].trend
    assert len(trend) == TREND_COLUMNS
    assert list(trend)[-2:] == [97.0, 99.0] or list(trend)[-2:] == [98.0, 99.0]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=40))
def test_a_sparkline_has_one_bar_a_value_as_far_as_there_is_room(trend: list[float]) -> None:
    assert len(render.sparkline(trend, 40)) == len(trend)
    assert len(render.sparkline(trend, 10)) == min(len(trend), 10)
    assert render.sparkline(trend, 0) == ""


def test_a_sparkline_goes_from_lowest_to_highest() -> None:
    assert render.sparkline([0, 7, 3.5, 7]) == "▁█▅█" or render.sparkline([0, 7, 3.5, 7]) == "▁█▄█"
    assert render.sparkline([5, 5]) == "▁▁"


def test_the_newest_availability_wins_whatever_comes_last() -> None:
    fleet = Fleet()
    for epoch, revision, state in ((3, 8, "degraded"), (3, 7, "available"), (2, 99, "fault")):
        body = availability(epoch=epoch, revision=revision, state=state)
        fleet.take(event(AVAILABILITY, body, "/benches/rig-07"), 0.0)
    ((known, _),) = fleet.rows()
    assert known.state == "degraded"


def test_a_bench_that_is_silent_for_three_intervals_is_lost() -> None:
    fleet = Fleet()
    fleet.take(event(AVAILABILITY, availability(), "/benches/rig-07"), 100.0)
    ((known, heard),) = fleet.rows()
    assert not is_lost(known, heard, 115.0)
    assert is_lost(known, heard, 115.1)
    assert "lost" in text(render.fleet(fleet, 116.0))


def test_a_bench_that_said_goodbye_is_not_lost() -> None:
    fleet = Fleet()
    fleet.take(event(AVAILABILITY, availability(state="offline"), "/benches/rig-07"), 100.0)
    ((known, heard),) = fleet.rows()
    assert not is_lost(known, heard, 1e6)


def test_the_picture_of_a_bench() -> None:
    one = board(
        event(AVAILABILITY, availability(), "/benches/rig-07"),
        event(SAMPLES, {"samples": [sample({"speed": 1480.5}, {"flow": "timeout"})]}),
    )
    shown = text(render.bench(one, {("pump", "speed"): "rpm"}, NOW.timestamp() + 1, 120))
    head, *_ = shown.splitlines()
    for word in ("rig-07", "available", "sil", "small-rig", "0 lost"):
        assert word in head
    (speed,) = [line for line in shown.splitlines() if "speed" in line]
    assert speed.split() == ["speed", "1480.5", "rpm", "▁", "1.0", "s", "good"]
    (flow,) = [line for line in shown.splitlines() if "flow" in line]
    assert flow.split() == ["flow", "-", "1.0", "s", "timeout"]


def test_a_picture_that_is_too_high_says_what_is_left_out() -> None:
    values = {f"p{number}": number for number in range(30)}
    one = board(event(SAMPLES, {"samples": [sample(values)]}))
    shown = text(render.bench(one, {}, NOW.timestamp(), 120, rows=10))
    assert "… and 21 more" in shown


def test_what_a_peer_sends_cannot_steer_the_terminal() -> None:
    hostile = "\x1b]0;owned\x07[red]\r\n"
    body = availability(reason=hostile, profile={"name": hostile, "digest": hostile}, mode=hostile)
    one = board(
        event(AVAILABILITY, body, "/benches/rig-07"),
        event(SAMPLES, {"samples": [sample({hostile: hostile}, {"b": hostile})]}),
    )
    fleet = Fleet()
    fleet.take(event(AVAILABILITY, body, "/benches/rig-07"), 0.0)
    result = {
        "op": hostile,
        "status": hostile,
        "code": hostile,
        "message": hostile,
        "data": {hostile: hostile},
    }
    for picture in (
        render.bench(one, {}, 0.0, 120),
        render.fleet(fleet, 0.0),
        render.result(result, 0.1),
        render.result({"op": "describe", "data": {"devices": {hostile: {"points": {hostile: {}}}}}}, 0.1),
        render.result({"op": "read", "data": {"values": {hostile: 1}, "time": hostile}}, 0.1),
        render.result({"op": "safe", "data": {"points": [{"device": hostile, "verified": hostile}]}}, 0.1),
    ):
        shown = text(picture, 300)
        assert "[red]" in shown
        assert not {"\x1b", "\x07", "\r"} & set(shown)


@pytest.mark.parametrize(
    "data",
    [
        None,
        3,
        [],
        {},
        {"devices": 3},
        {"values": {}},
        {"values": {"a": 1}, "bad": 3},
        {"values": {"a": 1}, "read_back": 3},
        {"points": [3, {}, {"reached": "yes"}]},
        {"devices": {"a": {"points": {"b": {"requires": 3, "choices": 3, "safe": []}}}}},
    ],
)
def test_any_result_can_be_shown(data: Any) -> None:
    for op in ("describe", "read", "ping", "safe"):
        assert op in text(render.result({"op": op, "status": "ok", "data": data}, 0.01))


def test_an_interlock_is_described_in_words() -> None:
    points = {"valve": {"requires": {"level": {"min": 1, "max": 3.8}, "door": "closed"}}}
    result = {"op": "describe", "data": {"devices": {"cell": {"points": points}}}}
    shown = text(render.result(result, 0.1), 200)
    assert "requires level min 1 and level max 3.8, door: closed" in shown


def test_availability_is_read_from_what_the_wire_says() -> None:
    fleet = Fleet()
    more: dict[str, Any] = {"lease": None, "labels": {"site": "muc"}, "new-field": 1}
    more["outbox"] = {"messages": 0}
    fleet.take(event(AVAILABILITY, availability(**more), "/benches/rig-07"), 0.0)
    ((known, _),) = fleet.rows()
    assert isinstance(known, Availability)
    assert "1/1 online" in text(render.fleet(fleet, NOW.timestamp()))


def test_a_point_that_nothing_was_heard_of_stands_there_all_the_same() -> None:
    board = Board("rig-07")
    board.expect([("pump", "speed"), ("pump", "level")])
    board.take(event(SAMPLES, {"samples": [sample({"speed": 5})]}), NOW.timestamp())
    drawn = text(render.bench(board, {}, NOW.timestamp(), 120, rows=None))
    (level,) = [line for line in drawn.splitlines() if "level" in line]
    (speed,) = [line for line in drawn.splitlines() if "speed" in line]
    assert "not heard yet" in level
    assert "good" in speed


@pytest.mark.parametrize(
    ("lease", "said"),
    [
        (
            {"holder": "night run", "devices": None, "expires": "2026-11-22T03:00:00.000Z", "state": "held"},
            "leased by night run until 03:00:00 UTC",
        ),
        ({"holder": "x\x1b[2J", "devices": ["pump"], "expires": None}, "(pump) is being prepared"),
    ],
)
def test_the_picture_says_who_has_the_bench(lease: dict[str, Any], said: str) -> None:
    one = board(event(AVAILABILITY, availability(lease=lease), "/benches/rig-07"))
    shown = text(render.bench(one, {}, NOW.timestamp(), 120))
    assert said in shown
    assert "\x1b[2J" not in shown


def test_what_a_call_gave_is_shown_as_it_would_be_typed() -> None:
    running = {"x": {"id": "123", "data": ["00"], "fd": False}}
    shown = text(render.result({"op": "call", "status": "ok", "data": {"running": running}}, 0.01))
    assert '{"x": {"id": "123", "data": ["00"], "fd": false}}' in shown
