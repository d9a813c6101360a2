"""One subscription, and how monitored items are made in as many as the server's limits ask for."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Final

from asyncua import ua
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError

from protocols.opcua.items import Item, Readings
from protocols.opcua.plan import pieces
from protocols.opcua.session import Session

WRAP: Final = 0xFFFF_FFFF
"""The last sequence number; 1 follows."""
_NOTIFICATIONS: Final = 1000
"""Most notifications of one message: decoding a message holds up the loop."""
_DAY_S: Final = 86400.0
_BAD: Final = 0x8000_0000


class Subscription:
    """One subscription as the server has it."""

    def __init__(self, made: ua.CreateSubscriptionResult, now: float) -> None:
        self.number: int = made.SubscriptionId
        self.interval: float = max(0.0, min(made.RevisedPublishingInterval / 1000, _DAY_S))  # of NaN: 0
        self.keep_alive: int = made.RevisedMaxKeepAliveCount
        self.lifetime: int = made.RevisedLifetimeCount
        self.items: list[Item] = []
        self.taken = 0
        """Sequence number of the last message that was taken."""
        self.heard = now

    @property
    def expected(self) -> int:
        """Sequence number of the next message: there is no 0 (OPC 10000-4, Subscription Service Set)."""
        return after(self.taken)

    @property
    def silence(self) -> float:
        """Seconds after which the server has to have said something."""
        return self.interval * self.keep_alive


def after(number: int) -> int:
    """The sequence number that follows."""
    return 1 if number >= WRAP else number + 1


async def make(
    session: Session, readings: Readings, items: Sequence[Item], hold: Callable[[Subscription], None]
) -> None:
    """Has the server monitor items; `hold` is given each subscription before it has any of them.

    An item that the server does not monitor says so by its status.

    Raises:
        DriverError: the server makes no subscription, or did not answer.
    """
    limits = session.limits
    most = min(session.device.subscription.max_items, limits.items_per_subscription or WRAP)
    waiting = list(items)
    while waiting:
        subscription = await _create(session)
        hold(subscription)
        full = False
        while waiting and len(subscription.items) < most and not full:
            room = most - len(subscription.items)
            piece = list(next(iter(pieces(waiting[:room], limits.monitor))))
            waiting = waiting[len(piece) :]
            await _monitor(session, readings, subscription, piece)
            subscription.items += [one for one in piece if one.status < _BAD]
            turned_away = [one for one in piece if one.status == StatusCodes.BadTooManyMonitoredItems]
            if full := bool(turned_away):
                waiting = turned_away + waiting  # another subscription may have room
        if full and not subscription.items:
            for one in waiting:
                one.status = StatusCodes.BadTooManyMonitoredItems
            return


async def _create(session: Session) -> Subscription:
    asked = session.device.subscription
    keep_alive = max(1, round(asked.keep_alive / asked.publishing_interval))
    lifetime = max(3 * keep_alive, math.ceil(asked.lifetime / asked.publishing_interval))
    request = ua.CreateSubscriptionRequest(
        Parameters=ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=ua.Duration(asked.publishing_interval * 1000),
            RequestedLifetimeCount=ua.Counter(lifetime),
            RequestedMaxKeepAliveCount=ua.Counter(keep_alive),
            MaxNotificationsPerPublish=ua.Counter(_NOTIFICATIONS),
            PublishingEnabled=True,
        )
    )
    with session.errors("make a subscription"):
        answer = await session.ask(request, ua.CreateSubscriptionResponse)
    return Subscription(answer.Parameters, asyncio.get_running_loop().time())


async def _monitor(
    session: Session, readings: Readings, subscription: Subscription, items: Sequence[Item]
) -> None:
    for item in items:
        readings.watch(item)
    params = ua.CreateMonitoredItemsParameters(
        ua.IntegerId(subscription.number),
        ua.TimestampsToReturn.Both,
        [item.request(session.device) for item in items],
    )
    with session.errors(f"monitor {len(items)} items"):
        results = await session.services.create_monitored_items(params)
        if len(results) != len(items):
            raise UaError(f"it gave {len(results)} results of {len(items)} items")
    for item, result in zip(items, results, strict=True):
        item.made(result)
