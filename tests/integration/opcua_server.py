"""An OPC UA server in the test's loop, and a proxy before it whose link can be cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from asyncua import ua
from asyncua.common.node import Node
from asyncua.server.server import Server
from waiting import until

from protocols.base import DeviceState, DriverError, Sample
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.driver import OpcuaDriver

URI = "urn:plant.example"


class Plant:
    """A server with variables of namespace 2, and what the tests turn about it."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.port = port
        self.index = 2
        self.nodes: dict[str, Node] = {}

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}"

    async def variable(self, name: str, value: Any, kind: ua.VariantType | None = None) -> Node:
        objects = self.server.nodes.objects
        node = await objects.add_variable(
            ua.NodeId(ua.String(name), ua.Int16(self.index)), ua.QualifiedName(name, self.index), value, kind
        )
        await node.set_writable()
        self.nodes[name] = node
        return node

    async def put(self, name: str, value: Any, **more: Any) -> None:
        """Sets a value, with a source time and a status where they are given."""
        node = self.nodes[name]
        variant = value if isinstance(value, ua.Variant) else ua.Variant(value, ua.VariantType.Double)
        await node.write_value(ua.DataValue(variant, **more))


@asynccontextmanager
async def plant(port: int = 0) -> AsyncIterator[Plant]:
    """A server on loopback."""
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    assert await server.register_namespace(URI) == 2
    async with server:
        assert server.bserver is not None
        yield Plant(server, server.bserver.port)


class Proxy:
    """A TCP proxy: its links can be cut, held, and refused."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.refuses = False
        self.port = 0

    @property
    def url(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._link, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()

    async def cut(self, *, refuse: bool = False) -> None:
        """Ends all links."""
        self.refuses = refuse
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    def hold(self) -> None:
        """Lets nothing through any more, with the links open."""
        self._flows.clear()

    def flow(self) -> None:
        """Lets what comes through again."""
        self._flows.set()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            if self.refuses:
                return
            back, there = await asyncio.open_connection("127.0.0.1", self._to)
            both = (self._pump(reader, there), self._pump(back, writer))
            pumps = [asyncio.create_task(one) for one in both]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except asyncio.CancelledError:
            pass  # cut
        finally:
            self._links.discard(task)
            for one in (writer, there):
                if one is not None:
                    one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.states: list[tuple[DeviceState, str]] = []
        self.losses: list[tuple[int, str]] = []
        self.skipped = 0

    def sample(self, sample: Sample) -> None:
        self.samples.append(sample)

    def state(self, state: DeviceState, reason: str = "") -> None:
        self.states.append((state, reason))

    def frames(self, body: bytes, time_ns: int) -> None:
        raise AssertionError("there are no frames in OPC UA")

    def missed(self, cycles: int, period: float) -> None:
        self.skipped += cycles

    def lost(self, count: int, reason: str) -> None:
        self.losses.append((count, reason))

    async def kept(self) -> None:
        pass

    def of(self, point: str) -> list[Any]:
        """The values of a point, in the order they came."""
        return [one.values[point] for one in self.samples if point in one.values]

    def bad(self, point: str) -> list[Any]:
        return [one.bad[point] for one in self.samples if point in one.bad]


def device(url: str, points: dict[str, Any] | None = None, **more: Any) -> OpcuaDevice:
    """A device without security; points are of `ns=2;s=NAME` unless they say otherwise."""
    written = {
        name: {"node": f"ns=2;s={name}"} | fields for name, fields in (points or {"speed": {}}).items()
    }
    settings = {
        "protocol": "opcua",
        "connection": {"url": url, "security": {"policy": "None"}},
        "subscription": {"publishing_interval": "50ms", "keep_alive": "1s"},
        "points": written,
    }
    return OpcuaDevice.model_validate(settings | more).named("cell")


class Running:
    """A driver at work, connected again by hand."""

    def __init__(self, config: OpcuaDevice) -> None:
        self.driver = OpcuaDriver(config)
        self.sink = Kept()
        self._work: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connects and runs until the driver has said how the device is."""
        self.sink.states.clear()
        await self.driver.connect()
        work = self._work = asyncio.create_task(self.driver.run(self.sink))
        await until(lambda: self.sink.states or work.done())
        if work.done():
            await work

    async def ended(self) -> DriverError:
        """Returns when the link is lost, with what the driver says of it."""
        assert self._work is not None
        try:
            async with asyncio.timeout(60):
                await self._work
        except DriverError as error:
            await self.driver.close()
            return error
        raise AssertionError("the driver ended by itself")

    async def stop(self) -> None:
        if self._work is not None:
            self._work.cancel()
            with suppress(asyncio.CancelledError, DriverError):
                await self._work
        await self.driver.close()


@asynccontextmanager
async def running(config: OpcuaDevice) -> AsyncIterator[Running]:
    """A driver at work."""
    one = Running(config)
    try:
        await one.start()
        yield one
    finally:
        await one.stop()
