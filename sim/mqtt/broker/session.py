"""What a broker keeps of one client, also while the client is away. Pure: packets go to `send`."""

import struct
from collections import deque
from collections.abc import Callable

import msgspec

from sim.mqtt.broker.packets import PUBREL, Connect, Message, packet, write_publish

_WAITING = 10_000
"""Messages that wait for one client; what comes after is dropped and counted."""


class Session:
    """A client's unacknowledged and waiting messages (MQTT 5.0, 4.1)."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.send: Callable[[bytes], None] | None = None
        """Takes packets while the client is there and reads; else None."""
        self.v5 = True
        self.expiry = 0
        self.expires: float | None = None
        self.received: set[int] = set()
        """Identifiers of QoS 2 messages that came and were not released yet."""
        self.dropped = 0
        self._window = 65535
        self._number = 0
        self._waiting: deque[Message] = deque()
        self._inflight: dict[int, Message | None] = {}
        """By packet identifier, in order; None: it is received, and PUBREL was sent."""

    def attach(self, connect: Connect, send: Callable[[bytes], None]) -> None:
        """The client is there (again)."""
        self.v5, self.expiry, self.expires = connect.v5, connect.session_expiry, None
        self._window = connect.receive_maximum
        self.send = send

    def resume(self, now: float) -> None:
        """Sends again what was not acknowledged, then what waits (MQTT 5.0, 4.4)."""
        if self.send is None:
            return
        for number, message in self._inflight.items():
            if message is None:
                self.send(packet(PUBREL, struct.pack(">H", number)))
            else:
                self.send(write_publish(message, number, self.v5, now, again=True))
        self.flush(now)

    def give(self, message: Message, now: float) -> None:
        """Hands a message to the client, now or later; at QoS 0 now or never."""
        if message.qos == 0:
            if self.send is None:
                self.dropped += 1
            else:
                self.send(write_publish(message, 0, self.v5, now))
        elif len(self._waiting) >= _WAITING:
            self.dropped += 1
        else:
            self._waiting.append(message)
            self.flush(now)

    def flush(self, now: float) -> None:
        """Sends what waits, as far as the client's receive maximum lets it."""
        while self._waiting and self.send is not None and len(self._inflight) < self._window:
            message = self._waiting.popleft()
            if message.expires is not None and message.expires <= now:
                continue
            self._number = self._free_number()
            self._inflight[self._number] = message
            self.send(write_publish(message, self._number, self.v5, now))

    def _free_number(self) -> int:
        number = self._number % 65535 + 1
        while number in self._inflight:
            number = number % 65535 + 1
        return number

    def acknowledged(self, number: int, now: float) -> None:
        """PUBACK or PUBCOMP came, or a PUBREC with an error."""
        self._inflight.pop(number, None)
        self.flush(now)

    def taken(self, number: int) -> None:
        """PUBREC came: the message is the client's, and what is left is to release its identifier."""
        if number in self._inflight:
            self._inflight[number] = None
        if self.send is not None:
            self.send(packet(PUBREL, struct.pack(">H", number)))


def lowered(message: Message, qos: int, retain: bool) -> Message:
    """The message as a subscriber gets it."""
    if (message.qos, message.retain) == (min(message.qos, qos), retain):
        return message
    return msgspec.structs.replace(message, qos=min(message.qos, qos), retain=retain)
