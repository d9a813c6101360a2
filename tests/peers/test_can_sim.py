"""can-utils on the bus of a simulated node: what it sends candump shows, what cansend asks it answers."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cantools
import pytest
import yaml
from canutils import Candump, candump, cansend, why_missing

import bench_profiles
from protocols.can.config import CanDevice
from protocols.can.frame import REMOTE, Frame
from sim.can import SIMULATOR

pytestmark = [pytest.mark.socketcan, pytest.mark.peer("can-utils")]

FOLDER = Path(bench_profiles.__file__).parent
DATABASE: Any = cantools.database.load_file(FOLDER / "can-drive.dbc")
MS = 1_000_000


@pytest.fixture(autouse=True)
def _can_utils(need: Callable[[str, str | None, str], None]) -> None:
    need("can-utils", why_missing(), "make peers")


@asynccontextmanager
async def simulated(vcan: str) -> AsyncIterator[Candump]:
    """The drive of the shipped profile on an interface, and candump beside it."""
    raw = yaml.safe_load((FOLDER / "can-drive.yaml").read_text())["devices"]["drive"]
    raw["connection"]["channel"] = "can0"
    raw["simulation"] |= {"bus": "vcan", "channel": vcan}
    device = CanDevice.model_validate(raw, context={"folder": FOLDER}).named("drive", FOLDER)
    async with candump(vcan) as dump, SIMULATOR.start({"drive": device}):
        yield dump


def of(frames: list[Frame], can_id: int) -> list[Frame]:
    return [frame for frame in frames if frame.can_id == can_id]


@pytest.mark.parametrize(("can_id", "cycle"), [(0x100, 10 * MS), (0x110, 20 * MS), (0x120, 100 * MS)])
async def test_messages_come_each_cycle_and_no_more_often(vcan: str, can_id: int, cycle: int) -> None:
    async with simulated(vcan) as dump:
        await dump.until(lambda frames: len(of(frames, 0x120)) >= 10)
        times = [frame.time_ns for frame in of(dump.frames, can_id)]
    # By the kernel's stamps; the first may be late, and a busy machine skips some.
    assert (len(times) - 2) * cycle <= times[-1] - times[1] + 2 * cycle
    gaps = sorted(later - time for time, later in itertools.pairwise(times))
    assert 0.5 * cycle <= gaps[len(gaps) // 2]


async def test_what_cansend_commands_the_drive_follows(vcan: str) -> None:
    def speed(frames: list[Frame]) -> float:
        motion = of(frames, 0x100)
        return float(DATABASE.decode_message(0x100, motion[-1].data)["MotorSpeed"]) if motion else 0.0

    async with simulated(vcan) as dump:
        await cansend(vcan, "080#00300080E8030000")  # -32768 * 0.25 rpm, which is less than it may be
        await dump.until(lambda frames: speed(frames) < -4000)
        await cansend(vcan, "080#003000FAE8030000")  # -1536 * 0.25 rpm
        await dump.until(lambda frames: -400 < speed(frames) < -370)


async def test_cansend_gets_answers(vcan: str) -> None:
    async with simulated(vcan) as dump:
        await cansend(vcan, "7E0#0322F18C00000000", "140#R8")
        await dump.until(lambda frames: of(frames, 0x7E8) and len(of(frames, 0x140)) >= 2)
        asked = [place for place, frame in enumerate(dump.frames) if frame.can_id == 0x140 | REMOTE]
        answered = [place for place, frame in enumerate(dump.frames) if frame.can_id == 0x140]
        assert min(asked) < max(answered)
        assert [frame.data.hex() for frame in of(dump.frames, 0x7E8)] == ["0762f18c34303137"]
