"""Text devices as tests write them."""

from typing import Any

import pytest
from pydantic import ValidationError

from protocols.text.config import TextDevice
from protocols.units import WRITTEN

TCP = {"transport": "tcp", "host": "psu.bench.example"}
VOLT = {"query": "VOLT?", "write": "VOLT {value:.3f}", "access": "rw"}


def device(points: dict[str, Any] | None = None, **fields: Any) -> TextDevice:
    """A device of the name psu; by default of one point, `p`, with the query VOLT?."""
    whole = {"protocol": "text", "connection": TCP, "points": points or {"p": {"query": "VOLT?"}}}
    return TextDevice.model_validate(whole | fields, context=WRITTEN).named("psu")


def mistakes(points: dict[str, Any] | None = None, **fields: Any) -> dict[str, str]:
    """Field to message."""
    with pytest.raises(ValidationError) as wrong:
        device(points, **fields)
    return {".".join(map(str, error["loc"])): error["msg"] for error in wrong.value.errors()}
