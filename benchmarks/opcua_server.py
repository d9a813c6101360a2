"""The server of the OPC UA benchmarks, a plain one of asyncua's in a process of its own: PORT ITEMS.

It says "ready" when it listens. Each line of orders is answered by a line: `change NUMBER SECONDS SPREAD`
changes that many values a second, all of a tick with one source time, or with SPREAD 1 each with its own.
"""

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime, timedelta

from asyncua import ua
from asyncua.server.server import Server
from asyncua.ua.attribute_ids import AttributeIds

_TICK_S = 0.1
_IN_FOLDER = 50
"""A new variable is held against all that its folder has already."""


def _stamp(at: datetime) -> ua.DateTime:
    return ua.DateTime(*at.timetuple()[:6], at.microsecond)


async def _changing(server: Server, nodes: list[ua.NodeId], rate: int, seconds: float, spread: bool) -> int:
    write = server.iserver.aspace.write_attribute_value
    done, at, start = 0, 0, time.monotonic()
    while (now := time.monotonic()) < start + seconds:
        due = int((now - start + _TICK_S) * rate) - done
        now_utc = datetime.now(UTC)
        stamp = _stamp(now_utc)
        for number in range(due):
            value = ua.Variant(float(done + number), ua.VariantType.Double)
            source = _stamp(now_utc + timedelta(microseconds=number)) if spread else stamp
            data = ua.DataValue(value, ua.StatusCode(ua.UInt32(0)), source, stamp)
            await write(nodes[at], AttributeIds.Value, data)
            at = (at + 1) % len(nodes)
        done += due
        await asyncio.sleep(max(0.001, now + _TICK_S - time.monotonic()))
    return done


async def _serve(port: int, items: int) -> None:
    logging.disable(logging.CRITICAL)
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    space = await server.register_namespace("urn:plant.example:values")
    nodes = []
    for number in range(items):
        if number % _IN_FOLDER == 0:
            folder = await server.nodes.objects.add_folder(space, f"Values{number}")
        name = f"v{number}"
        nodes.append(
            (await folder.add_variable(ua.NodeId(ua.String(name), ua.Int16(space)), name, -1.0)).nodeid
        )
    async with server:
        print("ready", flush=True)
        while order := await asyncio.to_thread(sys.stdin.readline):
            _, rate, seconds, spread = order.split()
            print(await _changing(server, nodes, int(rate), float(seconds), spread == "1"), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
