"""The whole agent with a CAN bus (python-can's virtual): both views over AMQP, commands, safety, losses."""

import asyncio
import itertools
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import can
import pytest
from can_driven import DATABASE
from desk import Desk, RunAgent, desk

from protocols.can.frame import Frame
from sim.broker import Broker

PROFILE = """
profile: bench
devices:
  drive:
    protocol: can
    connection: {{interface: virtual, channel: {channel}}}
    database: drive.dbc
    batch: {{window: 20ms}}
    frames: {frames}
    messages:
      Command: {{send: {send}}}
      Status: {{timeout: {stale_after}}}
    points:
      speed:    {{signal: Speed}}
      state:    {{signal: State}}
      setpoint: {{signal: Setpoint, access: rw, max: 2000, max_rate: 1000, safe: 0}}
      enable:   {{signal: Enable, access: rw, safe: false}}
"""
_channels = (f"agent-{os.getpid()}-{n}" for n in itertools.count())


@pytest.fixture
def node(tmp_path: Path) -> Iterator[can.BusABC]:
    """Another node on a bus of the test's own."""
    (tmp_path / "drive.dbc").write_text(DATABASE)
    with can.Bus(interface="virtual", channel=next(_channels)) as bus:
        yield bus


def profile(node: can.BusABC, frames: str = "{}", send: str = "write", stale_after: str = "60s") -> str:
    return PROFILE.format(channel=node.channel_id, frames=frames, send=send, stale_after=stale_after)  # type: ignore[attr-defined]  # of the virtual bus


def status(speed: int, state: int) -> can.Message:
    data = (speed * 10).to_bytes(2, "little") + bytes([0, 0, state, 60, 0, 0])
    return can.Message(arbitration_id=256, data=data, is_extended_id=False)


def frames_of(one: Desk, device: str = "drive") -> list[Frame]:
    """All frames of a device's events; read by the formats' documents."""
    found = []
    for event in one.events:
        if event.type == "io.hilgate.frames.v1" and event.source.endswith(f"/{device}"):
            assert event.datacontenttype == "application/vnd.tcpdump.pcap"
            assert event.data[:4] == b"\xa1\xb2\x3c\x4d"
            first = struct.unpack_from(">II", event.data, 24)
            assert event.time_ns // 10**6 == (first[0] * 10**9 + first[1]) // 10**6
            for at in range(24, len(event.data), 32):
                sec, nsec, size, _, can_id, length = struct.unpack_from(">IIIIIB", event.data, at)
                assert size == 16
                payload = event.data[at + 24 : at + 24 + length]
                found.append(Frame(sec * 10**9 + nsec, can_id, payload))
    return found


async def test_both_views_of_one_bus_arrive_whole_and_in_order(
    broker: Broker, run_agent: RunAgent, node: can.BusABC
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(profile(node), broker.url, sil=False):
        await one.until_state("available")
        for n in range(200):
            node.send(status(n, n % 3))
        await one.until(lambda: len(frames_of(one)) == len(one.samples("drive")) == 200)
        values = [sample["values"] for sample in one.samples("drive")]
        assert [value["speed"] for value in values] == [float(n) for n in range(200)]
        assert [value["state"] for value in values[:4]] == ["off", "on", "fault", "off"]
        assert [int.from_bytes(frame.data[:2], "little") // 10 for frame in frames_of(one)] == list(
            range(200)
        )
        sequences = one.sequences("/benches/rig/devices/drive")
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))


