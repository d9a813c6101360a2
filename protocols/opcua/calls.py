"""The operations of `call`: methods, reads of any node, history, and what is answered to alarms.

Imported only when a device is made.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Protocol

import msgspec
from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.uaprotocol_auto import Argument  # ua.Argument is a subclass, which is not what is decoded
from pydantic import TypeAdapter, ValidationError

from protocols.base import DriverError, Refused
from protocols.opcua.alarms import answer, refresh
from protocols.opcua.from_json import packed, variant
from protocols.opcua.history import MOST_VALUES, history
from protocols.opcua.point import INDEX_RANGE, Node
from protocols.opcua.session import Session
from protocols.opcua.status import name_of, words
from protocols.opcua.structures import DataType, Dictionary, Unfit
from protocols.opcua.to_json import data_value, text, to_json
from protocols.opcua.types import data_types_of, dictionary_of, types_of

MOST_NODES: Final = 1000
"""Nodes that `read` takes."""

_NODE: Final[TypeAdapter[Any]] = TypeAdapter(Node)
_MOST_DIMENSIONS: Final = 8


class Monitoring(Protocol):
    """What the driver's subscriptions know."""

    def subscription_ids(self) -> Sequence[int]:
        """The server's ids of our subscriptions."""

    async def status(self) -> Mapping[str, Any]:
        """What `call status` says; JSON-able."""


class _At(msgspec.Struct, frozen=True):
    """Who is called."""

    session: Session
    monitoring: Monitoring


class _Args(msgspec.Struct, forbid_unknown_fields=True):
    """A method with what it takes."""

    async def carry_out(self, at: _At) -> Any:
        """Carries the method out."""
        raise NotImplementedError


async def carry_out(method: str, args: Mapping[str, Any], session: Session, monitoring: Monitoring) -> Any:
    """Carries out a method of `call`; the answer is JSON-able.

    Raises:
        Refused: unknown method or wrong arguments; the server was told nothing.
        DriverError: the server refused it or did not answer.
    """
    kind = METHODS.get(method)
    if kind is None:
        known = ", ".join(METHODS)
        raise Refused("unknown-op", f"an opcua device has no method {method!r:.60}; it has {known}")
    takes = kind.__struct_encode_fields__
    for name in args:
        if name not in takes:
            said = f"it takes {', '.join(takes)}" if takes else "it takes none"
            raise Refused("malformed", f"{method} has no argument {name!r:.40}; {said}")
    try:
        parsed = msgspec.convert(dict(args), kind)
    except msgspec.ValidationError as error:
        raise Refused("malformed", f"{method}: {error}") from error
    return await parsed.carry_out(_At(session, monitoring))


