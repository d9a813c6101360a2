"""What the broker holds and has done, for `hilgate broker` and for tests."""

import msgspec

from sim.broker.queue import Queue
from sim.broker.router import Counters, Router


class QueueStatistics(msgspec.Struct, frozen=True):
    """One queue now; that of a subscription carries its `subscription` pattern."""

    name: str
    subscription: str | None
    durable: bool
    """It stays when its consumer leaves."""
    messages: int
    bytes: int
    unsettled: int
    """How many of the messages are with a consumer."""
    consumers: int
    full: bool


class Statistics(msgspec.Struct, frozen=True):
    """The whole broker. A copy: it does not change any more."""

    connections: int
    counters: Counters
    queues: tuple[QueueStatistics, ...]

    def queue(self, name: str) -> QueueStatistics | None:
        """The queue of this name, if there is one."""
        return next((queue for queue in self.queues if queue.name == name), None)


def collect(router: Router, connections: int) -> Statistics:
    """Reads everything at one moment."""
    queues = tuple(_queue(router, queue) for queue in router.queues())
    return Statistics(connections, msgspec.structs.replace(router.counters), queues)


def _queue(router: Router, queue: Queue) -> QueueStatistics:
    subscription = router.subscriptions.get(queue)
    return QueueStatistics(
        name=queue.name,
        subscription=subscription.pattern if subscription else None,
        durable=subscription is None or subscription.identity is not None,
        messages=queue.messages,
        bytes=queue.bytes,
        unsettled=queue.unsettled,
        consumers=len(queue.consumers),
        full=queue.full,
    )
