"""Writes of points: each in the type that the server has for it, and checked before anything is sent."""

import time
from collections.abc import Mapping

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds

from protocols.base import DriverError, Refused, Sample, Value
from protocols.opcua.codec import Codec
from protocols.opcua.limits import pieces
from protocols.opcua.session import Session
from protocols.opcua.status import words
from protocols.opcua.structures import Unfit
from protocols.opcua.types import NodeType, read_ids, types_of

_OPEN = (ua.VariantType.Variant, ua.VariantType.LocalizedText)


async def write(session: Session, values: Mapping[str, Value]) -> Sample:
    """Writes values that `Point.accept` has passed, in their order, and says what was written.

    Only the value is sent, without status and times, which many servers do not let be written.

    Raises:
        DriverError: `device-error`: a value does not fit the type that its node has, and nothing was sent;
            or the server did not take all of them, and `written` holds those that it took.
    """
    told, codecs = await _prepared(session, values)
    written: dict[str, Value] = {}
    refused: dict[str, str] = {}
    for names in pieces(list(told), session.limits.write):
        try:
            with session.errors(f"write {', '.join(names)}"[:200]):
                parameters = ua.WriteParameters(NodesToWrite=[told[name] for name in names])
                codes = await session.services.write(parameters)
        except DriverError as error:
            raise DriverError(error.code, str(error), written) from error
        if len(codes) != len(names):
            text = f"the server gave {len(codes)} results of {len(names)} writes: what it wrote is not known"
            raise DriverError("device-error", text, written)
        for name, code in zip(names, codes, strict=True):
            if code.is_bad():
                refused[name] = words(code.value)
            else:
                written[name] = codecs[name].written(values[name], told[name].Value.Value)
    if refused:
        raise DriverError("device-error", _said("the server did not write ", refused), written)
    return Sample(time.time_ns(), written)


async def _prepared(
    session: Session, values: Mapping[str, Value]
) -> tuple[dict[str, ua.WriteValue], dict[str, Codec]]:
    """What is sent for each point.

    Raises:
        DriverError: as `write`.
    """
    device = session.device
    nodes = {name: session.node_id(name) for name in values}
    kinds = dict(zip(nodes, await types_of(session, list(nodes.values())), strict=True))
    known = {name: kind for name, kind in kinds.items() if isinstance(kind, NodeType)}
    now = await _held(
        session, {name: nodes[name] for name, kind in known.items() if kind.type.built_in in _OPEN}
    )
    told: dict[str, ua.WriteValue] = {}
    codecs: dict[str, Codec] = {}
    wrong: dict[str, str] = {}
    for name, kind in kinds.items():
        if isinstance(kind, ua.StatusCode):
            wrong[name] = words(kind.value)
            continue
        point = device.points[name]
        codecs[name] = Codec(point, device.tolerate, kind)
        try:
            variant = codecs[name].variant(values[name], kind, now.get(name))
        except (Unfit, Refused) as error:
            wrong[name] = str(error)
            continue
        told[name] = ua.WriteValue(
            NodeId=nodes[name],
            AttributeId=ua.IntegerId(AttributeIds.Value),
            IndexRange=None if point.index_range is None else ua.NumericRange(point.index_range),
            Value=ua.DataValue(variant, None),
        )
    if wrong:
        raise DriverError("device-error", _said("nothing was written: ", wrong))
    return told, codecs


async def _held(session: Session, nodes: Mapping[str, ua.NodeId]) -> dict[str, ua.Variant]:
    """What those nodes hold whose own type does not say all."""
    if not nodes:
        return {}
    held = await session.read(read_ids(nodes.values(), AttributeIds.Value))
    return {name: one.Value for name, one in zip(nodes, held, strict=True) if one.Value is not None}


def _said(what: str, by_name: Mapping[str, str]) -> str:
    return what + "; ".join(f"{name}: {text}" for name, text in by_name.items())
