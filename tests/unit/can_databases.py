"""Made-up messages for cantools, and what it makes of a frame: the oracle of our decoder and encoder."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from cantools.database import load_file
from cantools.database.can import Message, Signal
from cantools.database.conversion import BaseConversion
from cantools.database.errors import DecodeError, Error, UnsupportedDatabaseFormatError
from cantools.database.namedsignalvalue import NamedSignalValue
from cantools.database.utils import decode_data
from hypothesis import strategies as st

from protocols.can.signals.database import from_cantools
from protocols.can.signals.decoder import compile_decoder

FACTORS = (1, 1, 2, -3, 10, 0.5, 0.1, -0.25, 1.0, 4.0, 1e-3, 0.0625)
OFFSETS = (0, 0, 0, -40, 100, 0.5, -273.15, 32.0)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """A message of up to 64 bytes: both byte orders, signed, float, labels, multiplexers in multiplexers."""
    length = draw(st.one_of(st.integers(1, 8), st.sampled_from((8, 8, 12, 16, 64))))
    maker = _Maker(draw, 8 * length)
    maker.node(None, None, depth=draw(st.integers(0, 2)))
    return Message(0x123, "m", length, maker.signals, is_fd=length > 8, strict=False)


class _Maker:
    def __init__(self, draw: st.DrawFn, bits: int) -> None:
        self.draw, self.bits = draw, bits
        self.signals: list[Signal] = []

    def node(self, selector: str | None, ids: list[int] | None, depth: int) -> None:
        """Signals that are in a frame together; those of one byte order do not overlap."""
        ends = {True: 0, False: 0}
        for _ in range(self.draw(st.integers(1, 6 if selector is None else 3))):
            little = self.draw(st.booleans())
            first = ends[little] + self.draw(st.integers(0, 9))
            if first >= self.bits:
                continue
            signal = self.signal(first, little, selector, ids)
            ends[little] = first + signal.length
            self.signals.append(signal)
        first = max(ends.values())
        room = min(8, self.bits - first)
        if depth and room > 0:
            self.multiplexer(first, room, selector, ids, depth)

    def signal(self, first: int, little: bool, selector: str | None, ids: list[int] | None) -> Signal:
        draw, room = self.draw, self.bits - first
        length = draw(st.one_of(st.integers(1, min(room, 16)), st.integers(1, min(room, 64))))
        wide = [size for size in (16, 32, 64) if size <= room]
        is_float = bool(wide and draw(st.integers(0, 4)) == 0)
        if is_float:
            length = draw(st.sampled_from(wide))
        signed = draw(st.booleans())
        choices = None
        if not is_float and draw(st.integers(0, 2)) == 0:
            codes = st.integers(-4, 12) if signed else st.integers(0, 15)
            choices = _labels(draw(st.sets(codes, min_size=1, max_size=6)))
        conversion = BaseConversion.factory(
            draw(st.sampled_from(FACTORS)), draw(st.sampled_from(OFFSETS)), choices, is_float
        )
        return Signal(
            f"s{len(self.signals)}",
            first if little else sawtooth(first),
            length,
            "little_endian" if little else "big_endian",
            signed,
            conversion=conversion,
            multiplexer_signal=selector,
            multiplexer_ids=ids,
        )

    def multiplexer(
        self, first: int, room: int, selector: str | None, ids: list[int] | None, depth: int
    ) -> None:
        length, little = self.draw(st.integers(1, room)), self.draw(st.booleans())
        name = f"s{len(self.signals)}"
        signal = Signal(
            name,
            first if little else sawtooth(first),
            length,
            "little_endian" if little else "big_endian",
            is_multiplexer=True,
            multiplexer_signal=selector,
            multiplexer_ids=ids,
        )
        if self.draw(st.booleans()):
            signal.conversion = BaseConversion.factory(choices=_labels({0, 1}))
        self.signals.append(signal)
        codes = list(range(min(1 << length, 8)))
        while codes:
            count = self.draw(st.integers(1, len(codes)))
            group, codes = codes[:count], codes[count:]
            if self.draw(st.integers(0, 3)):
                self.node(name, group, depth - 1)


def _labels(codes: set[int]) -> OrderedDict[int, str | NamedSignalValue]:
    return OrderedDict((code, NamedSignalValue(code, f"label {code}")) for code in codes)


def sawtooth(network: int) -> int:
    """A start bit as DBC counts it, of a bit that is counted from the top of each byte."""
    return network // 8 * 8 + 7 - network % 8


def decoded(message: Message, data: bytes) -> Mapping[str, Any]:
    """What cantools decodes; a multiplexer value that it does not know takes nothing else with it."""
    try:
        return message.decode(data, allow_truncated=True)  # type: ignore[return-value]
    except DecodeError as error:
        assert "multiplexer id" in str(error)
        return _walk(message, message._codecs, data)


def _walk(message: Message, node: Any, data: bytes) -> dict[str, Any]:
    values: dict[str, Any] = dict(
        decode_data(data, message.length, node["signals"], node["formats"], True, True, True, True)
    )
    for name, branches in node["multiplexers"].items():
        if name in values:
            branch = branches.get(message._get_mux_number(values, name))
            values |= {} if branch is None else _walk(message, branch, data)
    return values


def seen(values: Mapping[str, Any]) -> dict[str, str]:
    """Values such that 1, 1.0 and True differ, and NaN is NaN."""
    return {
        name: repr(value if isinstance(value, int | float) else str(value)) for name, value in values.items()
    }


def loaded(path: Path) -> list[Message]:
    """The messages of a file as far as cantools decodes them right; none where it cannot read the file.

    Of messages with signals that overlap or do not fit, each signal that does is a message of its own.
    """
    try:
        found: Any = load_file(path, strict=False)
    except UnsupportedDatabaseFormatError:
        return []
    return [part for message in found.messages if not message.is_container for part in _sound(message)]


def _sound(message: Message) -> Iterator[Message]:
    try:
        message.refresh(strict=True)
    except Error:
        for signal in message.signals:
            if signal.multiplexer_signal is None and not signal.is_multiplexer:
                try:
                    yield Message(message.frame_id & 0x7FF, message.name, message.length, [signal])
                except Error as error:
                    assert "does not fit" in str(error)
    else:
        yield message


def differences(found: list[Message], randomly: Random) -> list[str]:
    """Messages of which our decoder makes something else than cantools, for random frames of all lengths."""
    return [message.name for message in found if not _agrees(message, randomly)]


def _agrees(message: Message, randomly: Random) -> bool:
    ours = from_cantools(message)
    decode = compile_decoder(ours, {name: name for name in ours.signals})
    sizes = [*[message.length] * 10, *range(message.length + 2)]
    frames = [bytes(message.length), *map(randomly.randbytes, sizes)]
    return all(seen(decode(frame)) == seen(decoded(message, frame)) for frame in frames)
