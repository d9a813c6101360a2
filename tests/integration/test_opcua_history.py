"""Past values of a real server's variables."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.server.history import HistoryDict
from asyncua.ua.status_codes import StatusCodes
from opcua_plant import URI, Plant, add, plant, talking

from protocols.base import DriverError, Refused
from protocols.opcua.history import history
from protocols.opcua.session import Session

pytestmark = pytest.mark.asyncio(loop_scope="module")

_START = datetime(2026, 11, 22, 12, 0, 0, 0, UTC)
_POINTS = {
    "speed": {"node": f"nsu={URI};s=speed", "scale": 10},
    "plain": {"node": f"nsu={URI};s=plain"},
    "alarms": {"node": "i=2253", "type": "object", "events": "alarms"},
}
_COUNT = 25


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Plant]:
    """A server with a variable that had 25 values, a second apart, the fourth of them bad."""
    async with plant() as both:
        server, _ = both
        storage = HistoryDict()
        server.iserver.history_manager.set_storage(storage)
        node = await add(both, "speed", ua.Variant(0.0, ua.VariantType.Double))
        await add(both, "plain", ua.Variant(0.0, ua.VariantType.Double))
        await server.historize_node_data_change(node, timedelta(days=9), count=1000)
        storage._datachanges[node.nodeid].clear()
        for number in range(_COUNT):
            stamp = ua.DateTime.fromisoformat(_at(number))
            code = StatusCodes.BadSensorFailure if number == 3 else StatusCodes.Good
            value = ua.Variant(float(number), ua.VariantType.Double)
            data = ua.DataValue(value, ua.StatusCode(ua.UInt32(code)), SourceTimestamp=stamp)
            storage._datachanges[node.nodeid].append(data)
        yield both


def _at(seconds: float) -> str:
    return (_START + timedelta(seconds=seconds)).isoformat()


async def _rows(session: Session, *args: Any) -> tuple[Sequence[Mapping[str, Any]], bool]:
    said = await history(session, *args)
    return said["values"], said.get("more", False)


async def test_values_between_two_times_with_what_was_bad(served: Plant) -> None:
    async with talking(served[0], _POINTS) as session:
        rows, more = await _rows(session, "speed", _at(2), _at(4), 1000)
    assert rows == [
        {"time": "2026-11-22T12:00:02Z", "value": 20.0},
        {"time": "2026-11-22T12:00:03Z", "bad": "device-error", "status": "BadSensorFailure"},
        {"time": "2026-11-22T12:00:04Z", "value": 40.0},
    ]
    assert not more


async def test_no_more_than_the_limit_and_that_there_are_more(served: Plant) -> None:
    async with talking(served[0], _POINTS) as session:
        rows, more = await _rows(session, "speed", _at(0), _at(_COUNT), 7)
        assert [row["time"][17:19] for row in rows] == [f"{second:02}" for second in range(7)]
        assert more
        rows, more = await _rows(session, "speed", _at(0), None, _COUNT)
        assert len(rows) == _COUNT


async def test_an_answer_in_pieces_is_put_together(served: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = served[0].iserver.history_manager.storage
    whole = storage.read_node_history
    asked: list[Any] = []

    async def watched(node: ua.NodeId, start: Any, end: Any, count: int) -> Any:
        asked.append(start)
        return await whole(node, start, end, count)

    monkeypatch.setattr(storage, "read_node_history", watched)
    monkeypatch.setattr(storage, "max_history_data_response_size", 5)
    async with talking(served[0], _POINTS) as session:
        rows, more = await _rows(session, "speed", _at(0), _at(_COUNT), 1000)
        assert [row["time"][17:19] for row in rows] == [f"{second:02}" for second in range(_COUNT)]
        assert not more
        assert len(set(asked)) == 5
        rows, more = await _rows(session, "speed", _at(0), _at(_COUNT), 8)
        assert (len(rows), more) == (8, True)


async def test_a_variable_without_history(served: Plant) -> None:
    async with talking(served[0], _POINTS) as session:
        try:
            rows, _ = await _rows(session, "plain", _at(0), _at(_COUNT), 10)
        except DriverError as error:
            assert error.code == "device-error"
            assert "the history of plain" in str(error)
        else:
            assert rows == []


async def test_what_is_no_time_and_no_point_is_refused(served: Plant) -> None:
    wrong: Sequence[tuple[Sequence[Any], str]] = [
        (("nothing", _at(0), None, 1), "'nothing' is no point that has a value"),
        (("alarms", _at(0), None, 1), "'alarms' is no point that has a value"),
        (("speed", "yesterday", None, 1), "'yesterday' is no time such as"),
        (("speed", _at(0), "2026-11-22T12:00:00", 1), "is no time such as"),  # of no zone
        (("speed", "1066-10-14T09:00:00Z", None, 1), "is no time such as"),
    ]
    async with talking(served[0], _POINTS) as session:
        for args, text in wrong:
            with pytest.raises(Refused, match=text) as caught:
                await history(session, *args)
            assert caught.value.code == "malformed"
