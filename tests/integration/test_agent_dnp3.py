"""A whole agent on an outstation: over AMQP, what it controls and what it hears of it."""

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from desk import Desk, RunAgent, desk

from agent.profile import load_profile
from protocols.dnp3.config import Dnp3Device
from protocols.timestamps import rfc3339
from sim.broker import Broker
from sim.dnp3.line import Line
from sim.dnp3.lines import serving
from sim.dnp3.outstation import SimulatedOutstation

PROFILE = """
profile: bay
devices:
  bay:
    protocol: dnp3
    connection: {{transport: tcp, host: 127.0.0.1, port: {port}}}
    outstation: 10
    poll: 200ms
    timeout: 10s
    connect_timeout: 10s
    points:
      position: {{type: double_bit_input, index: 0}}
      switch:   {{type: double_bit_input, index: 1}}
      local:    {{type: binary_input, index: 0}}
      alarm:    {{type: binary_input, index: 1}}
      current:  {{type: analog_input, index: 0, scale: 0.1}}
      energy:   {{type: counter, index: 0}}
      frozen:   {{type: frozen_counter, index: 0}}
      breaker:
        type: binary_output
        index: 0
        access: wo
        operation: trip-close
        feedback: {{point: position, within: 10s}}
        safe: false
        requires: {{switch: "off"}}
    sim:
      breaker: true
      {follows}
      switch: "off"
      energy: 4711
    simulation: {{local: local, need_time: {need_time}, event_buffer: {buffer}}}
"""
OUTAGE_S = 300


class Clock:
    """The outstations' time: as it goes, and onward at a word."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead_ms


class Bay:
    """An outstation that the test holds, and the profile of an agent for it."""

    def __init__(self, device: Dnp3Device, outstation: SimulatedOutstation, line: Line, profile: str) -> None:
        self.outstation = outstation
        self.line = line
        self.profile = profile
        self.port = device.connection.port

    @property
    def operated(self) -> list[str]:
        """What was operated, in order: `trip` or `close`."""
        return [{1: "close", 2: "trip"}[one.control.trip_close] for one in self.outstation.operations]


@contextlib.asynccontextmanager
async def bay(
    folder: Path, clock: Clock, need_time: str = "true", buffer: int = 1000, position: str = ""
) -> AsyncIterator[Bay]:
    """Runs the outstation; `position`: what the breaker's position stays at, else it follows the breaker."""
    follows = f"position: {position}" if position else ""
    path = folder / "served.yaml"
    path.write_text(PROFILE.format(port=20000, need_time=need_time, buffer=buffer, follows=follows))
    devices: Any = load_profile(path, {}).devices
    async with serving(devices, now=clock) as served:
        port = served.devices["bay"].connection.port
        text = PROFILE.format(port=port, need_time=need_time, buffer=buffer, follows=follows)
        yield Bay(served.devices["bay"], served.outstations["bay"], served.lines["bay"], text)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def write(closed: bool) -> dict[str, Any]:
    return {"op": "write", "device": "bay", "values": {"breaker": closed}}


def heard(one: Desk, point: str) -> list[Any]:
    """All good values of a point, in the order they came."""
    return [sample["values"][point] for sample in one.samples("bay") if point in sample["values"]]


async def call(one: Desk, method: str, **args: Any) -> dict[str, Any]:
    return await one.ask("call", device="bay", method=method, args=args)


async def test_a_trip_operates_once_however_often_the_command_comes(
    broker: Broker, run_agent: RunAgent, clock: Clock, tmp_path: Path
) -> None:
    async with bay(tmp_path, clock) as rig, desk(broker.url, "rig") as one:
        async with run_agent(rig.profile, broker.url, sil=False):
            await one.until_state("available")
            await one.until(lambda: heard(one, "position")[-1:] == ["on"])
            for _ in range(3):
                await one.post(write(False), message_id="trip")
            (answer,) = await one.answers("trip")
            assert (answer["status"], answer["data"]["values"]) == ("ok", {"breaker": False})
            await one.until(lambda: heard(one, "position")[-1:] == ["off"])
            assert (await one.ask("ping"))["status"] == "ok"
            await one.post(write(False), message_id="trip")
            assert len(await one.answers("trip", 2)) == 2
            assert rig.operated == ["trip"]
            positions = heard(one, "position")
            assert positions.count("intermediate") == 1
        assert rig.operated == ["trip", "trip"], "the second is the safe value, as the agent stopped"


async def test_a_close_wants_its_interlock_and_a_trip_does_not(
    broker: Broker, run_agent: RunAgent, clock: Clock, tmp_path: Path
) -> None:
    async with bay(tmp_path, clock) as rig, desk(broker.url, "rig") as one:
        async with run_agent(rig.profile, broker.url, sil=False):
            await one.until_state("available")
            rig.outstation.set("switch", "on")
            refused = await one.ask(**write(True))
            assert (refused["status"], refused["code"]) == ("rejected", "disabled")
            assert "switch" in refused["message"]
            assert rig.operated == []
            assert (await one.ask(**write(False)))["status"] == "ok"
            rig.outstation.set("switch", "off")
            assert (await one.ask(**write(True)))["status"] == "ok"
            assert rig.operated == ["trip", "close"]


