"""What lines run on besides TCP: TLS in both directions, and serial ports."""

import asyncio
import contextlib
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
from dnp3_far_end import calls, free_port, joined, listening, serial, silent
from dnp3_rig import INTEGRITY, PATIENCE_S, READ, FarEnd, Line, alive

from protocols.base import DriverError

SECOND = 11


class Files:
    """A certificate authority, and the files of one that it trusts."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca, self.cert = str(folder / "ca.pem"), str(folder / "own.pem")
        authority.cert_pem.write_to_path(self.ca)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(self.cert)
        self.fields = {"transport": "tls", "ca": self.ca, "cert": self.cert}
        self.caller = ssl.create_default_context(cafile=self.ca)
        self.caller.load_cert_chain(self.cert)


async def test_tls_to_an_outstation(tmp_path: Path) -> None:
    files = Files(tmp_path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.ca)
    server.load_cert_chain(files.cert)
    server.verify_mode = ssl.CERT_REQUIRED
    far, port, served = FarEnd(), free_port(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Line(reader, writer).serve({far.address: far})
        served.set()

    connection = {"host": "127.0.0.1", "port": port} | files.fields
    async with await asyncio.start_server(serve, "127.0.0.1", port, ssl=server), alive([far]):
        async with joined(connection) as station:
            await station.channel.open(10)
            await station.ask(READ, INTEGRITY)
        await asyncio.wait_for(served.wait(), PATIENCE_S)


async def test_a_listening_end_with_tls_wants_a_certificate_of_its_authority(tmp_path: Path) -> None:
    files = Files(tmp_path)
    connection = listening(**files.fields)
    async with joined(connection) as station:
        with contextlib.suppress(DriverError):
            await station.channel.open(0.01)
        stranger = ssl.create_default_context(cafile=files.ca)
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", connection["port"], ssl=stranger)
            try:
                assert await reader.read() == b"", "hung up on"
            finally:
                writer.close()
        assert not station.channel.is_open
        async with calls(FarEnd(), connection["port"], files.caller):
            await station.channel.open(10)
            await station.ask(READ, INTEGRITY)


async def test_without_an_authority_a_listening_end_asks_nobody(tmp_path: Path) -> None:
    files = Files(tmp_path)
    connection = listening(**files.fields | {"ca": None})
    async with joined(connection) as station:
        with contextlib.suppress(DriverError):
            await station.channel.open(0.01)
        async with calls(FarEnd(), connection["port"], ssl.create_default_context(cafile=files.ca)):
            await station.channel.open(10)
            await station.ask(READ, INTEGRITY)


@pytest.mark.parametrize("field", ["ca", "cert"])
async def test_files_of_a_listening_end_that_cannot_be_used_are_named(field: str, tmp_path: Path) -> None:
    files = Files(tmp_path)
    async with joined(listening(**files.fields | {field: "nowhere.pem"})) as station:
        with pytest.raises(DriverError, match=r"nowhere\.pem cannot be read: No such file"):
            await station.channel.open(5)


async def test_outstations_on_a_serial_line() -> None:
    far, other = FarEnd(), FarEnd(SECOND)
    shared: dict[Any, Any] = {}
    async with (
        serial(far, other) as connection,
        joined(connection, shared) as first,
        joined(connection, shared, outstation=SECOND) as second,
    ):
        await first.channel.open(5)
        assert first.name == f"outstation 10 at {connection['port']}"
        for station in (first, second, first):
            assert (await station.ask(READ, INTEGRITY)).blocks


async def test_a_silent_serial_line_is_kept() -> None:
    far = FarEnd()
    far.twist = silent
    async with serial(far) as connection, joined(connection, timeout="30ms") as station:
        await station.channel.open(5)
        for _ in range(5):
            with pytest.raises(DriverError, match="did not answer"):
                await station.ask(READ)
        assert station.channel.is_open


async def test_a_serial_port_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async with joined({"transport": "serial", "port": "/dev/ttyNONE9"}) as station:
        with pytest.raises(DriverError, match="/dev/ttyNONE9 cannot be opened: No such file"):
            await station.channel.open(5)
        monkeypatch.setitem(sys.modules, "serial", None)
        with pytest.raises(DriverError, match=r"needs the package pyserial; install hilgate\[dnp3\]"):
            await station.channel.open(5)
