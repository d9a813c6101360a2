"""What goes on in a simulated server over time: behaviours, what was written, and the history of it all."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from asyncua import ua
from asyncua.server.history import HistoryDict
from asyncua.server.internal_server import InternalServer
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds

from protocols.base import Quality, Value
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.point import OpcuaPoint
from sim.behaviour import Behaviour
from sim.opcua.services import standard
from sim.opcua.values import now, to_server
from sim.opcua.variable import Variable

STEP_S: Final = 0.1
"""How often behaviours are looked at for changes."""
_HISTORY: Final = 1000
"""Values of a node that are kept, where they are not too many for all."""
_HISTORY_IN_ALL: Final = 100_000
_CLOCK_STEPS: Final = 10
"""Steps from one time to the next that the server's clock shows."""


class Process:
    """Moves the variables of a server along with time."""

    def __init__(
        self,
        device: OpcuaDevice,
        server: InternalServer,
        variables: Mapping[str, Variable],
        behaviours: Mapping[str, Behaviour],
    ) -> None:
        """`variables` and `behaviours` are by point; points that have no variable are left alone."""
        self._server = server
        self._variables = variables
        self._loop = asyncio.get_running_loop()
        self._begin = self._loop.time()
        self._history = HistoryDict()
        self._followers: dict[str, list[Behaviour]] = {}
        self._moving: list[tuple[OpcuaPoint, Behaviour]] = []
        for behaviour in behaviours.values():
            if behaviour.follows is not None:
                self._followers.setdefault(behaviour.follows, []).append(behaviour)
        for name, variable in variables.items():
            if name in behaviours:
                point, behaviour = device.points[name], behaviours[name]
                variable.put(point, behaviour.at(0.0))
                if not behaviour.steady:
                    self._moving.append((point, behaviour))

    @property
    def elapsed(self) -> float:
        """Seconds since the simulation began."""
        return self._loop.time() - self._begin

    async def start(self) -> None:
        """Writes the first values and has clients' writes looked at."""
        self._server.history_manager.set_storage(self._history)
        nodes = {variable.node_id: variable for variable in self._variables.values()}
        kept = max(1, min(_HISTORY, _HISTORY_IN_ALL // max(1, len(nodes))))
        for node_id, variable in nodes.items():
            if variable.readable:
                await self._history.new_historized_node(node_id, None, kept)
            self._server.aspace.add_datachange_callback(node_id, AttributeIds.Value, self._taking(variable))
            await self.write(variable)

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        steps = 0
        while True:
            await self.step()
            if steps % _CLOCK_STEPS == 0:
                await self._tell_time()
            steps += 1
            await asyncio.sleep(STEP_S)

    async def step(self) -> None:
        """Gives every point that moves the value of now; those that did not change are not written."""
        elapsed = self.elapsed
        changed: dict[ua.NodeId, Variable] = {}
        for point, behaviour in self._moving:
            variable = self._variables[point.name]
            before = variable.raw
            variable.put(point, behaviour.at(elapsed))
            if variable.raw != before:
                changed[variable.node_id] = variable
        for variable in changed.values():
            await self.write(variable)

    async def write(self, variable: Variable) -> None:
        """Shows a variable's value to all, with the time of now."""
        time = now()
        value = ua.DataValue(variable.variant(), SourceTimestamp=time, ServerTimestamp=time)
        await self._server.aspace.write_attribute_value(variable.node_id, AttributeIds.Value, value)

    async def put(self, point: OpcuaPoint, value: Any) -> None:
        """Has the server itself write a point, as a method does; `value` is the node's own."""
        variable = self._variables[point.name]
        variable.raw = to_server(value, variable.kind)
        await self.write(variable)

    def has(self, name: str) -> bool:
        """Whether the point is a variable here."""
        return name in self._variables

    def _taking(self, variable: Variable) -> Callable[[int, ua.DataValue], Any]:
        async def take(handle: int, value: ua.DataValue) -> None:
            if variable.readable:
                await self._history.save_node_value(variable.node_id, value)
            if value.Value is None or value.Value.Value is None:
                return
            variable.raw = value.Value.Value
            for point in variable.points:
                for follower in self._followers.get(point.name, ()):
                    followed = point.engineering(variable.raw)
                    if not isinstance(followed, Quality):
                        follower.aim(self.elapsed, _number(followed))

        return take

    async def _tell_time(self) -> None:
        time = now()
        value = ua.DataValue(
            ua.Variant(time, ua.VariantType.DateTime), SourceTimestamp=time, ServerTimestamp=time
        )
        node = standard(ObjectIds.Server_ServerStatus_CurrentTime)
        await self._server.aspace.write_attribute_value(node, AttributeIds.Value, value)


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
