"""The client over TLS: names are checked, and what does not fit is said."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from amqp_line import posted, running
from amqp_peer import PATIENCE_S, Peer

from protocols.amqp.client import LinkState
from protocols.tls import Files


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


async def test_tls_with_names_checked_both_ways(authority: trustme.CA, tmp_path: Path) -> None:
    ca, cert, key = tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem"
    authority.cert_pem.write_to_path(ca)
    ours = authority.issue_cert("agent.example")
    ours.private_key_pem.write_to_path(key)
    ours.cert_chain_pems[0].write_to_path(cert)
    peer = Peer()
    async with peer.listening(tls=server_context(authority, "localhost")):
        url = f"amqps://localhost:{peer.port}"
        tls = Files(ca=ca, cert=cert, key=key)
        async with running(url, tls=tls, sasl=("ANONYMOUS",)) as line:
            assert (await posted(line)).kind == "accepted"
            theirs = peer.connections[-1]._socket
            assert theirs is not None
            assert theirs.get_extra_info("peercert")["subject"]


@pytest.mark.parametrize(
    ("name", "trusted", "words"),
    [("localhost", False, "certificate"), ("other.example", True, "certificate"), ("localhost", True, "")],
)
async def test_a_certificate_that_proves_nothing_is_refused(
    authority: trustme.CA, tmp_path: Path, name: str, trusted: bool, words: str
) -> None:
    ca = tmp_path / "ca.pem"
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(ca)
    peer = Peer()
    async with peer.listening(tls=server_context(authority, name)):
        async with running(f"amqps://localhost:{peer.port}", tls=Files(ca=ca)) as line:
            if words:
                assert words in await line.until(LinkState.CONNECTING)
                assert not peer.connections or not peer.connections[0].peer_container
            else:
                await line.until(LinkState.CONNECTED)


async def test_a_lab_without_authorities_may_switch_checks_off(authority: trustme.CA) -> None:
    peer = Peer()
    async with peer.listening(tls=server_context(authority, "other.example")):
        async with running(f"amqps://localhost:{peer.port}", tls=Files(verify=False)) as line:
            await line.until(LinkState.CONNECTED)


async def test_tls_to_a_port_without_it() -> None:
    peer = Peer()
    async with peer.listening(), running(f"amqps://localhost:{peer.port}", connect_timeout=1.0) as line:
        reason = await line.until(LinkState.CONNECTING)
        assert "TLS with broker" in reason or "did not answer" in reason


async def test_tls_files_that_are_not_there(tmp_path: Path) -> None:
    async with running("amqps://localhost", tls=Files(ca=tmp_path / "nowhere.pem")) as line:
        assert "nowhere.pem cannot be read: No such file" in await line.until(LinkState.CONNECTING)


async def test_a_client_certificate_is_the_identity(authority: trustme.CA, tmp_path: Path) -> None:
    """SASL EXTERNAL: the server is asked to take the name from TLS."""
    ca, cert = tmp_path / "ca.pem", tmp_path / "cert.pem"
    authority.cert_pem.write_to_path(ca)
    authority.issue_cert("agent.example").private_key_and_cert_chain_pem.write_to_path(cert)
    asked: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"AMQP\3\1\0\0\0\0\0\x1b\2\1\0\0\0S\x40\xc0\x0e\1\xe0\x0b\1\xa3\x08EXTERNAL")
        await reader.readexactly(8)
        asked.set_result(await reader.read(4096))
        writer.close()

    async with await asyncio.start_server(
        serve, "127.0.0.1", 0, ssl=server_context(authority, "localhost")
    ) as server:
        url = f"amqps://localhost:{server.sockets[0].getsockname()[1]}"
        async with running(url, tls=Files(ca=ca, cert=cert)), asyncio.timeout(PATIENCE_S):
            assert b"\xa3\x08EXTERNAL" in await asked