async def _resolved(session: Session, nodes: Sequence[str]) -> list[ua.NodeId]:
    """Nodes as the caller writes them.

    Raises:
        Refused: `malformed`: one is neither a node id nor a browse path.
        DriverError: the server does not have one.
    """
    try:
        written = [_NODE.validate_python(one) for one in nodes]
    except ValidationError as error:
        raise Refused("malformed", f"{error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    found = []
    for name, one in zip(nodes, await session.resolve(written), strict=True):
        if isinstance(one, ua.StatusCode):
            raise DriverError("device-error", f"the server has no node {name}: {words(one.value)}")
        found.append(one)
    return found


class _Call(_Args):
    """A method of the profile by `name`, or any by `object` and `method`; `args` as a list or by name."""

    name: str | None = None
    object: str | None = None
    method: str | None = None
    args: list[Any] | dict[str, Any] = msgspec.field(default_factory=list)

    async def carry_out(self, at: _At) -> Any:
        what, nodes = self._named(at)
        object_id, method_id = await _resolved(at.session, nodes)
        inputs, outputs = await _arguments(at.session, method_id)
        dictionary = dictionary_of(at.session)
        told = await self._told(at.session, what, inputs, dictionary)
        request = ua.CallMethodRequest(ObjectId=object_id, MethodId=method_id, InputArguments=told)
        with at.session.errors(f"call {what}"):
            results = await at.session.services.call([request])
        if len(results) != 1:
            raise DriverError("device-error", f"the server gave {len(results)} results of one call of {what}")
        return _result(what, results[0], inputs, outputs, dictionary)

    def _named(self, at: _At) -> tuple[str, list[Any]]:
        if self.name is not None and self.object is None and self.method is None:
            configured = at.session.device.methods.get(self.name)
            if configured is None:
                known = ", ".join(at.session.device.methods) or "none"
                raise Refused("malformed", f"the profile has no method {self.name!r:.60}; it has {known}")
            return self.name, [configured.object, configured.method]
        if self.name is None and self.object is not None and self.method is not None:
            return self.method, [self.object, self.method]
        raise Refused("malformed", "call takes name, or object and method")

    async def _told(
        self, session: Session, what: str, inputs: Sequence[Argument], dictionary: Dictionary
    ) -> list[ua.Variant]:
        kinds = await data_types_of(session, [one.DataType for one in inputs])
        told = []
        for one, kind, value in zip(inputs, kinds, self._values(what, inputs), strict=True):
            try:
                told.append(_argument(value, one, kind, dictionary))
            except Unfit as error:
                raise Refused("malformed", f"{what}: argument {_label(one)}: {error}") from None
        return told

    def _values(self, what: str, inputs: Sequence[Argument]) -> list[Any]:
        names = [_label(one) for one in inputs]
        takes = f"it takes {', '.join(names)}" if names else "it takes none"
        if isinstance(self.args, list):
            if len(self.args) != len(names):
                raise Refused("malformed", f"{what} was given {len(self.args)} arguments; {takes}"[:400])
            return self.args
        for name in self.args:
            if name not in names:
                raise Refused("malformed", f"{what} has no argument {name!r:.60}; {takes}"[:400])
        for name in names:
            if name not in self.args:
                raise Refused("malformed", f"{what} needs its argument {name!r:.60}; {takes}"[:400])
        return [self.args[name] for name in names]


def _label(argument: Argument) -> str:
    return text(argument.Name or "")


def _argument(value: Any, argument: Argument, kind: DataType, dictionary: Dictionary) -> ua.Variant:
    if kind.built_in is ua.VariantType.Variant:
        return variant(value, dictionary)
    rank = argument.ValueRank
    if rank > _MOST_DIMENSIONS:
        raise Unfit(f"an array of {rank} dimensions is beyond us")
    if rank in (-2, -3, 0):
        rank, inner = 0, value
        while isinstance(inner, list) and rank < _MOST_DIMENSIONS:
            rank, inner = rank + 1, inner[0] if inner else None
    return packed(value, max(rank, 0), kind, dictionary)


async def _arguments(session: Session, method: ua.NodeId) -> tuple[Sequence[Argument], Sequence[Argument]]:
    """What a method takes and what it gives (OPC 10000-3, InputArguments and OutputArguments)."""
    paths = [
        ua.BrowsePath(StartingNode=method, RelativePath=ua.RelativePath.from_string(f".{name}"))
        for name in ("InputArguments", "OutputArguments")
    ]
    with session.errors("read what the method takes"):
        found = await session.services.translate_browsepaths_to_nodeids(paths)
        nodes = [
            one.Targets[0].TargetId if one.StatusCode.is_good() and one.Targets else None for one in found
        ]
    wanted = [ua.ReadValueId(NodeId=one, AttributeId=_VALUE) for one in nodes if one is not None]
    values = iter(await session.read(wanted))
    both = [_listed(next(values)) if one is not None else () for one in nodes]
    if len(both) != len(paths):
        raise DriverError("device-error", "the server does not say what the method takes")
    return both[0], both[1]


_VALUE: Final = ua.IntegerId(AttributeIds.Value)


def _listed(data: ua.DataValue) -> Sequence[Argument]:
    held = data.Value.Value if data.Value is not None else None
    if held is None:
        held = []
    if not isinstance(held, list) or not all(isinstance(one, Argument) for one in held):
        raise DriverError("device-error", "the server does not say what the method takes")
    return held


def _result(
    what: str,
    result: ua.CallMethodResult,
    inputs: Sequence[Argument],
    outputs: Sequence[Argument],
    dictionary: Dictionary,
) -> dict[str, Any]:
    if result.StatusCode.is_bad():
        said = [words(result.StatusCode.value)]
        for one, code in zip(inputs, result.InputArgumentResults or (), strict=False):
            if not code.is_good():
                said.append(f"argument {_label(one)}: {words(code.value)}")
        raise DriverError("device-error", f"the server did not carry out {what}: {'; '.join(said)}")
    given = {}
    for place, one in enumerate(result.OutputArguments or ()):
        name = _label(outputs[place]) if place < len(outputs) else ""
        try:
            given[name if name and name not in given else f"output{place}"] = to_json(one, dictionary)
        except Unfit as error:
            raise DriverError("device-error", f"{what} was carried out, but gave {error}") from None
    return {"results": given, "status": name_of(result.StatusCode.value)}


class _Read(_Args):
    nodes: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MOST_NODES)]
    attribute: str = "Value"
    index_range: Annotated[str, msgspec.Meta(pattern=f"^{INDEX_RANGE}$")] | None = None

    async def carry_out(self, at: _At) -> Any:
        attribute = AttributeIds.__members__.get(self.attribute)
        if attribute is None:
            known = ", ".join(AttributeIds.__members__)
            raise Refused(
                "malformed", f"read: {self.attribute!r:.40} is no attribute of nodes; they are {known}"
            )
        nodes = await _resolved(at.session, self.nodes)
        if attribute is AttributeIds.Value:
            await types_of(at.session, nodes)  # so that structures are known
        dictionary = dictionary_of(at.session)
        part = None if self.index_range is None else ua.NumericRange(self.index_range)
        wanted = [
            ua.ReadValueId(NodeId=one, AttributeId=ua.IntegerId(attribute), IndexRange=part) for one in nodes
        ]
        values = await at.session.read(wanted, ua.TimestampsToReturn.Both)
        try:
            said = [data_value(one, dictionary) for one in values]
        except Unfit as error:
            raise DriverError("device-error", f"the server gave {error}") from None
        return {"values": [{"node": node, **one} for node, one in zip(self.nodes, said, strict=True)]}


