"""Checksums of commands and answers, placed in a line as a profile says. Pure."""

from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from operator import xor
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from protocols.mistakes import Wrong, raise_all

Algorithm = Literal["xor", "sum8", "sum8-2c", "lrc", "crc8", "crc16-modbus"]


class ChecksumError(Exception):
    """A line that is not what its checksum says; the text is one sentence."""


def _sum8(data: bytes) -> int:
    return sum(data) & 0xFF


def _negative_sum8(data: bytes) -> int:
    return -sum(data) & 0xFF


def _crc(data: bytes, start: int, polynomial: int, bits: int, reflected: bool) -> int:
    mask = (1 << bits) - 1
    crc = start
    for byte in data:
        crc ^= byte if reflected else byte << (bits - 8)
        for _ in range(8):
            if reflected:
                crc = crc >> 1 ^ (polynomial if crc & 1 else 0)
            else:
                crc = (crc << 1 ^ (polynomial if crc >> (bits - 1) else 0)) & mask
    return crc


_ALGORITHMS: Mapping[Algorithm, tuple[int, Callable[[bytes], int]]] = {
    "xor": (1, lambda data: reduce(xor, data, 0)),
    "sum8": (1, _sum8),
    "sum8-2c": (1, _negative_sum8),
    "lrc": (1, _negative_sum8),  # ISO 1155 and Modbus ASCII: the two's complement of the sum
    "crc8": (1, lambda data: _crc(data, 0, 0x07, 8, reflected=False)),  # CRC-8/SMBUS
    "crc16-modbus": (2, lambda data: _crc(data, 0xFFFF, 0xA001, 16, reflected=True)),
}
"""Bytes that each takes, and how it is reckoned."""


class Checksum(BaseModel):
    """A checksum of each line, and where it stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: Algorithm
    template: str = Field(
        "{text}{checksum}", description="How a line is made of {text} and {checksum}, in this order."
    )
    over: Literal["before", "text"] = Field(
        "before", description="before: of all that stands before it; text: of the text alone."
    )
    format: Literal["hex", "lower-hex", "raw"] = Field("hex", description="Hex digits, or bytes as they are.")
    order: Literal["big", "little"] = Field("big", description="Of the bytes of a CRC-16.")
    on: Literal["both", "commands", "answers"] = Field("both", description="Which lines have it.")

    @model_validator(mode="after")
    def _placed(self) -> "Checksum":
        raise_all(type(self).__name__, self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Wrong]:
        _, found, rest = self.template.partition("{text}")
        _, found_too, rest = rest.partition("{checksum}")
        others = self.template.replace("{text}", "", 1).replace("{checksum}", "", 1)
        if not found or not found_too or set(others) & set("{}") or not others.isascii():
            yield ("template",), "write {text} and then {checksum}, each once, such as {text}*{checksum}"

    @property
    def _literals(self) -> tuple[bytes, bytes, bytes]:
        before, _, rest = self.template.partition("{text}")
        between, _, after = rest.partition("{checksum}")
        return before.encode(), between.encode(), after.encode()

    @property
    def width(self) -> int:
        """Bytes that the checksum takes in a line."""
        size = _ALGORITHMS[self.algorithm][0]
        return size if self.format == "raw" else 2 * size

    def _of(self, text: bytes) -> bytes:
        before, between, _ = self._literals
        size, reckon = _ALGORITHMS[self.algorithm]
        value = reckon(text if self.over == "text" else before + text + between)
        raw = value.to_bytes(size, self.order)
        if self.format == "raw":
            return raw
        digits = raw.hex()
        return (digits if self.format == "lower-hex" else digits.upper()).encode()

    def add(self, text: bytes) -> bytes:
        """The line that carries this text."""
        before, between, after = self._literals
        return before + text + between + self._of(text) + after

    def strip(self, line: bytes) -> bytes:
        """The text that a line carries.

        Raises:
            ChecksumError: the line is not of the template, or its checksum is not that of its text.
        """
        before, between, after = self._literals
        end = len(line) - len(after) - self.width
        text = line[len(before) : end - len(between)]
        if (
            end - len(between) < len(before)
            or line != before + text + between + line[end : end + self.width] + after
        ):
            raise ChecksumError(f"{line!r:.80} is not of the form {self.template}")
        wanted, got = self._of(text), line[end : end + self.width]
        if got != wanted and (self.format == "raw" or got.lower() != wanted.lower()):
            raise ChecksumError(f"{line!r:.80} has the checksum {got!r}, its text {wanted!r}")
        return text
