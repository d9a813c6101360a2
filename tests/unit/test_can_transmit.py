"""Writing when the bus does not take it: what is said, and what goes on being sent."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from protocols.base import DriverError
from protocols.can.config import CanDevice
from protocols.can.frame import OWN, Frame
from protocols.can.router import Router
from protocols.can.transmit import Transmitter

DATABASE = """VERSION ""
NS_ :
BS_:
BU_: Gateway
BO_ 512 One: 2 Gateway
 SG_ A : 0|8@1+ (1,0) [0|255] "" Vector__XXX
 SG_ B : 8|8@1+ (1,0) [0|255] "" Vector__XXX
BO_ 513 Two: 1 Gateway
 SG_ C : 0|8@1+ (1,0) [0|255] "" Vector__XXX
"""


class Silence:
    """A bus that takes frames or does not, and remembers what goes on."""

    def __init__(self) -> None:
        self.takes = True
        self.room = 100
        self.sent: list[bytes] = []
        self.going: dict[int, Sequence[bytes]] = {}
        self._watchers: list[tuple[int, Callable[[Frame], bool], asyncio.Future[Frame]]] = []

    async def send(self, frame: Frame, timeout: float | None = None) -> Frame:
        if len(self.sent) >= self.room:
            raise DriverError("timeout", "nobody acknowledged it")
        self.sent.append(frame.data)
        return frame

    def periodic(self, frames: Sequence[Frame], period: float) -> "Going":
        return Going(self, frames)

    async def next_frame(self, can_id: int, wanted: Callable[[Frame], bool]) -> Frame:
        future: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._watchers.append((can_id, wanted, future))
        return await future

    def echo(self, frame: Frame) -> None:
        if self.takes:
            for can_id, wanted, future in self._watchers:
                if can_id == frame.can_id and not future.done() and wanted(frame._replace(flags=OWN)):
                    future.set_result(frame)


class Going:
    """Something periodic of it."""

    def __init__(self, bus: Silence, frames: Sequence[Frame]) -> None:
        self.bus, self.can_id = bus, frames[0].can_id
        self.update(frames)

    def update(self, frames: Sequence[Frame]) -> None:
        self.bus.going[self.can_id] = [frame.data for frame in frames]
        self.bus.echo(frames[0])

    def stop(self) -> None:
        self.bus.going.pop(self.can_id, None)


def made(folder: Path, **messages: Any) -> tuple[Transmitter, Silence]:
    (folder / "one.dbc").write_text(DATABASE)
    content = {
        "protocol": "can",
        "connection": {"channel": "can0"},
        "database": "one.dbc",
        "timeout": 0.01,
        "messages": messages,
        "points": {name: {"signal": name.upper(), "access": "rw"} for name in ("a", "b", "c")},
    }
    device = CanDevice.model_validate(content, context={"folder": folder})
    bus = Silence()
    return Transmitter(device, Router(device), bus), bus


async def test_points_of_one_message_are_one_frame_and_messages_go_in_order(tmp_path: Path) -> None:
    transmitter, bus = made(tmp_path)
    assert await transmitter.write({"a": 1, "c": 3, "b": 2}) == {"a": 1, "b": 2, "c": 3}
    assert bus.sent == [b"\1\2", b"\3"]


async def test_what_was_written_before_the_failure_is_said(tmp_path: Path) -> None:
    transmitter, bus = made(tmp_path)

    bus.room = 1
    with pytest.raises(DriverError, match="acknowledged") as failed:
        await transmitter.write({"a": 1, "c": 3})
    assert (failed.value.code, failed.value.written) == ("timeout", {"a": 1})


async def test_a_first_cyclic_frame_that_nobody_takes_is_sent_no_more(tmp_path: Path) -> None:
    transmitter, bus = made(tmp_path, One={"send": "cyclic", "cycle": "10ms"})
    bus.takes = False
    with pytest.raises(DriverError, match="did not take 200") as failed:
        await transmitter.write({"a": 1})
    assert failed.value.code == "timeout"
    assert bus.going == {}
    bus.takes = True
    await transmitter.write({"a": 2})
    assert bus.going == {0x200: [b"\2\0"]}


async def test_a_cyclic_message_goes_on_with_the_new_values_also_where_that_was_not_seen(
    tmp_path: Path,
) -> None:
    transmitter, bus = made(tmp_path, One={"send": "cyclic", "cycle": "10ms"})
    await transmitter.write({"a": 1})
    bus.takes = False
    with pytest.raises(DriverError, match="still sent each cycle"):
        await transmitter.write({"a": 2})
    assert bus.going == {0x200: [b"\2\0"]}
    transmitter.stop()
    assert bus.going == {}


async def test_writes_of_one_message_take_turns(tmp_path: Path) -> None:
    transmitter, bus = made(tmp_path)
    first, second = await asyncio.gather(transmitter.write({"a": 1}), transmitter.write({"a": 2}))
    assert (first, second) == ({"a": 1}, {"a": 2})
    assert bus.sent == [b"\1\0", b"\2\0"]
