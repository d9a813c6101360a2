"""A whole agent, commanded and watched by a client in another language that knows only the documents."""

import asyncio
import contextlib
import itertools
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import agents
import pytest
import rhea
from brokers import Artemis, Broker, RabbitMQ3, RabbitMQ4
from lines import unique

pytestmark = pytest.mark.peer("rhea")
SAMPLES, RESULT = "io.hilgate.samples.v1", "io.hilgate.result.v1"
AVAILABILITY, DEVICE = "io.hilgate.availability.v1", "io.hilgate.device.v1"
Meet = Callable[..., contextlib.AbstractAsyncContextManager[tuple[rhea.RheaDesk, str]]]


@pytest.fixture
def meet(any_broker: Broker, tmp_path: Path, need: Callable[[str, str | None, str], None]) -> Meet:
    """A desk and a running agent at the same broker."""
    need("rhea", rhea.why_missing(), rhea.GET)

    @contextlib.asynccontextmanager
    async def both(*options: str, durable: bool = False) -> AsyncIterator[tuple[rhea.RheaDesk, str]]:
        bench = unique("rig")
        config = await asyncio.to_thread(agents.desk_config, any_broker, bench, durable=durable)
        async with rhea.desk(config) as desk:
            await desk.until_ready()
            async with agents.agent(bench, any_broker.url, tmp_path / "store", *options):
                yield desk, bench
            await desk.until(lambda: _offline(desk, bench), "the last word of a clean stop")

    return both


def _availability(desk: rhea.RheaDesk, bench: str) -> list[dict[str, Any]]:
    return [line for line in desk.messages(AVAILABILITY) if line["data"]["bench"] == bench]


def _offline(desk: rhea.RheaDesk, bench: str) -> dict[str, Any] | None:
    said = _availability(desk, bench)
    return said[-1] if said and said[-1]["data"]["state"] == "offline" else None


async def until_available(desk: rhea.RheaDesk, bench: str) -> None:
    await desk.until(
        lambda: any(line["data"]["state"] == "available" for line in _availability(desk, bench)), "available"
    )


def holes(events: list[dict[str, Any]]) -> dict[str, list[int]]:
    """Missing sequences of each source between the first and the last that was heard."""
    heard: dict[str, set[int]] = defaultdict(set)
    for event in events:
        heard[event["source"]].add(int(event["sequence"]))
    missing = {source: sorted(set(range(min(seen), max(seen))) - seen) for source, seen in heard.items()}
    return {source: numbers for source, numbers in missing.items() if numbers}


async def test_events_say_what_the_documents_promise(meet: Meet) -> None:
    async with meet() as (desk, bench):
        await until_available(desk, bench)
        await desk.until(lambda: len(desk.messages(SAMPLES)) > 20, "events")
        availability, samples = _availability(desk, bench), desk.messages(SAMPLES)
        assert {line["priority"] for line in availability} == {7}
        # rhea leaves out what has its default value; 4 is the default priority.
        assert {line.get("priority", 4) for line in samples} == {4}
        # Three heartbeats, less the time that the broker kept it, which a busy one may do for long.
        await desk.until(
            lambda: any(line.get("ttl", 0) > 1000 for line in _availability(desk, bench)), "a ttl"
        )
        assert max(line.get("ttl", 0) for line in _availability(desk, bench)) <= 1500
        for line in samples:
            assert line["source"] in {
                f"/benches/{bench}/devices/{name}" for name in ("pump-plc", "valve-block")
            }
            assert (line["specversion"], line["mode"]) == ("1.0", "sil")
            assert line["id"] == line["message_id"]
            assert line["durable"] is True
            assert line["content_type"] == "application/json"
        assert {line["epoch"] for line in samples} == {availability[0]["data"]["epoch"]}
        assert {line["data"]["state"] for line in desk.messages(DEVICE)} == {"online"}
        assert holes([*samples, *desk.messages(DEVICE)]) == {}


