"""`call uds` with a node in another process, whose answers are bytes by hand (ISO 14229-1): uds_peer.py."""

import asyncio
import builtins
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from can_exchange import BusExchange
from diagnosed import node, wait_long
from hypothesis import given
from hypothesis import strategies as st

from protocols.base import DriverError, Refused
from protocols.can.bus import make_bus
from protocols.can.config import CanDevice, Connection
from protocols.can.diagnostics import isotp, uds
from protocols.can.diagnostics.uds_services import SERVICES
from protocols.can.driver import CanDriver
from protocols.can.frame import Frame

IDS = {"tx": 0x7E0, "rx": 0x7E8}


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    with node() as made:
        yield made


@pytest.fixture
async def exchange(connection: Connection) -> AsyncIterator[BusExchange]:
    made = BusExchange(make_bus(connection))
    await made.open()
    yield made
    made.bus.close()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_long(monkeypatch)


async def ask(exchange: BusExchange, connection: Connection, service: str, **args: Any) -> Any:
    whole = {**IDS, "service": service, "timeout": 30, "pending_timeout": 30, **args}
    answer = await uds.carry_out(whole, exchange, connection)
    assert answer.pop("service") == service
    assert exchange.subscriptions == 0
    return answer


ANSWERED: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    (
        "read_data_by_identifier",
        {"did": "0xF190"},
        {"did": "0xF190", "data": b"WHLGATE0123456789".hex(), "text": "WHLGATE0123456789"},
        "22f190",
    ),
    ("session", {"session": "extended"}, {"session": 3, "p2_s": 0.05, "p2_star_s": 5.0}, "1003"),
    ("session", {"session": 0x60}, {"session": 0x60, "p2_s": 0.05, "p2_star_s": 5.0}, "1060"),
    ("tester_present", {}, {}, "3e00"),
    ("tester_present", {"silent": True}, {}, "3e80"),
    ("ecu_reset", {}, {"reset": 1, "powerdown_s": None}, "1101"),
    ("ecu_reset", {"reset": "enable-rapid-shutdown"}, {"reset": 4, "powerdown_s": 5}, "1104"),
    ("security", {"level": 1}, {"level": 1, "seed": "0102aaff"}, "2701"),
    ("security", {"level": 2, "data": "fefd5500"}, {"level": 2}, "2702fefd5500"),
    ("routine", {"routine": "0xFF00"}, {"routine": "0xFF00", "data": "10"}, "3101ff00"),
    (
        "routine",
        {"routine": 0x203, "action": "results", "data": "beef"},
        {"routine": "0x0203", "data": "10beef"},
        "31030203beef",
    ),
    ("clear_dtc", {}, {}, "14ffffff"),
    ("clear_dtc", {"group": 0x123456}, {}, "14123456"),
    ("read_dtc", {"report": "count"}, {"count": 2}, "1901ff"),
    (
        "read_dtc",
        {"status_mask": "0x2f"},
        {"count": 2, "dtcs": [{"dtc": "0x123456", "status": 0x2F}, {"dtc": "0xAB0001", "status": 8}]},
        "19022f",
    ),
    (
        "read_dtc",
        {"report": "supported"},
        {"count": 2, "dtcs": [{"dtc": "0x123456", "status": 0x2F}, {"dtc": "0xAB0001", "status": 8}]},
        "190a",
    ),
    ("raw", {"data": "1903"}, {"data": "5903ff1234562fab000108"}, "1903"),
]


@pytest.mark.parametrize(("service", "args", "expected", "request_hex"), ANSWERED)
async def test_a_service_is_asked_for_and_understood(
    exchange: BusExchange,
    connection: Connection,
    service: str,
    args: dict[str, Any],
    expected: dict[str, Any],
    request_hex: str,
) -> None:
    assert await ask(exchange, connection, service, **args) == expected
    first = exchange.sent[0].data
    assert first[1 : 1 + first[0]].hex() == request_hex


