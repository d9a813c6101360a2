"""Past values of a point, as a server keeps them (OPC 10000-11, raw values)."""

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from asyncua import ua

from protocols.base import DriverError, Quality, Refused
from protocols.opcua import from_json
from protocols.opcua.codec import Codec
from protocols.opcua.session import Session
from protocols.opcua.status import name_of, words
from protocols.opcua.structures import Unfit
from protocols.opcua.to_json import time_text
from protocols.opcua.types import NodeType, types_of

MOST_VALUES: Final = 10_000
"""Rows of one answer."""


_CODE: Final = 0xFFFF_0000  # of a status code, without the bits that say how the value was had


async def history(session: Session, point: str, start: str, end: str | None, limit: int) -> dict[str, Any]:
    """The raw values of a point between two times, the first `limit` of them, `end` by default being now.

    A row has its `time`, and `value`; or `bad` (as points have it) and `status`, where it is none. `more`
    says that there are more. Where `start` is after `end` they come in backward order.

    Raises:
        Refused: `malformed`: no point with a value, or no times.
        DriverError: the server keeps none of it, or did not answer.
    """
    configured = session.device.points.get(point)
    if configured is None or configured.events is not None:
        raise Refused("malformed", f"history: {point!r:.60} is no point that has a value")
    try:
        first = from_json.time(start)
        last = from_json.time(end) if end is not None else datetime.fromtimestamp(time.time(), UTC)
    except Unfit as error:
        raise Refused("malformed", f"history: {error}") from None
    node = session.node_id(point)
    (kind,) = await types_of(session, [node])
    codec = Codec(configured, session.device.tolerate, kind if isinstance(kind, NodeType) else None)
    index_range = configured.index_range
    asked = ua.HistoryReadValueId(
        NodeId=node, IndexRange=None if index_range is None else ua.NumericRange(index_range)
    )
    details = ua.ReadRawModifiedDetails(
        IsReadModified=False,
        StartTime=first,
        EndTime=last,
        NumValuesPerNode=ua.Counter(limit + 1),  # the one too many says that there are more
        ReturnBounds=False,
    )
    rows: list[dict[str, Any]] = []
    while True:
        values, asked.ContinuationPoint = await _ask(session, point, details, asked)
        rows += _rows(codec, values)
        if not asked.ContinuationPoint or not values or len(rows) > limit:
            break
    if asked.ContinuationPoint:
        await _ask(session, point, details, asked, release=True)
    more = bool(asked.ContinuationPoint) or len(rows) > limit
    return {"values": rows[:limit]} | ({"more": True} if more else {})


async def _ask(
    session: Session,
    point: str,
    details: ua.ReadRawModifiedDetails,
    asked: ua.HistoryReadValueId,
    release: bool = False,
) -> tuple[Sequence[ua.DataValue], ua.ContinuationPoint | None]:
    """Some values, and with what to ask for those after them; or has the server forget that it was asked."""
    parameters = ua.HistoryReadParameters(
        HistoryReadDetails=details,
        TimestampsToReturn=ua.TimestampsToReturn.Both,
        ReleaseContinuationPoints=release,
        NodesToRead=[asked],
    )
    with session.errors(f"read the history of {point}"):
        results = await session.services.history_read(parameters)
    if release:
        return (), asked.ContinuationPoint
    if len(results) != 1 or results[0].StatusCode.is_bad():
        said = words(results[0].StatusCode.value) if results else "it gave no result"
        raise DriverError("device-error", f"the server did not give the history of {point}: {said}")
    found = results[0].HistoryData
    values = found.DataValues if isinstance(found, ua.HistoryData) else ()
    return values or (), results[0].ContinuationPoint


def _rows(codec: Codec, values: Iterable[ua.DataValue]) -> Iterator[dict[str, Any]]:
    for one in values:
        stamp = one.SourceTimestamp or one.ServerTimestamp
        row: dict[str, Any] = {"time": time_text(stamp) if stamp is not None else None}
        taken = codec.take(one)
        if isinstance(taken, Quality):
            row["bad"] = taken.value
        else:
            row["value"] = taken
        if one.StatusCode is not None and one.StatusCode.value & _CODE:
            row["status"] = name_of(one.StatusCode.value)
        yield row
