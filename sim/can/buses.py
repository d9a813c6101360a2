"""The simulated buses of a profile, each with a node on it."""

import asyncio
import errno
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any

import structlog

from protocols.can.config import CanDevice, Simulation
from sim.can import interfaces
from sim.can.node import Node, running

_log = structlog.get_logger("sim")

_GROUP = "239.255.0.43"
"""A multicast group for this site only (RFC 2365, section 6.1), with hop limit 0 for this machine only."""
_CANNOT = {errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}
"""What says that this machine has no vcan for us."""
_numbers = itertools.count()

Update = Mapping[str, Any]
"""What changes in a connection."""


@asynccontextmanager
async def simulated(devices: Mapping[str, CanDevice]) -> AsyncIterator[Mapping[str, CanDevice]]:
    """Simulates all devices, those on one bus together, and gives them with connections to their bus.

    How a bus is simulated says the first of its devices that has a word on it.

    Raises (on entering):
        OSError: an interface cannot be made, or python-can is needed and missing.
        pydantic.ValidationError: a `sim` section is wrong.
    """
    begin = asyncio.get_running_loop().time()
    moved: dict[str, CanDevice] = {}
    async with AsyncExitStack() as stack:
        for members in _buses(devices).values():
            together = list(members.values())
            mine, nodes = stack.enter_context(_bus(_chosen(together)))
            node_side = together[0].connection.model_copy(
                update={"fd": any(one.connection.fd for one in together), "listen_only": False, **nodes}
            )
            # In a thread, because behaviours may read files.
            node = await asyncio.to_thread(Node, node_side, together, begin)
            await stack.enter_async_context(running(node))
            for name, device in members.items():
                connection = device.connection.model_copy(update=mine)
                moved[name] = device.model_copy(update={"connection": connection})
        yield {name: moved[name] for name in devices}


def _buses(devices: Mapping[str, CanDevice]) -> Mapping[tuple[str, str], dict[str, CanDevice]]:
    """Devices by the bus that they share."""
    buses: dict[tuple[str, str], dict[str, CanDevice]] = {}
    for name, device in devices.items():
        buses.setdefault(device.connection.key, {})[name] = device
    return buses


def _chosen(devices: Sequence[CanDevice]) -> Simulation:
    where = {"bus", "namespace", "channel"}
    said = (one.simulation for one in devices if where & one.simulation.model_fields_set)
    return next(said, devices[0].simulation)


@contextmanager
def _bus(simulation: Simulation) -> Iterator[tuple[Update, Update]]:
    """A simulated bus: what changes in the connections of its devices, and in that of its node."""
    with ExitStack() as stack:
        if simulation.bus != "auto":
            ends = stack.enter_context(_MAKERS[simulation.bus](simulation))
            _log.info("simulated bus", kind=simulation.bus, channel=ends[0]["channel"])
        else:
            try:
                ends = stack.enter_context(_vcan(simulation))
                _log.info("simulated bus", kind="vcan", channel=ends[0]["channel"])
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                ends = stack.enter_context(_virtual(simulation))
                why = f"no vcan: {error}"
                _log.info("simulated bus", kind="virtual", channel=ends[0]["channel"], reason=why)
        yield ends


@contextmanager
def _vcan(simulation: Simulation) -> Iterator[tuple[Update, Update]]:
    _need_sockets()
    with interfaces.vcan(simulation.channel) as name:
        both = {"interface": "socketcan", "channel": name, "options": {}}
        yield both, both


@contextmanager
def _vxcan(simulation: Simulation) -> Iterator[tuple[Update, Update]]:
    _need_sockets()
    with interfaces.vxcan(simulation.channel, simulation.namespace) as (agents, nodes):
        both = {"interface": "socketcan", "options": {}}
        yield {**both, "channel": agents}, {**both, "channel": nodes}


def _need_sockets() -> None:
    """Raises OSError where the kernel has no CAN sockets."""
    socket.socket(socket.PF_CAN, socket.SOCK_RAW, socket.CAN_RAW).close()


@contextmanager
def _virtual(simulation: Simulation) -> Iterator[tuple[Update, Update]]:
    channel = simulation.channel or f"hilgate-{next(_numbers)}"
    both = {"interface": "virtual", "channel": channel, "options": {}}
    yield both, both


@contextmanager
def _udp_multicast(simulation: Simulation) -> Iterator[tuple[Update, Update]]:
    """With a group of its own the port is python-can's default, so that others find it without being told."""
    options: dict[str, Any] = {"hop_limit": 0}
    if simulation.channel is None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("", 0))
            options["port"] = free.getsockname()[1]
    both = {"interface": "udp_multicast", "channel": simulation.channel or _GROUP, "options": options}
    yield both, both


_MAKERS: Mapping[str, Callable[[Simulation], AbstractContextManager[tuple[Update, Update]]]] = {
    "vcan": _vcan,
    "vxcan": _vxcan,
    "virtual": _virtual,
    "udp_multicast": _udp_multicast,
}
