"""docs/asyncapi.yaml is valid, agrees with docs/wire.md, and real messages are what it says."""

import copy
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from desk import Desk, RunAgent, desk
from jsonschema import Draft7Validator, FormatChecker
from referencing import Registry
from referencing.jsonschema import DRAFT7
from waiting import until

from protocols.amqp.client import Address, Delivery
from protocols.amqp.codec import Message
from protocols.amqp.types import Int, Timestamp
from sim.broker import Broker

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text())
WORDS = (ROOT / "docs" / "wire.md").read_text()
SPECIFICATION = ROOT / "tests/tools/js/node_modules/@asyncapi/specs/schemas/3.0.0.json"
MESSAGES: dict[str, dict[str, Any]] = DOCUMENT["components"]["messages"]
AMQP_TYPES = {"string": str, "timestamp": Timestamp, "int": Int}


def strict(node: Any) -> Any:
    """The document with every object closed: consumers ignore unknown fields, but the agent sends none."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: strict(value) for key, value in node.items()}
    if node.get("type") == "object" and "properties" in node:
        closed.setdefault("additionalProperties", False)
    return closed


def validator(reference: str, document: dict[str, Any] = DOCUMENT) -> Draft7Validator:
    registry: Registry[Any] = Registry().with_resource("urn:document", DRAFT7.create_resource(document))
    return Draft7Validator(
        {"$ref": f"urn:document#{reference}"}, registry=registry, format_checker=FormatChecker()
    )


def walk(node: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield path, str(key), value
            yield from walk(value, f"{path}/{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from walk(value, f"{path}/{index}")


def test_it_is_asyncapi() -> None:
    if not SPECIFICATION.exists():
        message = "the AsyncAPI schemas are missing; to get them: make peers (or tests/tools/get-peers js)"
        if os.environ.get("HILGATE_REQUIRE_PEERS") == "1":
            pytest.fail(message)
        pytest.skip(message)
    errors = Draft7Validator(json.loads(SPECIFICATION.read_text())).iter_errors(DOCUMENT)
    assert [f"{error.json_path}: {error.message[:200]}" for error in errors] == []


def test_references_lead_somewhere() -> None:
    references = [value for _, key, value in walk(DOCUMENT) if key == "$ref"]
    assert references
    for reference in references:
        node = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            assert step in node, reference
            node = node[step]


def test_no_text_was_cut_at_a_comma() -> None:
    """In YAML's flow mappings an unquoted comma ends a text, and the rest becomes a key without a value."""
    keys = [f"{path}/{key}" for path, key, value in walk(DOCUMENT) if value is None]
    assert keys == [
        "/channels/replies/address",
        "/components/messages/availability/examples/0/payload/lease",
        "/components/messages/safety/examples/0/payload/points/1/verified",
        "/components/messages/safety/examples/0/payload/points/2/verified",
    ]


EXAMPLES = [(name, example) for name, one in MESSAGES.items() for example in one.get("examples", [])]


