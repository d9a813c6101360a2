"""Methods of a real server with typed arguments, and reads of any of its nodes."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.ua.status_codes import StatusCodes
from opcua_plant import URI, Plant, add, plant, structure, talking

from protocols.base import DriverError, Refused
from protocols.opcua.calls import METHODS, carry_out
from protocols.opcua.session import Session

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[Plant]:
    """A server with methods."""
    async with plant() as both:
        await _add_methods(both)
        await add(both, "speed", ua.Variant(1.5, ua.VariantType.Double))
        await add(both, "list", ua.Variant([1, 2, 3], ua.VariantType.Int16))
        yield both


def _argument(name: str, data_type: ua.NodeId, rank: int = -1) -> ua.Argument:
    return ua.Argument(Name=ua.String(name), DataType=data_type, ValueRank=ua.Int32(rank))


def _standard(kind: ua.VariantType) -> ua.NodeId:
    return ua.NodeId(ua.Int32(kind.value))


async def _add_methods(served: Plant) -> None:
    server, index = served
    inner = await structure(
        server, index, "Step", {"Time": ua.VariantType.Int64, "Note": ua.VariantType.String}
    )
    doubles = _standard(ua.VariantType.Double)

    def echo(_parent: ua.NodeId, *inputs: ua.Variant) -> list[ua.Variant]:
        return list(inputs)

    def refuse(_parent: ua.NodeId, *inputs: ua.Variant) -> ua.CallMethodResult:
        results = [ua.StatusCode(), ua.StatusCode(ua.UInt32(StatusCodes.BadOutOfRange))]
        return ua.CallMethodResult(
            StatusCode=ua.StatusCode(ua.UInt32(StatusCodes.BadInvalidArgument)), InputArgumentResults=results
        )

    takes = [
        _argument("speed", doubles),
        _argument("count", _standard(ua.VariantType.UInt16)),
        _argument("names", _standard(ua.VariantType.String), 1),
        _argument("steps", inner, 1),
        _argument("any", _standard(ua.VariantType.Variant)),
    ]
    both = [_argument("a", doubles), _argument("b", doubles)]
    for name, function, inputs, outputs in (
        ("echo", echo, takes, takes),
        ("refuse", refuse, both, []),
        ("plain", echo, [], []),
        ("twice", echo, both, [_argument("a", doubles), _argument("a", doubles)]),
    ):
        node_id = ua.NodeId(ua.String(name), index)
        await server.nodes.objects.add_method(node_id, f"{index}:{name}", function, inputs, outputs)


class _Nothing:
    """Subscriptions of a driver that has none."""

    def subscription_ids(self) -> Sequence[int]:
        return ()

    async def status(self) -> Mapping[str, Any]:
        return {"session": "one"}


_METHODS = {name: {"object": "i=85", "method": f"nsu={URI};s={name}"} for name in ("echo", "refuse", "plain")}
_ARGS: Mapping[str, Any] = {
    "speed": 1.5,
    "count": 65535,
    "names": ["a", "b"],
    "steps": [{"Time": 1 << 62, "Note": "n"}],
    "any": {"type": "Byte", "value": 7},
}


async def _called(session: Session, operation: str, /, **args: Any) -> Any:
    return await carry_out(operation, args, session, _Nothing())


@pytest.mark.parametrize("args", [dict(_ARGS), list(_ARGS.values())])
async def test_a_method_gives_what_it_was_told_in_its_types(served: Plant, args: Any) -> None:
    async with talking(served[0], {}, methods=_METHODS) as session:
        said = await _called(session, "call", name="echo", args=args)
    assert said == {"status": "Good", "results": {**_ARGS, "any": 7}}


async def test_a_method_is_called_by_its_node_as_well(served: Plant) -> None:
    server, index = served
    async with talking(server, {}) as session:
        for method in (f"ns={index};s=plain", f"/Objects/nsu={URI};plain", f"/Objects/{index}:plain"):
            said = await _called(session, "call", object="i=85", method=method)
            assert said == {"status": "Good", "results": {}}
        twice = await _called(session, "call", object="i=85", method=f"ns={index};s=twice", args=[1, 2])
        assert twice["results"] == {"a": 1.0, "output1": 2.0}  # a name that comes twice is given once


async def test_what_an_argument_lacks_is_said_before_anything_is_called(served: Plant) -> None:
    wrong: Sequence[tuple[Any, str]] = [
        ([1.5], "echo was given 1 arguments; it takes speed, count, names, steps, any"),
        ({}, "echo needs its argument 'speed'"),
        ({**_ARGS, "more": 1}, "echo has no argument 'more'; it takes speed"),
        ({**_ARGS, "count": 65536}, "argument count: 65536 does not fit UInt16"),
        ({**_ARGS, "speed": "fast"}, "argument speed: 'fast' is no number"),
        ({**_ARGS, "names": "a"}, "argument names: 'a' is no array"),
        ({**_ARGS, "steps": [{"Time": 1}]}, "argument steps: .* needs its field Note"),
        ({**_ARGS, "any": {"type": "Inch", "value": 1}}, "argument any: 'Inch' is no built-in type"),
    ]
    async with talking(served[0], {}, methods=_METHODS) as session:
        for args, text in wrong:
            with pytest.raises(Refused, match=text) as caught:
                await _called(session, "call", name="echo", args=args)
            assert caught.value.code == "malformed"


async def test_a_refusal_names_the_argument_that_the_server_did_not_like(served: Plant) -> None:
    async with talking(served[0], {}, methods=_METHODS) as session:
        with pytest.raises(DriverError, match=r"BadInvalidArgument: .*; argument b: BadOutOfRange") as caught:
            await _called(session, "call", name="refuse", args=[1, 2])
    assert caught.value.code == "device-error"
    assert "argument a" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "args", "code", "text"),
    [
        ("jump", {}, "unknown-op", f"has no method 'jump'; it has {', '.join(METHODS)}"),
        (
            "call",
            {"name": "jump"},
            "malformed",
            "the profile has no method 'jump'; it has echo, refuse, plain",
        ),
        ("call", {}, "malformed", "call takes name, or object and method"),
        ("call", {"name": "echo", "object": "i=85"}, "malformed", "call takes name, or object and method"),
        ("call", {"nmae": "echo"}, "malformed", "call has no argument 'nmae'; it takes name"),
        ("call", {"name": "echo", "args": 1}, "malformed", "call: Expected"),
        ("call", {"object": "i=85", "method": "x"}, "malformed", "should be a node id such as"),
        ("read", {"nodes": []}, "malformed", "read: Expected"),
        ("read", {"nodes": ["i=85"], "attribute": "Colour"}, "malformed", "'Colour' is no attribute"),
        ("read", {"nodes": ["i=85"], "index_range": "x"}, "malformed", "read: Expected"),
        ("history", {"point": "p"}, "malformed", "history: Object missing required field"),
        ("status", {"x": 1}, "malformed", "status has no argument 'x'; it takes none"),
    ],
)
async def test_wrong_arguments_are_refused(
    served: Plant, method: str, args: Mapping[str, Any], code: str, text: str
) -> None:
    async with talking(served[0], {}, methods=_METHODS) as session:
        with pytest.raises(Refused) as caught:
            await _called(session, method, **args)
    assert caught.value.code == code
    assert text in str(caught.value)


async def test_a_method_or_object_that_is_not_there(served: Plant) -> None:
    async with talking(served[0], {}) as session:
        with pytest.raises(DriverError, match=r"did not carry out .*nowhere: BadNodeIdInvalid"):
            await _called(session, "call", object="i=85", method=f"nsu={URI};s=nowhere")
        with pytest.raises(DriverError, match="the server has no node /Objects/Nothing: BadNoMatch"):
            await _called(session, "call", object="/Objects/Nothing", method="i=85")


async def test_nodes_are_read_as_they_are(served: Plant) -> None:
    speed, numbers = f"nsu={URI};s=speed", f"nsu={URI};s=list"
    async with talking(served[0], {}) as session:
        said = await _called(session, "read", nodes=[speed, numbers, f"nsu={URI};s=nowhere"])
        values = said["values"]
        assert [one["node"] for one in values] == [speed, numbers, f"nsu={URI};s=nowhere"]
        assert [one["value"] for one in values] == [1.5, [1, 2, 3], None]
        assert values[2]["status"] == "BadNodeIdUnknown"
        assert values[0]["source_time"].endswith("Z")
        named = await _called(session, "read", nodes=[speed], attribute="BrowseName")
        assert named["values"][0]["value"] == f"nsu={URI};speed"
        typed = await _called(session, "read", nodes=["/Objects/Server"], attribute="NodeClass")
        assert typed["values"][0]["value"] == 1
        assert await _called(session, "status") == {"session": "one"}
