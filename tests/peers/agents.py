"""An agent as people run it, and rhea's configuration for each broker: what docs/brokers.md says."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from brokers import Broker, RabbitMQ3, RabbitMQ4

_COMMAND = str(Path(sys.executable).with_name("hilgate"))
STOP_S = 30.0
"""How long a test waits for a graceful stop, which takes a second, on a machine that is busy."""


@contextlib.asynccontextmanager
async def agent(
    bench: str, url: str, store: Path, *options: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`hilgate run` with a simulated bench; leaving stops it with SIGTERM and wants exit status 0."""
    log = store.with_suffix(".log")
    arguments = ("--sil", "--bench", bench, "--broker", url, "--store", str(store), "--heartbeat", "500ms")
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            _COMMAND, "run", "hydraulic-rig", *arguments, *options, stdout=output, stderr=output
        )
    try:
        yield process
        await stop(process)
        assert process.returncode == 0, log.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def stop(process: asyncio.subprocess.Process) -> None:
    """Ends an agent gracefully."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(STOP_S):
        await process.wait()


def desk_config(broker: Broker, bench: str, *, durable: bool = False) -> dict[str, Any]:
    """How desk.js reaches a bench over this broker; `durable`: what it receives from outlives its connection.

    On RabbitMQ this makes the queues, as an administrator would; on 4 the durable ones are quorum queues.
    """
    topics = ["hil.availability", f"hil.{bench}.events.*", f"hil.{bench}.results"]
    commands, replies = f"hil.{bench}.commands", f"hil.replies.{bench}"
    connection: dict[str, Any] = {"host": "127.0.0.1", "port": broker.port, "container_id": f"desk-{bench}"}
    if broker.flavour in ("artemis", "embedded"):
        lasting = {"durable": 2, "expiry_policy": "never"} if durable else {}
        receivers = [
            {"name": f"desk-{name}", "source": {"address": name, "capabilities": ["topic"], **lasting}}
            for name in topics
        ]
        target = {"address": commands, "capabilities": ["queue"]}
        reply: dict[str, Any] = {"replies": {"source": {"dynamic": True}}}
        if durable:
            reply = {
                "replies": {"source": {"address": replies, "capabilities": ["queue"]}},
                "reply_to": replies,
            }
    else:
        assert isinstance(broker, RabbitMQ3 | RabbitMQ4)
        quorum = durable and broker.flavour == "rabbitmq"
        broker.declare(commands, quorum=quorum)
        broker.declare(replies, quorum=quorum)
        broker.declare(f"hil.desk.{bench}", *topics, quorum=quorum)
        if durable and not quorum:
            broker.write_down()
        prefix = "/queues/" if broker.flavour == "rabbitmq" else "/amq/queue/"
        receivers = [{"source": f"{prefix}hil.desk.{bench}"}]
        target = {"address": f"{prefix}{commands}"}
        reply = {"replies": {"source": f"{prefix}{replies}"}, "reply_to": f"{prefix}{replies}"}
        connection |= {"username": broker.users.admin.name, "password": broker.users.admin.password}
    return {"connection": connection, "receivers": receivers, "commands": {"target": target}, **reply}
