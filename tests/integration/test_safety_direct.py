"""A bench made safe without an agent: drivers alone, against simulated devices and silent ones."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted import Peer, tcp_device

from agent.profile import Profile, load_profile
from agent.safety import direct
from agent.safety.direct import drive_directly
from agent.safety.driving import PointOutcome
from protocols.modbus import pdu
from sim.modbus import SIMULATOR
from sim.modbus.unit import SimulatedUnit

DEVICE = """
  {name}:
    protocol: modbus
    connection: {{transport: {transport}, host: 127.0.0.1, port: {port}, unit: {unit}}}
    timeout: 400ms
    address_base: 0
    points:
      speed: {{table: holding, address: {address}, access: rw, safe: {unit}}}
      key:   {{table: coil, address: {address}, access: wo, safe: true}}
"""


def profile(tmp_path: Path, *devices: str) -> Profile:
    path = tmp_path / "profile.yaml"
    path.write_text(f"profile: rig\ndevices:{''.join(devices)}")
    return load_profile(path, {})


def described(name: str, port: int, unit: int = 1, address: int = 10, transport: str = "tcp") -> str:
    return DEVICE.format(name=name, port=port, unit=unit, address=address, transport=transport)


@contextlib.asynccontextmanager
async def simulated(tmp_path: Path, *devices: str) -> AsyncIterator[int]:
    """The port of the first of simulated devices."""
    async with SIMULATOR.start(profile(tmp_path, *devices).devices) as running:
        yield next(iter(running.values())).connection.port


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    seen: list[tuple[int, int]] = []
    write = SimulatedUnit._write

    def spy(unit: SimulatedUnit, given: pdu.Write) -> None:
        seen.append((given.function, given.start))
        write(unit, given)

    monkeypatch.setattr(SimulatedUnit, "_write", spy)
    return seen


def states(outcomes: Sequence[PointOutcome]) -> list[tuple[str, str, bool, bool | None]]:
    return [(one.device, one.point, one.reached, one.verified) for one in outcomes]


async def test_devices_of_one_line_and_others_are_driven_in_order(
    tmp_path: Path, writes: list[tuple[int, int]]
) -> None:
    line = [described("b", 502, 2, 20, "rtu-tcp"), described("a", 502, 3, 10, "rtu-tcp")]
    async with simulated(tmp_path, *line) as port, simulated(tmp_path, described("c", 502, 4, 30)) as other:
        rig = profile(
            tmp_path,
            described("b", port, 2, 20, "rtu-tcp"),
            described("c", other, 4, 30),
            described("a", port, 3, 10, "rtu-tcp"),
        )
        outcomes = await drive_directly(rig, 5)
    assert states(outcomes) == [
        (name, point, True, verified)
        for name in ("b", "c", "a")
        for point, verified in (("speed", True), ("key", None))
    ]
    assert writes == [(6, 20), (5, 20), (6, 30), (5, 30), (6, 10), (5, 10)]


async def test_those_that_are_not_there_come_last_and_keep_nobody(tmp_path: Path, unused_port: int) -> None:
    async def silent(peer: Peer) -> None:
        await peer.ignore()

    async with (
        tcp_device(silent) as hung,
        simulated(tmp_path, described("there", 502)) as port,
    ):
        rig = profile(
            tmp_path,
            described("gone", unused_port),
            described("hung", hung["port"], hung["unit"]),
            described("there", port),
        )
        async with asyncio.timeout(20):
            outcomes = await drive_directly(rig, 2)
    assert states(outcomes) == [
        ("there", "speed", True, True),
        ("there", "key", True, None),
        ("gone", "speed", False, None),
        ("gone", "key", False, None),
        ("hung", "speed", False, None),
        ("hung", "key", False, None),
    ]
    assert "refused" in outcomes[2].reason


async def test_a_device_that_answers_late_is_still_made_safe(tmp_path: Path) -> None:
    async def late(peer: Peer) -> None:
        await asyncio.sleep(direct.CONNECT_FIRST_S + 0.2)
        request = await peer.request()
        peer.answer(request)
        await always_writable(peer)

    async with tcp_device(late) as slow:
        device = described("slow", slow["port"], slow["unit"]).replace("400ms", "2s")
        outcomes = await drive_directly(profile(tmp_path, device), 5)
    assert [one.reached for one in outcomes] == [True, True]


async def always_writable(peer: Peer) -> None:
    while True:
        request = await peer.request()
        if request.pdu[0] in (5, 6, 15, 16):
            peer.send(peer.frame(request, pdu.write_answer(request.pdu)))
        else:
            peer.answer(request)


async def test_a_device_that_refuses_the_first_connection_is_tried_again(
    tmp_path: Path, unused_port: int
) -> None:
    rig = profile(tmp_path, described("late", unused_port))
    driving = asyncio.create_task(drive_directly(rig, 5))
    await asyncio.sleep(0.3)
    server = await asyncio.start_server(_serve_writes, "127.0.0.1", unused_port)
    async with server:
        outcomes = await driving
    assert [one.reached for one in outcomes] == [True, True]


async def _serve_writes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(Exception):
        await always_writable(Peer(reader, writer.write, False))
    writer.close()


async def test_a_device_that_holds_something_else_is_not_verified(tmp_path: Path) -> None:
    async with tcp_device(always_writable) as stubborn:
        rig = profile(tmp_path, described("stubborn", stubborn["port"], stubborn["unit"], 99))
        outcomes = await drive_directly(rig, 5)
    assert states(outcomes)[0] == ("stubborn", "speed", True, False)
    assert outcomes[0].reason == "speed was written as 7 and reads back as 99"


async def test_a_bench_without_safe_values_is_left_alone(tmp_path: Path, unused_port: int) -> None:
    device = described("plain", unused_port).replace(", safe: 1", "").replace(", safe: true", "")
    assert await drive_directly(profile(tmp_path, device), 5) == []


async def test_a_fault_of_a_driver_is_one_devices(
    tmp_path: Path, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a bug")

    rig = profile(tmp_path, described("a", unused_port))
    monkeypatch.setattr("protocols.modbus.driver.ModbusDriver.connect", broken)
    (first, _) = await drive_directly(rig, 0.4)
    assert "ZeroDivisionError" in first.reason
