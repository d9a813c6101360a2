"""Methods of a simulated server: each gives back what it was given, and writes points named as its inputs."""

from collections.abc import Awaitable, Callable
from typing import Any

from asyncua import ua
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from protocols.opcua.config import Method, OpcuaDevice
from sim.opcua.process import Process
from sim.opcua.services import status
from sim.opcua.space import Space, data_type_of
from sim.opcua.values import to_server, zero


def add_methods(space: Space, device: OpcuaDevice, process: Process) -> None:
    """Adds the methods of the profile.

    Raises:
        ValueError: a node cannot be where the profile has it.
    """
    for name, method in device.methods.items():
        parent = space.object(method.object, f"{name}_object")
        _, shown, node = space.place(method.method, name)
        attributes = ua.MethodAttributes()
        attributes.Executable = attributes.UserExecutable = True
        made = space.add(parent, shown, attributes, ua.NodeClass.Method, node=node)
        for what, kinds in (("InputArguments", method.inputs), ("OutputArguments", method.outputs)):
            if kinds:
                arguments = [
                    ua.Argument(
                        ua.String(argument), data_type_of(kind), ua.Int32(-1), [], ua.LocalizedText("")
                    )
                    for argument, kind in kinds.items()
                ]
                value = ua.Variant(arguments, ua.VariantType.ExtensionObject)
                space.property(made, what, value, ObjectIds.Argument)
        space.aspace.add_method_callback(made, _carrying_out(device, method, process))


def _carrying_out(device: OpcuaDevice, method: Method, process: Process) -> Callable[..., Awaitable[Any]]:
    async def carry_out(parent: ua.NodeId, *args: ua.Variant) -> Any:
        if len(args) < len(method.inputs):
            return status(StatusCodes.BadArgumentsMissing)
        if len(args) > len(method.inputs):
            return status(StatusCodes.BadTooManyArguments)
        kinds = list(method.inputs.values())
        if any(arg.VariantType.name != kind != "Variant" for arg, kind in zip(args, kinds, strict=True)):
            result = ua.CallMethodResult()
            result.StatusCode = status(StatusCodes.BadInvalidArgument)
            result.InputArgumentResults = [
                status(StatusCodes.Good if arg.VariantType.name == kind else StatusCodes.BadTypeMismatch)
                for arg, kind in zip(args, kinds, strict=True)
            ]
            return result
        given = {name: arg.Value for name, arg in zip(method.inputs, args, strict=True)}
        for name, value in given.items():
            point = device.points.get(name)
            if point is not None and point.writable and process.has(name):
                await process.put(point, value)
        return [
            ua.Variant(to_server(given[name], kind) if name in given else zero(kind), ua.VariantType[kind])
            for name, kind in method.outputs.items()
        ]

    return carry_out
