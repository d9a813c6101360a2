"""The bench that `hilgate demo` shows by itself: a device of each protocol, all of them simulated."""

import asyncio
import re
from typing import Any

from shell import hilgate, running

from agent.profile import load_profile, shipped


async def test_every_device_of_the_demo_gives_every_point_and_takes_commands() -> None:
    devices = load_profile(shipped()["test-cell"]).devices
    assert {device.protocol for device in devices.values()} == {
        "can",
        "dnp3",
        "modbus",
        "mqtt",
        "opcua",
        "text",
    }
    missing = {
        (name, point.name)
        for name, device in devices.items()
        for point in device.points.values()
        if point.readable and not (name == "drive" and point.writable)  # which nobody has sent yet
    }
    async with running("demo", "--port", "0", "--json") as demo:

        def complete(event: Any) -> bool:
            if event["type"] == "io.hilgate.samples.v1":
                device = event["source"].rpartition("/")[2]
                for sample in event["data"]["samples"]:
                    missing.difference_update((device, point) for point in sample["values"])
            return not missing

        await demo.until(complete)
        await demo.until(lambda event: event["data"].get("state") == "available")
        ended = await demo.end()
        assert (ended.code, ended.err) == (0, "")


async def test_a_command_reaches_each_protocol() -> None:
    async with running("demo", "--port", "0") as demo:
        lines = ""
        while (found := re.search(r"amqp://127\.0\.0\.1:\d+", lines)) is None:
            lines += await demo.line()
        writes = {
            "drive": "setpoint=900",  # whose interlock is a door that the OPC UA server knows of
            "pump-plc": "setpoint=2000",
            "feeder": "breaker=true",
            "cell-plc": "ventilation=80",
            "chamber": "setpoint=40",
            "supply": "setpoint=380",
        }
        words = [("send", "demo", "write", *write, "--timeout", "60s") for write in writes.items()]
        for sent in await asyncio.gather(*(hilgate(*one, HILGATE_BROKER=found[0]) for one in words)):
            assert (sent.code, sent.err) == (0, ""), sent.out
        assert (await demo.end()).code == 0
