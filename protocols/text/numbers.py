"""Numbers as instruments write them. Pure; what comes in is hostile."""

import math
import re
from collections.abc import Mapping

from protocols.base import Quality

_NUMBER = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][ ]?[+-]?[0-9]+)?)(.*)", re.DOTALL)
_PREFIXED = re.compile(r"([+-]?)(?:0[xX]|#[hH])([0-9A-Fa-f]+)|([+-]?)#[qQ]([0-7]+)|([+-]?)#[bB]([01]+)")
_DIGITS = {2: "01", 8: "01234567", 16: "0123456789abcdefABCDEF"}
_LONGEST = 400
_INFINITE = 9.9e37
_NO_NUMBER = 9.91e37
_WORDS: Mapping[str, Quality] = {
    "NAN": Quality.NOT_A_NUMBER,
    "INF": Quality.OUT_OF_RANGE,
    "+INF": Quality.OUT_OF_RANGE,
    "-INF": Quality.OUT_OF_RANGE,
    "NINF": Quality.OUT_OF_RANGE,
    "INFINITY": Quality.OUT_OF_RANGE,
}


def number(
    text: str, base: int = 10, comma: bool = False, units: Mapping[str, float] | None = None
) -> int | float | Quality:
    """The number in a text, times the factor of the unit that follows it.

    9.91E37 is `not-a-number`, 9.9E37 and -9.9E37 `out-of-range` (SCPI-99 volume 1, 7.2.1.4 and 7.2.1.5);
    what is no number, or has another unit, is `device-error`. Never raises.
    """
    text = text.strip()
    if len(text) > _LONGEST:
        return Quality.DEVICE_ERROR
    if text.upper() in _WORDS:
        return _WORDS[text.upper()]
    if base != 10:
        sign, digits = ("-", text[1:]) if text[:1] == "-" else ("", text)
        digits = digits[2:] if base == 16 and digits[:2] in ("0x", "0X") else digits
        good = bool(digits) and set(digits) <= set(_DIGITS[base])
        return int(sign + digits, base) if good else Quality.DEVICE_ERROR
    if prefixed := _PREFIXED.fullmatch(text):
        for place, other in ((1, 16), (3, 8), (5, 2)):
            if prefixed[place + 1] is not None:
                return int(prefixed[place] + prefixed[place + 1], other)
    if comma:
        if "." in text:
            return Quality.DEVICE_ERROR
        text = text.replace(",", ".", 1)
    match = _NUMBER.fullmatch(text)
    if match is None:
        return Quality.DEVICE_ERROR
    digits, unit = match[1].replace(" ", ""), match[2].strip()
    factor = 1.0
    if unit or units:
        if units is None or unit not in units:
            return Quality.DEVICE_ERROR
        factor = units[unit]
    value = int(digits) if digits.lstrip("+-").isdecimal() else float(digits)
    if isinstance(value, float):
        if value == _NO_NUMBER:
            return Quality.NOT_A_NUMBER
        if abs(value) == _INFINITE or not math.isfinite(value):
            return Quality.OUT_OF_RANGE
    if factor == 1.0:
        return value
    try:
        scaled = value * factor
    except OverflowError:
        return Quality.OUT_OF_RANGE
    return scaled if math.isfinite(scaled) else Quality.OUT_OF_RANGE
