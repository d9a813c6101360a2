"""What a real agent of a small bench exposes at /metrics, and the pages beside it."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import trustme
from prometheus_client.parser import text_string_to_metric_families
from waiting import until

from agent.app import Agent
from agent.profile import load_profile
from agent.settings import load_settings
from sim.broker import Broker

PROFILE = """
profile: small
devices:
  psu:
    protocol: modbus
    connection: {transport: tcp, host: 127.0.0.1}
    address_base: 0
    poll: 50ms
    points:
      voltage: {table: holding, address: 0, type: uint16, access: rw, max: 60, safe: 0}
"""


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def serving(
    tmp_path: Path, broker_url: str, *, profile: str = PROFILE, ready: bool = True, **settings: Any
) -> AsyncIterator[tuple[Agent, str]]:
    """An agent with HTTP during the body, and the address it listens on."""
    path = tmp_path / "profile.yaml"
    path.write_text(profile)
    listen = f"127.0.0.1:{free_port()}"
    chosen = {"bench": "rig", "broker": broker_url, "sil": True, "heartbeat": "200ms", "http": listen}
    agent = Agent(load_profile(path, {}), load_settings(None, {}, chosen | settings))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(agent.run(stop))
        try:
            if ready:
                await until(agent.ready.is_set)
            await until_listening(listen)
            yield agent, listen
        finally:
            stop.set()
            async with asyncio.timeout(30):
                await running


async def until_listening(listen: str) -> None:
    """Returns when somebody takes connections there."""
    host, port = listen.split(":")
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                await writer.wait_closed()
                return
            await asyncio.sleep(0.01)


async def get(listen: str, path: str, *, scheme: str = "http", **options: Any) -> tuple[int, str]:
    """Status and text of one page."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{scheme}://{listen}{path}", **options) as said,
    ):
        return said.status, await said.text()


def numbers(text: str) -> Mapping[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of an exposition, by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def number(listen: str, name: str, **labels: str) -> float:
    """One number as it is now; zero where there is no such sample."""
    status, text = await get(listen, "/metrics")
    assert status == 200, text
    return numbers(text).get((name, frozenset(labels.items())), 0.0)


async def exposed(tmp_path: Path) -> str:
    """The metrics of an agent that is at work."""
    async with Broker("127.0.0.1", 0) as broker, serving(tmp_path, broker.url) as (_, listen):
        await get(listen, "/livez")
        return (await get(listen, "/metrics"))[1]


class Certified:
    """An authority, what the server shows, and contexts of clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority, self.stranger = trustme.CA(), trustme.CA()
        self.issue()

    def issue(self) -> None:
        self.authority.cert_pem.write_to_path(self.folder / "ca.pem")
        issued = self.authority.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(self.folder / "cert.pem")
        issued.private_key_pem.write_to_path(self.folder / "key.pem")

    @property
    def settings(self) -> dict[str, Any]:
        folder = self.folder
        return {
            "http_cert": folder / "cert.pem",
            "http_key": folder / "key.pem",
            "http_client_ca": folder / "ca.pem",
        }

    def client(self, by: trustme.CA | None) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if by is not None:
            by.issue_cert("prometheus.example").configure_cert(context)
        return context
