"""Far ends behind TLS for every protocol, and what a client of each meets there."""

import asyncio
import contextlib
import functools
import ssl
import warnings
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import trustme
from amqp_line import running
from amqp_peer import PATIENCE_S, Peer
from pydantic import TypeAdapter

from agent.plugins import protocols, simulators
from protocols import tls
from protocols.amqp.client import LinkState
from protocols.base import DeviceConfig, DriverError

HOST = "localhost"
OVER_TLS = ("amqp", "modbus", "dnp3", "mqtt")
DEVICES: Mapping[str, Mapping[str, Any]] = {
    "modbus": {"address_base": 0, "points": {"p": {"table": "input", "address": 0}}},
    "dnp3": {"outstation": 10, "points": {"p": {"type": "analog_input", "index": 0}}},
    "mqtt": {"points": {"p": {"topic": "far/p"}}},
    "opcua": {"points": {"p": {"node": "ns=2;s=p"}}},
}
QUICK = {"poll": "50ms", "connect_timeout": "30s"}


class Authority:
    """A certificate authority whose certificates have keys on elliptic curves: they cost a millisecond."""

    def __init__(self) -> None:
        self.made = trustme.CA()

    @property
    def pem(self) -> bytes:
        return self.made.cert_pem.bytes()

    def server(self, *names: str, **dates: Any) -> ssl.SSLContext:
        """The context of a server that wants a certificate of this authority from its clients."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.made.issue_cert(*(names or (HOST,)), **dates).configure_cert(context)
        self.made.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


class Folder:
    """The files of a client: `ca.pem`, `cert.pem` and `key.pem`."""

    def __init__(self, path: Path, authority: Authority) -> None:
        self.path = path
        self.authority = authority
        (path / "ca.pem").write_bytes(authority.pem)
        self.serial = self.take(self.issue())

    def issue(self) -> trustme.LeafCert:
        return self.authority.made.issue_cert("agent.example")

    def take(self, leaf: trustme.LeafCert, place: Path | None = None) -> int:
        """Writes certificate and key, one after the other; gives the serial number."""
        place = place or self.path
        (place / "key.pem").write_bytes(leaf.private_key_pem.bytes())
        (place / "cert.pem").write_bytes(leaf.cert_chain_pems[0].bytes())
        return serial_of(leaf)


def serial_of(leaf: trustme.LeafCert) -> int:
    from cryptography import x509

    return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).serial_number


class Front:
    """Ends TLS before a server without it, and knows who came."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.port = 0
        self.serials: list[int] = []
        """Of the certificates that clients showed, in the order in which they came."""

    @contextlib.asynccontextmanager
    async def listening(self, context: ssl.SSLContext) -> AsyncIterator["Front"]:
        links: set[asyncio.Task[Any]] = set()
        writers: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if (own := asyncio.current_task()) is not None:
                links.add(own)
            writers.append(writer)
            if shown := writer.get_extra_info("peercert"):
                self.serials.append(int(shown["serialNumber"], 16))
            back, there = await asyncio.open_connection("127.0.0.1", self._to)
            writers.append(there)
            both = [asyncio.create_task(_pump(reader, there)), asyncio.create_task(_pump(back, writer))]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in both:
                    task.cancel()
                for one in (there, writer):
                    if not one.is_closing():  # twice, and Python 3.11.2's TLS cannot be aborted any more
                        one.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self
            server.close()
            for link in links:
                link.cancel()
            await asyncio.gather(*links, return_exceptions=True)
            for one in writers:
                one.transport.abort()
                with contextlib.suppress(OSError):
                    await one.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def far_end(protocol: str, context: ssl.SSLContext) -> AsyncIterator[Front]:
    """A far end that speaks a protocol over TLS."""
    async with contextlib.AsyncExitStack() as stack:
        if protocol == "amqp":
            port = (await stack.enter_async_context(Peer().listening())).port
        else:
            plain = device(protocol, 1, {"transport": "tcp"})
            made = await stack.enter_async_context(simulators()[protocol].start({"far": plain}))
            port = made["far"].connection.port
        yield await stack.enter_async_context(Front(port).listening(context))


def device(protocol: str, port: int, tls_fields: Mapping[str, Any], folder: Path = Path()) -> Any:
    """The configuration of a device of a protocol."""
    connection = {"host": HOST, "port": port} | dict(tls_fields)
    raw = {"protocol": protocol, "connection": connection, **DEVICES[protocol], **QUICK}
    if protocol == "opcua":
        raw["connection"] = dict(tls_fields)
    return _adapter(protocol).validate_python(raw).named("far", folder)


@functools.cache
def _adapter(protocol: str) -> TypeAdapter[DeviceConfig]:
    return TypeAdapter(protocols()[protocol].config())


async def met(protocol: str, port: int, folder: Path, **fields: Any) -> str:
    """Connects once; why that did not work, or nothing."""
    files: dict[str, Any] = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"} | fields
    if protocol == "amqp":
        beside: dict[str, Any] = {
            name: folder / file if isinstance(file, str) else file for name, file in files.items()
        }
        async with running(f"amqps://{HOST}:{port}", tls=tls.Files(**beside), sasl=("ANONYMOUS",)) as line:
            async with asyncio.timeout(PATIENCE_S):
                while not (said := [(state, why) for state, why in line.states if why]):
                    await asyncio.sleep(0.01)
            return "" if said[0][0] is LinkState.CONNECTED else said[0][1]
    driver = protocols()[protocol].driver(device(protocol, port, {"transport": "tls"} | files, folder), {})
    try:
        await driver.connect()
    except DriverError as error:
        return str(error)
    finally:
        await driver.close()
    return ""


def old(context: ssl.SSLContext) -> ssl.SSLContext:
    """Has a context speak TLS 1.0 and 1.1 only, as far as its library still can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context
