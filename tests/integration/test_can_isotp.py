"""`call isotp` with a node in another process (python-can and can-isotp), and with scripted wrong ones."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from can_exchange import BusExchange
from diagnosed import node, wait_long

from protocols.base import DriverError, Refused
from protocols.can.bus import make_bus
from protocols.can.config import Connection
from protocols.can.diagnostics.isotp import MESSAGE_MOST, carry_out
from protocols.can.frame import FDF, OWN, Frame


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    with node() as made:
        yield made


@pytest.fixture
async def exchange(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[BusExchange]:
    wait_long(monkeypatch)
    made = BusExchange(make_bus(connection))
    await made.open()
    yield made
    made.bus.close()


def message(length: int) -> bytes:
    return b"\xa5" + bytes(number & 0xFF for number in range(length - 1))


IDS = {"tx": 0x7E0, "rx": 0x7E8}


@pytest.mark.parametrize("length", [1, 7, 8, 100, 4095, 5000])
async def test_messages_of_every_length_come_back(
    exchange: BusExchange, connection: Connection, length: int
) -> None:
    data = message(length)
    before = time.time_ns()
    answer = await carry_out({**IDS, "data": data.hex(), "timeout": 30}, exchange, connection)
    assert bytes.fromhex(answer["data"]) == data[::-1]
    assert before - 1000 <= exchange.came[-1].time_ns
    assert exchange.subscriptions == 0


async def test_identifiers_of_29_bits_padding_and_flow_control(
    exchange: BusExchange, connection: Connection
) -> None:
    args = {
        "tx": "0x18DA10F1",
        "rx": "18DAF110",
        "data": message(50).hex(),
        "padding": 0x55,
        "blocksize": 3,
        "stmin": 2,
        "timeout": "30s",
    }
    answer = await carry_out(args, exchange, connection)
    assert bytes.fromhex(answer["data"]) == message(50)[::-1]
    assert {len(frame.data) for frame in exchange.sent} == {8}
    assert all(frame.flags == OWN for frame in exchange.sent)
    grants = [frame.data for frame in exchange.sent if frame.data[0] >> 4 == 3]
    # 44 bytes follow the first frame, 7 in each: 7 frames, so that the grants are for 3, 3 and 1.
    assert grants == [bytes.fromhex("300302 5555555555")] * 3
    # The node asks for 1 ms between the frames that it gets.
    times = [frame.time_ns for frame in exchange.sent if frame.data[0] >> 4 == 2]
    assert len(times) == 7
    assert all(b - a >= 900_000 for a, b in itertools.pairwise(times))


async def test_can_fd(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_long(monkeypatch)
    with node(fd=True) as connection:
        exchange = BusExchange(make_bus(connection))
        await exchange.open()
        args = {**IDS, "data": message(200).hex(), "fd": True, "timeout": 30}
        answer = await carry_out(args, exchange, connection)
        assert bytes.fromhex(answer["data"]) == message(200)[::-1]
        assert all(frame.flags & FDF for frame in exchange.sent)
        assert max(len(frame.data) for frame in exchange.sent) == 64
        exchange.bus.close()


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"rx": 1, "data": "00"}, "tx"),
        ({"tx": 1, "rx": 1, "data": "00"}, "two arbitration ids"),
        ({"tx": 1, "rx": 0x18DAF110, "data": "00"}, "both of 11 or both of 29"),
        ({**IDS}, "data is a text of hex"),
        ({**IDS, "data": "0"}, "data is a text of hex"),
        ({**IDS, "data": ""}, "1 to 65535 bytes"),
        ({**IDS, "data": "00" * (MESSAGE_MOST + 1)}, "1 to 65535 bytes"),
        ({**IDS, "data": "00", "padding": 256}, "padding is a number from 0 to 255"),
        ({**IDS, "data": "00", "stmin": True}, "stmin is a number from 0 to 127"),
        ({**IDS, "data": "00", "blocksize": "x"}, "blocksize is a number from 0 to 255"),
        ({**IDS, "data": "00", "fd": True}, "no CAN FD bus"),
        ({**IDS, "data": "00", "brs": True}, "needs fd: true"),
        ({**IDS, "data": "00", "timeout": 0}, "timeout is more than 0"),
        ({**IDS, "data": "00", "speed": 1}, "no argument 'speed'"),
    ],
)
async def test_wrong_arguments_send_nothing(
    exchange: BusExchange, connection: Connection, args: dict[str, Any], text: str
) -> None:
    with pytest.raises(Refused, match=text):
        await carry_out(args, exchange, connection)
    assert not exchange.sent
    assert exchange.subscriptions == 0


class Scripted:
    """A node on the loop that answers frames as it is told."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.got: list[str] = []
        self.callback: Any = None
        self.subscriptions = 0
        self.slow = 0.0
        self.times: list[float] = []

    def subscribe(self, can_id: int, callback: Any) -> Any:
        assert can_id == 0x7E8
        self.callback = callback
        self.subscriptions += 1

        def unsubscribe() -> None:
            self.subscriptions -= 1

        return unsubscribe

    async def send(self, frame: Frame, timeout: float | None = None) -> Frame:
        if self.slow and frame.data[0] == 0x21:
            await asyncio.sleep(self.slow)
        self.got.append(frame.data.hex())
        self.times.append(time.monotonic())
        self.callback(frame._replace(can_id=0x7E8, flags=OWN, data=b"\x02no"))
        for answer in self.answers.pop(0) if self.answers else ():
            self.callback(Frame(5, 0x7E8, bytes.fromhex(answer)))
        return frame


