"""`hilgate doctor` and devices: it finds them, and nothing in them changes; a running agent's word counts."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from desk import RunAgent, desk
from doctor_rig import findings, verdicts
from mqtt_rig import far_end
from text_peer import IDENTITY, Peer, peer
from waiting import until

from agent.doctor.serialport import gather
from agent.profile import Profile, load_profile
from sim.broker import Broker
from sim.mqtt.broker import Broker as MqttBroker

PUMP = """
profile: bench
devices:
  pump-plc:
    protocol: modbus
    connection: {transport: tcp, host: 127.0.0.1, port: PORT, unit: 1}
    address_base: 0
    timeout: 5s
    points:
      setpoint: {table: holding, address: 10, access: rw, safe: 0}
      running:  {table: coil, address: 3, access: rw, safe: false}
"""


def profile(folder: Path, text: str, **words: Any) -> Profile:
    for word, value in words.items():
        text = text.replace(word.upper(), str(value))
    path = folder / "profile.yaml"
    path.write_text(text)
    return load_profile(path, {})


class Unit:
    """A Modbus unit on TCP that answers reads with zeros, and notes each function."""

    def __init__(self) -> None:
        self.functions: list[int] = []
        self.callers = 0
        self.port = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Unit"]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.callers += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(7)
                asked = await reader.readexactly(int.from_bytes(head[4:6], "big") - 1)
                self.functions.append(asked[0])
                count = int.from_bytes(asked[3:5], "big")
                data = bytes((count + 7) // 8 if asked[0] in (1, 2) else 2 * count)
                answer = bytes([asked[0], len(data)]) + data
                writer.write(head[:4] + (len(answer) + 1).to_bytes(2, "big") + head[6:7] + answer)
        writer.close()


async def test_a_device_that_answers_is_read_once(tmp_path: Path) -> None:
    async with Unit().listening() as unit:
        found = await findings("device", profile=profile(tmp_path, PUMP, port=unit.port))
    assert verdicts(found) == {"pump-plc": "ok"}
    assert len(unit.functions) == 1
    assert unit.functions[0] in (1, 2, 3, 4), "nothing is written"


async def test_a_device_that_is_switched_off(tmp_path: Path, unused_port: int) -> None:
    found = await findings("device", profile=profile(tmp_path, PUMP, port=unused_port))
    assert found["pump-plc"].verdict == "failed"
    assert f"127.0.0.1:{unused_port} refused the connection" in found["pump-plc"].found
    assert f"nc -vz 127.0.0.1 {unused_port}" in found["pump-plc"].todo


async def test_a_device_that_never_answers(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await findings("device", profile=profile(tmp_path, PUMP, port=port), limit=1.0)
    assert verdicts(found) == {"pump-plc": "failed"}
    assert found["pump-plc"].found == "no answer in 1 s"


async def test_one_that_fails_leaves_the_others_their_rows(tmp_path: Path, unused_port: int) -> None:
    async with Unit().listening() as unit:
        _, _, body = PUMP.partition("devices:\n")
        text = PUMP.replace("PORT", str(unit.port)) + body.replace("pump-plc", "psu")
        found = await findings("device", profile=profile(tmp_path, text, port=unused_port))
    assert verdicts(found) == {"pump-plc": "ok", "psu": "failed"}


async def test_an_instrument_is_asked_who_it_is_and_neither_set_nor_cleared(tmp_path: Path) -> None:
    heard: list[str] = []

    async def script(it: Peer) -> None:
        heard_here = it.heard
        try:
            await it.serve({"*IDN?": IDENTITY, "VOLT?": "1"})
        finally:
            heard.extend(heard_here)

    text = """
profile: bench
devices:
  psu:
    protocol: text
    connection: {transport: tcp, host: 127.0.0.1, port: PORT}
    timeout: 5s
    identify: {query: "*IDN?"}
    errors: {query: "SYST:ERR?"}
    clear: "\\x03"
    init: ["*RST", "SYST:REM"]
    points:
      volts: {query: "VOLT?", write: "VOLT {value}", access: rw}
"""
    async with peer(script) as where:
        found = await findings("device", profile=profile(tmp_path, text, port=where["port"]))
    assert verdicts(found) == {"psu": "ok"}
    assert set(heard) == {"*IDN?"}


async def test_an_outstation_is_called_and_told_nothing(tmp_path: Path) -> None:
    came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set_result(await reader.read())
        writer.close()

    text = """
profile: bench
devices:
  bay:
    protocol: dnp3
    connection: {transport: tcp, host: 127.0.0.1, port: PORT}
    outstation: 10
    points:
      breaker: {type: binary_input, index: 0}
  caller:
    protocol: dnp3
    connection: {transport: tcp, host: 127.0.0.1, port: FREE, role: listen}
    outstation: 11
    points:
      breaker: {type: binary_input, index: 0}
