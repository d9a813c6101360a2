"""Plans: the fewest requests, and none over more unused addresses than allowed."""

import itertools
from functools import cache
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from protocols.modbus.config import ModbusDevice, ModbusPoint
from protocols.modbus.plan import Block, Limits, alone, describe, join, polls_of


def device(points: dict[str, Any], **fields: Any) -> ModbusDevice:
    whole = {
        "protocol": "modbus",
        "connection": {"transport": "tcp", "host": "plc.example"},
        "address_base": 0,
        "points": points,
    }
    return ModbusDevice.model_validate(whole | fields)


def registers(*spans: tuple[int, int]) -> list[ModbusPoint]:
    """Points of `width` registers each."""
    texts = {
        f"p{number}": {"table": "holding", "address": start, "type": "string", "length": width * 2}
        for number, (start, width) in enumerate(spans)
    }
    return list(device(texts).points.values())


def spans(blocks: list[Block]) -> list[tuple[int, int]]:
    return [(block.start, block.count) for block in blocks]


def test_neighbours_go_together_and_gaps_are_bounded() -> None:
    points = registers((0, 2), (2, 1), (7, 1), (12, 1))
    assert spans(join(points, 0, Limits(125, 2000, 4))) == [(0, 13)]
    assert spans(join(points, 0, Limits(125, 2000, 3))) == [(0, 3), (7, 1), (12, 1)]
    assert spans(join(points, 0, Limits(8, 2000, 4))) == [(0, 8), (12, 1)]


def test_a_point_is_never_cut() -> None:
    assert spans(join(registers((0, 2), (2, 100), (102, 30)), 0, Limits(125, 2000, 0))) == [
        (0, 102),
        (102, 30),
    ]


def test_points_that_overlap_share_a_block() -> None:
    assert spans(join(registers((0, 10), (2, 3), (9, 2)), 0, Limits(125, 2000, 0))) == [(0, 11)]


def test_bits_have_their_own_limits() -> None:
    coils = {f"c{address}": {"table": "coil", "address": address} for address in (0, 16, 50)}
    made = device(coils, gap=1, max_bits=2000)
    assert spans(list(polls_of(made)[0].blocks)) == [(0, 17), (50, 1)]


def test_tables_rates_and_write_only_points_are_told_apart() -> None:
    made = device(
        {
            "a": {"table": "holding", "address": 0},
            "b": {"table": "input", "address": 1},
            "c": {"table": "holding", "address": 2, "poll": "1s"},
            "d": {"table": "holding", "address": 3, "access": "wo"},
        },
        poll="100ms",
    )
    polls = polls_of(made)
    assert [(poll.period, spans(list(poll.blocks))) for poll in polls] == [
        (0.1, [(0, 1), (1, 1)]),
        (1.0, [(2, 1)]),
    ]


def test_one_request_per_point() -> None:
    made = device({f"p{n}": {"table": "holding", "address": n} for n in range(3)}, one_request_per_point=True)
    assert [request.size for request in describe(made)] == [1, 1, 1]


def test_a_plan_is_shown_in_the_addresses_of_the_profile() -> None:
    made = device({"p": {"table": "input", "address": 5, "type": "float32"}}, address_base=1, poll="20ms")
    (request,) = describe(made)
    assert request.what == "read input 5..6 (function 4)"
    assert (request.points, request.size, request.size_unit, request.period) == (("p",), 2, "registers", 0.02)
    (block,) = polls_of(made)[0].blocks
    assert block.start == 4


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 4)), min_size=1, max_size=8),
    st.integers(4, 12),
    st.integers(0, 5),
)
def test_no_plan_has_fewer_requests(chosen: list[tuple[int, int]], most: int, gap: int) -> None:
    points = registers(*chosen)
    blocks = join(points, 0, Limits(most, 2000, gap))
    assert sorted(point.name for block in blocks for point in block.points) == sorted(p.name for p in points)
    for block in blocks:
        assert valid(block.points, most, gap)
        assert [block.start + offset for offset in block.offsets] == [point.address for point in block.points]

    @cache
    def fewest(left: frozenset[int]) -> int:
        # The first point of what is left goes into some block: try all selections with it.
        if not left:
            return 0
        first = min(left)
        others = sorted(left - {first})
        best = len(left)
        for mask in range(1 << len(others)):
            chosen_now = {first} | {other for place, other in enumerate(others) if mask >> place & 1}
            if valid([points[number] for number in chosen_now], most, gap):
                best = min(best, 1 + fewest(left - chosen_now))
        return best

    if len(points) <= 6:
        assert len(blocks) == fewest(frozenset(range(len(points))))


def valid(points: Any, most: int, gap: int) -> bool:
    used = sorted({point.address + n for point in points for n in range(point.width)})
    holes = [after - before - 1 for before, after in itertools.pairwise(used)]
    return used[-1] - used[0] < most and all(hole <= gap for hole in holes)


def test_alone() -> None:
    assert spans(alone(registers((3, 2), (9, 1)), 1)) == [(2, 2), (8, 1)]
