"""What `hilgate check` shows of a CAN bus, and which devices cannot be together."""

from typing import Any

import pytest
from test_can_config import device

from protocols.base import PlannedRequest
from protocols.can.config import CanDevice
from protocols.can.plan import conflicts, describe


def test_messages_with_their_cycles() -> None:
    made = device(
        {
            "speed": {"signal": "Speed"},
            "voltage": {"signal": "Voltage"},
            "gear": {"signal": "Gear"},
            "total": {"signal": "Total"},
        },
        messages={"Wide": {"timeout": "5s"}},
        refresh="30s",
    )
    assert describe(made) == [
        PlannedRequest("receive 0x100 EngineData", ("speed", "gear"), 8, "bytes", 0.01),
        PlannedRequest("receive 0x18FEC9F1 Pages (no cycle known)", ("voltage",), 8, "bytes", 30.0),
        PlannedRequest("receive 0x300 Wide (no cycle known)", ("total",), 16, "bytes", 5.0),
    ]


def test_messages_that_are_sent() -> None:
    points = {"setpoint": {"signal": "Setpoint", "access": "rw"}, "count": {"signal": "Count"}}
    assert describe(device(points)) == []
    cyclic = device(points, messages={"Command": {"send": "cyclic", "cycle": "50ms"}})
    assert describe(cyclic) == [PlannedRequest("send 0x200 Command", ("setpoint", "count"), 8, "bytes", 0.05)]


def test_the_profiles_cycle_goes_before_the_databases() -> None:
    made = device({"speed": {"signal": "Speed"}}, messages={"EngineData": {"cycle": "1s"}})
    assert [request.period for request in describe(made)] == [1.0]


def test_figures_of_the_bus() -> None:
    made = device({"load": {"bus": "load"}, "state": {"bus": "state"}}, poll="2s")
    assert describe(made) == [PlannedRequest("figures of the bus", ("load", "state"), 2, "figures", 2.0)]
    assert describe(device({}, frames={})) == []


def _on(interface: str, channel: Any, enabled: bool = True) -> CanDevice:
    return device({}, frames={}, connection={"interface": interface, "channel": channel}, enabled=enabled)


def test_most_interfaces_open_but_once() -> None:
    devices = {"a": _on("pcan", "USB1"), "b": _on("pcan", "USB1"), "c": _on("pcan", "USB2")}
    assert conflicts(devices) == {"b": "pcan:USB1 is the bus of device a already: it opens but once"}


@pytest.mark.parametrize("interface", ["socketcan", "virtual", "udp_multicast"])
def test_some_are_shared(interface: str) -> None:
    assert conflicts({"a": _on(interface, "can0"), "b": _on(interface, "can0")}) == {}


def test_what_is_left_alone_is_in_nobodys_way() -> None:
    devices = {"a": _on("slcan", "tty", enabled=False), "b": _on("slcan", "tty"), "c": _on("kvaser", "tty")}
    assert conflicts(devices) == {}
