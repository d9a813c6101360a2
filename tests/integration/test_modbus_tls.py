"""Modbus/TCP Security: client certificates, records, and each reason for no connection."""

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from scripted import (
    Peer,
    always_right,
    connected,
    device,
    right_answer,
    tcp_device,
)

from protocols.base import DriverError
from protocols.modbus.driver import ModbusDriver


class Authority:
    """A certificate authority, a server that asks for client certificates, and a client's files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.server)
        authority.configure_trust(self.server)
        self.server.verify_mode = ssl.CERT_REQUIRED
        self.ca, self.cert, self.key = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(self.ca)
        client = authority.issue_cert("agent@rig.example")
        client.private_key_pem.write_to_path(self.key)
        for blob in client.cert_chain_pems:
            blob.write_to_path(self.cert, append=True)
        self.client = {"ca": self.ca, "cert": self.cert, "key": self.key}


async def in_two_records(peer: Peer) -> None:
    while True:
        request = await peer.request()
        whole = peer.frame(request, right_answer(request.pdu))
        peer.send(whole[:4])
        peer.send(whole[4:])


async def test_tls_with_a_client_certificate_and_answers_in_two_records(tmp_path: Path) -> None:
    files = Authority(tmp_path)
    async with tcp_device(in_two_records, tls=files.server) as connection:
        async with connected(connection | files.client, timeout="5s") as driver:
            assert (await driver.read(["a", "b"])).values == {"a": 0, "b": 100}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (lambda files: {"ca": files.ca}, "connection was lost|closed the connection|TLS failed"),
        (lambda files: {"cert": files.cert, "key": files.key}, "certificate not trusted"),
        (
            lambda files: {
                "ca": files.ca,
                "cert": files.cert,
                "key": files.key,
                "server_name": "plc.example",
            },
            "certificate not trusted",
        ),
        (lambda files: {"ca": files.ca + ".missing"}, "^ca: .*missing cannot be read: No such file"),
        (
            lambda files: {"ca": files.ca, "cert": files.ca + ".missing"},
            "^cert: .*missing cannot be read: No such file",
        ),
        (lambda files: {"ca": files.ca, "cert": files.key}, "^cert: .* holds no certificate in PEM"),
    ],
    ids=[
        "no client certificate",
        "unknown authority",
        "another name",
        "no authorities",
        "no file",
        "no certificate in it",
    ],
)
async def test_tls_that_is_refused(tmp_path: Path, fields: Any, words: str) -> None:
    files = Authority(tmp_path)
    async with tcp_device(always_right, tls=files.server) as connection:
        driver = ModbusDriver(device(connection | fields(files), timeout="5s"), {})
        with pytest.raises(DriverError, match=words) as failed:
            await driver.connect()
        assert failed.value.code == "disconnected"
        await driver.close()


async def test_tls_without_verification_talks_to_whoever_answers(tmp_path: Path) -> None:
    files = Authority(tmp_path)
    mine = {"cert": files.cert, "key": files.key, "verify": False}
    async with tcp_device(always_right, tls=files.server) as connection:
        async with connected(connection | mine, timeout="5s") as driver:
            assert (await driver.read(["a"])).values == {"a": 0}


async def test_a_peer_that_does_not_shake_hands_is_given_up() -> None:
    async with tcp_device(Peer.ignore) as connection:
        driver = ModbusDriver(device(connection | {"transport": "tls"}, connect_timeout="200ms"), {})
        with pytest.raises(DriverError, match="did not take the connection in 200ms") as failed:
            await driver.connect()
        assert failed.value.code == "timeout"
        await driver.close()


async def test_a_peer_that_hangs_up_at_the_handshake_is_said_so() -> None:
    async def closing(peer: Peer) -> None:
        pass

    async with tcp_device(closing) as connection:
        driver = ModbusDriver(device(connection | {"transport": "tls"}), {})
        with pytest.raises(DriverError, match="closed the connection") as failed:
            await driver.connect()
        assert failed.value.code == "disconnected"
        await driver.close()
