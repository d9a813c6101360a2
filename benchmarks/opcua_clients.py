"""Clients under measurement by `benchmarks.opcua_changes`, each in a process of its own: NAME PORT ITEMS.

A client subscribes to all items and says "ready" when it has a value of each. Each line that it reads is
answered with how many changes it has had so far.
"""

import asyncio
import logging
import sys
from collections.abc import Sequence
from typing import Any

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds

from protocols.base import DeviceState, Sample
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.driver import OpcuaDriver

PUBLISHING_MS = 100
_QUEUE = 100
_AT_ONCE = 500


def profile(port: int, items: int) -> dict[str, Any]:
    """The server of `benchmarks.opcua_server` as a device of a profile."""
    return {
        "protocol": "opcua",
        "connection": {"url": f"opc.tcp://127.0.0.1:{port}", "security": {"policy": "None"}},
        "subscription": {"publishing_interval": f"{PUBLISHING_MS}ms"},
        "sampling_interval": "0ms",
        "queue": _QUEUE,
        "points": {f"v{n}": {"node": f"ns=2;s=v{n}"} for n in range(items)},
    }


class _Count:
    """Counts changes: as a sink of ours, and as the handler of a subscription of asyncua's."""

    def __init__(self) -> None:
        self.seen = 0

    def sample(self, sample: Sample) -> None:
        self.seen += len(sample.values)

    def state(self, state: DeviceState, reason: str = "") -> None:
        """Nothing is made of it."""

    def frames(self, body: bytes, time_ns: int) -> None:
        """There are none."""

    def missed(self, cycles: int, period: float) -> None:
        """Nothing is polled."""

    def lost(self, count: int, reason: str) -> None:
        raise AssertionError(reason)

    async def kept(self) -> None:
        """At once: what the store costs is measured with the whole agent."""

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        self.seen += 1

    def published(self, result: ua.PublishResult) -> None:
        """What asyncua has of a message, its values looked at."""
        for part in result.NotificationMessage.NotificationData or ():
            for one in part.MonitoredItems:
                self.seen += one.Value.Value.Value is not None


async def _say(count: _Count, items: int) -> None:
    while count.seen < items:
        await asyncio.sleep(0.05)
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(count.seen, flush=True)


async def _hilgate(port: int, items: int) -> None:
    count = _Count()
    driver = OpcuaDriver(OpcuaDevice.model_validate(profile(port, items)).named("bench"))
    await driver.connect()
    run = asyncio.create_task(driver.run(count))
    await _say(count, items)
    run.cancel()
    await driver.close()


async def _handler(port: int, items: int) -> None:
    """asyncua's own subscription, which calls its handler with each change."""
    count = _Count()
    async with Client(f"opc.tcp://127.0.0.1:{port}") as client:
        subscription = await client.create_subscription(PUBLISHING_MS, count)
        nodes = [client.get_node(f"ns=2;s=v{n}") for n in range(items)]
        for at in range(0, items, _AT_ONCE):
            await subscription.subscribe_data_change(
                nodes[at : at + _AT_ONCE], queuesize=_QUEUE, sampling_interval=ua.Double(0)
            )
        await _say(count, items)


async def _callback(port: int, items: int) -> None:
    """asyncua's services alone: a callback with each message as it was decoded. Nothing can be cheaper."""
    count = _Count()
    async with Client(f"opc.tcp://127.0.0.1:{port}") as client:
        asked = ua.CreateSubscriptionParameters(
            ua.Duration(PUBLISHING_MS), ua.Counter(10_000), ua.Counter(3_000), ua.Counter(0), True, ua.Byte(0)
        )
        made = await client.uaclient.create_subscription(asked, count.published)
        requests = [_request(n) for n in range(items)]
        for at in range(0, items, _AT_ONCE):
            await client.uaclient.create_monitored_items(
                _asking(made.SubscriptionId, requests[at : at + _AT_ONCE])
            )
        await _say(count, items)


def _request(number: int) -> ua.MonitoredItemCreateRequest:
    return ua.MonitoredItemCreateRequest(
        ua.ReadValueId(ua.NodeId(ua.String(f"v{number}"), ua.Int16(2)), ua.IntegerId(AttributeIds.Value)),
        ua.MonitoringMode.Reporting,
        ua.MonitoringParameters(ua.IntegerId(number), ua.Duration(0), None, ua.Counter(_QUEUE), True),
    )


def _asking(
    number: int, requests: Sequence[ua.MonitoredItemCreateRequest]
) -> ua.CreateMonitoredItemsParameters:
    both = ua.TimestampsToReturn.Both
    return ua.CreateMonitoredItemsParameters(ua.IntegerId(number), both, list(requests))


def main() -> None:
    """Runs the client that the command line names."""
    logging.disable(logging.CRITICAL)
    name, port, items = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    clients = {"driver": _hilgate, "handler": _handler, "callback": _callback}
    asyncio.run(clients[name](port, items))


if __name__ == "__main__":
    main()
