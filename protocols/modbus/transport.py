"""Opens the byte streams that Modbus runs on: TCP, TLS and serial ports. I/O only."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from protocols.base import DriverError
from protocols.modbus.config import Connection, Rtu, RtuTcp, Tcp, Tls
from protocols.units import format_duration

if TYPE_CHECKING:
    import serial

_READ = 4096
_TLS_SHUTDOWN = 1.0


def name_of(connection: Connection) -> str:
    """The line as people call it: `plc-1.bench.example:502` or `/dev/ttyUSB0`."""
    return connection.port if isinstance(connection, Rtu) else f"{connection.host}:{connection.port}"


async def open_transport(connection: Connection, timeout: float, protocol: asyncio.Protocol) -> None:
    """Opens a line and hands it to `protocol.connection_made`.

    Raises:
        DriverError: `timeout` or `disconnected`, with the reason in words.
    """
    where = name_of(connection)
    try:
        if isinstance(connection, Rtu):
            open_serial(connection, protocol)
            return
        async with asyncio.timeout(timeout):
            await _open_network(connection, protocol)
    except TimeoutError:
        raise DriverError(
            "timeout", f"{where} did not take the connection in {format_duration(timeout)}"
        ) from None
    except ConnectionRefusedError:
        raise DriverError("disconnected", f"{where} refused the connection") from None
    except ConnectionError as error:
        raise DriverError("disconnected", f"{where} closed the connection as it was made") from error
    except socket.gaierror as error:
        raise DriverError("disconnected", f"{where}: host not found ({error.strerror})") from error
    except ssl.SSLCertVerificationError as error:
        raise DriverError(
            "disconnected", f"{where}: certificate not trusted: {error.verify_message}"
        ) from error
    except ssl.SSLError as error:
        raise DriverError("disconnected", f"{where}: TLS failed: {error.reason or error}") from error
    except (OSError, ValueError) as error:
        # Not pyserial's text, which says it all twice.
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise DriverError("disconnected", f"{where} cannot be opened: {reason}") from error


async def _open_network(connection: Tcp | Tls | RtuTcp, protocol: asyncio.Protocol) -> None:
    loop = asyncio.get_running_loop()
    tls: dict[str, Any] = {}
    if isinstance(connection, Tls):
        tls = {
            "ssl": tls_context(connection),
            "server_hostname": connection.server_name or connection.host,
            "ssl_shutdown_timeout": _TLS_SHUTDOWN,
        }
    await loop.create_connection(lambda: protocol, connection.host, connection.port, **tls)


def tls_context(connection: Tls) -> ssl.SSLContext:
    """TLS 1.2 or later with mutual authentication (Modbus/TCP Security V2.1, section 6).

    Raises:
        DriverError: a file cannot be read, or holds no certificate or key; the text names it.
    """
    with _file_of("ca", connection.ca):
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=connection.ca)
    if connection.cert is not None:
        with _file_of("cert and key", connection.cert, connection.key):
            # Without a password OpenSSL would ask for one on the terminal, and wait.
            context.load_cert_chain(connection.cert, connection.key, password="")
    if not connection.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def _file_of(field: str, *files: str | None) -> Iterator[None]:
    """Says of what goes wrong inside which files it was about: `ssl` does not."""
    try:
        yield
    except OSError as error:
        names = " and ".join(filter(None, files)) or "the system's authorities"
        reason = error.reason if isinstance(error, ssl.SSLError) and error.reason else error.strerror or error
        raise DriverError("disconnected", f"{field}: {names} cannot be used: {reason}") from error


def open_serial(connection: Rtu, protocol: asyncio.Protocol) -> None:
    """Opens a serial port for this process alone; pyserial does not block here (O_NONBLOCK).

    Raises:
        DriverError: the package pyserial is missing.
        OSError: the port is missing, busy or cannot be configured.
        ValueError: a setting that the port does not know.
    """
    try:
        import serial
    except ImportError as error:
        text = f"{connection.port} needs the package pyserial; install hilgate[modbus]"
        raise DriverError("disconnected", text) from error
    port = serial.Serial(
        connection.port,
        baudrate=connection.baudrate,
        parity={"none": "N", "even": "E", "odd": "O"}[connection.parity],
        stopbits=connection.stopbits,
        timeout=0,
        write_timeout=0,
        exclusive=True,
    )
    protocol.connection_made(_SerialTransport(port, protocol))


class _SerialTransport(asyncio.Transport):
    """A serial port's descriptor on the event loop, in the shape of an asyncio transport."""

    def __init__(self, port: "serial.Serial", protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._port = port
        self._file: int = port.fileno()
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._unsent = b""
        self._closing = False
        self._loop.add_reader(self._file, self._readable)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends; what the port does not take at once is kept, and what comes after its loss is dropped."""
        if not self._closing:
            self._unsent += bytes(data)
            self._writable()

    def is_closing(self) -> bool:
        """Whether the port is closed or about to be."""
        return self._closing

    def close(self) -> None:
        """Closes the port at once."""
        self._lost(None)

    def abort(self) -> None:
        """Closes the port at once."""
        self._lost(None)

    def _readable(self) -> None:
        try:
            data = os.read(self._file, _READ)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._lost(ConnectionResetError("the port was hung up"))

    def _writable(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._file, self._unsent) :]
        except BlockingIOError:
            pass  # the port's buffer is full: go on when it has room
        except OSError as error:
            self._lost(error)
            return
        if self._unsent:
            self._loop.add_writer(self._file, self._writable)
        else:
            self._loop.remove_writer(self._file)

    def _lost(self, error: Exception | None) -> None:
        if self._closing:
            return
        self._closing = True
        self._loop.remove_reader(self._file)
        self._loop.remove_writer(self._file)
        self._port.close()
        self._loop.call_soon(self._protocol.connection_lost, error)
