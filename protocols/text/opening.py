"""Opens what a line runs on: TCP, a serial port, or one behind RFC 2217. I/O only."""

import asyncio
from pathlib import Path

from protocols.base import DriverError
from protocols.text.config import Connection, Rfc2217, Tcp
from protocols.text.rfc2217 import open_rfc2217
from protocols.transport import SerialLines, connect, open_serial

_MOST_NAMES = 10


async def open_line(connection: Connection, timeout: float, protocol: asyncio.Protocol) -> None:
    """Opens a line and hands it to `protocol.connection_made`.

    Raises:
        DriverError: `timeout` or `disconnected`, with the reason in words.
    """
    if isinstance(connection, Tcp):
        await connect(connection.host, connection.port, timeout, protocol)
    elif isinstance(connection, Rfc2217):
        await open_rfc2217(connection, timeout, protocol)
    else:
        lines = SerialLines(connection.bytesize, connection.flow, connection.dtr, connection.rts)
        try:
            open_serial(connection, protocol, "text", lines)
        except DriverError as error:
            raise DriverError(error.code, f"{error}{_others(Path(connection.port))}") from error


def _others(port: Path) -> str:
    """The adapters that are plugged in, where one is looked for by its name and is not there."""
    if port.parent.name not in ("by-id", "by-path") or port.exists():
        return ""
    try:
        names = sorted(other.name for other in port.parent.iterdir())
    except OSError:
        names = []  # the folder is there only while an adapter is
    return f"; plugged in: {', '.join(names[:_MOST_NAMES])}" if names else "; no adapter is plugged in"
