"""What Artemis can do for a control plane that comes later."""

import json
from pathlib import Path

import agents
import pytest
from brokers import Artemis
from lines import connected, topic, unique

from protocols.amqp.client import Address
from protocols.amqp.codec import Message

pytestmark = pytest.mark.peer("brokers")


@pytest.mark.parametrize("broker", [Artemis], indirect=True, ids=["artemis"])
async def test_a_late_control_plane_sees_every_bench_at_once(broker: Artemis, tmp_path: Path) -> None:
    """The last-value queue of docs/brokers.md."""
    first, second = unique("rig"), unique("rig")
    async with (
        connected(broker.url) as early,
        agents.agent(first, broker.url, tmp_path / "first", "--heartbeat", "60s"),
        agents.agent(second, broker.url, tmp_path / "second", "--heartbeat", "60s"),
    ):
        heard = early.inbox(topic("hil.availability"))

        def available() -> bool:
            bodies = [json.loads(message.body) for message in heard.messages]
            return {first, second} <= {body["bench"] for body in bodies if body["state"] == "available"}

        await early.until(available, "both benches")
        async with connected(broker.url) as late:
            inbox = late.inbox(Address("hil.availability::hil.availability.last", "direct"), settle=False)
            await late.until(
                lambda: {first, second} <= {bench_of(message) for message in inbox.messages}, "both"
            )
            mine = [bench_of(message) for message in inbox.messages if bench_of(message) in (first, second)]
            assert sorted(mine) == sorted((first, second))


def bench_of(message: Message) -> str:
    return str(json.loads(message.body)["bench"])
