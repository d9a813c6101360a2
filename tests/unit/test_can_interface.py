"""Whether an interface is the bus that the profile means; what is said if not."""

import errno
import socket
from typing import Any
from unittest.mock import Mock

import pytest

from protocols.base import DriverError
from protocols.can.bus import BusStatus
from protocols.can.buses import bcm, netlink, socketcan
from protocols.can.buses.interface import check, why_lost
from protocols.can.buses.netlink import Link
from protocols.can.config import Connection
from protocols.can.frame import Frame

CAN0: dict[str, Any] = {
    "name": "can0",
    "is_can": True,
    "up": True,
    "mtu": 16,
    "kind": "can",
    "bitrate": 500_000,
    "listen_only": False,
    "fd": False,
}
FD = {"fd": True, "mtu": 72, "data_bitrate": 2_000_000}


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> dict[str, Link]:
    """The interfaces that there are, for the test to fill in."""
    links: dict[str, Link] = {}

    def link(name: str) -> Link:
        if name not in links:
            raise OSError(errno.ENODEV, "No such device")
        return links[name]

    monkeypatch.setattr(netlink, "link", link)
    monkeypatch.setattr(netlink, "can_links", lambda: [one for one in links.values() if one.is_can])
    return links


@pytest.mark.parametrize(
    ("link", "connection"),
    [
        (CAN0, {}),
        (CAN0, {"bitrate": 500_000}),
        (CAN0 | FD, {"bitrate": 500_000, "fd": True, "data_bitrate": 2_000_000}),
        (CAN0 | {"listen_only": True}, {"listen_only": True}),
        # Neither a virtual bus nor a driver without this interface tells its bit rate or mode.
        ({"name": "can0", "is_can": True, "up": True, "mtu": 72, "kind": "vcan"}, {"bitrate": 250_000}),
        ({"name": "can0", "is_can": True, "up": True, "mtu": 72, "kind": "vcan"}, {"fd": True}),
        ({"name": "can0", "is_can": True, "up": True, "mtu": 16, "kind": ""}, {"listen_only": True}),
    ],
)
def test_an_interface_as_the_profile_says_is_taken(
    there: dict[str, Link], link: dict[str, Any], connection: dict[str, Any]
) -> None:
    there["can0"] = Link(**link)
    assert check(Connection(channel="can0", **connection)) == there["can0"]


@pytest.mark.parametrize(
    ("link", "connection", "text"),
    [
        (
            CAN0,
            {"bitrate": 250_000},
            "can0: its bit rate is 500000 and should be 250000; ip link set can0 down; ip link set can0 up "
            "type can bitrate 250000",
        ),
        (
            CAN0 | FD,
            {"bitrate": 500_000, "fd": True, "data_bitrate": 4_000_000},
            "can0: its data bit rate is 2000000 and should be 4000000; ip link set can0 down; ip link set "
            "can0 up type can bitrate 500000 dbitrate 4000000 fd on",
        ),
        (
            CAN0,
            {"fd": True},
            "can0: CAN FD is off and should be on; ip link set can0 down; ip link set can0 up type can "
            "bitrate 500000 dbitrate RATE fd on",
        ),
        (
            CAN0 | FD,
            {},
            "can0: CAN FD is on and should be off; ip link set can0 down; ip link set can0 up type can "
            "bitrate 500000 fd off",
        ),
        (
            CAN0 | {"listen_only": True},
            {},
            "can0: listen-only is on and should be off; ip link set can0 down; ip link set can0 up type can "
            "bitrate 500000 listen-only off",
        ),
        (
            CAN0,
            {"listen_only": True, "bitrate": 125_000},
            "can0: its bit rate is 500000 and should be 125000; listen-only is off and should be on; ip link "
            "set can0 down; ip link set can0 up type can bitrate 125000 listen-only on",
        ),
        (
            {"name": "can0", "is_can": True, "up": True, "mtu": 16, "kind": "vcan"},
            {"fd": True},
            "can0: its MTU is 16, and CAN FD takes 72; ip link set can0 down; ip link set can0 up mtu 72",
        ),
    ],
)
def test_one_that_is_set_otherwise_is_told_with_what_to_do(
    there: dict[str, Link], link: dict[str, Any], connection: dict[str, Any], text: str
) -> None:
    there["can0"] = Link(**link)
    with pytest.raises(DriverError) as caught:
        check(Connection(channel="can0", **connection))
    assert (caught.value.code, str(caught.value)) == ("device-error", text)


