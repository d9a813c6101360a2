"""Whom each protocol talks to over TLS, and whom not: one table for all of them."""

import asyncio
import contextlib
import datetime
import re
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from tls_rig import HOST, OVER_TLS, Authority, Folder, far_end, met, old

from protocols import tls

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
REFUSED: dict[str, tuple[Callable[[Authority], ssl.SSLContext], str]] = {
    "expired": (
        lambda authority: authority.server(not_before=NOW - 2 * DAY, not_after=NOW - DAY),
        "certificate has expired",
    ),
    "not yet valid": (
        lambda authority: authority.server(not_before=NOW + DAY, not_after=NOW + 2 * DAY),
        "certificate is not yet valid",
    ),
    "wrong host": (lambda authority: authority.server("other.example"), "Hostname mismatch"),
    "wrong authority": (lambda _: Authority().server(), "self-signed certificate|local issuer"),
    "TLS 1.1": (lambda authority: old(authority.server()), "(?i)version|protocol|closed the connection"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path, Authority())


@pytest.mark.parametrize("protocol", OVER_TLS)
async def test_the_right_far_end_is_talked_to_and_sees_who_we_are(protocol: str, folder: Folder) -> None:
    async with far_end(protocol, folder.authority.server()) as front:
        assert await met(protocol, front.port, folder.path) == ""
        assert front.serials == [folder.serial]


@pytest.mark.parametrize("protocol", OVER_TLS)
@pytest.mark.parametrize(("server", "words"), REFUSED.values(), ids=REFUSED)
async def test_another_is_refused_with_the_reason(
    protocol: str, folder: Folder, server: Callable[[Authority], ssl.SSLContext], words: str
) -> None:
    async with far_end(protocol, server(folder.authority)) as front:
        reason = await met(protocol, front.port, folder.path)
    assert re.search(words, reason), reason


@pytest.mark.parametrize("protocol", OVER_TLS)
async def test_without_verification_a_strangers_certificate_is_taken(protocol: str, folder: Folder) -> None:
    """What `verify: false` gives up."""
    server = Authority().server("other.example")
    server.verify_mode = ssl.CERT_NONE
    async with far_end(protocol, server) as front:
        assert await met(protocol, front.port, folder.path, ca=None, verify=False) == ""


@pytest.mark.parametrize("protocol", OVER_TLS)
async def test_a_far_end_does_not_let_strangers_in(protocol: str, folder: Folder) -> None:
    async with far_end(protocol, folder.authority.server()) as front:
        assert await met(protocol, front.port, folder.path, cert=None, key=None) != ""
        assert front.serials == []


async def test_old_tls_would_be_spoken_by_the_far_end_of_these_tests(folder: Folder) -> None:
    """So that its refusal says something of us."""
    client = old(ssl.create_default_context(cafile=folder.path / "ca.pem"))
    server = old(folder.authority.server())
    server.verify_mode = ssl.CERT_NONE
    async with await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=server
    ) as far:
        port = far.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=HOST)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.1"
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_our_servers_refuse_old_clients(folder: Folder) -> None:
    own = folder.authority.made.issue_cert(HOST)
    folder.take(own)
    files = tls.Files(cert=Path("cert.pem"), key=Path("key.pem"))
    server = tls.server_context(files, folder.path)
    server.set_ciphers("ALL:@SECLEVEL=0")
    client = old(ssl.create_default_context(cafile=folder.path / "ca.pem"))
    async with await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=server
    ) as far:
        port = far.sockets[0].getsockname()[1]
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=HOST)
