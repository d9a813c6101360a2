"""Opens what a Modbus line runs on: TCP, TLS or a serial port. I/O only."""

import asyncio
from pathlib import Path

from protocols.modbus.config import Connection, Rtu, Tls
from protocols.transport import connect, open_serial


def name_of(connection: Connection) -> str:
    """The line as people call it: `plc-1.bench.example:502` or `/dev/ttyUSB0`."""
    return connection.port if isinstance(connection, Rtu) else f"{connection.host}:{connection.port}"


async def open_transport(
    connection: Connection, timeout: float, protocol: asyncio.Protocol, folder: Path
) -> None:
    """Opens a line and hands it to `protocol.connection_made`; file names are relative to `folder`.

    TLS is with mutual authentication where `cert` is given (Modbus/TCP Security V2.1, section 6).

    Raises:
        DriverError: `timeout` or `disconnected`, with the reason in words.
    """
    if isinstance(connection, Rtu):
        open_serial(connection, protocol, extra="modbus")
        return
    tls = connection if isinstance(connection, Tls) else None
    await connect(connection.host, connection.port, timeout, protocol, tls, folder)