CLASSICAL = Connection(interface="virtual", channel="none")
LONG = "00" * 20


@pytest.mark.parametrize(
    ("data", "answers", "code", "text"),
    [
        ("00", [], "timeout", "no message from 7E8 within 0.3 s"),
        ("00", [["100a112233445566"]], "timeout", "no message|broke off"),
        ("00", [["100a112233445566", "22aabbccdd"]], "device-error", "SequenceNumber"),
        ("00", [["1000ffffffff0000"]], "device-error", "length of"),
        ("00", [["100a112233445566", "f0"]], "device-error", "invalid CAN frame"),
        (LONG, [["320000"]], "device-error", "Overflow"),
        (LONG, [["310000"] * 40], "device-error", "wait frame"),
        (LONG, [], "timeout", "no message|no flow control"),
    ],
)
async def test_a_node_that_is_wrong(data: str, answers: list[list[str]], code: str, text: str) -> None:
    scripted = Scripted(*answers)
    with pytest.raises(DriverError, match=text) as caught:
        await carry_out({**IDS, "data": data, "timeout": 0.3}, scripted, CLASSICAL)
    assert caught.value.code == code
    assert scripted.subscriptions == 0


async def test_nobody_who_takes_a_message_is_told_apart_from_nobody_who_answers() -> None:
    with pytest.raises(DriverError, match="7E8 sent no flow control") as caught:
        await carry_out({**IDS, "data": LONG, "timeout": 5}, Scripted(), CLASSICAL)
    assert caught.value.code == "timeout"
    with pytest.raises(DriverError, match="7E8 broke off") as caught:
        await carry_out({**IDS, "data": "00", "timeout": 5}, Scripted(["100a112233445566"]), CLASSICAL)
    assert caught.value.code == "timeout"


async def test_frames_of_another_conversation_before_the_answer_do_not_matter() -> None:
    scripted = Scripted(["21aabb", "300000", "", "ff", "0700", "02beef"])
    answer = await carry_out({**IDS, "data": "00", "timeout": 1}, scripted, CLASSICAL)
    assert answer == {"data": "beef", "time": "1970-01-01T00:00:00.000000005Z"}


async def test_the_separation_time_counts_from_when_the_bus_took_a_frame() -> None:
    scripted = Scripted(["30000a"], [], ["02beef"])
    scripted.slow = 0.05
    await carry_out({**IDS, "data": "00" * 20, "timeout": 5}, scripted, CLASSICAL)
    assert [data[:2] for data in scripted.got] == ["10", "21", "22"]
    assert scripted.times[2] - scripted.times[1] >= 0.0095


async def test_a_frame_that_came_in_time_is_not_late_because_this_process_looked_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stood_still_ns = 0
    clock = SimpleNamespace(perf_counter_ns=lambda: time.perf_counter_ns() + stood_still_ns)
    monkeypatch.setattr("isotp.tools.time", clock)

    class Late(Scripted):
        async def send(self, frame: Frame, timeout: float | None = None) -> Frame:
            nonlocal stood_still_ns
            done = await super().send(frame, timeout)
            stood_still_ns += 5_000_000_000
            return done

    scripted = Late(["300000"], [], ["100a112233445566"], ["21aabbccdd"])
    answer = await carry_out({**IDS, "data": LONG, "timeout": 5}, scripted, CLASSICAL)
    assert answer["data"] == "112233445566aabbccdd"


async def test_cancelling_ends_the_subscription() -> None:
    scripted = Scripted()
    call = asyncio.create_task(carry_out({**IDS, "data": "00", "timeout": 5}, scripted, CLASSICAL))
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert scripted.subscriptions == 0
