"""Reads blocks of points over a station and turns the answers into samples."""

import time
from collections.abc import Iterator, Mapping, Sequence
from operator import is_
from typing import TypeVar

import structlog

from protocols.base import DriverError, Quality, Sample, Value
from protocols.modbus import pdu
from protocols.modbus.codec import compile_bits, compile_registers
from protocols.modbus.config import ModbusDevice, ModbusPoint
from protocols.modbus.errors import driver_error
from protocols.modbus.pdu import ExceptionCode, MalformedAnswer, ModbusException
from protocols.modbus.plan import Block, Limits, alone, join
from protocols.modbus.station import Answer, Station

_TOGETHER_NS = 5_000_000
"""Answers that came within this time share a sample and its stamp."""

_T = TypeVar("_T")
_Result = tuple[int, Mapping[str, Value], Mapping[str, Quality]]
"""When a block was answered, its good values, and what is wrong with its other points."""

_log = structlog.get_logger("modbus")

_REFUSED = ExceptionCode.ILLEGAL_DATA_ADDRESS
_NOTHING: Mapping[str, Value] = {}
_ALL_WELL: Mapping[str, Quality] = {}


class _BlockReader:
    """One block: its request, and the values of its last answer as long as the bytes stay the same."""

    def __init__(self, block: Block, unit: str) -> None:
        self.block = block
        self.request = pdu.read(block.function, block.start, block.count)
        compile_block = compile_bits if block.table in ("coil", "discrete") else compile_registers
        self._decode = compile_block(block.points, block.offsets)
        self._unit = unit
        self._raw: bytes | None = None
        self._values: Mapping[str, Value] = _NOTHING
        self._bad: Mapping[str, Quality] = _ALL_WELL
        self.error: DriverError | None = None
        self.refused = False

    def take(self, answer: Answer) -> tuple[Mapping[str, Value], Mapping[str, Quality]]:
        """The good values and what is wrong with the others; `error` says why the whole request failed."""
        self.refused = False
        self.error = answer.error
        if answer.error is None:
            try:
                data = pdu.answer_data(self.request, answer.pdu)
            except (ModbusException, MalformedAnswer) as error:
                self.error = driver_error(self._unit, error)
                self.refused = isinstance(error, ModbusException) and error.code == _REFUSED
            else:
                if data != self._raw:
                    self._values, self._bad = self._decode(data)
                    self._raw = data
                return self._values, self._bad
        assert self.error is not None
        quality = Quality.BAD_CONFIG if self.refused and len(self.block.points) == 1 else self.error.quality
        return _NOTHING, dict.fromkeys([point.name for point in self.block.points], quality)


class Reading:
    """Points that are read together, again and again.

    An illegal-address answer to a block of several points splits it, once: each of its points is asked by
    itself, those that are refused again are `bad-config` from then on, and the others are read in blocks
    that touch no address between them.
    """

    def __init__(self, device: ModbusDevice, blocks: Sequence[Block], station: Station, unit: str) -> None:
        self._device = device
        self._station = station
        self._unit = unit
        self._readers = [_BlockReader(block, unit) for block in blocks]
        self._refused: dict[str, Quality] = {}
        self._merged: dict[int, tuple[tuple[Mapping[str, Value], ...], Mapping[str, Value]]] = {}
        self.error: DriverError | None = None
        self.answered = False

    @property
    def complete(self) -> bool:
        """The device refused none of the points so far."""
        return not self._refused

    async def read(self, urgent: bool = False) -> list[Sample]:
        """Asks for all points once.

        Answers that came within 5 ms share a sample, stamped when the first of them came; on a slow line
        each request has its own. Afterwards `answered` says whether the device itself gave any answer, and
        `error` what failed last.

        Raises:
            DriverError: the line is not open.
        """
        answers = await self._station.exchange([reader.request for reader in self._readers], urgent)
        self.answered, self.error = not answers, None
        results: list[_Result] = []
        for reader, answer in zip(list(self._readers), answers, strict=True):
            values, bad = reader.take(answer)
            self.error = reader.error or self.error
            self.answered |= reader.error is None or reader.error.code == "device-error"
            if reader.refused and len(reader.block.points) == 1:
                self._refuse(reader, bad)
                self._replace(reader, [])
            elif reader.refused:
                results.extend(await self._isolate(reader, urgent))
            else:
                results.append((answer.time_ns, values, bad))
        return list(self._samples(results)) or [self.failed(time.time_ns(), Quality.BAD_CONFIG)]

    def failed(self, time_ns: int, quality: Quality) -> Sample:
        """A sample of all points without a value, where nothing was asked."""
        names = [point.name for reader in self._readers for point in reader.block.points]
        return Sample(time_ns, _NOTHING, {**dict.fromkeys(names, quality), **self._refused})

    async def _isolate(self, reader: _BlockReader, urgent: bool) -> list[_Result]:
        blocks = alone(reader.block.points, self._device.address_base)
        singles = [_BlockReader(block, self._unit) for block in blocks]
        answers = await self._station.exchange([single.request for single in singles], urgent)
        results: list[_Result] = []
        good: list[ModbusPoint] = []
        for single, answer in zip(singles, answers, strict=True):
            values, bad = single.take(answer)
            if single.refused:
                self._refuse(single, bad)
            else:
                good.extend(single.block.points)
                results.append((answer.time_ns, values, bad))
        self._replace(reader, good)
        return results

    def _refuse(self, reader: _BlockReader, bad: Mapping[str, Quality]) -> None:
        self._refused.update(bad)
        for point in bad:
            _log.warning(
                "the device refuses a point", device=self._device.name, point=point, why=str(reader.error)
            )

    def _replace(self, reader: _BlockReader, good: Sequence[ModbusPoint]) -> None:
        base = self._device.address_base
        blocks = join(good, base, Limits.of(self._device)._replace(gap=0))
        if [block.points for block in blocks] == [reader.block.points]:
            blocks = alone(good, base)  # it answers for each point, but not for all at once
        place = self._readers.index(reader)
        self._readers[place : place + 1] = [_BlockReader(block, self._unit) for block in blocks]
        self._merged.clear()

    def _samples(self, results: Sequence[_Result]) -> Iterator[Sample]:
        first = 0
        for place in range(1, len(results) + 1):
            if place == len(results) or results[place][0] - results[first][0] > _TOGETHER_NS:
                yield self._sample(first, results[first:place])
                first = place

    def _sample(self, first: int, results: Sequence[_Result]) -> Sample:
        parts = tuple(values for _, values, _ in results)
        parts_before, merged = self._merged.get(first, ((), _NOTHING))
        if len(parts) != len(parts_before) or not all(map(is_, parts, parts_before)):
            merged = parts[0] if len(parts) == 1 else _union(parts)
            self._merged[first] = parts, merged
        bads = [bad for _, _, bad in results if bad]
        if self._refused and first == 0:
            bads.append(self._refused)
        return Sample(min(time_ns for time_ns, _, _ in results), merged, _union(bads) if bads else _ALL_WELL)


def _union(parts: Sequence[Mapping[str, _T]]) -> dict[str, _T]:
    union: dict[str, _T] = {}
    for part in parts:
        union.update(part)
    return union