"""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        free = one.getsockname()[1]
    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await findings("device", profile=profile(tmp_path, text, port=port, free=free))
        async with asyncio.timeout(30):
            assert await came == b""
    assert verdicts(found) == {"bay": "ok", "caller": "not-checked"}
    assert "takes connections; not asked more" in found["bay"].found


async def test_an_mqtt_broker_hears_nothing_of_it(tmp_path: Path) -> None:
    """No last will, no birth, and the session of the agent that shares the client id goes on."""
    text = """
profile: bench
devices:
  oven:
    protocol: mqtt
    connection: {transport: tcp, host: 127.0.0.1, port: PORT, client_id: the-agent, session_expiry: 1h}
    will: {topic: oven/agent}
    points:
      heat: {topic: oven/heat}
"""
    broker = MqttBroker()
    await broker.start()
    try:
        async with far_end(broker.port) as watcher, far_end(broker.port, "the-agent") as agent:
            await watcher.hears("#")
            found = await findings("device", profile=profile(tmp_path, text, port=broker.port))
            assert verdicts(found) == {"oven": "ok"}, found
            await agent.says("oven/still", b"here")
            await until(lambda: watcher.heard)
            assert [message.topic for message in watcher.heard] == ["oven/still"]
    finally:
        await broker.close()


async def test_the_word_of_the_agent_that_runs_counts(
    broker: Broker, run_agent: RunAgent, tmp_path: Path
) -> None:
    async with Unit().listening() as unit:
        loaded = profile(tmp_path, PUMP, port=unit.port)
        store = tmp_path / "store-rig"
        where: dict[str, Any] = {"broker": broker.url, "bench": "rig", "heartbeat": 0.2}
        async with (
            desk(broker.url, "rig") as one,
            run_agent(PUMP.replace("PORT", str(unit.port)), broker.url, sil=False),
        ):
            await one.until_state("available")
            callers = unit.callers
            ways: list[dict[str, Any]] = [{"store": store}, {}]
            for more in ways:  # by its lock, and by its word alone
                found = await findings("device", profile=loaded, **where, **more)
                assert verdicts(found) == {"pump-plc": "ok"}, found
                assert "says it is online" in found["pump-plc"].found
            assert unit.callers == callers, "nobody else called the device"
            held = await findings("store", profile=loaded, **where, store=store)
            assert held[str(store)].verdict == "ok"
            assert "held by an agent that runs" in held[str(store)].found
        found = await findings("device", profile=loaded, **where, store=store)
        assert found["pump-plc"].found == "answers (modbus)", "its last word was offline"


async def test_a_device_that_the_agent_has_lost(
    broker: Broker, run_agent: RunAgent, tmp_path: Path, unused_port: int
) -> None:
    loaded = profile(tmp_path, PUMP, port=unused_port)
    async with (
        desk(broker.url, "rig") as one,
        run_agent(PUMP.replace("PORT", str(unused_port)), broker.url, sil=False),
    ):
        await one.until_state("fault")
        found = await findings("device", profile=loaded, broker=broker.url, bench="rig", heartbeat=0.2)
    assert found["pump-plc"].verdict == "failed"
    assert "says it is offline: 127.0.0.1" in found["pump-plc"].found


async def test_a_serial_port_is_not_opened(tmp_path: Path) -> None:
    """A pty stands for one: that it is held, and by whom, is seen from outside."""
    controller, port = os.openpty()
    try:
        path = os.ttyname(port)
        assert not gather(path).holders, "what this process holds is not said"
        process = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            "exec 3<>$0; echo open; read line",
            path,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"open\n"
        text = f"""
profile: bench
devices:
  plc:
    protocol: modbus
    connection: {{transport: rtu, port: {path}, unit: 1}}
    address_base: 0
    points:
      level: {{table: input, address: 0}}
"""
        found = await findings("serial", profile=profile(tmp_path, text))
        assert found[path].verdict == "failed"
        assert f"(pid {process.pid})" in found[path].found
        assert found[path].todo == f"end it: kill {process.pid}"
        device = await findings("device", profile=profile(tmp_path, text))
        assert device["plc"].found == f"{path}: {found[path].found}"
        assert device["plc"].todo == "mend the row `serial` first"
        await process.communicate(b"\n")
        found = await findings("serial", profile=profile(tmp_path, text))
        assert found[path].verdict == "ok"
    finally:
        os.close(controller)
        os.close(port)


@pytest.mark.parametrize("interface", ["slcan", "virtual"])
async def test_an_adapter_is_not_put_on_the_bus(tmp_path: Path, interface: str) -> None:
    text = f"""
profile: bench
devices:
  drive:
    protocol: can
    connection: {{interface: {interface}, channel: /dev/ttyACM99, bitrate: 500000}}
    frames: {{}}
"""
    found = await findings("device", profile=profile(tmp_path, text))
    assert verdicts(found) == {"drive": "not-checked"}
    assert "take part in the bus" in found["drive"].found
