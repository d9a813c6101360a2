"""Faults of devices and of the broker: each has its outcome, others go on, and every gap is said."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from desk import Desk, RunAgent, desk

from agent.profile import load_profile
from sim.broker import Broker
from sim.modbus import SIMULATOR

PLC = """
  plc:
    protocol: modbus
    connection: {{transport: tcp, host: 127.0.0.1, port: {port}, unit: 1}}
    timeout: 500ms
    address_base: 0
    poll: 20ms
    points:
      speed:    {{table: input, address: 0, type: float32}}
      setpoint: {{table: holding, address: 10, access: rw}}
"""
PSU = """
  psu:
    protocol: modbus
    connection: {transport: tcp, host: psu.bench.example, port: 502, unit: 1}
    address_base: 0
    poll: 20ms
    points:
      voltage: {table: holding, address: 0, type: float64, access: rw}
"""


def profile_of(*devices: str) -> str:
    return "profile: faults\ndevices:" + "".join(devices)


@contextlib.asynccontextmanager
async def psu(tmp_path: Path) -> AsyncIterator[str]:
    """A power supply that is there all the time, as a profile's device section."""
    path = tmp_path / "psu.yaml"
    path.write_text(profile_of(PSU))
    async with SIMULATOR.start(load_profile(path, {}).devices) as devices:
        port = devices["psu"].connection.port
        yield PSU.replace("psu.bench.example", "127.0.0.1").replace("port: 502", f"port: {port}")


class Plc:
    """A simulated PLC on a port of its choice, that can be switched off and on."""

    def __init__(self, tmp_path: Path, port: int) -> None:
        path = tmp_path / "plc.yaml"
        path.write_text(profile_of(PLC.format(port=port)))
        self._devices = load_profile(path, {}).devices
        self._port = port
        self._stack = contextlib.AsyncExitStack()
        self._server: asyncio.Server | None = None

    async def on(self) -> None:
        """Starts it behind a relay that listens on the port."""
        devices = await self._stack.enter_async_context(SIMULATOR.start(self._devices))
        behind = devices["plc"].connection.port

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", behind)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(pipe(reader, back_writer), pipe(back_reader, writer))

        self._server = await asyncio.start_server(relay, "127.0.0.1", self._port)

    async def off(self) -> None:
        """Pulls the cable: connections are reset and the port is closed."""
        assert self._server is not None
        self._server.close()
        await self._stack.aclose()
        await self._server.wait_closed()
        self._stack = contextlib.AsyncExitStack()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    finally:
        writer.close()


def device_states(one: Desk, device: str) -> list[str]:
    return [body["state"] for _, body in one.of_type("device", f"/benches/rig/devices/{device}")]


async def test_an_absent_device_is_offline_and_harms_nobody(
    broker: Broker, run_agent: RunAgent, unused_port: int, tmp_path: Path
) -> None:
    plc = Plc(tmp_path, unused_port)
    async with psu(tmp_path) as present, desk(broker.url, "rig") as one:
        async with run_agent(profile_of(PLC.format(port=unused_port), present), broker.url, sil=False):
            said = await one.until_state("degraded")
            assert said["devices"]["plc"]["state"] == "offline"
            assert str(unused_port) in said["reason"]
            assert said["devices"]["psu"]["state"] == "online"
            (sample,) = await one.until(lambda: one.samples("plc"))
            assert sample["bad"] == {"speed": "disconnected", "setpoint": "disconnected"}
            answer = await one.ask("write", device="plc", values={"setpoint": 5})
            assert (answer["status"], answer["code"]) == ("failed", "disconnected")
            assert (await one.ask("write", device="psu", values={"voltage": 5.0}))["status"] == "ok"

            await plc.on()
            await one.until_state("available")
            await one.until(lambda: one.samples("plc")[-1]["values"])
            await plc.off()
            await one.until_state("degraded")
            last = one.samples("plc")[-1]
            assert last["bad"].keys() == {"speed", "setpoint"}
            before = len(one.samples("psu"))
            await one.until(lambda: len(one.samples("psu")) > before)
            await plc.on()
            await one.until_state("available")
        await plc.off()
        assert device_states(one, "plc") == ["offline", "online", "offline", "online"]