async def test_local_control_refuses_and_says_so(
    broker: Broker, run_agent: RunAgent, clock: Clock, tmp_path: Path
) -> None:
    async with bay(tmp_path, clock) as rig, desk(broker.url, "rig") as one:
        async with run_agent(rig.profile, broker.url, sil=False):
            await one.until_state("available")
            rig.outstation.set("local", True)
            refused = await one.ask(**write(False))
            assert (refused["status"], refused["code"]) == ("failed", "device-error")
            assert "local control" in refused["message"]
            assert rig.operated == []
            status = await call(one, "status")
            assert "local-control" in status["data"]["iin"]


async def test_a_breaker_that_does_not_follow_is_said_and_not_taken_for_safe(
    broker: Broker, run_agent: RunAgent, clock: Clock, tmp_path: Path
) -> None:
    async with bay(tmp_path, clock, position='"on"') as rig, desk(broker.url, "rig") as one:
        profile = rig.profile.replace("within: 10s", "within: 300ms")
        async with run_agent(profile, broker.url, sil=False):
            await one.until_state("available")
            stuck = await one.ask(**write(False))
            assert (stuck["status"], stuck["code"]) == ("failed", "verify-mismatch")
            assert "position shows on, not false" in stuck["message"]
            assert stuck["data"]["values"] == {"breaker": False}
            assert rig.operated == ["trip"]
            safe = await one.ask("safe")
            (point,) = safe["data"]["points"]
            assert (safe["status"], safe["data"]["safe"]) == ("failed", False)
            assert (point["reached"], point["verified"]) == (True, False)
            assert "position shows on, not false" in point["reason"]
            assert rig.operated == ["trip", "trip"]
            await one.until_state("fault")


async def test_calls_poll_and_freeze(
    broker: Broker, run_agent: RunAgent, clock: Clock, tmp_path: Path
) -> None:
    async with bay(tmp_path, clock) as rig, desk(broker.url, "rig") as one:
        async with run_agent(rig.profile, broker.url, sil=False):
            await one.until_state("available")
            polled = await call(one, "integrity")
            assert (polled["status"], polled["data"]["objects"] >= 7) == ("ok", True)
            frozen = await call(one, "freeze", clear=True)
            assert (frozen["status"], frozen["code"]) == ("ok", "")
            read = await one.ask("read", device="bay", points=["energy", "frozen"])
            assert read["data"]["values"] == {"energy": 0, "frozen": 4711}
            wrong = await call(one, "freeze", celar=True)
            assert (wrong["status"], wrong["code"]) == ("rejected", "malformed")
            assert "start, stop, clear" in wrong["message"]


async def test_a_full_event_buffer_is_a_loss_and_what_is_now_is_read(
    broker: Broker, run_agent: RunAgent, clock: Clock, tmp_path: Path
) -> None:
    async with bay(tmp_path, clock, buffer=10) as rig, desk(broker.url, "rig") as one:
        async with run_agent(rig.profile, broker.url, sil=False):
            await one.until_state("available")
            rig.line.cut()
            await one.until_state("fault")
            for number in range(100):
                rig.outstation.set("current", float(number))
            rig.line.restore()
            ((_, loss),) = await one.until(lambda: one.of_type("loss"))
            assert (loss["reason"], loss["count"]) == ("event-buffer-overflow", 1)
            assert loss["source"] == "/benches/rig/devices/bay"
            await one.until(lambda: heard(one, "current")[-1:] == [99.0])


async def test_events_of_an_outage_arrive_once_in_order_with_their_own_stamps(
    broker: Broker, run_agent: RunAgent, clock: Clock, tmp_path: Path
) -> None:
    clock.ahead_ms = -2 * OUTAGE_S * 1000  # so that the outage is over by everybody's clock
    async with bay(tmp_path, clock, need_time="false") as rig, desk(broker.url, "rig") as one:
        async with run_agent(rig.profile, broker.url, sil=False):
            await one.until_state("available")
            await one.until(lambda: heard(one, "current"))
            rig.line.cut()
            await one.until_state("fault")
            expected = []
            for second in range(OUTAGE_S):
                clock.ahead_ms += 1000
                point, value = ("current", second / 2) if second % 3 else ("alarm", second % 2 == 0)
                stamp_ms = rig.outstation.clock_ms
                rig.outstation.set(point, value, time_ms=stamp_ms)
                expected.append((rfc3339(stamp_ms * 1_000_000), point, value))
            rig.line.restore()
            await one.until_state("available")
            # What comes after is stamped later than all of the outage: when it is here, the rest is.
            clock.ahead_ms += 1000
            last_ms = rig.outstation.clock_ms
            last = rfc3339(last_ms * 1_000_000)
            rig.outstation.set("alarm", True, time_ms=last_ms)
            expected.append((last, "alarm", True))
            first = expected[0][0]

            def events() -> list[tuple[str, str, Any]]:
                return [
                    (sample["time"], point, value)
                    for sample in one.samples("bay")
                    for point, value in sample["values"].items()
                    if first <= sample["time"] <= last
                ]

            await one.until(lambda: (last, "alarm", True) in events())
            assert [(stamp, point, pytest.approx(value)) for stamp, point, value in expected] == events()
            before = len(heard(one, "current"))
            assert (await call(one, "integrity"))["status"] == "ok"
            await one.until(lambda: len(heard(one, "current")) > before)
            assert len(events()) == len(expected), "an integrity poll brings none of them again"
            assert not [body for _, body in one.of_type("loss") if body["reason"] != "missed-cycles"]
