"""Callers who dawdle or are too many take neither the port nor the process's descriptors from others."""

import asyncio
import contextlib
import os
import resource
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from waiting import until

from protocols import listener
from protocols.listener import MOST_HANDSHAKES, Listener
from protocols.tls import Files
from protocols.transport import TlsOptions, listen

WELCOME = b"welcome"


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(WELCOME)


class Tls(Files):
    server_name = None


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """One that has issued `own.pem`, with its key."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    made.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "own.pem"))
    return made


def files(folder: Path) -> TlsOptions:
    return Tls(ca=folder / "ca.pem", cert=folder / "own.pem")


def port_of(one: Listener) -> int:
    port: int = one.sockets[0].getsockname()[1]
    return port


async def greeting(port: int, context: ssl.SSLContext | None) -> bytes:
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost" if context else None
        )
        said = await reader.readexactly(len(WELCOME))
    writer.transport.abort()
    return said


async def test_handshakes_that_never_go_on_are_few(authority: trustme.CA, tmp_path: Path) -> None:
    one = await listen("127.0.0.1", 0, Greeter, files(tmp_path))
    port, many = port_of(one), 5 * MOST_HANDSHAKES
    crowd = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(many)))
    await until(lambda: sum(reader.at_eof() for reader, _ in crowd) == many - MOST_HANDSHAKES)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    authority.issue_cert("outstation.example").configure_cert(context)
    assert await greeting(port, context) == WELCOME
    one.close()
    await until(lambda: all(reader.at_eof() for reader, _ in crowd))
    again = await listen("127.0.0.1", port, Greeter)  # the port is free at once
    assert await greeting(port, None) == WELCOME
    again.close()
    for _, writer in crowd:
        writer.close()


async def test_a_handshake_has_its_time(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_S", 0.1)
    one = await listen("127.0.0.1", 0, Greeter, files(tmp_path))
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(one))
    async with asyncio.timeout(20):
        assert await reader.read() == b""
    one.close()
    writer.close()


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Nothing can be opened during the body."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, limits[0]), limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for number in taken:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_without_descriptors_it_waits_for_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_RETRY_S", 0.01)
    one = await listen("127.0.0.1", 0, Greeter)
    with socket.socket() as caller:
        caller.setblocking(False)
        loop = asyncio.get_running_loop()
        with no_descriptors():
            await loop.sock_connect(caller, ("127.0.0.1", port_of(one)))
            await until(lambda: bool(one._pauses))
        async with asyncio.timeout(20):
            assert await loop.sock_recv(caller, 100) == WELCOME
    one.close()
