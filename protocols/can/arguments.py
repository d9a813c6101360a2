"""Arguments of `call`, checked before anything is sent. Pure."""

from collections.abc import Mapping
from typing import Any

from protocols.base import Refused
from protocols.can.config import Connection
from protocols.can.frame import BRS, EXTENDED, FD_LENGTHS, FDF, REMOTE, Frame, parse_id
from protocols.units import parse_duration

FRAME_ARGUMENTS = ("id", "data", "extended", "fd", "brs", "remote", "dlc")


def check_names(method: str, args: Mapping[str, Any], *known: str) -> None:
    """Refuses arguments that the method does not have.

    Raises:
        Refused: `malformed`.
    """
    for name in args:
        if name not in known:
            raise Refused("malformed", f"{method} has no argument {name!r:.40}; it takes {', '.join(known)}")


def identifier(args: Mapping[str, Any], name: str) -> int:
    """An arbitration id, with its EXTENDED bit; `extended` beside it makes it one of 29 bits.

    Raises:
        Refused: `malformed`.
    """
    if name not in args:
        raise Refused("malformed", f"the argument {name} (an arbitration id) is missing")
    try:
        can_id = parse_id(args[name])
    except ValueError as error:
        raise Refused("malformed", f"{name}: {error}") from error
    return can_id | EXTENDED if flag(args, "extended") else can_id


def flag(args: Mapping[str, Any], name: str) -> bool:
    """A boolean, false by default.

    Raises:
        Refused: `malformed`.
    """
    value = args.get(name, False)
    if not isinstance(value, bool):
        raise Refused("malformed", f"{name} is true or false")
    return value


def hexadecimal(args: Mapping[str, Any], name: str, default: str | None = None) -> bytes:
    """Bytes, written in hex; blanks between them are fine.

    Raises:
        Refused: `malformed`.
    """
    text = args.get(name, default)
    try:
        if isinstance(text, str):
            return bytes.fromhex(text)
    except ValueError:
        pass
    raise Refused("malformed", f"{name} is a text of hex digits, two for each byte, such as '01ff'")


def seconds(args: Mapping[str, Any], name: str, default: float | None = None, most: float = 60.0) -> float:
    """A duration: a number of seconds, or a text such as `100ms`.

    Raises:
        Refused: `malformed`, also without a default.
    """
    value = args.get(name, default)
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = float(value)
        length = parse_duration(value)
    except (ValueError, OverflowError):
        raise Refused("malformed", f"{name} is a duration, such as '100ms'") from None
    if not 0 < length <= most:
        raise Refused("malformed", f"{name} is more than 0 and at most {most:g} s")
    return length


def frame(args: Mapping[str, Any], connection: Connection, data: bytes | None = None) -> Frame:
    """The frame that the arguments describe.

    Raises:
        Refused: `malformed`, or `out-of-range` for one that the bus does not carry.
    """
    can_id = identifier(args, "id")
    remote, fd, brs = flag(args, "remote"), flag(args, "fd"), flag(args, "brs")
    if data is None:
        data = hexadecimal(args, "data", "")
    if brs and not fd:
        raise Refused("malformed", "brs (bit rate switch) needs fd: true")
    if fd and not connection.fd:
        raise Refused("out-of-range", f"{connection} is no CAN FD bus; its profile would say fd: true")
    if remote:
        if fd or data:
            raise Refused("malformed", "a remote frame has no data and is not of CAN FD; give dlc")
        length = args.get("dlc", 0)
        if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length <= 8:
            raise Refused("malformed", "dlc is a number from 0 to 8")
        return Frame(0, can_id | REMOTE, bytes(length))
    if "dlc" in args:
        raise Refused("malformed", "only a remote frame takes dlc: others are as long as their data")
    if len(data) not in (FD_LENGTHS if fd else range(9)):
        lengths = "0 to 8, 12, 16, 20, 24, 32, 48 or 64" if fd else "0 to 8"
        raise Refused("out-of-range", f"a frame carries {lengths} bytes, not {len(data)}")
    return Frame(0, can_id, data, (FDF if fd else 0) | (BRS if brs else 0))
