"""What a server says it takes at once, and one that takes less than the question."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from asyncua import ua
from asyncua.ua.uaerrors import BadTooManyOperations, BadUserAccessDenied, UaError

from protocols.opcua.limits import Limits


class _Server:
    """Answers reads with `values` in turn, of at most `most` nodes at once."""

    def __init__(self, values: list[Any], most: int = 8) -> None:
        self._values = iter(values)
        self._most = most

    async def read(self, asked: ua.ReadParameters) -> list[ua.DataValue]:
        if len(asked.NodesToRead) > self._most:
            raise BadTooManyOperations()
        return [
            ua.DataValue(ua.Variant(next(self._values), ua.VariantType.UInt32)) for _ in asked.NodesToRead
        ]


async def _of(server: Any) -> tuple[Any, ...]:
    return msgspec.structs.astuple(await Limits.of(server))


async def test_limits_are_what_the_server_says_and_nonsense_is_none() -> None:
    assert await _of(_Server([1, 2, 3, 4, 5, 6, 7, 8])) == (1, 2, 3, 4, 5, 6, 7, 8)
    assert await _of(_Server([-1, "x", 2**40, True, 1.5, [1], 0, 8])) == (0, 0, 2**40, 0, 0, 0, 0, 8)


async def test_a_server_that_takes_fewer_nodes_at_once_is_asked_one_by_one() -> None:
    assert await _of(_Server([5, 2, 3, 4, 5, 6, 7, 8], most=5)) == (5, 2, 3, 4, 5, 6, 7, 8)


async def test_another_refusal_is_not_hidden() -> None:
    async def read(_: ua.ReadParameters) -> list[ua.DataValue]:
        raise BadUserAccessDenied()

    with pytest.raises(BadUserAccessDenied):
        await _of(SimpleNamespace(read=read))


@pytest.mark.parametrize("count", [0, 7, 9])
async def test_another_number_of_answers_makes_no_sense(count: int) -> None:
    async def read(_: ua.ReadParameters) -> list[ua.DataValue]:
        return [ua.DataValue()] * count

    with pytest.raises(UaError, match=f"{count} values of 8"):
        await _of(SimpleNamespace(read=read))
