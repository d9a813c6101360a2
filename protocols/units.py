"""Durations and sizes as people write them: `100ms`, `2s`, `256KiB`."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

WRITTEN = {"written": True}
"""Validation context of what people wrote: there a bare number is an error, for nobody sees its unit.

A device's has `folder` too: where its profile lies, to which file names in it are relative. `attached`,
where there is one, has the device's `attachments` in place of the files."""

_DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {"B": 1, "kB": 1000, "KiB": 1024, "MB": 1000**2, "MiB": 1024**2, "GB": 1000**3, "GiB": 1024**3}
_QUANTITY = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)")


def _parse(text: Any, units: dict[str, Any], example: str) -> float:
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"write a number with a unit, such as {example} (units: {', '.join(units)})")
    return float(match[1]) * float(units[match[2]])


def parse_duration(text: Any) -> float:
    """Seconds of a duration such as `100ms`; a `float` (already seconds, from code) passes.

    Raises:
        ValueError: not a number with one of the units us, ms, s, min, h, d.
    """
    return text if isinstance(text, float) else _parse(text, _DURATION_UNITS, "100ms or 2s")


def parse_size(text: Any) -> int:
    """Bytes of a size such as `256KiB`; an `int` (already bytes, from code) passes.

    Raises:
        ValueError: not a number with one of the units B, kB, KiB, MB, MiB, GB, GiB.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    return int(_parse(text, _SIZE_UNITS, "64KiB or 1MiB"))


def format_duration(seconds: float) -> str:
    """The shortest way to write a duration: 0.1 is `100ms`."""
    for unit, factor in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= factor:
            return f"{seconds / factor:.6g}{unit}"
    return f"{seconds / 1e-6:.6g}us"


def _schema(units: dict[str, Any], example: str) -> WithJsonSchema:
    pattern = rf"^[0-9]+(\.[0-9]+)? ?({'|'.join(units)})$"
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": [example]})


def _is_written(info: ValidationInfo) -> bool:
    return bool(info.context and info.context.get("written"))


def _duration(value: Any, info: ValidationInfo) -> float:
    return parse_duration(repr(value) if _is_written(info) and isinstance(value, float) else value)


def _size(value: Any, info: ValidationInfo) -> int:
    return parse_size(repr(value) if _is_written(info) and isinstance(value, int) else value)


Duration = Annotated[float, BeforeValidator(_duration), _schema(_DURATION_UNITS, "100ms")]
"""Seconds; written with a unit in files."""

Size = Annotated[int, BeforeValidator(_size), _schema(_SIZE_UNITS, "256KiB")]
"""Bytes; written with a unit in files."""
