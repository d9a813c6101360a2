"""Our AMQP client with each real broker, in good times: topics, queues, replies, large messages, TLS."""

import asyncio

import pytest
from brokers import Broker, RabbitMQ4
from lines import connected, queue, subscribed, topic, unique

from protocols.amqp.client import ConnectionLost, LinkRefused, Sender, TooLarge
from protocols.amqp.codec import Message, encode
from protocols.tls import Files

pytestmark = pytest.mark.peer("brokers")


async def test_flavour_is_recognised(broker: Broker) -> None:
    async with connected(broker.url) as line:
        await line.until_state("connected")
        assert line.client.flavour == broker.flavour


async def test_every_subscriber_gets_a_copy_and_wildcards_match_words(broker: Broker) -> None:
    bench = unique("t")
    async with (
        connected(broker.url) as agent,
        connected(broker.url) as first,
        connected(broker.url) as second,
    ):
        everything = first.inbox(topic(f"hil.{bench}.events.*"))
        pump = second.inbox(topic(f"hil.{bench}.events.pump"))
        await everything.receiver.attached()
        await pump.receiver.attached()
        for device in ("pump", "valve", "pump"):
            sender = agent.client.sender(topic(f"hil.{bench}.events.{device}"))
            outcome = await agent.send(
                sender, Message(body=device.encode(), message_id="m", properties={"a": "b"})
            )
            assert outcome.kind == "accepted"
            sender.close()
        assert [message.body for message in await everything.until(3)] == [b"pump", b"valve", b"pump"]
        assert [message.body for message in await pump.until(2)] == [b"pump", b"pump"]
        assert pump.messages[0].properties == {"a": "b"}
        assert pump.messages[0].message_id == "m"


async def test_a_topic_that_nobody_hears_is_no_failure(broker: Broker) -> None:
    async with connected(broker.url) as line:
        sender = line.client.sender(topic(f"hil.{unique('t')}.events.pump"))
        outcome = await line.send(sender, Message(body=b"x"))
        assert outcome.kind == ("unrouted" if broker.flavour == "rabbitmq" else "accepted")


async def test_commands_wait_for_the_agent_and_come_once(broker: Broker) -> None:
    name = f"hil.{unique('t')}.commands"
    async with connected(broker.url) as client:
        sender = client.client.sender(queue(name))
        for number in range(5):
            assert (await client.send(sender, Message(body=b"%d" % number, durable=True))).kind == "accepted"
    async with connected(broker.url) as agent:
        inbox = agent.inbox(queue(name))
        assert [message.body for message in await inbox.until(5)] == [b"0", b"1", b"2", b"3", b"4"]
    async with connected(broker.url) as again, connected(broker.url) as client:
        inbox = again.inbox(queue(name))
        await client.send(client.client.sender(queue(name)), Message(body=b"last"))
        assert [message.body for message in await inbox.until(1)] == [b"last"]


async def test_an_unsettled_command_comes_again(broker: Broker) -> None:
    name = f"hil.{unique('t')}.commands"
    async with connected(broker.url) as client:
        await client.send(
            client.client.sender(queue(name)), Message(body=b"x", message_id="m1", durable=True)
        )
        async with connected(broker.url) as first:
            assert (await first.inbox(queue(name), settle=False).until(1))[0].message_id == "m1"
        async with connected(broker.url) as second:
            inbox = second.inbox(queue(name), settle=False)
            assert (await inbox.until(1))[0].message_id == "m1"
            assert inbox.deliveries[0].release()
            assert (await inbox.until(2))[1].message_id == "m1"
            assert inbox.deliveries[1].reject("hilgate:malformed", "not JSON")
            await client.send(client.client.sender(queue(name)), Message(body=b"y", message_id="m2"))
            assert (await inbox.until(3))[2].message_id == "m2"


async def test_settling_out_of_order(broker: Broker) -> None:
    name = f"hil.{unique('t')}.commands"
    async with connected(broker.url) as client:
        sender = client.client.sender(queue(name))
        for number in range(6):
            await client.send(sender, Message(body=b"%d" % number, durable=True))
        async with connected(broker.url) as first:
            inbox = first.inbox(queue(name), settle=False)
            await inbox.until(6)
            for number in (4, 0, 2):
                assert inbox.deliveries[number].accept()
        async with connected(broker.url) as second:
            rest = await second.inbox(queue(name)).until(3)
            assert sorted(message.body for message in rest) == [b"1", b"3", b"5"]


