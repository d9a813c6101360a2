"""What a message that a simulated node sends holds at a time. Pure."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from protocols.base import Value
from protocols.can import config
from protocols.can.signals.database import Message, Signal
from protocols.can.signals.protect import protect
from sim.behaviour import Behaviour
from sim.can.encoder import Bits, encoder, placed

MOST_PAGES = 256
"""Selector values, or combinations of them, that a multiplexed message is sent with."""


def first_value(signal: Signal) -> Value:
    """What a signal without a behaviour holds: the database's initial value, else zero as far as it may."""
    if signal.initial is not None:
        return signal.initial
    low = 0 if signal.minimum is None else max(signal.minimum, 0)
    return low if signal.maximum is None else min(signal.maximum, low)


def selections(message: Message) -> Iterator[Mapping[str, int]]:
    """The raw values that its multiplexers have in turn; one that is empty where there are none.

    A multiplexer that is itself multiplexed has values only in frames that it is in.
    """
    multiplexers = [signal for signal in message.signals.values() if signal.is_multiplexer]
    values = {
        one.name: sorted(
            set().union(*(s.selected_by for s in message.signals.values() if s.selector == one.name))
        )
        for one in multiplexers
    }
    begun: list[dict[str, int]] = [{}]
    while begun:
        chosen = begun.pop()
        for one in multiplexers:
            if one.name not in chosen and values[one.name] and _present(one, chosen):
                begun += ({**chosen, one.name: value} for value in reversed(values[one.name]))
                break
        else:
            yield chosen


def _present(signal: Signal, chosen: Mapping[str, int]) -> bool:
    return signal.selector is None or chosen.get(signal.selector) in signal.selected_by


class _Page(NamedTuple):
    """Frames with one choice of selector values."""

    steady: int
    """The bits that stay, of a payload that is read as one little-endian number."""
    moving: Sequence[tuple[Bits, Any]]
    """What puts a value at its place, and what gives it at a time."""


class Content:
    """One message. Signals that `behaviours` does not name hold their first value."""

    def __init__(
        self, message: Message, settings: config.Message, behaviours: Mapping[str, Behaviour]
    ) -> None:
        self.message = message
        self._settings = settings
        self._protects = settings.counter is not None or settings.checksum is not None
        self._count = 0
        chosen = itertools.islice(selections(message), MOST_PAGES)
        self._pages = [self._page(values, behaviours) for values in chosen]
        self._turn = 0
        self._told: list[bytes | None] = [None] * len(self._pages)
        counts = settings.counter is not None
        # Most messages of a database move nothing at all: they are packed once.
        self._packed = [None if page.moving or counts else self._protected(page, 0.0) for page in self._pages]

    def _page(self, chosen: Mapping[str, int], behaviours: Mapping[str, Behaviour]) -> _Page:
        message, length = self.message, self.message.length
        present = [one for one in message.signals.values() if message.holds(one) and _present(one, chosen)]
        steady, moving = int.from_bytes(bytes([message.padding]) * length, "little"), []
        for signal in present:
            steady &= ~placed(signal, length)(-1)
        for signal in present:
            behaviour = behaviours.get(signal.name)
            if signal.name in chosen:
                steady |= placed(signal, length)(chosen[signal.name])
            elif behaviour is None:
                steady |= encoder(signal, length)(first_value(signal))
            elif behaviour.steady:
                steady |= encoder(signal, length)(behaviour.at(0.0))
            else:
                moving.append((encoder(signal, length), behaviour.at))
        return _Page(steady, moving)

    def next(self, t: float) -> bytes:
        """The payload of the next frame, at `t` seconds; selector values go round."""
        turn = self._turn
        self._turn = (turn + 1) % len(self._pages)
        packed = self._packed[turn]
        return self._protected(self._pages[turn], t) if packed is None else packed

    def news(self, t: float, everything: bool) -> Sequence[bytes]:
        """The payloads, one for each selector value, that changed since they were last asked for, or all."""
        news = []
        for turn, page in enumerate(self._pages):
            bare = self._bare(page, t)
            if everything or bare != self._told[turn]:
                self._told[turn] = bare
                news.append(self._protected(page, t))
        return news

    def _bare(self, page: _Page, t: float) -> bytes:
        bits = page.steady
        for put, at in page.moving:
            bits |= put(at(t))
        return bits.to_bytes(self.message.length, "little")

    def _protected(self, page: _Page, t: float) -> bytes:
        payload = self._bare(page, t)
        if not self._protects:
            return payload
        count, self._count = self._count, self._count + 1
        return protect(payload, self.message, self._settings, count)
