"""From written points to payloads: the other signals of the message, its counter and its checksum. Pure."""

from collections.abc import Mapping

from protocols.base import DriverError, Value
from protocols.can.config import CanDevice
from protocols.can.signals.database import Message, Signal
from protocols.can.signals.decoder import route
from protocols.can.signals.encoder import extract, initial_values, pack, place, raw_of
from protocols.can.signals.protect import last_count, protect


class Packer:
    """Packs one message. What is not written keeps the bits that the bus last carried, or its first value."""

    def __init__(self, message: Message, device: CanDevice) -> None:
        self._message = message
        self._settings = device.settings_of(message.name)
        points = [
            point
            for point in device.points.values()
            if point.bus is None and point.bound[0].name == message.name
        ]
        self._signals = {point.name: point.bound[1] for point in points}
        self._first = initial_values(message, points)
        self._count = 0

    def next(self, last: bytes | None, values: Mapping[str, Value]) -> bytes:
        """The payload with these points written, after `last` on the bus; each has the next count.

        Raises:
            DriverError: two of them cannot be in one frame.
        """
        payload = self._payload(last, values)
        protected = protect(payload, self._message, self._settings, self._count)
        self._count += 1
        return protected

    def round(self, last: bytes | None, values: Mapping[str, Value]) -> list[bytes]:
        """The payloads with all counts in turn, which go round; one where no counter runs.

        Raises:
            DriverError: as `next`.
        """
        payload = self._payload(last, values)
        counts = range(last_count(self._message, self._settings) + 1)
        return [protect(payload, self._message, self._settings, count) for count in counts]

    def _payload(self, last: bytes | None, values: Mapping[str, Value]) -> bytes:
        length = self._message.length
        payload = pack(self._message, self._first) if last is None else last[:length].ljust(length, b"\0")
        written = {self._signals[name].name: value for name, value in values.items()}
        chosen: set[str] = set()
        # Multiplexers first: which of the others are in the frame depends on them.
        for name in sorted(written, key=lambda name: not self._message.signals[name].is_multiplexer):
            signal = self._message.signals[name]
            payload = self._select(payload, signal, chosen)
            payload = place(payload, signal, raw_of(signal, written[name]))
            chosen.add(name)
        return payload

    def _select(self, payload: bytes, signal: Signal, chosen: set[str]) -> bytes:
        """Sets the multiplexers so that the frame has the signal, and what comes with it to first values.

        `chosen` are signals whose values are settled by what was written before.
        """
        for selector, ids in route(self._message, signal) or ():
            if extract(payload, selector) in ids:
                continue
            if selector.name in chosen:
                text = f"{signal.name} is not in a frame with what else is written, by {selector.name}"
                raise DriverError("device-error", text)
            payload = place(payload, selector, min(ids))
            for other in self._message.signals.values():
                if other.selector == selector.name and min(ids) in other.selected_by:
                    payload = place(payload, other, raw_of(other, self._first[other.name]))
        chosen.update(selector.name for selector, _ in route(self._message, signal) or ())
        return payload
