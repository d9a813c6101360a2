"""What each broker wants logical addresses to look like (wire.md section 1). Pure."""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast
from urllib.parse import quote

import msgspec

from protocols.amqp.performatives import Terminus

FlavourName: TypeAlias = Literal["artemis", "embedded", "generic", "rabbitmq", "rabbitmq3"]

_TOPIC_EXCHANGE = "amq.topic"
_DURABLE = 2
"""Terminus durability `unsettled-state`."""


class Address(msgspec.Struct, frozen=True):
    """A logical address.

    `topic`: a copy to every subscriber; a receiver may use `*` (one word) and `#` (any number of words).
    `queue`: each message to one receiver. `direct`: an address of the broker's own, such as a reply-to,
    used as it is. `dynamic`: a node that the broker makes and names (receivers only; no name).
    """

    name: str
    kind: Literal["topic", "queue", "direct", "dynamic"]


class Declaration(msgspec.Struct, frozen=True):
    """A request to RabbitMQ's management node that must be made before a link is attached."""

    method: str
    path: str
    body: Mapping[str, Any]


class Route(msgspec.Struct, frozen=True):
    """Where a link really goes."""

    terminus: Terminus
    declarations: tuple[Declaration, ...] = ()


def detect(properties: Mapping[str, Any]) -> FlavourName:
    """The flavour of a broker by the `product` and `version` of its open frame."""
    product = str(properties.get("product", "")).lower()
    if product == "rabbitmq":
        major = re.match(r"\d+", str(properties.get("version", "")))
        return "rabbitmq3" if major is not None and int(major[0]) < 4 else "rabbitmq"
    if "artemis" in product:
        return "artemis"
    return "embedded" if product == "hilgate-broker" else "generic"


class Flavour:
    """One broker's way with addresses."""

    def __init__(self, name: FlavourName, queue_prefix: str = "", topic_prefix: str = "") -> None:
        self.name = name
        self._prefixes = {"queue": queue_prefix, "topic": topic_prefix} if name == "generic" else {}

    @property
    def released_is_unrouted(self) -> bool:
        """RabbitMQ 4 answers `released` where no queue is bound: sent again it would fare no better."""
        return self.name == "rabbitmq"

    @property
    def dynamic_nodes(self) -> bool:
        """Whether the broker makes reply nodes on demand."""
        return self.name not in ("rabbitmq", "rabbitmq3")

    def sender(self, address: Address) -> Route:
        """The target of a sender."""
        if address.kind == "direct":
            # RabbitMQ 3 would declare the queue, and refuse where its owner made it another way.
            existing = self.name == "rabbitmq3" and address.name.startswith("/queue/")
            return Route(Terminus(f"/amq{address.name}" if existing else address.name))
        if self.name == "rabbitmq":
            if address.kind == "topic":
                return Route(Terminus(f"/exchanges/{_TOPIC_EXCHANGE}/{quote(address.name, safe='')}"))
            return _queue(address.name, _SHARED)
        return self._plain(address)

    def receiver(self, address: Address, own_queue: str) -> Route:
        """The source of a receiver; `own_queue` names the queue it makes where a topic needs one."""
        if address.kind == "direct":
            return Route(Terminus(address.name))
        if address.kind == "dynamic":
            return Route(Terminus(dynamic=True))
        if self.name == "rabbitmq":
            if address.kind == "queue":
                return _queue(address.name, _SHARED)
            return _queue(own_queue, _OWN, _binding(own_queue, address.name))
        return self._plain(address)

    def replies(self, own_queue: str) -> Route:
        """The source of a receiver for replies without dynamic nodes; its address is the reply-to."""
        if self.name == "rabbitmq":
            return _queue(own_queue, _OWN)
        # A queue of RabbitMQ 3's would outlive its owner; a topic's goes with the link.
        return self._plain(Address(own_queue, "topic" if self.name == "rabbitmq3" else "queue"))

    def _plain(self, address: Address) -> Route:
        if self.name == "rabbitmq3":
            durability = _DURABLE if address.kind == "queue" else 0
            return Route(Terminus(f"/{address.kind}/{address.name}", durability=durability))
        name = self._prefixes.get(address.kind, "") + address.name
        return Route(Terminus(name, capabilities=(address.kind,)))


_SHARED: Mapping[str, Any] = {"durable": True, "exclusive": False, "auto_delete": False, "arguments": {}}
_OWN: Mapping[str, Any] = {"durable": False, "exclusive": True, "auto_delete": True, "arguments": {}}


def _queue(name: str, kind: Mapping[str, Any], *more: Declaration) -> Route:
    path = f"/queues/{quote(name, safe='')}"
    return Route(Terminus(path), (Declaration("PUT", path, kind), *more))


def _binding(queue: str, key: str) -> Declaration:
    body = {"source": _TOPIC_EXCHANGE, "destination_queue": queue, "binding_key": key, "arguments": {}}
    return Declaration("POST", "/bindings", body)


def choose(
    setting: str, properties: Mapping[str, Any], queue_prefix: str = "", topic_prefix: str = ""
) -> Flavour:
    """The flavour that was set, or with `auto` the one that the broker's open frame tells."""
    name = detect(properties) if setting == "auto" else cast(FlavourName, setting)
    return Flavour(name, queue_prefix, topic_prefix)
