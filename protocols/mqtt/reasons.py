"""What a broker's reason codes mean, in words. Pure; imported only when a device is made."""

from typing import Final

from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

_HINTS: Final = {
    0x85: "is client_id allowed there?",
    0x86: "are username and password_file right?",
    0x87: "are username and password_file, or cert, right?",
    0x84: "try the other version",
    0x8E: "another client has the same client_id",
}


def words(reason: ReasonCode, properties: Properties | None = None) -> str:
    """A reason code in words, with what the broker says to it and what may be done about it."""
    said = getattr(properties, "ReasonString", "")
    hint = _HINTS.get(reason.value, "")
    return "; ".join(filter(None, (str(reason).lower(), f"it says {said!r:.200}" if said else "", hint)))
