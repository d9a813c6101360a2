"""HTTP under a storm: whatever clients send, probes answer afterwards."""

import asyncio
import contextlib
import gc

from desk import RunAgent
from storm import at_server, storming
from storm_ends import get

from agent.web.limits import BoundedHandler
from sim.broker import Broker

PROFILE = """
profile: bench
devices:
  plc:
    protocol: modbus
    connection: {transport: tcp, host: plc-1.bench.example}
    address_base: 0
    points: {speed: {table: input, address: 0}}
"""
SAID = [
    b"GET /livez HTTP/1.1\r\nHost: bench.example\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: bench.example\r\nAuthorization: Bearer abc\r\nAccept: */*\r\n\r\n",
    b"GET /values/plc?a=%00%ff HTTP/1.1\r\nHost: bench.example\r\nAccept-Encoding: gzip\r\n\r\n",
    b"POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"PUT /values/plc HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
]


async def test_hostile_http_clients(broker: Broker, run_agent: RunAgent, unused_port: int) -> None:
    listen = f"127.0.0.1:{unused_port}"
    async with run_agent(PROFILE, broker.url, http=listen) as agent:
        await agent.ready.wait()
        async with storming("HTTP", 3000) as storm:
            await at_server(storm, unused_port, SAID)
        assert (await get(unused_port, "/livez")).startswith(b"HTTP/1.1 200")


async def test_requests_that_nobody_reads_the_answers_of_are_few(
    broker: Broker, run_agent: RunAgent, unused_port: int
) -> None:
    async with run_agent(PROFILE, broker.url, http=f"127.0.0.1:{unused_port}") as agent:
        await agent.ready.wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", unused_port, limit=1024)
        with contextlib.suppress(TimeoutError):  # it takes no more
            async with asyncio.timeout(3):
                for _ in range(200):
                    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
                    await writer.drain()
        handlers = [one for one in gc.get_objects() if isinstance(one, BoundedHandler)]
        assert max(len(one._messages) for one in handlers) < 1000
        assert (await get(unused_port, "/livez")).startswith(b"HTTP/1.1 200")
        assert not reader.at_eof()
        writer.transport.abort()