async def test_what_was_written_is_read(exchange: BusExchange, connection: Connection) -> None:
    data = bytes(range(100))
    written = await ask(exchange, connection, "write_data_by_identifier", did=0xF1A1, data=data.hex())
    assert written == {"did": "0xF1A1"}
    read = await ask(exchange, connection, "read_data_by_identifier", did=0xF1A1, timeout=5)
    assert read == {"did": "0xF1A1", "data": data.hex()}


async def test_a_pending_answer_is_waited_for(exchange: BusExchange, connection: Connection) -> None:
    written = await ask(exchange, connection, "write_data_by_identifier", did=0xF1A0, data="00")
    assert written == {"did": "0xF1A0"}
    assert [frame.data.hex() for frame in exchange.came] == ["037f2e78cccccccc"] * 3 + ["036ef1a0cccccccc"]
    assert exchange.subscriptions == 0


class Busy:
    """A node on the loop that says three times that it is still at it, and takes 0.6 s."""

    def subscribe(self, can_id: int, callback: Callable[[Frame], None]) -> Callable[[], None]:
        self._callback = callback
        return lambda: None

    async def send(self, frame: Frame, timeout: float | None = None) -> Frame:
        self._answering = asyncio.create_task(self._answer())
        return frame

    async def _answer(self) -> None:
        for _ in range(3):
            self._callback(Frame(0, 0x7E8, bytes.fromhex("037f2e78")))
            await asyncio.sleep(0.2)
        self._callback(Frame(0, 0x7E8, bytes.fromhex("036ef1a0")))


async def test_a_pending_answer_has_its_own_time(connection: Connection) -> None:
    args = {**IDS, "service": "write_data_by_identifier", "did": 0xF1A0, "data": "00", "timeout": 0.5}
    answer = await uds.carry_out({**args, "pending_timeout": 2}, Busy(), connection)
    assert answer == {"service": "write_data_by_identifier", "did": "0xF1A0"}
    with pytest.raises(DriverError, match="did not answer write_data_by_identifier in time") as caught:
        await uds.carry_out({**args, "pending_timeout": 0.05}, Busy(), connection)
    assert caught.value.code == "timeout"


@pytest.mark.parametrize(
    ("service", "args", "text"),
    [
        ("read_data_by_identifier", {"did": 1}, r"7E8 refused .*: RequestOutOfRange \(0x31\)"),
        ("security", {"level": 2, "data": "00"}, r"InvalidKey \(0x35\)"),
        ("raw", {"data": "85"}, r"ServiceNotSupported \(0x11\)"),
        ("read_data_by_identifier", {"did": 0xF1EE}, "gave a wrong answer"),
    ],
)
async def test_a_refusal_has_its_name(
    exchange: BusExchange, connection: Connection, service: str, args: dict[str, Any], text: str
) -> None:
    with pytest.raises(DriverError, match=text) as caught:
        await ask(exchange, connection, service, **args)
    assert caught.value.code == "device-error"


