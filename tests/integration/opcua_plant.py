"""An asyncua server with values of every kind, and sessions with it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from asyncua import ua
from asyncua.common.node import Node
from asyncua.common.structures104 import new_struct, new_struct_field
from asyncua.server.server import Server

from protocols.opcua.config import OpcuaDevice
from protocols.opcua.session import Session

URI = "urn:plant.example"
Plant = tuple[Server, ua.Int16]
"""A server and the index of its namespace `URI`."""


@contextlib.asynccontextmanager
async def plant() -> AsyncIterator[Plant]:
    """A server on a free port of loopback."""
    server = Server()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0/plant")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    await server.register_namespace("urn:first.example")  # so that an index is not what a profile would guess
    index = await server.register_namespace(URI)
    async with server:
        yield server, ua.Int16(index)


def device(server: Server, points: Mapping[str, Any], **settings: Any) -> OpcuaDevice:
    """What a profile says of the server, with these points by name."""
    assert server.bserver is not None
    assert server.bserver._server is not None
    listening = server.bserver._server
    assert isinstance(listening, asyncio.Server)
    port = listening.sockets[0].getsockname()[1]
    connection = {"url": f"opc.tcp://127.0.0.1:{port}/plant", "security": {"policy": "None"}}
    slow = {"timeout": "30s", "connect_timeout": "30s"}
    written = {"protocol": "opcua", "connection": connection, "points": points} | slow | settings
    return OpcuaDevice.model_validate(written).named("plant")


@contextlib.asynccontextmanager
async def talking(server: Server, points: Mapping[str, Any], **settings: Any) -> AsyncIterator[Session]:
    """A session with the server in which the points' nodes are known."""
    session = Session(device(server, points, **settings))
    await session.open()
    try:
        await session.find_points()
        yield session
    finally:
        await session.close()


async def structure(
    server: Server, index: ua.Int16, name: str, fields: Mapping[str, Any], union: bool = False
) -> ua.NodeId:
    """A structure's data type; a field is a type, a list of one, or a pair of one and `optional`."""
    made = []
    for label, kind in fields.items():
        optional = isinstance(kind, tuple)
        kind = kind[0] if optional else kind
        array = isinstance(kind, list)
        made.append(new_struct_field(label, kind[0] if array else kind, array=array, optional=optional))
    node, _ = await new_struct(server, index, name, made, is_union=union)
    return node.nodeid


async def add(served: Plant, name: str, variant: ua.Variant, of: ua.NodeId | None = None) -> Node:
    """A new variable, which profiles know as nsu=URI;s=name."""
    server, index = served
    node_id = ua.NodeId(ua.String(name), index)
    return await server.nodes.objects.add_variable(node_id, f"{index}:{name}", variant, datatype=of)


async def encoding_of(server: Server, data_type: ua.NodeId) -> ua.NodeId:
    """What says of a structure on the wire that it is of this type."""
    definition = await server.get_node(data_type).read_data_type_definition()
    assert isinstance(definition, ua.StructureDefinition)
    encoding: ua.NodeId = definition.DefaultEncodingId
    return encoding