async def test_results_go_to_reply_to(broker: Broker) -> None:
    name = f"hil.{unique('t')}.commands"
    async with connected(broker.url) as client, connected(broker.url) as agent:
        reply_to, results = await client.replies()
        command = Message(body=b"{}", message_id="c1", reply_to=reply_to, durable=True)
        await client.send(client.client.sender(queue(name)), command)
        asked = (await agent.inbox(queue(name)).until(1))[0]
        assert asked.reply_to == reply_to
        answer = encode(Message(body=b"done", correlation_id="c1", to=asked.reply_to))
        outcome = await agent.client.reply(asked.reply_to, answer)
        assert outcome.kind == "accepted", outcome
        await client.until(lambda: results, "the result")
        assert (results[0].body, results[0].correlation_id) == (b"done", "c1")


# Artemis makes addresses for an administrator's account; RabbitMQ 3 accepts every publish.
GONE = {
    "artemis": ("00000000-dead-beef-0000-000000000000", "accepted"),
    "rabbitmq": ("/queues/hil.gone", "unrouted"),
    "rabbitmq3": ("/queue/hil.gone", "accepted"),
}


async def test_a_reply_to_that_is_gone_ends_in_an_outcome_and_harms_nothing(broker: Broker) -> None:
    name = f"hil.{unique('t')}.commands"
    async with connected(broker.url) as line:
        inbox = line.inbox(queue(name))
        sender = line.client.sender(queue(name))
        await line.send(sender, Message(body=b"before"))
        await inbox.until(1)
        states = len(line.states)
        reply_to, kind = GONE[broker.flavour]
        async with asyncio.timeout(15):
            outcome = await line.client.reply(reply_to, encode(Message(body=b"done", to=reply_to)))
        assert outcome.kind == kind
        await line.send(sender, Message(body=b"after"))
        assert (await inbox.until(2))[1].body == b"after"
        assert line.states[states:] == []


