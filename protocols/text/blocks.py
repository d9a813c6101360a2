"""Binary blocks (IEEE 488.2: 7.7.6 of commands, 8.7.9 and 8.7.10 of answers) their numbers. Pure."""

import math
import struct
from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from protocols.units import Size

ItemType = Literal[
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float32",
    "float64",
    "hex",
]

_CODES: Final = {
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
_FLOATS: Final = ("float32", "float64")


class BlockError(Exception):
    """Bytes that are no block, or a block that holds no whole number of items; the text is one sentence."""


class Block(BaseModel):
    """What a binary block holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: ItemType = Field("uint8", description="Numbers of this type, or hex: the bytes as a string.")
    order: Literal["big", "little"] = Field("big", description="Byte order of the numbers.")
    most: Size = Field(1024 * 1024, ge=1, le=64 * 1024 * 1024, description="Longer blocks are not taken.")

    @property
    def _code(self) -> str:
        return (">" if self.order == "big" else "<") + _CODES[self.items]

    def decode(self, data: bytes) -> Any:
        """The numbers (None for what is none), or hex digits.

        Raises:
            BlockError: the length is no multiple of an item's.
        """
        if self.items == "hex":
            return data.hex()
        size = struct.calcsize(self._code)
        if len(data) % size:
            raise BlockError(f"a block of {len(data)} bytes holds no whole number of {self.items}")
        numbers = struct.unpack(f"{self._code[0]}{len(data) // size}{self._code[1]}", data)
        if self.items in _FLOATS:
            return [number if math.isfinite(number) else None for number in numbers]
        return list(numbers)

    def encode(self, items: str | Sequence[float]) -> bytes:
        """The bytes of numbers, or of hex digits.

        Raises:
            BlockError: an item does not fit.
        """
        try:
            if isinstance(items, str):
                return bytes.fromhex(items)
            if self.items in _FLOATS:
                return b"".join(struct.pack(self._code, float(item)) for item in items)
            return b"".join(struct.pack(self._code, int(item)) for item in items if _whole(item))
        except (struct.error, ValueError, TypeError, OverflowError) as error:
            raise BlockError(f"an item does not fit {self.items}: {error}") from None


def _whole(item: Any) -> bool:
    if isinstance(item, bool) or not isinstance(item, int | float) or int(item) != item:
        raise ValueError(f"{item!r:.40} is no whole number")
    return True


def definite(data: bytes) -> bytes:
    """A block of definite length around data (IEEE 488.2, 8.7.9)."""
    length = str(len(data)).encode()
    return b"#" + str(len(length)).encode() + length + data


class Head:
    """Where the data of a block begin and end; `length` is None of an indefinite one."""

    __slots__ = ("length", "start")

    def __init__(self, start: int, length: int | None) -> None:
        self.start = start
        self.length = length


def head(data: bytes | bytearray, most: int) -> Head | None:
    """The head of the block that data begin with; None while it is not whole.

    Raises:
        BlockError: no block begins here, or one of more than `most` bytes.
    """
    if not data:
        return None
    if data[:1] != b"#":
        raise BlockError(f"a block begins with #, and this with {bytes(data[:20])!r}")
    if len(data) < 2:
        return None
    if not 0x30 <= data[1] <= 0x39:
        raise BlockError(f"no length of a block: {bytes(data[:12])!r}")
    digits = data[1] - 0x30
    if digits == 0:
        return Head(2, None)
    if not all(0x30 <= one <= 0x39 for one in data[2 : 2 + digits]):
        raise BlockError(f"no length of a block: {bytes(data[:12])!r}")
    if len(data) < 2 + digits:
        return None
    length = int(data[2 : 2 + digits])
    if length > most:
        raise BlockError(f"a block of {length} bytes is over the {most} that are taken")
    return Head(2 + digits, length)
