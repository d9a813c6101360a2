"""HTTP: certificates and authorities that are replaced while it runs."""

import asyncio
import contextlib
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme
from exposed import Certified, get, serving
from waiting import until

from agent.web import limits, server
from protocols.tls import Files, UnusableFile
from sim.broker import Broker


@pytest.fixture
def certified(tmp_path: Path) -> Certified:
    """Certificates for a server on 127.0.0.1."""
    return Certified(tmp_path)


async def test_new_certificates_count_without_a_restart_and_the_old_authority_no_more(
    broker: Broker, tmp_path: Path, certified: Certified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LOOK_S", 0.05)
    async with serving(tmp_path, broker.url, **certified.settings) as (_, listen):
        before = certified.client(certified.authority)
        async with aiohttp.ClientSession(f"https://{listen}") as kept:
            async with kept.get("/metrics", ssl=before) as said:
                assert said.status == 200
            (tmp_path / "cert.pem").write_text("half written")
            await asyncio.sleep(0)
            certified.authority = trustme.CA()
            certified.issue()
            after = certified.client(certified.authority)
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(aiohttp.ClientError, ssl.SSLError):
                        if (await get(listen, "/metrics", scheme="https", ssl=after))[0] == 200:
                            break
                    await asyncio.sleep(0.1)
            with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
                # Also where the connection had stood from before.
                async with kept.get("/metrics", ssl=before) as said:
                    assert said.status == 200


async def test_a_handshake_that_outlasts_its_authority_lets_nobody_in(
    broker: Broker, tmp_path: Path, certified: Certified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "LOOK_S", 0.05)
    monkeypatch.setattr(limits, "REQUEST_S", 60.0)
    async with serving(tmp_path, broker.url, **certified.settings) as (_, listen):
        host, port = listen.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = certified.client(certified.authority).wrap_bio(came, goes, server_hostname=host)
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        writer.write(goes.read())
        came.write(await reader.read(65536))  # the server has begun, with the authority as it is now
        certified.authority = trustme.CA()
        certified.issue()
        new = certified.client(certified.authority)
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(aiohttp.ClientError, ssl.SSLError):
                    if (await get(listen, "/metrics", scheme="https", ssl=new))[0] == 200:
                        break
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(goes.read())
                came.write(await reader.read(65536))
        tls.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        writer.write(goes.read())
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                came.write(data)
        said = b""
        with contextlib.suppress(ssl.SSLError):  # its end, or nothing
            said = tls.read()
        assert said == b""
        writer.close()


async def test_certificates_that_are_not_valid_yet_are_taken_up_when_they_are(
    broker: Broker, tmp_path: Path, certified: Certified, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Files] = []

    def not_yet(files: Files, **_: bool) -> ssl.SSLContext:
        tried.append(files)
        raise UnusableFile("valid only from tomorrow")

    monkeypatch.setattr(server, "LOOK_S", 0.05)
    async with serving(tmp_path, broker.url, **certified.settings) as (_, listen):
        with monkeypatch.context() as today:
            today.setattr(server, "server_context", not_yet)
            certified.authority = trustme.CA()
            certified.issue()
            await until(lambda: tried)
        tomorrow = certified.client(certified.authority)
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(aiohttp.ClientError, ssl.SSLError):
                    if (await get(listen, "/metrics", scheme="https", ssl=tomorrow))[0] == 200:
                        break
                await asyncio.sleep(0.1)
