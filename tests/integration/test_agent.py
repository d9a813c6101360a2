"""The whole agent on a simulated bench and the embedded broker, seen only through AMQP."""

from itertools import pairwise
from pathlib import Path

from desk import Desk, RunAgent, desk

from protocols.amqp.cloudevents import Event
from protocols.amqp.types import ULong
from sim.broker import Broker

PROFILE = """
profile: bench
labels: {site: muc}
devices:
  pump-plc:
    protocol: modbus
    connection: {transport: tcp, host: plc-1.bench.example, port: 502, unit: 1}
    address_base: 0
    poll: 20ms
    points:
      speed:    {table: input, address: 0, type: float32, order: ABCD, unit: rpm}
      setpoint: {table: holding, address: 10, scale: 0.1, access: rw, min: 0, max: 3000, safe: 0, unit: rpm}
      running:  {table: coil, address: 3, access: rw, safe: false}
      state:    {table: holding, address: 20, labels: {0: idle, 1: busy}, access: rw}
      secret:   {table: holding, address: 30, access: wo}
    sim:
      speed: {follow: setpoint, tau: 100ms}
      state: idle
  psu:
    protocol: modbus
    connection: {transport: tcp, host: psu-1.bench.example, port: 502, unit: 1}
    address_base: 1
    poll: 50ms
    points:
      voltage: {table: holding, address: 1, type: float64, unit: V, access: rw}
"""


async def test_a_bench_comes_up_and_says_what_it_measures(broker: Broker, run_agent: RunAgent) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url):
        said = await one.until_state("available")
        assert said["mode"] == "sil"
        assert said["labels"] == {"site": "muc"}
        assert said["lease"] is None
        assert {name: device["state"] for name, device in said["devices"].items()} == {
            "pump-plc": "online",
            "psu": "online",
        }
        samples = await one.until(lambda: one.samples("pump-plc")[20:])
        assert samples[-1]["values"].keys() == {"speed", "setpoint", "running", "state"}
        assert all(earlier["time"] <= later["time"] for earlier, later in pairwise(samples))
        event, _ = one.of_type("samples")[0]
        assert event.mode == "sil"
    for source in ("/benches/rig/devices/pump-plc", "/benches/rig/devices/psu", "/benches/rig"):
        # The bench's own events go to two topics, which do not wait for each other.
        sequences = sorted(one.sequences(source))
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences))), source


async def test_the_last_word_of_a_clean_stop_is_offline(broker: Broker, run_agent: RunAgent) -> None:
    async with desk(broker.url, "rig") as one:
        async with run_agent(PROFILE, broker.url):
            await one.until_state("available")
        said = await one.until_state("offline")
        states = [body["state"] for _, body in one.of_type("availability")]
        assert states[-2:] == ["stopping", "offline"]
        async with run_agent(PROFILE, broker.url):
            assert (await one.until_state("available"))["epoch"] == said["epoch"] + 1


async def test_commands_do_what_they_say(broker: Broker, run_agent: RunAgent) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url):
        await one.until_state("available")
        ping = await one.ask("ping")
        assert ping["status"] == "ok"
        assert ping["data"]["epoch"] == one.availability()["epoch"]

        described = (await one.ask("describe"))["data"]
        setpoint = described["devices"]["pump-plc"]["points"]["setpoint"]
        assert setpoint == {"unit": "rpm", "type": "number", "access": "rw", "min": 0, "max": 3000, "safe": 0}
        assert described["devices"]["pump-plc"]["points"]["state"]["choices"] == ["idle", "busy"]
        assert set(described["devices"]["pump-plc"]["ops"]) == {"read", "write", "call"}

        values = {"setpoint": 1500.04, "running": True, "state": "busy"}
        written = await one.ask("write", device="pump-plc", values=values, verify=True)
        assert written["status"] == "ok", written
        assert written["data"]["values"] == {"setpoint": 1500.0, "running": True, "state": "busy"}
        assert written["data"]["read_back"] == written["data"]["values"]

        read = await one.ask("read", device="pump-plc", points=["setpoint", "running"])
        assert read["data"]["values"] == {"setpoint": 1500.0, "running": True}
        assert read["data"]["bad"] == {}
        everything = await one.ask("read", device="pump-plc")
        assert everything["data"]["values"].keys() == {"speed", "setpoint", "running", "state"}

        await one.until(lambda: [s for s in one.samples("pump-plc") if s["values"].get("speed", 0) > 1400])

        identity = await one.ask("call", device="pump-plc", method="identify", args={})
        assert identity["status"] == "ok", identity
        assert identity["data"]


async def test_a_disabled_bench_refuses_to_move_and_still_reads(broker: Broker, run_agent: RunAgent) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url):
        await one.until_state("available")
        assert (await one.ask("disable", reason="belt change"))["status"] == "ok"
        said = await one.until_state("maintenance")
        assert said["enabled"] is False
        assert "belt change" in said["reason"]
        refused = await one.ask("write", device="psu", values={"voltage": 5.0})
        assert (refused["status"], refused["code"]) == ("rejected", "disabled")
        assert (await one.ask("read", device="psu"))["data"]["values"] == {"voltage": 0.0}
        await one.ask("enable")
        await one.until_state("available")
        assert (await one.ask("write", device="psu", values={"voltage": 5.0}))["status"] == "ok"


async def test_a_command_that_comes_again_is_not_carried_out_again(
    broker: Broker, run_agent: RunAgent
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url):
        await one.until_state("available")
        write = {"op": "write", "device": "psu", "values": {"voltage": 1.0}}
        for message_id in ("once", ULong(7)):
            await one.post(write, message_id=message_id)
            (first,) = await one.answers(message_id)
            await one.ask("write", device="psu", values={"voltage": 2.0})
            await one.post(write, message_id=message_id)
            again = await one.answers(message_id, 2)
            assert again == [first, first]
            assert (await one.ask("read", device="psu"))["data"]["values"] == {"voltage": 2.0}


def complaints(one: Desk) -> list[Event]:
    return [event for event, body in one.of_type("availability") if "another agent" in body["reason"]]


async def test_two_agents_with_one_bench_id_say_so(
    broker: Broker, run_agent: RunAgent, tmp_path: Path
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url):
        await one.until_state("available")
        async with run_agent(PROFILE, broker.url, store=tmp_path / "elsewhere"):
            said = await one.until_state("degraded")
            assert "another agent" in said["reason"]
            # The second one says it as well, from its first heartbeat on.
            await one.until(lambda: len({event.id[:12] for event in complaints(one)}) == 2)
            # They do not answer each other's availability: that would never end.
            said_before = len(one.of_type("availability"))
            await one.until(lambda: len(one.of_type("availability")) > said_before + 10)
            times = [event.time_ns for event, _ in one.of_type("availability")[said_before:]]
            assert times[-1] - times[0] > 0.5e9
        await one.until(lambda: one.of_type("availability")[-1][1]["state"] == "available")


async def test_structured_events_carry_the_same(broker: Broker, run_agent: RunAgent) -> None:
    async with desk(broker.url, "rig") as one, run_agent(PROFILE, broker.url, cloudevents="structured"):
        await one.until_state("available")
        event, body = (await one.until(lambda: one.of_type("samples")))[0]
        assert event.source.startswith("/benches/rig/devices/")
        assert body["samples"]
