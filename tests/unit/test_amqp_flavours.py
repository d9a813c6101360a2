"""Logical addresses in each broker's words."""

from typing import Any

import pytest

from protocols.amqp.flavours import Address, Flavour, FlavourName, choose, detect

COMMANDS = Address("hil.rig-07.commands", "queue")
EVENTS = Address("hil.rig-07.events.pump", "topic")
ALL_EVENTS = Address("hil.rig-07.events.*", "topic")


@pytest.mark.parametrize(
    ("properties", "flavour"),
    [
        ({"product": "RabbitMQ", "version": "4.0.5"}, "rabbitmq"),
        ({"product": "RabbitMQ", "version": "3.10.8"}, "rabbitmq3"),
        ({"product": "RabbitMQ"}, "rabbitmq"),
        ({"product": "apache-activemq-artemis", "version": "2.38.0"}, "artemis"),
        ({"product": "hilgate-broker"}, "embedded"),
        ({"product": "qpid-dispatch-router"}, "generic"),
        ({"product": None, "version": 4}, "generic"),
        ({}, "generic"),
    ],
)
def test_the_open_frame_tells_the_flavour(properties: dict[str, Any], flavour: str) -> None:
    assert detect(properties) == flavour
    assert choose("auto", properties).name == flavour
    assert choose("generic", properties).name == "generic"


@pytest.mark.parametrize("name", ["artemis", "embedded", "generic"])
def test_plain_names_with_a_capability(name: FlavourName) -> None:
    flavour = Flavour(name)
    target = flavour.sender(EVENTS).terminus
    assert (target.address, target.capabilities) == ("hil.rig-07.events.pump", ("topic",))
    source = flavour.receiver(COMMANDS, "own").terminus
    assert (source.address, source.capabilities) == ("hil.rig-07.commands", ("queue",))
    assert flavour.receiver(Address("", "dynamic"), "own").terminus.dynamic
    assert flavour.dynamic_nodes


def test_prefixes_are_for_generic_brokers_only() -> None:
    generic = Flavour("generic", queue_prefix="q/", topic_prefix="t/")
    assert generic.sender(EVENTS).terminus.address == "t/hil.rig-07.events.pump"
    assert generic.receiver(COMMANDS, "own").terminus.address == "q/hil.rig-07.commands"
    assert generic.sender(Address("made-by-client", "direct")).terminus.address == "made-by-client"
    assert Flavour("artemis", "q/", "t/").sender(EVENTS).terminus.address == EVENTS.name


def test_rabbitmq_declares_before_it_attaches() -> None:
    flavour = Flavour("rabbitmq")
    assert flavour.sender(EVENTS).terminus.address == "/exchanges/amq.topic/hil.rig-07.events.pump"
    assert not flavour.sender(EVENTS).declarations
    commands = flavour.receiver(COMMANDS, "own")
    assert commands.terminus.address == "/queues/hil.rig-07.commands"
    assert [(made.method, made.path) for made in commands.declarations] == [
        ("PUT", "/queues/hil.rig-07.commands")
    ]
    assert commands.declarations[0].body["durable"]
    events = flavour.receiver(ALL_EVENTS, "own.1")
    assert events.terminus.address == "/queues/own.1"
    queue, binding = events.declarations
    assert queue.body["exclusive"]
    assert binding.body == {
        "source": "amq.topic",
        "destination_queue": "own.1",
        "binding_key": "hil.rig-07.events.*",
        "arguments": {},
    }
    assert flavour.replies("own.2").terminus.address == "/queues/own.2"
    assert not flavour.dynamic_nodes


def test_rabbitmq_addresses_are_percent_encoded() -> None:
    assert (
        Flavour("rabbitmq").sender(Address("a/b c", "topic")).terminus.address
        == "/exchanges/amq.topic/a%2Fb%20c"
    )


def test_rabbitmq_3_has_its_own_addresses() -> None:
    flavour = Flavour("rabbitmq3")
    assert flavour.sender(EVENTS).terminus.address == "/topic/hil.rig-07.events.pump"
    assert flavour.receiver(ALL_EVENTS, "own").terminus.address == "/topic/hil.rig-07.events.*"
    assert flavour.receiver(COMMANDS, "own").terminus.address == "/queue/hil.rig-07.commands"
    assert flavour.replies("own").terminus.address == "/topic/own"


def test_a_reply_on_rabbitmq_3_does_not_declare_the_asker_s_queue() -> None:
    flavour = Flavour("rabbitmq3")
    assert flavour.sender(Address("/queue/mine", "direct")).terminus.address == "/amq/queue/mine"
    assert flavour.sender(Address("/topic/mine", "direct")).terminus.address == "/topic/mine"


def test_only_rabbitmq_4_says_released_for_unrouted() -> None:
    names: list[FlavourName] = ["artemis", "embedded", "generic", "rabbitmq", "rabbitmq3"]
    assert [name for name in names if Flavour(name).released_is_unrouted] == ["rabbitmq"]