async def test_a_bench_without_any_usable_device_is_at_fault(
    broker: Broker, run_agent: RunAgent, unused_port: int
) -> None:
    async with desk(broker.url, "rig") as one:
        async with run_agent(profile_of(PLC.format(port=unused_port)), broker.url, sil=False):
            assert "plc is offline" in (await one.until_state("fault"))["reason"]


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """A port that takes connections and requests, and never answers."""
    leave = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        server.close_clients() if hasattr(server, "close_clients") else leave.set()


async def test_a_silent_device_times_out_and_the_others_do_not_wait(
    broker: Broker, run_agent: RunAgent, silent_port: int, tmp_path: Path
) -> None:
    async with psu(tmp_path) as present, desk(broker.url, "rig") as one:
        async with run_agent(profile_of(PLC.format(port=silent_port), present), broker.url, sil=False):
            await one.until_state("degraded")
            slow = await one.post({"op": "write", "device": "plc", "values": {"setpoint": 5}})
            quick = await one.post({"op": "write", "device": "psu", "values": {"voltage": 5.0}})
            assert (await one.answers(quick))[0]["status"] == "ok"
            assert not [body for message, body in one.results if message.correlation_id == slow]
            (answer,) = await one.answers(slow)
            assert (answer["status"], answer["code"]) == ("failed", "timeout")
            assert one.samples("plc")[-1]["bad"]["speed"] == "timeout"


async def test_a_stop_answers_what_is_under_way(
    broker: Broker, run_agent: RunAgent, silent_port: int, tmp_path: Path
) -> None:
    async with psu(tmp_path) as present, desk(broker.url, "rig") as one:
        async with run_agent(profile_of(PLC.format(port=silent_port), present), broker.url, sil=False):
            await one.until_state("degraded")
            write = {"op": "write", "device": "plc", "values": {"setpoint": 5}}
            under_way = await one.post(write)
            waiting = await one.post(write)
            await one.ask("ping")
        (answer,) = await one.answers(under_way)
        assert (answer["status"], answer["code"]) in {("failed", "timeout"), ("indeterminate", "")}
        await one.until_state("offline")
        assert not [body for message, body in one.results if message.correlation_id == waiting]
        # The one that had not begun went back to the broker: the next agent has it.
        async with run_agent(profile_of(PLC.format(port=silent_port), present), broker.url, sil=False):
            assert (await one.answers(waiting))[0]["code"] == "timeout"


async def test_events_of_an_outage_come_in_order_and_whole(run_agent: RunAgent, unused_port: int) -> None:
    url = f"amqp://127.0.0.1:{unused_port}"
    async with run_agent(profile_of(PSU), url) as agent:
        await until_waiting(agent.store.outbox, 10)
        async with Broker("127.0.0.1", unused_port), desk(url, "rig") as one:
            await one.until_state("available")
            await one.until(lambda: len(one.samples("psu")) > 20)
        waiting = agent.store.outbox.stats().messages
        await until_waiting(agent.store.outbox, waiting + 10)
        async with Broker("127.0.0.1", unused_port), desk(url, "rig") as two:
            await two.until(lambda: len(two.samples("psu")) > 20)
            heard = sorted(set(two.sequences("/benches/rig/devices/psu")))
            assert heard == list(range(heard[0], heard[-1] + 1))


async def test_what_an_outage_cost_is_said(run_agent: RunAgent, unused_port: int) -> None:
    url = f"amqp://127.0.0.1:{unused_port}"
    async with run_agent(profile_of(PSU), url, outbox_age="300ms") as agent:
        async with asyncio.timeout(15):
            while agent.store.outbox.stats().oldest_s < 0.25:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        async with Broker("127.0.0.1", unused_port), desk(url, "rig") as one:
            ((_, loss), *_) = await one.until(lambda: one.of_type("loss"))
            assert loss["source"] == "/benches/rig/devices/psu"
            assert loss["reason"] == "too-old"
            assert loss["count"] == int(loss["last"]) - int(loss["first"]) + 1


async def until_waiting(outbox: object, count: int) -> None:
    async with asyncio.timeout(15):
        while outbox.stats().messages < count:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
