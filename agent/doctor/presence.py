"""Whether an agent runs on the bench: by the lock on its store, and by its word to the broker."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from agent import clock
from agent.connection import client_options
from agent.doctor.locks import Holder, holders
from agent.events import AVAILABILITY, AVAILABILITY_ADDRESS
from agent.settings import Settings
from agent.store.inspect import is_locked
from protocols.amqp.client import Client, Delivery
from protocols.amqp.cloudevents import from_message
from protocols.amqp.types import CodecError

_CREDIT = 100
_STALE_INTERVALS = 3
_HEARTBEAT_GRACE_S = 2.0


class Heard(msgspec.Struct, frozen=True):
    """What an agent said of its bench (wire.md, availability)."""

    bench: str
    state: str
    devices: Mapping[str, Mapping[str, Any]] = {}
    agent: Mapping[str, Any] = {}
    reason: str = ""
    interval_s: float = 5.0

    @property
    def host(self) -> str:
        """The host that the agent is on."""
        return str(self.agent.get("hostname", "an unknown host"))


class Presence(msgspec.Struct, frozen=True):
    """What is known of an agent on this bench."""

    locked: bool = False
    """Somebody holds the store."""
    holder: Holder | None = None
    heard: Heard | None = None

    @property
    def running(self) -> bool:
        """Whether there is one."""
        return self.locked or self.heard is not None

    def __str__(self) -> str:
        if self.holder is not None:
            return f"the agent that runs here (pid {self.holder.pid})"
        if self.locked or self.heard is None:
            return "the agent that runs here"
        return f"the agent that runs on {self.heard.host}"


def store_holder(directory: Path) -> Holder | None:
    """Who holds the store, as far as that can be seen."""
    try:
        return next(iter(holders(directory / "lock")), None)
    except OSError:
        return None


async def look_for_agent(settings: Settings | None, limit: float) -> Presence:
    """Looks at the store's lock, and listens to the broker for one heartbeat, `limit` seconds at most."""
    if settings is None:
        return Presence()
    locked = False
    if settings.store is not None:
        with contextlib.suppress(OSError):  # the store's own check says what is wrong with it
            locked = is_locked(settings.store)
    holder = store_holder(settings.store) if locked and settings.store is not None else None
    heard = await _listen(settings, min(limit, settings.heartbeat + _HEARTBEAT_GRACE_S))
    return Presence(locked, holder, heard)


async def _listen(settings: Settings, seconds: float) -> Heard | None:
    """The last word of the bench's agent; None where none comes that is not from the past."""
    first: asyncio.Future[Heard | None] = asyncio.get_running_loop().create_future()

    def on_message(delivery: Delivery) -> None:
        delivery.accept()
        said = _said(delivery, settings.bench)
        if said is not None and not first.done():
            first.set_result(None if said.state == "offline" else said)

    try:
        client = Client(client_options(settings, role="doctor"), lambda state, reason: None)
    except (OSError, ValueError):
        return None  # the broker's own check says why
    client.receiver(AVAILABILITY_ADDRESS, on_message, credit=_CREDIT)
    running = asyncio.create_task(client.run(), name="listen for availability")
    try:
        await asyncio.wait((running, first), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    return first.result() if first.done() else None


def _said(delivery: Delivery, bench: str) -> Heard | None:
    try:
        event = from_message(delivery.message())
        heard = msgspec.json.decode(event.data, type=Heard) if event.type == AVAILABILITY else None
    except (CodecError, msgspec.DecodeError, ValueError):
        return None
    if heard is None or heard.bench != bench:
        return None
    age_s = (clock.now_ns() - event.time_ns) / 1e9
    # A broker may keep an agent's last word long after the agent.
    return heard if age_s < _STALE_INTERVALS * heard.interval_s else None