@pytest.mark.parametrize("size", [256 * 1024, 3 * 1024 * 1024])
async def test_large_messages_pass_whole(broker: Broker, size: int) -> None:
    name = f"hil.{unique('t')}.commands"
    body = bytes(range(256)) * (size // 256)
    async with connected(broker.url) as line:
        inbox = line.inbox(queue(name))
        assert (
            await line.send(line.client.sender(queue(name)), Message(body=body, durable=True))
        ).kind == "accepted"
        assert (await inbox.until(1))[0].body == body


@pytest.mark.parametrize("broker", [RabbitMQ4], indirect=True, ids=["rabbitmq4"])
async def test_a_message_over_the_broker_s_limit_is_not_sent(broker: Broker) -> None:
    """RabbitMQ 4 offers a max-message-size of 16 MiB and ends the session over a larger one."""
    name = f"hil.{unique('t')}.commands"
    async with connected(broker.url) as line:
        inbox = line.inbox(queue(name))
        sender = line.client.sender(queue(name))
        await sender.ready()
        with pytest.raises(TooLarge, match="16"):
            sender.post(encode(Message(body=bytes(17 * 1024 * 1024))))
        await line.send(sender, Message(body=b"after"))
        assert (await inbox.until(1))[0].body == b"after"


async def test_many_messages_keep_their_order(broker: Broker) -> None:
    name = f"hil.{unique('t')}.events.pump"
    count = 2000
    async with connected(broker.url) as line, connected(broker.url) as client:
        inbox = client.inbox(topic(name), credit=200)
        await inbox.receiver.attached()
        sender = line.client.sender(topic(name))
        outcomes = []
        for number in range(count):
            await sender.ready()
            outcomes.append(sender.post(encode(Message(body=b"%d" % number, durable=True))))
        async with asyncio.timeout(30):
            kinds = {outcome.kind for outcome in await asyncio.gather(*outcomes)}
        assert kinds == {"accepted"}
        assert [int(message.body) for message in await inbox.until(count)] == list(range(count))


async def test_more_links_than_the_broker_allows_sessions(broker: Broker) -> None:
    """RabbitMQ 4 allows 64 sessions a connection: beyond that, links share one."""
    async with connected(broker.url) as line:

        async def publish(number: int) -> str:
            sender = line.client.sender(topic(f"hil.many.events.d{number}"))
            return (await line.send(sender, Message(body=b"x"))).kind

        kinds = set(await asyncio.gather(*(publish(number) for number in range(150))))
        assert kinds == {"unrouted" if broker.flavour == "rabbitmq" else "accepted"}
        assert [state for state, _ in line.states] == ["connecting", "connected"]


async def test_a_wrong_password_is_said_clearly_and_tried_again(broker: Broker) -> None:
    tls = Files(ca=broker.certificates.authority)
    async with connected(
        broker.tls_url, username="hil-agent", password="wrong", tls=tls, backoff_min=0.1
    ) as line:
        reason = await line.until(
            lambda: next((why for state, why in line.states if state == "connecting" and why), ""), "a reason"
        )
        assert "does not accept the credentials of user hil-agent" in reason, reason
        assert not line.client.connected


async def test_a_broker_whose_certificate_is_not_trusted_is_not_talked_to(broker: Broker) -> None:
    async with connected(
        broker.tls_url, username="hil-agent", password="agent-secret", backoff_min=0.1
    ) as line:
        reason = await line.until(
            lambda: next((why for state, why in line.states if state == "connecting" and why), ""), "a reason"
        )
        assert "certificate" in reason, reason


async def test_the_documented_permissions_suffice(broker: Broker) -> None:
    """Over TLS, with PLAIN, as docs/brokers.md says."""
    bench = unique("t")
    tls = Files(ca=broker.certificates.authority)
    agent_user, client_user = broker.users.agent, broker.users.client
    async with (
        connected(broker.tls_url, username=agent_user.name, password=agent_user.password, tls=tls) as agent,
        connected(
            broker.tls_url, username=client_user.name, password=client_user.password, tls=tls
        ) as client,
    ):
        commands = agent.inbox(queue(f"hil.{bench}.commands"))
        rivals = agent.inbox(topic("hil.availability"))
        events = client.inbox(topic(f"hil.{bench}.events.*"))
        reply_to, results = await client.replies()
        asked = Message(body=b"{}", message_id="c1", reply_to=reply_to)
        await client.send(client.client.sender(queue(f"hil.{bench}.commands")), asked)
        await commands.until(1)
        assert (
            await agent.client.reply(reply_to, encode(Message(body=b"done", to=reply_to)))
        ).kind == "accepted"
        await client.until(lambda: results, "the result")
        for inbox, name in ((events, f"hil.{bench}.events.pump"), (rivals, "hil.availability")):
            await subscribed(agent, inbox, name)


@pytest.mark.parametrize("broker", [RabbitMQ4], indirect=True, ids=["rabbitmq4"])
async def test_a_refused_declaration_does_not_spoil_the_next(broker: Broker) -> None:
    """RabbitMQ 4 ends the management session over what the user may not configure."""
    tls = Files(ca=broker.certificates.authority)
    user = broker.users.client
    async with connected(broker.tls_url, username=user.name, password=user.password, tls=tls) as client:
        forbidden = client.inbox(queue("payroll"))
        with pytest.raises(LinkRefused, match="payroll"):
            await forbidden.receiver.attached()
        name = f"hil.{unique('t')}.commands"
        allowed = client.inbox(queue(name))
        await client.send(client.client.sender(queue(name)), Message(body=b"x"))
        await allowed.until(1)


async def test_a_client_may_not_pose_as_an_agent(broker: Broker) -> None:
    tls = Files(ca=broker.certificates.authority)
    user = broker.users.client
    async with connected(broker.tls_url, username=user.name, password=user.password, tls=tls) as client:
        sender = client.client.sender(topic(f"hil.{unique('t')}.events.pump"))
        assert await fate(sender) != "accepted"


async def fate(sender: Sender) -> str:
    """What becomes of a message, or `refused` where it cannot even be sent."""
    async with asyncio.timeout(10):
        try:
            await sender.ready()
            outcome = await sender.post(encode(Message(body=b"forged")))
        except (LinkRefused, ConnectionLost) as error:
            return f"refused: {error}"
        return outcome.kind