async def test_commands_are_answered(meet: Meet) -> None:
    async with meet() as (desk, bench):
        await until_available(desk, bench)

        async def ask(
            body: Any, message_id: Any = None, heard_as: Any = None, **fields: Any
        ) -> dict[str, Any]:
            message_id = message_id or unique("c")
            desk.send(body, message_id, **fields)
            return (await desk.answers(heard_as or message_id))[0]

        pong = await ask({"op": "ping"})
        assert (pong["status"], pong["op"], pong["code"]) == ("ok", "ping", "")
        described = await ask({"op": "describe"})
        setpoint = described["data"]["devices"]["pump-plc"]["points"]["setpoint"]
        limits = {"min": 0, "max": 3000, "max_rate": 1000, "safe": 0}
        assert setpoint == {"unit": "rpm", "type": "number", "access": "rw"} | limits

        written = await ask(
            {"op": "write", "device": "pump-plc", "values": {"setpoint": 1234.5}, "verify": True}
        )
        assert written["data"] == {"values": {"setpoint": 1234.5}, "read_back": {"setpoint": 1234.5}}
        read = await ask({"op": "read", "device": "pump-plc", "points": ["setpoint"]})
        assert read["data"]["values"] == {"setpoint": 1234.5}

        refused = {
            "out-of-range": {"op": "write", "device": "pump-plc", "values": {"setpoint": 3001}},
            "read-only": {"op": "write", "device": "pump-plc", "values": {"speed": 1}},
            "bad-type": {"op": "write", "device": "pump-plc", "values": {"setpoint": "fast"}},
            "unknown-device": {"op": "read", "device": "oven"},
            "unknown-point": {"op": "read", "device": "pump-plc", "points": ["colour"]},
            "unknown-op": {"op": "explode"},
            "malformed": "this is not JSON",
        }
        for code, body in refused.items():
            answer = await ask(body)
            assert (answer["status"], answer["code"]) == ("rejected", code), answer
            assert answer["message"]
        uuid = "00112233445566778899aabbccddeeff"
        assert (await ask({"op": "ping"}, {"uuid": uuid}, {"hex": uuid}))["status"] == "ok"
        assert (await ask({"op": "ping"}, {"ulong": 4711}, 4711))["status"] == "ok"
        assert (await ask({"op": "ping"}, "c-9", "my-own", correlation_id="my-own"))["status"] == "ok"


async def test_a_command_that_comes_again_gets_its_first_result_again(meet: Meet) -> None:
    async with meet() as (desk, bench):
        await until_available(desk, bench)
        for count, value in enumerate((1000, 2000), 1):
            desk.send({"op": "write", "device": "pump-plc", "values": {"setpoint": value}}, "once")
            await desk.answers("once", count)
        first, second = await desk.answers("once", 2)
        assert first == second
        assert first["data"]["values"] == {"setpoint": 1000}
        desk.send({"op": "read", "device": "pump-plc", "points": ["setpoint"]}, "look")
        assert (await desk.answers("look"))[0]["data"]["values"] == {"setpoint": 1000}


async def test_results_without_reply_to_go_to_the_topic(meet: Meet) -> None:
    async with meet() as (desk, bench):
        await until_available(desk, bench)
        desk.send({"op": "ping"}, "quiet", no_reply_to=True)
        await desk.answers("quiet")
        assert [line["reply"] for line in desk.messages(RESULT) if line["correlation_id"] == "quiet"] == [
            False
        ]


ENDINGS: list[tuple[type[Broker], str]] = [
    (Artemis, "restart"),
    (Artemis, "power cut"),
    (RabbitMQ3, "restart"),
    (RabbitMQ3, "power cut"),
    (RabbitMQ4, "restart"),
    (RabbitMQ4, "power cut"),
]


@pytest.mark.parametrize(
    ("any_broker", "ending"),
    ENDINGS,
    indirect=["any_broker"],
    ids=[f"{kind.name}-{ending}" for kind, ending in ENDINGS],
)
async def test_no_event_is_lost_over_a_broker_s_restart(meet: Meet, any_broker: Broker, ending: str) -> None:
    async with meet(durable=True) as (desk, bench):
        await until_available(desk, bench)
        await desk.until(lambda: len(desk.messages(SAMPLES)) > 30, "events before")
        down = time.time()
        await asyncio.to_thread(any_broker.stop if ending == "restart" else any_broker.kill)
        epoch, before = desk.messages(SAMPLES)[-1]["epoch"], len(desk.messages(SAMPLES))
        await asyncio.to_thread(any_broker.start)
        up = time.time()
        await desk.until_ready(times=2)
        await desk.until(lambda: len(desk.messages(SAMPLES)) > before + 60, "events after")
        events = [*desk.messages(SAMPLES), *desk.messages(DEVICE)]
        assert holes(events) == {}
        assert {event["epoch"] for event in events} == {epoch}
        # The bench went on meanwhile, and what it measured came later.
        times = [sample["time"] for event in desk.messages(SAMPLES) for sample in event["data"]["samples"]]
        assert (
            len([one for one in times if down < datetime.fromisoformat(one[:26] + "+00:00").timestamp() < up])
            > 20
        )
        for name in ("pump-plc", "valve-block"):
            samples = [one for one in desk.messages(SAMPLES) if one["source"].endswith(name)]
            order = dict.fromkeys(int(one["sequence"]) for one in samples)
            assert all(later > earlier for earlier, later in itertools.pairwise(order))
        desk.send({"op": "ping"}, "after")
        assert (await desk.answers("after"))[0]["status"] == "ok"
