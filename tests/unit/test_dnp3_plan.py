"""What is asked of an outstation: object headers, rates, channels."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_dnp3_config import device

from protocols.base import PlannedRequest
from protocols.dnp3.plan import (
    Range,
    channel_key,
    class_headers,
    conflicts,
    describe,
    integrity_poll,
    name_of,
    polls_of,
    ranges_of,
)

CLASSES = {"class_1": "never", "class_2": "never", "class_3": "never"}


def counters(*indices: int, **fields: Any) -> dict[str, Any]:
    return {f"c{index}": {"type": "counter", "index": index} | fields for index in indices}


@pytest.mark.parametrize(
    ("one", "octets"),
    [
        (Range(30, 0, 0, 255, ()), "1e 00 00 00 ff"),
        (Range(30, 5, 0, 256, ()), "1e 05 01 0000 0001"),
        (Range(110, 0, 300, 65535, ()), "6e 00 01 2c01 ffff"),
    ],
)
def test_a_range_as_the_outstation_gets_it(one: Range, octets: str) -> None:
    assert one.header() == bytes.fromhex(octets)


def test_classes_come_in_the_order_asked_for() -> None:
    assert class_headers((1, 2, 3, 0)) == bytes.fromhex("3c0206 3c0306 3c0406 3c0106")


def test_neighbours_go_together_and_nothing_between_is_read_over() -> None:
    made = device(counters(0, 1, 3, 1000))
    assert [(one.start, one.stop, one.points) for one in ranges_of(made.points.values())] == [
        (0, 1, ("c0", "c1")),
        (3, 3, ("c3",)),
        (1000, 1000, ("c1000",)),
    ]


def test_kinds_and_variations_have_ranges_of_their_own() -> None:
    points = {
        "a": {"type": "analog_input", "index": 0},
        "b": {"type": "analog_input", "index": 1, "variation": 5},
        "c": {"type": "octet_string", "index": 0},
        "d": {"type": "analog_input", "index": 0, "field": "flags"},
    }
    ranges = ranges_of(device(points).points.values())
    assert [(one.group, one.variation, one.points) for one in ranges] == [
        (30, 0, ("a", "d")),
        (30, 5, ("b",)),
        (110, 0, ("c",)),
    ]


@given(st.sets(st.integers(0, 65535), min_size=1, max_size=60))
def test_each_point_is_read_once_and_nothing_else(indices: set[int]) -> None:
    ranges = ranges_of(device(counters(*indices)).points.values())
    assert sorted(name for one in ranges for name in one.points) == sorted(f"c{index}" for index in indices)
    spans = [(one.start, one.stop) for one in ranges]
    assert spans == sorted(spans)
    for one in ranges:
        assert one.points == tuple(f"c{index}" for index in range(one.start, one.stop + 1))
    assert all(after[0] - before[1] > 1 for before, after in itertools.pairwise(spans))


def test_points_far_apart_still_fit_in_one_request() -> None:
    indices = range(0, 60_000, 100)
    ranges = ranges_of(device(counters(*indices)).points.values())
    assert sum(len(one.header()) for one in ranges) <= 2000
    assert [name for one in ranges for name in one.points] == [f"c{index}" for index in indices]


def test_polls_of_a_device_that_says_nothing() -> None:
    integrity, classes = polls_of(device(counters(0)))
    assert (integrity.period, integrity.points, integrity.integrity) == (3600.0, ("c0",), True)
    assert integrity.body == class_headers((1, 2, 3, 0))
    assert (classes.period, classes.body, classes.points) == (1.0, class_headers((1, 2, 3)), ())


def test_classes_of_one_rate_are_read_together() -> None:
    polls = polls_of(
        device(counters(0), polls={"class_1": "100ms", "class_3": "never", "integrity": "never"})
    )
    assert [(poll.period, poll.body) for poll in polls] == [
        (0.1, class_headers((1,))),
        (1.0, class_headers((2,))),
    ]


def test_points_with_a_rate_of_their_own() -> None:
    points = counters(0, 1, poll="100ms") | counters(2, poll="5s") | counters(3)
    polls = polls_of(device(points, polls=CLASSES | {"integrity": "never"}))
    assert [(poll.what, poll.period, poll.points) for poll in polls] == [
        ("read group 20 0..1", 0.1, ("c0", "c1")),
        ("read group 20 2", 5.0, ("c2",)),
    ]
    assert polls[0].body == bytes.fromhex("14 00 00 00 01")


def test_points_with_a_variation_are_read_in_it_by_the_integrity_poll() -> None:
    points = counters(0) | {"v": {"type": "analog_input", "index": 7, "variation": 6}}
    assert integrity_poll(device(points), 0.0).body == class_headers((1, 2, 3, 0)) + bytes.fromhex(
        "1e06000707"
    )


def test_what_is_only_written_is_never_read() -> None:
    points = {"trip": {"type": "binary_output", "index": 0, "access": "wo", "poll": "1s"}}
    (integrity,) = polls_of(device(points, polls=CLASSES))
    assert integrity.points == ()


def test_what_people_see() -> None:
    points = counters(0, poll="2s") | {
        "v": {"type": "analog_input", "index": 7, "variation": 6, "poll": "2s"}
    }
    assert describe(device(points, polls=CLASSES | {"class_2": "5s"})) == [
        PlannedRequest("integrity poll: classes 1, 2, 3 and 0 (group 60)", ("c0", "v"), 19, "octets", 3600.0),
        PlannedRequest("read events of class 2 (group 60)", (), 5, "octets", 5.0),
        PlannedRequest("read group 20 0, group 30 variation 6 7", ("c0", "v"), 12, "octets", 2.0),
    ]


# Channels.


def test_names_of_channels() -> None:
    serial = device(connection={"transport": "serial", "port": "/dev/ttyUSB0"}).connection
    assert name_of(serial) == "/dev/ttyUSB0"
    tcp = device(connection={"transport": "tcp", "host": "rtu.bench.example", "port": 20001}).connection
    assert name_of(tcp) == "rtu.bench.example:20001"
    assert channel_key(serial) != channel_key(tcp)


def test_who_cannot_be_together() -> None:
    tls = {"transport": "tls", "host": "rtu.bench.example"}
    devices = {
        "one": device(outstation=10),
        "two": device(outstation=11),
        "tls": device(outstation=12, connection=tls),
        "same": device(outstation=10, master=2),
        "there": device(outstation=10, connection={"transport": "tcp", "host": "other.bench.example"}),
    }
    channel = "rtu.bench.example:20000"
    assert conflicts(devices) == {
        "tls": f"device 'one' uses {channel} with other settings; on one channel all are equal",
        "same": f"device 'one' is outstation 10 of {channel} already",
    }
