"""Between what a node holds and the value of a point, both ways."""

from collections.abc import Collection
from datetime import UTC, datetime
from functools import lru_cache
from math import isfinite
from typing import Any, Final, Literal

from asyncua import ua

from protocols.base import Quality, Value
from protocols.opcua.from_json import packed, shape_of, variant
from protocols.opcua.point import OpcuaPoint
from protocols.opcua.status import Judge
from protocols.opcua.structures import DataType, Dictionary, Unfit
from protocols.opcua.to_json import text, to_json
from protocols.opcua.types import NodeType

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PICOSECONDS: Final = 100  # of a nanosecond: they are counted in tens (OPC 10000-4, DataValue)
_PLAIN: Final = (float, int, bool)
_EMPTY_TEXTS: Final = (ua.VariantType.String, ua.VariantType.ByteString, ua.VariantType.XmlElement)
_TEXTS: Final = (ua.VariantType.String, ua.VariantType.LocalizedText)
_SCALAR: Final = -1
_INTEGERS: Final = range(ua.VariantType.SByte, ua.VariantType.UInt64 + 1)


def time_ns(data: ua.DataValue, mode: Literal["source", "server", "gateway"], now_ns: int) -> int:
    """When a value was so by the clock that `mode` names, UTC in nanoseconds; a clock that says nothing gives
    way to the next, from the source over the server to ours."""
    if mode == "source" and data.SourceTimestamp is not None:
        ns = ns_of(data.SourceTimestamp)
        if ns is not None:
            return ns + (data.SourcePicoseconds or 0) // _PICOSECONDS
    if mode != "gateway" and data.ServerTimestamp is not None:
        ns = ns_of(data.ServerTimestamp)
        if ns is not None:
            return ns + (data.ServerPicoseconds or 0) // _PICOSECONDS
    return now_ns


def ns_of(stamp: datetime) -> int | None:
    """A time as UTC in nanoseconds since 1970; None of one that is earlier: 1601 says that there is none."""
    since = (stamp if stamp.tzinfo is not None else stamp.replace(tzinfo=UTC)) - _EPOCH
    if since.days < 0:
        return None
    return ((since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds) * 1000


class Codec:
    """One point: takes what its node holds, and says how the node is told a value.

    `kind` is the node's type, known once the server was asked; without it structures are their raw bytes.
    """

    def __init__(
        self, point: OpcuaPoint, tolerate: Collection[str] = (), kind: NodeType | None = None
    ) -> None:
        self._point = point
        self._engineering = point.engineering
        self._quality = _judge(frozenset(tolerate)).quality
        self._wanted = None if point.data_type is None else ua.VariantType[point.data_type]
        self._scaled = (point.scale, point.offset) != (1, 0)
        self._plain = point.kind == "number" and not self._scaled
        self._dictionary = kind.dictionary if kind is not None else Dictionary()
        self._lengths = _lengths(point.index_range)

    def take(self, data: ua.DataValue) -> Value | Quality:
        """The point's value, or why there is none. Never raises.

        A null is no value: `device-error`; of a text and an array it is an empty one, since the protocol
        tells them apart where most languages do not. What is of another type than the profile says is
        `bad-config`.
        """
        status = data.StatusCode
        if status is not None and status.value and (bad := self._quality(status.value)) is not None:
            return bad
        held = data.Value
        if held is None:
            return Quality.DEVICE_ERROR
        if self._wanted is not None and held.VariantType is not self._wanted:
            return Quality.BAD_CONFIG if held.Value is not None else Quality.DEVICE_ERROR
        raw = held.Value
        if type(raw) is float and self._plain and isfinite(raw):
            return raw
        if type(raw) in _PLAIN:
            return self._engineering(raw)
        if type(raw) is str:
            return self._engineering(text(raw))
        return self._other(held)

    def _other(self, held: ua.Variant) -> Value | Quality:
        raw = held.Value
        if raw is None:
            if held.is_array:
                raw = []
            elif held.VariantType in _EMPTY_TEXTS:
                raw = ""
            else:
                return Quality.DEVICE_ERROR
        try:
            value = self._part(to_json(raw, self._dictionary))
        except Unfit:
            return Quality.DEVICE_ERROR
        if value is None:
            return Quality.DEVICE_ERROR
        if isinstance(value, str) and self._point.kind != "string" and held.VariantType not in _TEXTS:
            return Quality.BAD_CONFIG  # else the hexadecimal text of bytes might pass for a number
        return self._engineering(value)

    def _part(self, value: Any) -> Any:
        """What the index range of the point leaves of a value, which the server is asked to see to.

        Raises:
            Unfit: it has not.
        """
        inner = value
        for most in self._lengths:
            if not isinstance(inner, list):
                break
            if len(inner) > most:
                raise Unfit("the server gave more than the index range")
            inner = inner[0] if inner else None
        return value if self._point.kind == "array" else inner

    def variant(self, value: Value, kind: NodeType, now: ua.Variant | None = None) -> ua.Variant:
        """What the node is told for a value that the point's `accept` has passed.

        `now` is what it holds: it says the type where the node's own leaves that open, and a text's locale.

        Raises:
            Unfit: the node's type has no such value.
            Refused: `out-of-range`: nothing raw means it.
        """
        raw: Any = self._point.raw(value)
        built_in: ua.VariantType | None = kind.type.built_in
        if built_in is ua.VariantType.Variant:
            known = now is not None and isinstance(now.VariantType, ua.VariantType) and now.VariantType
            built_in = known or self._wanted
        if built_in is None:
            return variant(raw, kind.dictionary)
        if self._wanted not in (None, built_in):
            raise Unfit(f"the server has it as {built_in.name}, the profile as {self._point.data_type}")
        if self._scaled and built_in in _INTEGERS:
            raw = round(raw)
        if built_in is ua.VariantType.LocalizedText and isinstance(raw, str) and now is not None:
            raw = {"text": raw, "locale": getattr(now.Value, "Locale", None) or ""}
        rank = (
            kind.rank if kind.rank > 0 else 0 if kind.rank == _SCALAR else _depth(raw) or len(self._lengths)
        )
        if self._lengths and rank:
            raw = self._whole(raw, rank)
        return packed(raw, rank, DataType(built_in, kind.type.structure), kind.dictionary)

    def _whole(self, raw: Any, rank: int) -> Any:
        """The array that an index range is written with: of one element it is an array as well.

        Raises:
            Unfit: it has other lengths than the range.
        """
        if self._point.kind != "array":
            for _ in range(rank):
                raw = [raw]
        if shape_of(raw, rank) != self._lengths:
            raise Unfit(f"the index range {self._point.index_range} takes {self._lengths} elements")
        return raw

    def written(self, value: Value, told: ua.Variant) -> Value:
        """The value as the node holds it after it was told so: rounded as its type rounds."""
        meant = self.take(ua.DataValue(told))
        return value if isinstance(meant, Quality) else meant


@lru_cache(maxsize=64)
def _judge(tolerate: frozenset[str]) -> Judge:
    return Judge(tolerate)  # one for all points of a device


def _lengths(index_range: str | None) -> list[int]:
    """How many elements an index range has, by dimension."""
    lengths = []
    for one in index_range.split(",") if index_range else ():
        first, _, last = one.partition(":")
        lengths.append(int(last) - int(first) + 1 if last else 1)
    return lengths


def _depth(raw: Any) -> int:
    depth = 0
    while isinstance(raw, list):
        depth, raw = depth + 1, raw[0] if raw else None
    return depth
