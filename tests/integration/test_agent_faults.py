"""Faults of devices and of the broker: each has its outcome, others go on, and every gap is said."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from desk import Desk, RunAgent, desk
from waiting import until

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
        self._server = await relay(self._port, devices["plc"].connection.port)

    async def off(self) -> None:
        """Pulls the cable: connections are reset and the port is closed."""
        assert self._server is not None
        self._server.close()
        await self._stack.aclose()
        await self._server.wait_closed()
        self._stack = contextlib.AsyncExitStack()


Forward = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


async def join(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, forward: Forward
) -> None:
    """Joins a connection to one to `port` until either side ends."""
    try:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        writer.close()
        return
    ways = {asyncio.create_task(forward(reader, back_writer)), asyncio.create_task(pipe(back_reader, writer))}
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, back_writer):
            end.transport.abort()


async def relay(port: int, behind: int) -> asyncio.Server:
    """Listens on one port for another."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await join(reader, writer, behind, pipe)

    return await asyncio.start_server(serve, "127.0.0.1", port)


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


WRITES = {5, 6, 15, 16}
"""The functions that write (Modbus Application Protocol V1.1b3, section 6)."""


@pytest.fixture
async def deaf_plc(tmp_path: Path) -> AsyncIterator[int]:
    """The port of a PLC that answers reads and never a write."""
    path = tmp_path / "deaf.yaml"
    path.write_text(profile_of(PLC.format(port=502)))
    async with SIMULATOR.start(load_profile(path, {}).devices) as devices:
        behind = devices["plc"].connection.port

        async def without_writes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                head = await reader.readexactly(6)
                rest = await reader.readexactly(int.from_bytes(head[4:], "big"))
                if rest[1] not in WRITES:
                    writer.write(head + rest)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await join(reader, writer, behind, without_writes)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        yield server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()


WRITE = {"op": "write", "device": "plc", "values": {"setpoint": 5}}


async def test_a_write_without_an_answer_times_out_once_and_other_devices_do_not_wait(
    broker: Broker, run_agent: RunAgent, deaf_plc: int, tmp_path: Path
) -> None:
    async with psu(tmp_path) as present, desk(broker.url, "rig") as one:
        # Long enough for a disk that takes its time with the journal of the other device's command.
        profile = profile_of(PLC.format(port=deaf_plc).replace("500ms", "3s"), present)
        async with run_agent(profile, broker.url, sil=False):
            await one.until_state("available")
            slow = await one.post(WRITE)
            in_line = await one.post(WRITE, absolute_expiry_ms=time.time_ns() // 1_000_000 + 200)
            assert (await one.ask("write", device="psu", values={"voltage": 5.0}))["status"] == "ok"
            assert not [body for message, body in one.results if message.correlation_id == slow]
            (answer,) = await one.answers(slow)
            assert (answer["status"], answer["code"]) == ("failed", "timeout")
            # Judged again right before the device would be touched.
            (answer,) = await one.answers(in_line)
            assert (answer["status"], answer["code"]) == ("rejected", "expired")


async def test_a_stop_answers_what_is_under_way(
    broker: Broker, run_agent: RunAgent, deaf_plc: int, tmp_path: Path
) -> None:
    profile = profile_of(PLC.format(port=deaf_plc))
    async with desk(broker.url, "rig") as one:
        async with run_agent(profile, broker.url, sil=False):
            await one.until_state("available")
            under_way = await one.post(WRITE)
            waiting = await one.post(WRITE)
            await one.ask("ping")
        (answer,) = await one.answers(under_way)
        assert (answer["status"], answer["code"]) == ("failed", "timeout")
        await one.until_state("offline")
        assert not [body for message, body in one.results if message.correlation_id == waiting]
        # The one that had not begun went back to the broker: the next agent has it.
        async with run_agent(profile, broker.url, sil=False):
            assert (await one.answers(waiting))[0]["code"] in ("timeout", "disconnected")


async def test_a_device_that_never_answers_is_offline_with_the_reason(
    broker: Broker, run_agent: RunAgent, tmp_path: Path
) -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    profile = profile_of(PLC.format(port=server.sockets[0].getsockname()[1]))
    async with server, desk(broker.url, "rig") as one, run_agent(profile, broker.url, sil=False):
        said = await one.until_state("fault")
        assert "did not answer in 500ms" in said["devices"]["plc"]["reason"]
        samples = await one.until(lambda: one.samples("plc"))
        assert samples[-1]["bad"].keys() == {"speed", "setpoint"}
        assert (await one.ask("read", device="plc"))["status"] == "failed"


async def test_events_of_an_outage_come_in_order_and_whole(run_agent: RunAgent, unused_port: int) -> None:
    url = f"amqp://127.0.0.1:{unused_port}"
    async with run_agent(profile_of(PSU), url) as agent:
        await until(lambda: agent.store.outbox.stats().messages >= 10)
        async with Broker("127.0.0.1", unused_port), desk(url, "rig") as one:
            await one.until_state("available")
            await one.until(lambda: len(one.samples("psu")) > 20)
        waiting = agent.store.outbox.stats().messages
        await until(lambda: agent.store.outbox.stats().messages >= waiting + 10)
        async with Broker("127.0.0.1", unused_port), desk(url, "rig") as two:
            await two.until(lambda: len(two.samples("psu")) > 20)
            heard = sorted(set(two.sequences("/benches/rig/devices/psu")))
            assert heard == list(range(heard[0], heard[-1] + 1))


async def test_what_an_outage_cost_is_said(run_agent: RunAgent, unused_port: int) -> None:
    url = f"amqp://127.0.0.1:{unused_port}"
    async with run_agent(profile_of(PSU), url, outbox_age="300ms") as agent:
        outbox = agent.store.outbox
        await until(lambda: any(loss.source.endswith("psu") for loss in outbox.losses()))
        async with Broker("127.0.0.1", 0) as broker, desk(broker.url, "rig") as one:
            # The agent finds its broker only now: what it says of the loss has somebody who hears it.
            server = await relay(unused_port, urlsplit(broker.url).port or 0)
            loss = (await one.until(lambda: losses(one)))[0]
            assert loss["reason"] == "too-old"
            assert loss["count"] == int(loss["last"]) - int(loss["first"]) + 1
            server.close()


def losses(one: Desk) -> list[dict[str, Any]]:
    return [body for _, body in one.of_type("loss") if body["source"] == "/benches/rig/devices/psu"]
