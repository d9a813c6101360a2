"""Simulated outstations on real lines, with py1815's master and bare sockets at the other end."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from dnp3_scripted_master import POINTS, outstation_device
from py1815 import link
from py1815.application import FunctionCode, class_header
from py1815.decode import PointType
from py1815.link import PrimaryFunction, SecondaryFunction
from py1815.master import Master, Mode, Outstation, Tasks
from py1815.transport import segment
from waiting import PATIENCE_S, until

from protocols.dnp3.config import Dnp3Device, Serial, Tcp, Tls
from protocols.dnp3.plan import channel_key
from sim.dnp3 import SIMULATOR
from sim.dnp3.lines import Served, serving

SIM: Mapping[str, Any] = {"door": True, "pulses": 7, "current": -3, "setpoint": 20}
UNKNOWN = ("double_bit_input", "octet_string")
TLS = {"transport": "tls", "host": "rtu.example", "cert": "/etc/bench.pem"}
LISTENING = {"host": "0.0.0.0", "role": "listen", "accept_from": ["192.0.2.1"]}


def network(device: Dnp3Device) -> Tcp | Tls:
    assert isinstance(device.connection, Tcp | Tls)
    return device.connection


def context(connection: Tls, purpose: ssl.Purpose) -> ssl.SSLContext:
    """What an agent makes of its part of a profile."""
    made = ssl.create_default_context(purpose, cafile=connection.ca)
    assert connection.cert is not None
    made.load_cert_chain(connection.cert)
    made.verify_mode = ssl.CERT_REQUIRED
    return made


@asynccontextmanager
async def mastered(device: Dnp3Device, **options: Any) -> AsyncIterator[Outstation]:
    """py1815's master on the device's connection."""
    connection = network(device)
    tls = context(connection, ssl.Purpose.SERVER_AUTH) if isinstance(connection, Tls) else None
    async with Master() as master:
        outstation = await master.add(
            "rtu",
            host=connection.host,
            port=connection.port,
            outstation_address=device.outstation,
            master_address=device.master,
            response_timeout=PATIENCE_S,
            tls=tls,
            reconnect=0.1,
            **options,
        )
        await outstation.connect()
        await outstation.idle()
        yield outstation


@asynccontextmanager
async def rig(device: Dnp3Device | None = None, **options: Any) -> AsyncIterator[tuple[Served, Outstation]]:
    devices = {"rtu": device or outstation_device(sim=SIM, simulation={"classes": {"setpoint_seen": 0}})}
    async with serving(devices) as served, mastered(served.devices["rtu"], **options) as outstation:
        yield served, outstation


async def test_the_simulator_changes_connections_and_nothing_else() -> None:
    devices = {
        "one": outstation_device(),
        "two": outstation_device(outstation=11),
        "other": outstation_device(connection={"transport": "tcp", "host": "other.example"}),
        "line": outstation_device(
            connection={"transport": "serial", "port": "/dev/ttyUSB0", "parity": "even"}
        ),
        "caller": outstation_device(connection={"transport": "tcp", **LISTENING}),
    }
    async with SIMULATOR.start(devices) as moved:
        assert list(moved) == list(devices)
        for name, device in moved.items():
            assert device.model_copy(update={"connection": devices[name].connection}) == devices[name]
        assert channel_key(moved["one"].connection) == channel_key(moved["two"].connection)
        assert len({channel_key(device.connection) for device in moved.values()}) == 4
        assert moved["line"].connection.parity == "none"
        assert moved["caller"].connection.host == "127.0.0.1"
        assert moved["caller"].connection.accept_from == ()


@pytest.mark.parametrize("connection", [{"transport": "tcp", "host": "rtu.example"}, TLS], ids=["tcp", "tls"])
async def test_a_master_starts_up_and_reads_everything(connection: Mapping[str, Any]) -> None:
    # py1815's master stops at objects that it does not know: double-bit inputs and octet strings.
    points = {
        name: {**point, "feedback": None} for name, point in POINTS.items() if point["type"] not in UNKNOWN
    }
    async with rig(outstation_device(points, SIM, connection=connection)) as (served, outstation):
        simulated = served.outstations["rtu"]
        assert not simulated.restarted  # cleared by the master's startup
        assert not simulated.need_time
        store = outstation.store
        assert {i: one.value for i, one in store.points(PointType.BINARY_INPUT).items()} == {0: 1, 1: 0, 9: 0}
        assert store.get(PointType.COUNTER, 0).value == 7  # type: ignore[union-attr]
        assert store.get(PointType.ANALOG_INPUT, 1).value == -3  # type: ignore[union-attr]
        assert store.get(PointType.ANALOG_INPUT, 300).value == 0  # type: ignore[union-attr]
        assert store.get(PointType.ANALOG_OUTPUT, 2).value == 40  # type: ignore[union-attr]


async def test_events_are_reported_unsolicited_once_each() -> None:
    async with rig(tasks=Tasks(enable_unsolicited=(1, 2, 3))) as (served, outstation):
        simulated = served.outstations["rtu"]
        seen = outstation.store.events_received
        for value in range(20):
            simulated.set("current", value, time_ms=1000 + value)
        await until(lambda: outstation.store.events_received >= seen + 20)
        events = outstation.store.events_since(seen)
        assert [(one.value, one.time_ms) for one in events] == [(n, 1000 + n) for n in range(20)]


async def test_controls_operate_once_and_show() -> None:
    async with rig() as (served, outstation):
        simulated = served.outstations["rtu"]
        closed = await outstation.operate(binary_outputs={3: "close"}, mode=Mode.SELECT)
        assert closed.accepted
        assert [(one.point, one.control.code) for one in simulated.operations] == [("breaker", 0x41)]
        assert (await outstation.operate(analog_outputs={2: 12.5}, mode=Mode.DIRECT)).accepted
        await until(lambda: simulated.database["setpoint_seen"].value == 12.5)
        refused = await outstation.operate(binary_outputs={77: True}, mode=Mode.SELECT)
        assert refused.accepted is False
        assert len(simulated.operations) == 2


async def test_a_restart_drops_the_connection_and_is_announced() -> None:
    async with rig(tasks=Tasks(enable_unsolicited=(1, 2, 3))) as (served, outstation):
        simulated = served.outstations["rtu"]
        assert (await outstation.restart("cold")).complete
        await until(lambda: simulated.starts == 2)
        # The master hears of it in the null response, clears the bit and polls again.
        await until(lambda: outstation.connected and not simulated.restarted and simulated.unsolicited)


async def test_what_happens_in_an_outage_is_reported_after_it() -> None:
    async with rig(tasks=Tasks(enable_unsolicited=(1, 2, 3))) as (served, outstation):
        simulated, line = served.outstations["rtu"], served.lines["rtu"]
        line.cut()
        await until(lambda: not outstation.connected)
        seen = outstation.store.events_received
        for ms in range(50):
            simulated.set("door", ms % 2 == 0, time_ms=ms)
        line.restore()
        await until(lambda: outstation.store.events_received >= seen + 50)
        assert len(simulated.buffer) == 0
        assert [one.time_ms for one in outstation.store.events_since(seen)] == list(range(50))


async def test_the_newest_connection_is_the_one() -> None:
    async with serving({"rtu": outstation_device()}) as served:
        connection = network(served.devices["rtu"])
        first, writer = await asyncio.open_connection(connection.host, connection.port)
        async with mastered(served.devices["rtu"]) as outstation:
            async with asyncio.timeout(PATIENCE_S):
                while await first.read(4096):
                    pass
            assert (await outstation.integrity_poll()).complete
        writer.close()


def frame(device: Dnp3Device, function: int, body: bytes = b"") -> bytes:
    control = link.control_byte(
        from_master=True, primary=True, function=PrimaryFunction.UNCONFIRMED_USER_DATA
    )
    (octets,) = segment(bytes((0xC0, function)) + body)
    return link.build(control, device.outstation, device.master, octets)


async def heard(reader: asyncio.StreamReader, wanted: set[int]) -> None:
    """Waits until every one of these link addresses has answered a request."""
    frames = link.FrameReader()
    async with asyncio.timeout(PATIENCE_S):
        while wanted:
            for one in frames.feed(await reader.read(4096)):
                if one.payload[2:3] == bytes((FunctionCode.RESPONSE,)):
                    wanted.discard(one.source)


async def test_outstations_on_one_channel_answer_each_for_itself() -> None:
    devices = {name: outstation_device(outstation=10 + n) for n, name in enumerate(("one", "two"))}
    async with serving(devices) as served:
        connection = network(served.devices["one"])
        reader, writer = await asyncio.open_connection(connection.host, connection.port)
        for device in served.devices.values():
            writer.write(frame(device, FunctionCode.DELAY_MEASURE))
        await heard(reader, {10, 11})
        writer.close()


@pytest.mark.parametrize("transport", ["tcp", "tls"])
async def test_an_outstation_calls_where_the_agent_listens(transport: str) -> None:
    extra = {"cert": "/etc/bench.pem"} if transport == "tls" else {}
    device = outstation_device(unsolicited=[], connection={"transport": transport, **LISTENING, **extra})
    answered = asyncio.Event()
    async with serving({"rtu": device}) as served:
        moved = served.devices["rtu"]
        connection = network(moved)

        async def called(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(frame(moved, FunctionCode.READ, class_header(0)))
            await heard(reader, {10})
            answered.set()
            writer.close()

        tls = context(connection, ssl.Purpose.CLIENT_AUTH) if isinstance(connection, Tls) else None
        server = await asyncio.start_server(called, connection.host, connection.port, ssl=tls)
        for _ in range(2):  # and calls again once the connection has ended
            async with asyncio.timeout(PATIENCE_S):
                await answered.wait()
            answered.clear()
        server.close()


async def test_a_serial_line_is_a_pty() -> None:
    device = outstation_device(
        sim=SIM, unsolicited=[], connection={"transport": "serial", "port": "/dev/ttyUSB0"}
    )
    async with serving({"rtu": device}) as served:
        moved = served.devices["rtu"]
        assert isinstance(moved.connection, Serial)
        port = os.open(moved.connection.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        reader = asyncio.StreamReader()
        asyncio.get_running_loop().add_reader(port, lambda: reader.feed_data(os.read(port, 4096)))
        try:
            status = link.control_byte(
                from_master=True, primary=True, function=PrimaryFunction.REQUEST_LINK_STATUS
            )
            os.write(port, b"noise" + link.build(status, 10, 1))
            async with asyncio.timeout(PATIENCE_S):
                answer = await reader.readexactly(10)
            assert link.parse(answer).function == SecondaryFunction.LINK_STATUS
            os.write(port, frame(moved, FunctionCode.READ, class_header(0)))
            await heard(reader, {10})
        finally:
            asyncio.get_running_loop().remove_reader(port)
            os.close(port)


async def test_a_serial_line_that_nobody_reads_loses_octets_and_goes_on() -> None:
    points = {f"a{n}": {"type": "analog_input", "index": n} for n in range(2000)}
    device = outstation_device(
        points, unsolicited=[], connection={"transport": "serial", "port": "/dev/ttyS0"}
    )
    async with serving({"rtu": device}) as served:
        moved = served.devices["rtu"]
        assert isinstance(moved.connection, Serial)
        port = os.open(moved.connection.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        try:
            for _ in range(100):
                os.write(port, frame(moved, FunctionCode.READ, class_header(0)))
                await asyncio.sleep(0)
            loop.add_reader(port, lambda: reader.feed_data(os.read(port, 4096)))
            await heard(reader, {10})
        finally:
            loop.remove_reader(port)
            os.close(port)


async def test_a_wrong_sim_section_is_refused_at_the_start() -> None:
    points = {**POINTS, "door_flags": {"type": "binary_input", "index": 0, "field": "flags"}}
    device = outstation_device(points, {"door_flags": "online broken"})
    with pytest.raises(ValueError, match="broken"):
        async with serving({"rtu": device}):
            pass
