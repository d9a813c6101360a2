"""RabbitMQ 4's way: queues and bindings are declared over its management node before links are attached."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from amqp_line import COMMANDS, posted, running
from amqp_peer import Peer
from waiting import until

from protocols.amqp.client import Address, Delivery, LinkState
from protocols.amqp.codec import Message, ULong, encode
from protocols.amqp.links import SenderLink
from protocols.amqp.types import decode_value

NODE = "/management"


class Node:
    """A management node that gives each request a status, and notes it."""

    def __init__(self, peer: Peer) -> None:
        self.requests: list[tuple[str, str, object]] = []
        self.status = "201"
        self.words = b""
        self.late = False
        self._peer = peer

    def take(self, delivery: Delivery) -> None:
        target = delivery.link.peer_target
        if target is None or target.address != NODE:
            delivery.accept()
            return
        request = delivery.message()
        body, _ = decode_value(delivery.data, delivery.data.index(b"\0\x53\x77") + 3)
        self.requests.append((request.subject or "", request.to or "", body))
        if self.late:
            self._answer(ULong(0))
        self._answer(request.message_id)

    def _answer(self, number: object) -> None:
        answer = Message(
            subject=self.status,
            correlation_id=number,  # type: ignore[arg-type]
            body=self.words,
            body_kind="string",
        )
        self._peer.sender_to(NODE).send(encode(answer), None)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    one = Peer()
    one.product = {"product": "RabbitMQ", "version": "4.0.5"}
    async with one.listening():
        yield one


@pytest.fixture
def node(peer: Peer) -> Node:
    one = Node(peer)
    peer.settle = one.take
    return one


def attached(peer: Peer, address: str) -> Callable[[], bool]:
    """Whether a receiver of the client's is attached to an address."""

    def found() -> bool:
        return any(
            isinstance(link, SenderLink)
            and link.peer_source is not None
            and link.peer_source.address == address
            for link in peer.links
        )

    return found


async def test_a_command_queue_is_declared_before_it_is_used(peer: Peer, node: Node) -> None:
    node.late = True  # an answer to nobody's request comes first
    async with running(peer.url) as line:
        line.client.receiver(COMMANDS, Delivery.accept, credit=10)  # type: ignore[arg-type]
        await until(attached(peer, f"/queues/{COMMANDS.name}"))
        assert node.requests == [
            (
                "PUT",
                f"/queues/{COMMANDS.name}",
                {"durable": True, "exclusive": False, "auto_delete": False, "arguments": {}},
            )
        ]
        assert (await posted(line, COMMANDS)).kind == "accepted"


async def test_a_subscription_has_a_queue_of_its_own_that_is_bound(peer: Peer, node: Node) -> None:
    async with running(peer.url) as line:
        receiver = line.client.receiver(Address("hil.rig.events.*", "topic"), Delivery.accept, 10)  # type: ignore[arg-type]
        await receiver.attached()
        (put, queue, _), (post, bindings, binding) = node.requests
        assert (put, post, bindings) == ("PUT", "POST", "/bindings")
        assert isinstance(binding, dict)
        assert binding["binding_key"] == "hil.rig.events.*"
        assert f"/queues/{binding['destination_queue']}" == queue == receiver.node


async def test_replies_have_a_named_queue(peer: Peer, node: Node) -> None:
    async with running(peer.url) as line:
        address = await line.client.open_replies(Delivery.accept)  # type: ignore[arg-type]
        assert address.startswith("/queues/hilgate.replies.")
        assert node.requests[0][1] == address


@pytest.mark.parametrize(("status", "warned"), [("409", False), ("403", True), ("500", True)])
async def test_a_declaration_that_fails_is_said_and_the_link_tried_all_the_same(
    peer: Peer, node: Node, capsys: pytest.CaptureFixture[str], status: str, warned: bool
) -> None:
    """409: someone made the queue with other arguments. 403: an operator made it, and we may not."""
    node.status, node.words = status, b"no permission"
    async with running(peer.url) as line:
        await line.client.receiver(COMMANDS, Delivery.accept, 10).attached()  # type: ignore[arg-type]
    assert ("no permission" in capsys.readouterr().out) is warned


async def test_without_a_management_node_links_are_tried_all_the_same(peer: Peer, node: Node) -> None:
    peer.refuse = {NODE}
    async with running(peer.url) as line:
        await line.client.receiver(COMMANDS, Delivery.accept, 10).attached()  # type: ignore[arg-type]
        assert not node.requests


async def test_a_mute_management_node_is_not_waited_for_for_ever(peer: Peer) -> None:
    peer.settle = None
    async with running(peer.url, connect_timeout=0.2) as line:
        await line.until(LinkState.CONNECTED)
        async with asyncio.timeout(5):
            await line.client.receiver(COMMANDS, Delivery.accept, 10).attached()  # type: ignore[arg-type]


async def test_a_connection_that_is_lost_while_declaring_is_made_again(peer: Peer, node: Node) -> None:
    def lose(delivery: Delivery) -> None:
        peer.settle = node.take
        peer.connections[-1].abort()

    peer.settle = lose
    async with running(peer.url) as line:
        others = Address("hil.other.commands", "queue")  # its declaration waits for the first one's answer
        receivers = [line.client.receiver(one, Delivery.accept, 10) for one in (COMMANDS, others)]  # type: ignore[arg-type]
        async with asyncio.timeout(5):
            for receiver in receivers:
                await receiver.attached()
        assert len(peer.connections) == 2
