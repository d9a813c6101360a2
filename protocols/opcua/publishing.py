"""Subscriptions: listened to, and kept over a lost link."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from asyncua import ua
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaStatusCodeError

from protocols.base import DriverError, Sink
from protocols.opcua import alarms
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.errors import UNDECODABLE, Unsound
from protocols.opcua.items import Item, Readings
from protocols.opcua.session import Session
from protocols.opcua.subscription import WRAP, Subscription, make
from protocols.opcua.types import dictionary_of

_log = structlog.get_logger("opcua")

_AHEAD: Final = 2
"""Publish requests that wait at the server, one more for each further subscription up to `_MOST_AHEAD`."""
_MOST_AHEAD: Final = 8
_RESENT: Final = 1000
"""Most messages that one gap is filled with."""
_HALF: Final = 0x8000_0000


class Subscriptions:
    """All subscriptions of a device. Lives as long as its driver."""

    def __init__(self, session: Session, readings: Readings) -> None:
        self._session = session
        self._device: OpcuaDevice = session.device
        self._readings = readings
        self._held: dict[int, Subscription] = {}
        self._of_session = 0
        self._acks: list[ua.SubscriptionAcknowledgement] = []
        self._any = asyncio.Event()
        self._turn = asyncio.Lock()
        self._mend: asyncio.Queue[Callable[[Sink], Awaitable[None]]] = asyncio.Queue()
        self._workers = 0
        self._unrecalled = False
        """Whether it was said that the server does not tell of alarms that are there already."""

    def held(self) -> Sequence[Subscription]:
        """The subscriptions that the server has, as far as we know."""
        return list(self._held.values())

    def forget(self) -> None:
        """The server has none any more."""
        self._held.clear()
        self._any.clear()

    async def make(self, items: Sequence[Item]) -> None:
        """Has the server monitor items, and tell of alarms that are there already.

        An item that it does not monitor says so by its status.

        Raises:
            DriverError: the server makes no subscription, or did not answer.
        """
        before = set(self._held)
        await make(self._session, self._readings, items, self._hold)
        for subscription in self.held():
            events = any(item.point.events for item in subscription.items)
            if events and subscription.number not in before:
                await self._recall(subscription)

    def _hold(self, subscription: Subscription) -> None:
        self._held[subscription.number] = subscription
        self._of_session = self._session.number
        self._any.set()

    # -- a link that was lost -------------------------------------------------------------------

    async def restore(self, sink: Sink) -> None:
        """Takes up on a new link what the server still holds, with what it held back; makes anew what not.

        OPC 10000-4: the same session has its subscriptions, another one has them transferred; messages
        that did not arrive are asked for again.

        Raises:
            DriverError: the server did not answer.
        """
        if not self._held:
            return
        self._any.clear()  # nothing is asked for before what was sent already is here: it would come first
        self._acks.clear()
        alive = await (self._enable() if self._session.number == self._of_session else self._transfer())
        self._of_session = self._session.number
        now = asyncio.get_running_loop().time()
        lost = []
        for subscription in self.held():
            if subscription.number in alive:
                subscription.heard = now
                await self._resend(subscription, sink)
            else:
                lost.append(self._held.pop(subscription.number))
        if self._held:
            self._any.set()
        for subscription in lost:
            await self._again(subscription, sink)

    async def _enable(self) -> set[int]:
        """Which of the subscriptions the server still has."""
        numbers = list(self._held)
        params = ua.SetPublishingModeParameters(True, [ua.IntegerId(one) for one in numbers])
        try:
            with self._session.errors("publish"):
                results = await self._session.services.set_publishing_mode(params)
        except DriverError as error:
            if error.code != "device-error":
                raise
            return set()
        return {number for number, result in zip(numbers, results, strict=False) if result.value < _HALF}

    async def _transfer(self) -> set[int]:
        """Which subscriptions of the old session the server gives to the new one."""
        numbers = list(self._held)
        params = ua.TransferSubscriptionsParameters([ua.IntegerId(one) for one in numbers], False)
        try:
            with self._session.errors("transfer subscriptions"):
                results = await self._session.services.transfer_subscriptions(params)
        except DriverError as error:
            if error.code != "device-error":  # servers need not know how
                raise
            return set()
        return {
            number
            for number, result in zip(numbers, results, strict=False)
            if result.StatusCode.value < _HALF
        }

    async def _resend(self, subscription: Subscription, sink: Sink) -> None:
        """Takes the messages that the server sent and we did not get, until it has no more."""
        for _ in range(_RESENT):
            message = await self._republished(subscription, subscription.expected)
            if message is None:
                return
            self._take(subscription, message, sink)

    async def _republished(self, subscription: Subscription, number: int) -> ua.NotificationMessage | None:
        """A message once more; None: the server has it no more."""
        try:
            with self._session.errors("send a message again"):
                message = await self._session.services.session.republish(subscription.number, number)
        except DriverError as error:
            if error.code != "device-error":
                raise
            return None
        return message if message.NotificationData and message.SequenceNumber == number else None

    async def _again(self, subscription: Subscription, sink: Sink) -> None:
        """Makes anew a subscription that the server lost, with all that its items asked for."""
        with suppress(DriverError), self._session.errors("delete a subscription"):
            await self._session.services.delete_subscriptions([subscription.number])  # if it was only mute
        sink.lost(1, "subscription-lost")
        _log.warning("subscription lost", device=self._device.name, items=len(subscription.items))
        await self.make(subscription.items)

    # -- listening ------------------------------------------------------------------------------

    async def run(self, sink: Sink) -> None:
        """Takes what is reported, until cancelled.

        Raises:
            DriverError: the session was lost.
        """
        self._workers = 0
        self._turn = asyncio.Lock()
        self._mend = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._mender(sink))
            while True:
                await self._any.wait()
                wanted = min(_AHEAD + len(self._held) - 1, _MOST_AHEAD)
                while self._workers < wanted:
                    self._workers += 1
                    group.create_task(self._publish(sink))
                await asyncio.sleep(self._device.subscription.publishing_interval)

    async def _publish(self, sink: Sink) -> None:
        """Keeps one publish request at the server, and takes what answers it; in turn, as answers came."""
        while True:
            await self._any.wait()
            acks, self._acks = self._acks, []
            request = ua.PublishRequest(Parameters=ua.PublishParameters(acks))
            try:
                with self._session.errors("publish"):
                    answer = await self._asked(request, sink)
            except _TooMany:
                self._acks += acks
                if self._workers > 1:
                    self._workers = min(self._workers - 1, _MOST_AHEAD)
                    await asyncio.Event().wait()  # the server holds fewer requests: this one is not needed
                await asyncio.sleep(self._device.subscription.publishing_interval)
                continue
            if answer is not None:
                async with self._turn:
                    await self._answered(answer, sink)

    async def _asked(self, request: ua.PublishRequest, sink: Sink) -> ua.PublishResult | None:
        """The answer to a publish request; None: there is nothing in it."""
        try:
            async with asyncio.timeout(self._patience()):
                answer: ua.PublishResult = (
                    await self._session.ask(request, ua.PublishResponse, timeout=0)
                ).Parameters
        except TimeoutError:
            return None  # the server lost or aborted it: without another nothing would come any more
        except UaStatusCodeError as error:
            match error.code:
                case StatusCodes.BadTimeout:
                    return None
                case StatusCodes.BadTooManyPublishRequests:
                    raise _TooMany from error
                case StatusCodes.BadNoSubscription:
                    for one in self.held():
                        self._lose(one)
                    return None
            raise
        except Unsound:
            raise
        except UNDECODABLE as error:
            sink.lost(1, "undecodable")
            _log.warning("undecodable message", device=self._device.name, error=f"{error!r:.200}")
            return None
        return answer

    def _patience(self) -> float:
        """Seconds in which a publish request has to be answered: each waits for those before it."""
        longest = max((one.silence for one in self.held()), default=0.0)
        return self._workers * longest + self._device.timeout

    async def _answered(self, answer: ua.PublishResult, sink: Sink) -> None:
        subscription = self._held.get(answer.SubscriptionId)
        if subscription is None:
            return
        subscription.heard = asyncio.get_running_loop().time()
        message = answer.NotificationMessage
        number = message.SequenceNumber
        ahead = (number - subscription.expected) % (WRAP + 1)
        if 0 < ahead < _HALF:
            await self._fill(subscription, number, ahead, answer.AvailableSequenceNumbers or (), sink)
        if not message.NotificationData:
            return  # a keep-alive: its number is that of the next message
        if ahead < _HALF:
            self._take(subscription, message, sink)
        else:
            self._acknowledge(subscription, number)

    async def _fill(
        self, subscription: Subscription, until: int, missing: int, kept: Sequence[int], sink: Sink
    ) -> None:
        """Asks for messages that did not come, and counts those that the server has no more."""
        first, found = subscription.expected, 0
        there = sorted({(one - first) % (WRAP + 1) for one in kept[:_RESENT]})
        for offset in there:
            if offset >= missing:
                break
            number = first + offset if first + offset <= WRAP else first + offset - WRAP
            message = await self._republished(subscription, number)
            if message is not None:
                self._take(subscription, message, sink)
                found += 1
        if missing > found:
            sink.lost(missing - found, "missed-notifications")
        subscription.taken = WRAP if until == 1 else until - 1

    def _take(self, subscription: Subscription, message: ua.NotificationMessage, sink: Sink) -> None:
        subscription.taken = message.SequenceNumber
        self._acknowledge(subscription, message.SequenceNumber)
        readings = self._readings
        for part in message.NotificationData:
            if isinstance(part, ua.DataChangeNotification):
                for sample in readings.changes(part.MonitoredItems or ()):
                    sink.sample(sample)
            elif isinstance(part, ua.EventNotificationList):
                samples, refresh = readings.events(part.Events or (), dictionary_of(self._session))
                for sample in samples:
                    sink.sample(sample)
                if refresh:
                    self._mend.put_nowait(functools.partial(self._refresh, subscription))
            elif isinstance(part, ua.StatusChangeNotification) and part.Status.value >= _HALF:
                self._lose(subscription)
        if overflows := readings.taken_overflows():
            sink.lost(overflows, "queue-overflow")

    def _acknowledge(self, subscription: Subscription, number: int) -> None:
        ack = ua.SubscriptionAcknowledgement(ua.IntegerId(subscription.number), ua.Counter(number))
        self._acks.append(ack)

    def _lose(self, subscription: Subscription) -> None:
        """Has a subscription made anew that the server has no more."""
        if self._held.pop(subscription.number, None) is not None:
            if not self._held:
                self._any.clear()
            self._mend.put_nowait(functools.partial(self._again, subscription))

    async def _recall(self, subscription: Subscription) -> None:
        try:
            await alarms.refresh(self._session, [subscription.number])
        except DriverError as error:
            if error.code == "disconnected":
                raise
            if not self._unrecalled:  # servers need not have alarms, nor let everybody ask for them
                _log.info("alarms are told as they change", device=self._device.name, why=str(error))
            self._unrecalled = True

    async def _refresh(self, subscription: Subscription, _: Sink) -> None:
        await alarms.refresh(self._session, [subscription.number])

    async def _mender(self, sink: Sink) -> None:
        while True:
            mend = await self._mend.get()
            try:
                await mend(sink)
            except DriverError as error:
                if error.code == "disconnected":
                    raise
                _log.warning("not mended", device=self._device.name, error=str(error))

    async def _watch(self) -> None:
        """Makes anew what was silent for longer than it may be, twice in a row: we may have been slow."""
        late: set[int] = set()
        while True:
            await asyncio.sleep(self._device.timeout / 2)
            now = asyncio.get_running_loop().time()
            silent = {
                one.number for one in self.held() if now - one.heard > one.silence + self._device.timeout
            }
            for number in silent & late:
                self._lose(self._held[number])
            late = silent

    # -- what is known of them ------------------------------------------------------------------

    def described(self) -> list[Mapping[str, Any]]:
        """What the server made of what was asked for; JSON-able."""
        return [
            {
                "id": one.number,
                "publishing_interval": one.interval,
                "keep_alive": one.silence,
                "lifetime": one.interval * one.lifetime,
                "items": len(one.items),
                "messages": one.taken,
                "points": {
                    item.point.name: {"sampling_interval": item.sampling, "queue": item.queue}
                    for item in one.items
                },
            }
            for one in self._held.values()
        ]


class _TooMany(Exception):
    """The server holds no more publish requests."""
