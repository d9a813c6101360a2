"""Artemis drops what is sent twice by the identity that our events carry."""

import time

import pytest
from brokers import Artemis
from lines import connected, queue, unique

from protocols.amqp.cloudevents import Event, from_message, to_message

pytestmark = pytest.mark.peer("brokers")


@pytest.mark.parametrize("broker", [Artemis], indirect=True, ids=["artemis"])
@pytest.mark.parametrize("structured", [False, True])
async def test_an_event_sent_twice_arrives_once(broker: Artemis, structured: bool) -> None:
    name = f"hil.{unique('t')}.commands"
    first = Event(unique("e"), "/benches/rig", "io.hilgate.device.v1", time.time_ns(), 1, 1, "sil", b"{}")
    last = Event(unique("e"), "/benches/rig", "io.hilgate.device.v1", time.time_ns(), 2, 1, "sil", b"{}")
    async with connected(broker.url) as line:
        inbox = line.inbox(queue(name))
        sender = line.client.sender(queue(name))
        for event in (first, first, last):
            assert (await line.send(sender, to_message(event, structured=structured))).kind == "accepted"
        await inbox.until(2)
        assert [from_message(message).id for message in inbox.messages] == [first.id, last.id]
