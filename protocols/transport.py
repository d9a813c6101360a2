"""Opens the byte streams that protocols run on: TCP, TLS and serial ports. I/O only."""

import asyncio
import contextlib
import dataclasses
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from protocols.base import DriverError
from protocols.listener import SHUTDOWN_S, Listener, bound
from protocols.tls import TlsFiles, UnusableFile, aside, client_context, server_context
from protocols.units import format_duration

if TYPE_CHECKING:
    import serial

_READ = 4096


class TlsOptions(TlsFiles, Protocol):
    """What a profile says of TLS."""

    @property
    def server_name(self) -> str | None:
        """Name in the server's certificate; None: its host."""


class SerialOptions(Protocol):
    """What a profile says of every serial line."""

    @property
    def port(self) -> str:
        """Path of the device, such as `/dev/ttyUSB0`."""

    @property
    def baudrate(self) -> int:
        """Bits a second."""

    @property
    def parity(self) -> str:
        """`none`, `even`, `odd`, `mark` or `space`."""

    @property
    def stopbits(self) -> int:
        """1 or 2."""


async def connect(
    host: str,
    port: int,
    timeout: float,
    protocol: asyncio.Protocol,
    tls: TlsOptions | None = None,
    folder: Path = Path(),
) -> None:
    """Opens a connection and hands it to `protocol.connection_made`; `timeout` is in seconds.

    The names of TLS files are relative to `folder`.

    Raises:
        DriverError: `timeout` or `disconnected`, with the reason in words.
    """
    where = f"{host}:{port}"
    options: dict[str, Any] = {}
    if tls is not None:
        options = {
            "ssl": await _context_of(client_context, tls, folder),
            "server_hostname": tls.server_name or host,
            "ssl_shutdown_timeout": SHUTDOWN_S,
        }
    try:
        with _in_words(where):
            async with asyncio.timeout(timeout):
                await asyncio.get_running_loop().create_connection(lambda: protocol, host, port, **options)
    except TimeoutError:
        text = f"{where} did not take the connection in {format_duration(timeout)}"
        raise DriverError("timeout", text) from None


async def listen(
    host: str,
    port: int,
    factory: Callable[[], asyncio.Protocol],
    tls: TlsOptions | None = None,
    folder: Path = Path(),
) -> Listener:
    """Listens for callers, each of whom gets a protocol of its own.

    The names of TLS files are relative to `folder`.

    Raises:
        DriverError: `disconnected`: the address cannot be listened on; the text says why.
    """
    context = None if tls is None else await _context_of(server_context, tls, folder)
    with _in_words(f"{host}:{port}"):
        return Listener(await bound(host, port), factory, context)


@contextlib.contextmanager
def _in_words(where: str) -> Iterator[None]:
    """Says what went wrong in a sentence; a TimeoutError passes."""
    try:
        yield
    except TimeoutError:
        raise
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
        # Not the library's text, which says it all twice.
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else error
        raise DriverError("disconnected", f"{where} cannot be opened: {reason}") from error


async def _context_of(
    make: Callable[[TlsFiles, Path], ssl.SSLContext], tls: TlsFiles, folder: Path
) -> ssl.SSLContext:
    try:
        return await aside(lambda: make(tls, folder))
    except UnusableFile as error:
        raise DriverError("disconnected", str(error)) from error


@dataclasses.dataclass(frozen=True)
class SerialLines:
    """What most serial lines leave as it is: data bits, flow control, and DTR and RTS on opening."""

    bytesize: int = 8
    flow: str = "none"
    """`none`, `rtscts` or `xonxoff`."""
    dtr: bool | None = None
    """None: as the system sets it."""
    rts: bool | None = None


def open_serial(
    line: SerialOptions, protocol: asyncio.Protocol, extra: str, lines: SerialLines = SerialLines()
) -> None:
    """Opens a serial port for this process alone; pyserial does not block here (O_NONBLOCK).

    `extra` is the distribution's extra that brings pyserial to the protocol.

    Raises:
        DriverError: `disconnected`, with the reason in words.
    """
    try:
        import serial
    except ImportError as error:
        text = f"{line.port} needs the package pyserial; install hilgate[{extra}]"
        raise DriverError("disconnected", text) from error
    with _in_words(line.port):
        port = serial.Serial(
            baudrate=line.baudrate,
            bytesize=lines.bytesize,
            parity=line.parity[0].upper(),
            stopbits=line.stopbits,
            rtscts=lines.flow == "rtscts",
            xonxoff=lines.flow == "xonxoff",
            timeout=0,
            write_timeout=0,
            exclusive=True,
        )
        # Set before it is opened, so that neither line shows another state in between.
        if lines.dtr is not None:
            port.dtr = lines.dtr
        if lines.rts is not None:
            port.rts = lines.rts
        port.port = line.port
        port.open()
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