async def test_no_answer_and_late_ones_to_other_requests(
    exchange: BusExchange, connection: Connection
) -> None:
    with pytest.raises(DriverError, match="7E8 did not answer raw in time") as caught:
        await ask(exchange, connection, "raw", data="2803", timeout=0.2)
    assert caught.value.code == "timeout"
    assert await ask(exchange, connection, "raw", data="2900") == {"data": "6900"}


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({}, "service is one of read_data_by_identifier, .*, raw; got None"),
        ({"service": "reflash"}, "got 'reflash'"),
        ({"service": ["raw"]}, "service is one of"),
        ({"service": "session"}, "session is one of default, programming, extended, safety, or a number"),
        ({"service": "session", "session": "sport"}, "session is one of"),
        ({"service": "session", "session": 0x80}, "session is one of"),
        ({"service": "session", "session": 1, "did": 1}, "uds session has no argument 'did'"),
        ({"service": "read_data_by_identifier"}, "did is a number from 0 to 65535"),
        ({"service": "read_data_by_identifier", "did": 65536}, "did is a number from 0 to 65535"),
        ({"service": "read_data_by_identifier", "did": "F190"}, "did is a number"),
        ({"service": "write_data_by_identifier", "did": 1}, "data is a text of hex"),
        ({"service": "write_data_by_identifier", "did": 1, "data": ""}, "data has 1 to"),
        ({"service": "security", "level": 2}, "an even level sends a key"),
        ({"service": "security", "level": 0}, "level is a number from 1"),
        ({"service": "ecu_reset", "reset": True}, "reset is one of hard"),
        ({"service": "routine", "routine": 1, "action": "pause"}, "action is one of start, stop, results"),
        ({"service": "clear_dtc", "group": -1}, "group is a number"),
        ({"service": "read_dtc", "report": "all"}, "report is one of count, by-status, supported"),
        ({"service": "read_dtc", "report": []}, "report is one of"),
        ({"service": "read_dtc", "report": "supported", "status_mask": 1}, "does not go with"),
        ({"service": "raw", "data": "50"}, "bit 6 marks answers"),
        ({"service": "tester_present", "silent": 1}, "silent is true or false"),
        ({"service": "clear_dtc", "rx": 0x7E0}, "two arbitration ids"),
        ({"service": "clear_dtc", "pending_timeout": 61}, "at most 60"),
    ],
)
async def test_wrong_arguments_send_nothing(
    exchange: BusExchange, connection: Connection, args: dict[str, Any], text: str
) -> None:
    with pytest.raises(Refused, match=text) as caught:
        await uds.carry_out({**IDS, **args}, exchange, connection)
    assert caught.value.code in ("malformed", "out-of-range")
    assert not exchange.sent


GOOD_ARGUMENTS: dict[str, dict[str, Any]] = {
    "read_data_by_identifier": {"did": 1},
    "write_data_by_identifier": {"did": 1, "data": "00"},
    "session": {"session": 1},
    "security": {"level": 1},
    "routine": {"routine": 1},
    "raw": {"data": "10"},
}


@given(st.sampled_from(sorted(SERVICES)), st.binary(max_size=40))
def test_an_answer_of_any_bytes_is_understood_or_wrong(service: str, rest: bytes) -> None:
    asked = SERVICES[service].ask(GOOD_ARGUMENTS.get(service, {}))
    try:
        understood = asked.understand(bytes([asked.payload[0] + 0x40]) + rest)
    except ValueError:
        return
    assert isinstance(understood, dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(st.data())
def test_arguments_of_any_kind_make_a_request_or_are_refused(data: st.DataObject) -> None:
    service = SERVICES[data.draw(st.sampled_from(sorted(SERVICES)))]
    args = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(service.arguments, JSON)))
    try:
        asked = service.ask(args)
    except Refused:
        return
    assert asked.payload


@pytest.mark.parametrize("package", ["isotp", "udsoncan"])
async def test_a_missing_package_is_said(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **named: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **named)

    monkeypatch.delitem(sys.modules, "protocols.can.diagnostics.uds_services")
    monkeypatch.setattr(builtins, "__import__", without)
    exchange = BusExchange(make_bus(connection))
    with pytest.raises(DriverError, match=r"install hilgate\[uds\]") as caught:
        await uds.carry_out({**IDS, "service": "clear_dtc"}, exchange, connection)
    assert caught.value.code == "device-error"
    if package == "isotp":
        with pytest.raises(DriverError, match=r"install hilgate\[uds\]"):
            await isotp.carry_out({**IDS, "data": "00"}, exchange, connection)


async def test_the_driver_carries_it_out(connection: Connection) -> None:
    device = CanDevice.model_validate(
        {"protocol": "can", "connection": connection, "frames": {"ids": ["0x1"]}}
    )
    driver = CanDriver(device.named("node"))
    await driver.connect()
    try:
        answer = await driver.call("uds", {**IDS, "service": "read_data_by_identifier", "did": "0xF190"})
        assert answer["text"] == "WHLGATE0123456789"
        answer = await driver.call("isotp", {**IDS, "data": "a501"})
        assert answer["data"] == "01a5"
        with pytest.raises(Refused, match="service is one of"):
            await driver.call("uds", IDS)
    finally:
        await driver.close()
