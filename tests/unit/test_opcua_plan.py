"""What `hilgate check` says is asked of an OPC UA server."""

from typing import Any

from protocols.opcua.config import OpcuaDevice
from protocols.opcua.plan import AT_ONCE, describe, pieces


def _device(points: dict[str, Any], **more: Any) -> OpcuaDevice:
    connection = {"url": "opc.tcp://plc.example:4840", "security": {"policy": "None"}}
    written = {"protocol": "opcua", "connection": connection, "points": points} | more
    return OpcuaDevice.model_validate(written).named("plc")


def test_subscriptions_hold_at_most_what_the_profile_says() -> None:
    points = {f"p{place}": {"node": f"i={place}"} for place in range(5)}
    points["told"] = {"node": "i=9", "access": "wo"}
    plan = describe(_device(points, subscription={"max_items": 2, "publishing_interval": "200ms"}))
    assert [one.points for one in plan] == [("p0", "p1"), ("p2", "p3"), ("p4",)]
    assert {one.period for one in plan} == {0.2}


def test_polls_are_by_period() -> None:
    points = {"a": {"node": "i=1"}, "b": {"node": "i=2", "poll": "100ms"}, "c": {"node": "i=3"}}
    plan = describe(_device(points, acquisition="poll", poll="2s"))
    assert [(one.points, one.period) for one in plan] == [(("b",), 0.1), (("a", "c"), 2.0)]


def test_pieces_fit_the_limit_and_leave_nothing_out() -> None:
    assert list(pieces(range(5), 2)) == [range(2), range(2, 4), range(4, 5)]
    assert [len(one) for one in pieces(range(AT_ONCE + 1), 0)] == [AT_ONCE, 1]
    assert list(pieces([], 3)) == []
