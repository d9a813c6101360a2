"""How a payload holds a value or a time. Pure."""

import base64
import re
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

import msgspec

from protocols.base import Refused, Value

NUMBERS: Final[Mapping[str, str]] = {
    f"{name}{suffix}": order + code
    for name, code in (
        ("int8", "b"),
        ("uint8", "B"),
        ("int16", "h"),
        ("uint16", "H"),
        ("int32", "i"),
        ("uint32", "I"),
        ("int64", "q"),
        ("uint64", "Q"),
        ("float32", "f"),
        ("float64", "d"),
    )
    for suffix, order in (("", ">"), ("-le", "<"))
    if name[-2:] != "t8" or not suffix
}
"""The binary encodings, as `struct` writes them."""

_UNITS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1000, "ns": 1}
_LAST_NS: Final = 253_402_300_799 * 1_000_000_000  # the end of year 9999, beyond which RFC 3339 has no times
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


class UnreadableError(Exception):
    """A payload does not hold what it should; the text is a word to count it by."""


def json_of(payload: bytes) -> Any:
    """A payload that is JSON.

    Raises:
        UnreadableError: `not-json`.
    """
    try:
        return _decoder.decode(payload)
    except (ValueError, RecursionError):
        raise UnreadableError("not-json") from None


def decoded(encoding: str, payload: bytes, offset: int = 0) -> Any:
    """What a payload holds: as JSON has it, a text, or a number.

    Raises:
        UnreadableError: `not-json`, `not-text` or `too-short`.
    """
    match encoding:
        case "json":
            return json_of(payload)
        case "plain":
            try:
                return payload.decode()
            except UnicodeDecodeError:
                raise UnreadableError("not-text") from None
        case "hex":
            return payload.hex()
        case "base64":
            return base64.b64encode(payload).decode()
    try:
        return struct.unpack_from(NUMBERS[encoding], payload, offset)[0]
    except struct.error:
        raise UnreadableError("too-short") from None


def encoded(encoding: str, value: Value) -> bytes:
    """The payload that holds a raw value; binary integers are the nearest.

    Raises:
        Refused: `out-of-range`: the encoding cannot hold it.
    """
    try:
        match encoding:
            case "json":
                return _encoder.encode(value)
            case "plain":
                return text_of(value).encode()
            case "hex":
                return bytes.fromhex(str(value))
            case "base64":
                return base64.b64decode(str(value), validate=True)
        code = NUMBERS[encoding]
        number = round(value) if code[1] not in "fd" and isinstance(value, float) else value
        return struct.pack(code, number)
    except (ValueError, TypeError, struct.error, OverflowError) as error:
        raise Refused("out-of-range", f"{value!r:.60} cannot be written as {encoding}: {error}") from None


def text_of(value: Any) -> str:
    """A value as text: a text as it is, anything else as JSON writes it."""
    return value if isinstance(value, str) else _encoder.encode(value).decode()


def time_ns(raw: Any, unit: str) -> int:
    """A time in a payload, as nanoseconds since 1970: RFC 3339 with its offset, or a number.

    Raises:
        UnreadableError: `bad-time`.
    """
    if isinstance(raw, str) and (found := _RFC3339.fullmatch(raw)):
        day, clock, fraction, zone = found.groups()
        try:
            moment = datetime.fromisoformat(f"{day}T{clock}{zone.upper().replace('Z', '+00:00')}")
            result = int((moment - _EPOCH).total_seconds()) * _UNITS["s"] + int(
                (fraction or "").ljust(9, "0")
            )
        except (ValueError, OverflowError):
            raise UnreadableError("bad-time") from None
    elif isinstance(raw, int | float) and not isinstance(raw, bool):
        try:
            result = int(Fraction(raw) * _UNITS[unit])
        except (ValueError, OverflowError):  # not finite
            raise UnreadableError("bad-time") from None
    else:
        raise UnreadableError("bad-time")
    if not 0 <= result <= _LAST_NS:
        raise UnreadableError("bad-time")
    return result


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
