"""Error frames: what a controller tells of itself and of the bus (linux/can/error.h). Pure."""

from collections.abc import Iterator

from protocols.can.bus import BusState
from protocols.can.buses.netlink import Link
from protocols.can.frame import ERROR, EXTENDED_MASK, Frame

TX_TIMEOUT = 0x001
LOST_ARBITRATION = 0x002
CONTROLLER = 0x004
PROTOCOL = 0x008
TRANSCEIVER = 0x010
NO_ACK = 0x020
BUS_OFF = 0x040
BUS_ERROR = 0x080
RESTARTED = 0x100
COUNTERS = 0x200

ALL_CLASSES = EXTENDED_MASK
"""Every class of error frames (CAN_ERR_MASK)."""

_CLASSES = {
    TX_TIMEOUT: "transmission timed out in the driver",
    LOST_ARBITRATION: "arbitration lost",
    CONTROLLER: "controller",
    PROTOCOL: "protocol violation",
    TRANSCEIVER: "transceiver",
    NO_ACK: "no acknowledgement: is any other node on the bus?",
    BUS_OFF: "bus-off",
    BUS_ERROR: "bus error",
    RESTARTED: "controller restarted",
    COUNTERS: "error counters",
}
_CONTROLLER = {
    0x01: "receive buffer overflow",
    0x02: "transmit buffer overflow",
    0x04: "warning level of receive errors",
    0x08: "warning level of transmit errors",
    0x10: "error passive by receive errors",
    0x20: "error passive by transmit errors",
    0x40: "error active again",
}
_PROTOCOL = {
    0x01: "single bit error",
    0x02: "frame format error",
    0x04: "bit stuffing error",
    0x08: "unable to send a dominant bit",
    0x10: "unable to send a recessive bit",
    0x20: "bus overload",
    0x40: "active error announcement",
    0x80: "on transmission",
}
_PLACES = {
    0x02: "identifier bits 28 to 21",
    0x03: "start of frame",
    0x04: "substitute remote request",
    0x05: "identifier extension",
    0x06: "identifier bits 20 to 18",
    0x07: "identifier bits 17 to 13",
    0x08: "CRC",
    0x09: "reserved bit 0",
    0x0A: "data",
    0x0B: "data length code",
    0x0C: "remote request",
    0x0D: "reserved bit 1",
    0x0E: "identifier bits 4 to 0",
    0x0F: "identifier bits 12 to 5",
    0x12: "intermission",
    0x18: "CRC delimiter",
    0x19: "acknowledge slot",
    0x1A: "end of frame",
    0x1B: "acknowledge delimiter",
}
_TRANSCEIVER = {
    0x04: "CANH without wire",
    0x05: "CANH shorted to battery",
    0x06: "CANH shorted to supply",
    0x07: "CANH shorted to ground",
    0x40: "CANL without wire",
    0x50: "CANL shorted to battery",
    0x60: "CANL shorted to supply",
    0x70: "CANL shorted to ground",
    0x80: "CANL shorted to CANH",
}
_WARNING_LEVELS = 0x04 | 0x08
_PASSIVE_LEVELS = 0x10 | 0x20
_ACTIVE_AGAIN = 0x40


def describe(frame: Frame) -> str:
    """What an error frame says, for people."""
    data = frame.data.ljust(8, b"\0")
    classes = frame.can_id & ALL_CLASSES
    texts = []
    for bit, text in _CLASSES.items():
        if classes & bit:
            details = ", ".join(_details(bit, data))
            texts.append(f"{text} ({details})" if details else text)
    if unknown := classes & ~sum(_CLASSES):
        texts.append(f"unknown class 0x{unknown:X}")
    return "; ".join(texts) or "unspecified error"


def _details(error_class: int, data: bytes) -> Iterator[str]:
    match error_class:
        case 0x002 if data[0]:  # LOST_ARBITRATION
            yield f"in bit {data[0]}"
        case 0x004:  # CONTROLLER
            yield from (text for bit, text in _CONTROLLER.items() if data[1] & bit)
        case 0x008:  # PROTOCOL
            yield from (text for bit, text in _PROTOCOL.items() if data[2] & bit)
            if data[3]:
                yield f"in {_PLACES.get(data[3], f'place 0x{data[3]:02X}')}"
        case 0x010 if data[4]:  # TRANSCEIVER
            yield _TRANSCEIVER.get(data[4], f"status 0x{data[4]:02X}")
        case 0x200:  # COUNTERS
            yield f"transmit {data[6]}, receive {data[7]}"


class Controller:
    """What is known of a controller: by its driver, and by its error frames since."""

    def __init__(self) -> None:
        self.state = BusState.UNKNOWN
        self.tx_errors: int | None = None
        self.rx_errors: int | None = None
        self.restarts: int | None = None

    def know(self, link: Link) -> None:
        """Takes what the driver of the interface tells; what it does not tell stays as it was."""
        for field in ("state", "tx_errors", "rx_errors", "restarts"):
            if (told := getattr(link, field)) is not None:
                setattr(self, field, told)

    def take(self, frame: Frame) -> bool:
        """Takes an error frame; whether the state changed, or the controller restarted."""
        classes, data = frame.can_id, frame.data.ljust(8, b"\0")
        if not classes & ERROR:
            return False
        before = self.state
        if classes & COUNTERS:
            self.tx_errors, self.rx_errors = data[6], data[7]
        if classes & RESTARTED:
            self.restarts = (self.restarts or 0) + 1
            self.state = BusState.ACTIVE
        if classes & CONTROLLER:
            # Transmit and receive errors are counted apart; the worse of the two makes the state.
            if data[1] & _PASSIVE_LEVELS:
                self.state = BusState.PASSIVE
            elif data[1] & _WARNING_LEVELS:
                self.state = BusState.WARNING
            elif data[1] & _ACTIVE_AGAIN:
                self.state = BusState.ACTIVE
        if classes & BUS_OFF:
            self.state = BusState.BUS_OFF
        return self.state is not before or bool(classes & RESTARTED)