class _History(_Args, kw_only=True):
    point: str
    start: str
    end: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_VALUES)] = 1000

    async def carry_out(self, at: _At) -> Any:
        return await history(at.session, self.point, self.start, self.end, self.limit)


class _Answer(_Args, kw_only=True):
    event_id: str
    condition: str
    comment: str = ""


class _Acknowledge(_Answer):
    async def carry_out(self, at: _At) -> Any:
        await answer(at.session, "acknowledge", self.event_id, self.condition, self.comment)
        return {"status": "acknowledged"}


class _Confirm(_Answer):
    async def carry_out(self, at: _At) -> Any:
        await answer(at.session, "confirm", self.event_id, self.condition, self.comment)
        return {"status": "confirmed"}


class _Refresh(_Args):
    async def carry_out(self, at: _At) -> Any:
        ids = at.monitoring.subscription_ids()
        await refresh(at.session, ids)
        return {"subscriptions": len(ids)}


class _Status(_Args):
    async def carry_out(self, at: _At) -> Any:
        return await at.monitoring.status()


METHODS: Final[Mapping[str, type[_Args]]] = {
    "call": _Call,
    "read": _Read,
    "history": _History,
    "acknowledge": _Acknowledge,
    "confirm": _Confirm,
    "refresh": _Refresh,
    "status": _Status,
}