def test_one_that_is_not_there_is_told_with_those_that_are(there: dict[str, Link]) -> None:
    there |= {"can1": Link(**CAN0 | {"name": "can1"}), "can0": Link(**CAN0)}
    there["eth0"] = Link("eth0", False, True, 1500, "")
    for name, text in (
        ("can7", "there is no interface can7; CAN interfaces here: can0, can1"),
        ("eth0", "eth0 is no CAN interface; CAN interfaces here: can0, can1"),
    ):
        with pytest.raises(DriverError) as caught:
            check(Connection(channel=name))
        assert (caught.value.code, str(caught.value)) == ("disconnected", text)


def test_where_there_is_none_at_all_it_says_so(there: dict[str, Link]) -> None:
    with pytest.raises(DriverError, match=r"no interface can0; CAN interfaces here: none"):
        check(Connection(channel="can0"))


@pytest.mark.parametrize(
    ("kind", "command"), [("can", "up type can bitrate 500000"), ("vcan", "up"), ("vxcan", "up")]
)
def test_one_that_is_down_is_told_with_the_command(there: dict[str, Link], kind: str, command: str) -> None:
    there["can0"] = Link(**CAN0 | {"up": False, "kind": kind})
    with pytest.raises(DriverError) as caught:
        check(Connection(channel="can0"))
    assert caught.value.code == "disconnected"
    assert str(caught.value) == f"can0 is down: ip link set can0 {command}"
    assert why_lost(Connection(channel="can0"), OSError(errno.ENETDOWN, "")).startswith("can0 went down: ip")


def test_a_kernel_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Link:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported")

    monkeypatch.setattr(netlink, "link", refuse)
    with pytest.raises(DriverError, match="cannot ask the kernel about can0: Address family not supported"):
        check(Connection(channel="can0"))


def test_why_a_bus_was_lost(there: dict[str, Link]) -> None:
    connection = Connection(channel="can0")
    assert why_lost(connection, OSError(errno.ENODEV, "")) == "the interface can0 is no longer there"
    there["can0"] = Link(**CAN0)
    assert why_lost(connection, OSError(errno.EIO, "Input/output error")) == "can0: Input/output error"


async def test_a_kernel_without_can_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socketcan, "check", lambda _: Link(**CAN0))
    for module in (socketcan, bcm):
        monkeypatch.setattr(module, "socket", Mock(wraps=socket, socket=refuse))
    with pytest.raises(DriverError, match=r"this kernel has no SocketCAN \(module can-raw\): Address"):
        await socketcan.SocketCan(Connection(channel="can0")).open(Mock(), None)
    with pytest.raises(DriverError, match=r"no broadcast manager \(module can-bcm\): Address"):
        bcm.BroadcastManager("can0", lambda _: "", lambda _: None)


async def test_a_bus_that_is_not_open_can_do_nothing() -> None:
    bus = socketcan.SocketCan(Connection(channel="can0"))
    bus.close()
    bus.listen(None)
    assert bus.status() == BusStatus()
    assert await bus.lost() == "can0 is not open"
    with pytest.raises(DriverError, match="can0 is not open"):
        await bus.send(Frame(0, 1, b""), 1)
    with pytest.raises(DriverError, match="can0 is not open"):
        bus.periodic([Frame(0, 1, b"")], 1)
