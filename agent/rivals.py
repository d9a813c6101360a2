"""Two agents with one bench id: each hears the other's availability, and says so loudly."""

import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from agent import clock
from agent.events import AVAILABILITY, Events
from protocols.amqp.client import Delivery
from protocols.amqp.cloudevents import from_message
from protocols.amqp.types import CodecError

MAX_INTERVAL_S = 3600
DEFAULT_INTERVAL_S = 5.0
"""Taken for another agent's heartbeat where it says none that makes sense."""


class Rivals:
    """Listens to `hil.availability` for this bench's id in another agent's mouth."""

    def __init__(self, bench_id: str, events: Events, changed: Callable[[], None]) -> None:
        self._bench_id = bench_id
        self._events = events
        self._changed = changed
        self._started_ns = clock.now_ns()
        self._rival = ""
        self._until = 0.0
        self._log = structlog.get_logger("availability")

    def heard(self) -> str:
        """A sentence about the other agent, or nothing when none was heard for 3 of its intervals."""
        return self._rival if time.monotonic() < self._until else ""

    def on_message(self, delivery: Delivery) -> None:
        """Takes one availability message, of any bench."""
        delivery.accept()
        try:
            event = from_message(delivery.message())
            ours = event.type == AVAILABILITY and event.source == self._events.bench_source
            # What a predecessor left behind (a broker may keep the last value) is no rival.
            if not ours or event.id.startswith(self._events.instance) or event.time_ns < self._started_ns:
                return
            body = msgspec.json.decode(event.data, type=dict[str, Any])
        except (CodecError, msgspec.DecodeError, ValueError) as error:
            self._log.debug("not an availability message", error=str(error))
            return
        before = self.heard()
        if body.get("state") == "offline":
            self._until = 0.0
        else:
            self._hear(body)
        if self.heard() != before:
            self._changed()

    def _hear(self, body: dict[str, Any]) -> None:
        agent, interval = body.get("agent"), body.get("interval_s")
        host = agent.get("hostname") if isinstance(agent, dict) else None
        rival = (
            f"another agent (host {host!s:.64}, epoch {body.get('epoch')!s:.20}) also runs bench"
            f" {self._bench_id}: stop one of them"
        )
        log = self._log.debug if rival == self.heard() else self._log.error
        log(rival)
        self._rival = rival
        if not isinstance(interval, int | float) or not 0 < interval <= MAX_INTERVAL_S:
            interval = DEFAULT_INTERVAL_S
        self._until = time.monotonic() + 3 * interval
