"""Op record (wire.md section 4): a bus is recorded by command, and what is wrong is refused."""

import itertools
import json
import os
from pathlib import Path

import can
import pytest
from desk import Desk, RunAgent, desk
from test_asyncapi import validator
from waiting import until

from protocols.can.recordings import logs
from sim.broker import Broker

BUS = """
  {name}:
    protocol: can
    connection: {{interface: virtual, channel: {channel}}}
    frames: {{ids: [0x7FF]}}
"""
SLAVE = """
  pump-plc:
    protocol: modbus
    connection: {transport: tcp, host: 127.0.0.1, port: 1}
    address_base: 0
    points: {speed: {table: holding, address: 0}}
"""
_channels = (f"record-{os.getpid()}-{n}" for n in itertools.count())


def profile(*devices: str) -> str:
    return "profile: bench\ndevices:" + "".join(devices)


def online(one: Desk) -> bool:
    devices = one.availability().get("devices", {})
    return bool(devices.get("drive", {}).get("state") == "online")


async def test_a_bus_is_recorded_from_start_to_stop(
    broker: Broker, run_agent: RunAgent, tmp_path: Path
) -> None:
    channel = next(_channels)
    text = profile(BUS.format(name="drive", channel=channel), SLAVE)
    with can.Bus(interface="virtual", channel=channel) as node:
        async with desk(broker.url, "rig") as one, run_agent(text, broker.url, sil=False):
            await one.until(lambda: online(one))
            described = (await one.ask("describe"))["data"]["devices"]
            assert "record" in described["drive"]["ops"]
            assert "record" not in described["pump-plc"]["ops"]

            nothing = await one.ask("record", stop=True)
            assert (nothing["status"], nothing["code"]) == ("rejected", "wrong-mode")
            started = await one.ask("record", start=True, format="log")  # the only one that can
            assert started["status"] == "ok", started
            first = Path(started["data"]["file"])
            assert first.suffix == ".log"
            assert (await one.ask("record", device="drive", start=True))["code"] == "busy"
            for n in range(100):
                node.send(can.Message(arbitration_id=n, is_extended_id=False, data=[n]))
            part = first.with_name(f"{first.name}.part")
            await until(lambda: part.read_bytes().count(b"\n") == 100)
            stopped = await one.ask("record", device="drive", stop=True)
            assert stopped["data"] == {"file": str(first), "files": [str(first)], "dropped": 0}
            check = validator("/components/messages/result/payload")
            for result in (started, stopped):
                check.validate(json.loads(json.dumps(result)))
    assert [frame.identifier for frame in logs.read(first)] == list(range(100))
    assert first.parent == tmp_path / "recordings"


async def test_a_recording_that_runs_is_complete_when_the_agent_stops(
    broker: Broker, run_agent: RunAgent
) -> None:
    channel = next(_channels)
    text = profile(BUS.format(name="drive", channel=channel))
    with can.Bus(interface="virtual", channel=channel):
        async with desk(broker.url, "rig") as one, run_agent(text, broker.url, sil=False):
            await one.until_state("available")
            started = await one.ask("record", start=True)
    assert list(logs.read(started["data"]["file"])) == []


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({}, "malformed", "either 'start': true or 'stop': true"),
        ({"start": True, "stop": True}, "malformed", "either"),
        ({"start": 1}, "malformed", "either"),
        ({"start": "yes"}, "malformed", "either"),
        ({"stop": True, "format": "blf"}, "malformed", "with 'start'"),
        ({"start": True, "format": 5}, "malformed", "as a string"),
        ({"start": True, "format": "mp3"}, "malformed|bad-type|out-of-range", "blf"),
        ({"start": True, "device": "pump-plc"}, "unknown-op", "cannot record"),
        ({"start": True, "device": "none"}, "unknown-device", "no device"),
        ({"start": True, "device": 7}, "malformed", "device"),
    ],
)
async def test_wrong_fields_are_refused(
    fields: dict[str, object], code: str, says: str, broker: Broker, run_agent: RunAgent, tmp_path: Path
) -> None:
    text = profile(BUS.format(name="drive", channel=next(_channels)), SLAVE)
    async with desk(broker.url, "rig") as one, run_agent(text, broker.url, sil=False):
        await one.until(lambda: online(one))
        result = await one.ask("record", **fields)  # type: ignore[arg-type]
        assert result["status"] == "rejected"
        assert result["code"] in code.split("|")
        assert says in result["message"]
    assert not (tmp_path / "recordings").exists()


async def test_which_device_must_be_said_where_several_can_or_none(
    broker: Broker, run_agent: RunAgent
) -> None:
    buses = [BUS.format(name=name, channel=next(_channels)) for name in ("left", "right")]
    for devices, code, says in (
        (buses, "malformed", "left, right can record"),
        ([SLAVE], "unknown-op", "no device of bench rig can record"),
    ):
        async with desk(broker.url, "rig") as one, run_agent(profile(*devices), broker.url, sil=False):
            await one.until(one.availability)
            result = await one.ask("record", start=True)
            assert (result["status"], result["code"]) == ("rejected", code)
            assert says in result["message"]