async def test_a_command_is_on_the_bus_and_in_the_events(
    broker: Broker, run_agent: RunAgent, node: can.BusABC
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(profile(node), broker.url, sil=False):
        await one.until_state("available")
        result = await one.ask("write", device="drive", values={"enable": True}, verify=True)
        assert (result["status"], result["data"]["read_back"]) == ("ok", {"enable": True})
        on_bus = await asyncio.to_thread(node.recv, 5)
        assert on_bus is not None
        assert (on_bus.arbitration_id, bytes(on_bus.data)) == (512, bytes.fromhex("0000010000000000"))
        await one.until(lambda: frames_of(one))
        assert frames_of(one)[0].can_id == 512
        sent = await one.ask("call", device="drive", method="send", args={"id": "0x7DF", "data": "01"})
        assert sent["data"]["id"] == "7DF"
        refused = await one.ask("call", device="drive", method="send", args={"id": "0x7DF", "data": "0" * 18})
        assert (refused["status"], refused["code"]) == ("rejected", "out-of-range")
        refused = await one.ask("write", device="drive", values={"setpoint": 2001})
        assert (refused["status"], refused["code"]) == ("rejected", "out-of-range")


async def test_describe_says_what_the_database_says(
    broker: Broker, run_agent: RunAgent, node: can.BusABC
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(profile(node), broker.url, sil=False):
        await one.until_state("available")
        drive = (await one.ask("describe"))["data"]["devices"]["drive"]
        assert drive["points"]["speed"]["unit"] == "rpm"
        assert drive["points"]["state"]["choices"] == ["off", "on", "fault"]
        assert "send" in drive["methods"]


async def test_making_safe_ends_what_was_set_going(
    broker: Broker, run_agent: RunAgent, node: can.BusABC
) -> None:
    async with desk(broker.url, "rig") as one:
        async with run_agent(profile(node, send="cyclic"), broker.url, sil=False):
            await one.until_state("available")
            await one.ask("write", device="drive", values={"enable": True})
            beat = {"start": "beat", "id": "0x111", "period": "5ms"}
            assert (await one.ask("call", device="drive", method="periodic", args=beat))["status"] == "ok"
            safe = await one.ask("safe")
            outcome = [point["verified"] for point in safe["data"]["points"]]
            assert (safe["status"], safe["data"]["safe"], outcome) == ("ok", True, [True, True])
            listed = await one.ask("call", device="drive", method="periodic", args={"list": True})
            assert listed["data"] == {"running": {}}
        await one.until_state("offline")
    seen: list[can.Message] = []
    while (message := node.recv(0)) is not None:
        seen.append(message)
    last = [message for message in seen if message.arbitration_id == 512][-1]
    assert bytes(last.data) == bytes(8)


async def test_frames_over_the_rate_are_said_as_a_loss(
    broker: Broker, run_agent: RunAgent, node: can.BusABC
) -> None:
    text = profile(node, frames="{max_rate: 5}")
    async with desk(broker.url, "rig") as one, run_agent(text, broker.url, sil=False):
        await one.until_state("available")
        for n in range(100):
            node.send(status(n, 0))

        def lost() -> int:
            return sum(body["count"] for _, body in one.of_type("loss"))

        await one.until(lambda: len(one.samples("drive")) >= 100 and lost() + len(frames_of(one)) == 100)
        assert lost() > 0
        assert {body["reason"] for _, body in one.of_type("loss")} == {"rate-limit"}


async def test_a_bus_that_falls_silent_is_stale_and_degraded(
    broker: Broker, run_agent: RunAgent, node: can.BusABC
) -> None:
    async with (
        desk(broker.url, "rig") as one,
        run_agent(profile(node, stale_after="150ms"), broker.url, sil=False),
    ):
        await one.until_state("available")
        node.send(status(1, 1))
        await one.until(
            lambda: any(sample.get("bad", {}).get("speed") == "stale" for sample in one.samples("drive"))
        )
        degraded = await one.until_state("degraded")
        assert "no message of the profile" in degraded["devices"]["drive"]["reason"]
        read = await one.ask("read", device="drive", points=["speed"])
        assert (read["status"], read["code"]) == ("failed", "timeout")


async def test_what_was_lost_before_a_stop_is_said_at_the_stop(
    broker: Broker, run_agent: RunAgent, node: can.BusABC
) -> None:
    text = profile(node, frames="{max_rate: 5, own: false}")
    async with desk(broker.url, "rig") as one:
        async with run_agent(text, broker.url, sil=False, heartbeat="1h"):
            await one.until_state("available")
            for n in range(100):
                node.send(status(n, 0))
            await one.until(lambda: len(one.samples("drive")) >= 100)
            assert one.of_type("loss") == []
        await one.until_state("offline")
        ((_, loss),) = one.of_type("loss")
        assert (loss["reason"], loss["count"]) == ("rate-limit", 100 - len(frames_of(one)))


async def test_a_limited_point_that_nobody_sent_yet_takes_a_safe_state_first(
    broker: Broker, run_agent: RunAgent, node: can.BusABC
) -> None:
    async with desk(broker.url, "rig") as one, run_agent(profile(node), broker.url, sil=False):
        await one.until_state("available")
        unknown = await one.ask("write", device="drive", values={"setpoint": 500})
        assert (unknown["status"], unknown["code"]) == ("failed", "timeout")
        assert "nobody has sent setpoint" in unknown["message"]
        assert (await one.ask("safe"))["status"] == "ok"
        assert (await one.ask("write", device="drive", values={"setpoint": 500}))["status"] == "ok"
        too_fast = await one.ask("write", device="drive", values={"setpoint": 1900})
        assert (too_fast["status"], too_fast["code"]) == ("rejected", "out-of-range")