@pytest.mark.parametrize(
    ("name", "example"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_examples_are_what_they_show(name: str, example: dict[str, Any]) -> None:
    validator(f"/components/messages/{name}/payload").validate(example["payload"])


def test_schemas_refuse_what_is_wrong() -> None:
    good = MESSAGES["availability"]["examples"][0]["payload"]
    check = validator("/components/messages/availability/payload")
    for field, value in {
        "state": "fine",
        "revision": 0,
        "time": "yesterday",
        "bench": "No!",
        "devices": [],
    }.items():
        assert not check.is_valid(good | {field: value}), field
    result = MESSAGES["result"]["examples"][0]["payload"]
    assert not validator("/components/messages/result/payload").is_valid(result | {"code": "busy"})
    assert not validator("/components/messages/command/payload").is_valid(
        {"op": "write", "device": "pump-plc"}
    )


def of_words() -> Iterator[tuple[str, Any]]:
    """The JSON examples of wire.md with the message or the schema each is of."""
    marks = {
        "samples": "samples",
        "revision": "availability",
        "status": "result",
        "count": "loss",
        "cause": "safety",
        "id": "heldLease",
        "holder": "lease",
        "device": "device",
    }
    for block in re.findall(r"```json\n(.*?)```", WORDS, re.DOTALL):
        body = json.loads(block)
        yield next(name for mark, name in marks.items() if mark in body), body


@pytest.mark.parametrize(
    ("name", "body"), list(of_words()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_examples_in_words_are_valid_too(name: str, body: Any) -> None:
    part = f"messages/{name}/payload" if name in MESSAGES else f"schemas/{name}"
    validator(f"/components/{part}", strict(DOCUMENT)).validate(body)


def test_words_and_schemas_use_the_same_names() -> None:
    names = {name for one in MESSAGES.values() if (name := one.get("name"))}
    names |= {channel["address"] for channel in DOCUMENT["channels"].values() if channel["address"]}
    names |= {value for _, key, values in walk(DOCUMENT) if key == "enum" for value in values}
    spelled = {name.replace("{", "<").replace("}", ">") for name in names}
    assert {name for name in spelled if f"`{name}`" not in WORDS} == EXPLAINED_IN_PASSING


EXPLAINED_IN_PASSING = {
    *("ro", "rw", "wo"),
    *("boolean", "integer", "number", "string", "enumeration", "array", "object"),
}
"""Of op `describe`: the profile's words."""

PROFILE = """
profile: bench
labels: {site: muc}
devices:
  pump-plc:
    protocol: modbus
    connection: {transport: tcp, host: plc-1.bench.example, port: 502, unit: 1}
    address_base: 0
    poll: 20ms
    ttl: 30s
    points:
      speed:    {table: input, address: 0, type: float32, order: ABCD, unit: rpm}
      state:    {table: input, address: 4, labels: {7: busy}}
      setpoint: {table: holding, address: 10, scale: 0.1, access: rw, min: 0, max: 3000, safe: 0, unit: rpm}
      guarded:  {table: holding, address: 20, access: rw, safe: 0, max_rate: 100,
                 requires: {speed: {min: -1}, state: busy}}
  powertrain:
    protocol: can
    connection: {channel: can0}
    frames: {}
    simulation: {bus: virtual}
"""

SEND: dict[str, Any] = {
    "op": "call",
    "device": "powertrain",
    "method": "send",
    "args": {"id": "0x7DF", "data": "01"},
}
COMMANDS: list[dict[str, Any]] = [
    {"op": "ping"},
    {"op": "describe"},
    {"op": "read", "device": "pump-plc"},
    {"op": "write", "device": "pump-plc", "values": {"setpoint": 12}, "verify": True},
    {"op": "write", "device": "pump-plc", "values": {"setpoint": 1e9}},
    {"op": "call", "device": "pump-plc", "method": "identify"},
    SEND,
    {"op": "disable", "reason": "test"},
    {"op": "enable"},
    {"op": "safe", "reason": "test"},
]


async def test_real_messages_are_what_it_says(broker: Broker, run_agent: RunAgent) -> None:
    seen: list[Message] = []

    def keep(delivery: Delivery) -> None:
        seen.append(delivery.message())
        delivery.accept()

    async with desk(broker.url, "rig") as one:
        for address in ("hil.availability", "hil.rig.#"):
            await one.client.receiver(Address(address, "topic"), keep, credit=1000).attached()
        async with run_agent(PROFILE, broker.url, outbox_age="2s") as agent:
            await one.until_state("available")
            for command in COMMANDS:
                validator("/components/schemas/command").validate(command)
                await one.ask(**command)
            await lease(one)
            while not any(event.type == "io.hilgate.frames.v1" for event in one.events):
                await one.ask(**SEND)  # on a slow machine the first may have been too old
            broker.withhold_credit()
            await until(agent.store.outbox.losses)
            broker.withhold_credit(False)
            await one.until(lambda: one.of_type("loss"))
        await one.until_state("offline")
    messages = [*seen, *(message for message, _ in one.results)]
    kinds = {check(message) for message in messages}
    assert kinds == {
        f"io.hilgate.{kind}.v1"
        for kind in ("samples", "frames", "availability", "device", "lease", "loss", "safety", "result")
    }


async def lease(one: Desk) -> None:
    """Goes through a lease, as the document has it."""
    check = validator("/components/schemas/command")
    asked: dict[str, Any] = {
        "op": "reserve",
        "holder": "ci",
        "ttl_s": 60,
        "devices": ["pump-plc", "powertrain"],
        "dte": "d",
        "deadman_s": 9,
    }
    check.validate(asked)
    token = (await one.ask(**asked))["data"]["lease"]
    await one.until_state("leased")
    for op in ("renew", "release"):
        command = {"op": op, "lease": token}
        check.validate(command)
        await one.ask(**command)


CLOSED = strict(copy.deepcopy(DOCUMENT))
BY_NAME = {one["name"]: key for key, one in MESSAGES.items() if "name" in one}


def check(message: Message) -> str:
    """Holds a message against the document, and gives its event type."""
    attributes = DOCUMENT["components"]["schemas"]["eventProperties"]["properties"]
    for name, value in message.properties.items():
        assert type(value) is AMQP_TYPES[attributes[name].get("x-amqp-type", "string")], name
    validator("/components/schemas/eventProperties", CLOSED).validate(message.properties)
    kind = str(message.properties["cloudEvents:type"])
    declared = MESSAGES[BY_NAME[kind]]
    assert (message.priority, message.content_type) == (declared["x-amqp-priority"], declared["contentType"])
    assert message.message_id == message.properties["cloudEvents:id"] == message.properties["_AMQ_DUPL_ID"]
    if message.content_type == "application/json":
        validator(f"/components/messages/{BY_NAME[kind]}/payload", CLOSED).validate(json.loads(message.body))
    else:
        assert (message.body[:4].hex(), int.from_bytes(message.body[20:24])) == ("a1b23c4d", 227)
    return kind
