"""From written points to payloads: the other signals of the message, its counter and its checksum. Pure."""

from collections.abc import Mapping

from protocols.base import Value
from protocols.can.config import CanDevice
from protocols.can.database import Message, Signal
from protocols.can.decoder import compile_decoder
from protocols.can.encoder import pack
from protocols.can.protect import protect

MOST_FRAMES = 256
"""Frames that the kernel's broadcast manager sends in turn (linux/can/bcm.h, MAX_NFRAMES)."""


class Packer:
    """Packs one message. Signals that are not written keep what the bus last carried, or their first value."""

    def __init__(self, message: Message, device: CanDevice) -> None:
        self._message = message
        self._settings = device.settings_of(message.name)
        self._points = {
            name: point.bound[1]
            for name, point in device.points.items()
            if point.bus is None and point.bound[0].name == message.name
        }
        self._decode = compile_decoder(message, {name: name for name in message.signals})
        self._first: dict[str, Value] = dict(self._decode(bytes(message.length)))
        self._first |= {s.name: s.initial for s in message.signals.values() if s.initial is not None}
        for name, signal in self._points.items():
            initial = device.points[name].initial
            if initial is not None:
                self._first[signal.name] = initial
        self._count = 0

    def next(self, last: bytes | None, values: Mapping[str, Value]) -> bytes:
        """The payload with these points written, after `last` on the bus; each has the next count."""
        payload = self._payload(last, values)
        protected = protect(payload, self._message, self._settings, self._count)
        self._count += 1
        return protected

    def round(self, last: bytes | None, values: Mapping[str, Value]) -> list[bytes]:
        """The payloads with all counts in turn, which go round; one where no counter runs."""
        payload = self._payload(last, values)
        counts = range(self._counts())
        return [protect(payload, self._message, self._settings, count) for count in counts]

    def _counts(self) -> int:
        counter = self._settings.counter
        if counter is None:
            return 1
        last = counter.last
        return (1 << self._message.signals[counter.signal].length) if last is None else last + 1

    def _payload(self, last: bytes | None, values: Mapping[str, Value]) -> bytes:
        signals = dict(self._first)
        if last is not None:
            signals |= self._decode(last)
        for name, value in values.items():
            signal = self._points[name]
            self._select(signal, signals)
            signals[signal.name] = value
        return pack(self._message, signals)

    def _select(self, signal: Signal, signals: dict[str, Value]) -> None:
        """Sets the multiplexers so that the signal is in the frame."""
