"""A client of RFC 2217: serial port settings over Telnet (RFC 854, RFC 856), in the shape of a transport.

pyserial's client reads in a thread of its own, and waits for settings in steps of 50 ms; this one is a filter
on the event loop, between a TCP connection and the line's protocol.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from protocols.base import DriverError
from protocols.text.config import Rfc2217
from protocols.transport import connect
from protocols.units import format_duration

_IAC, _DONT, _DO, _WONT, _WILL, _SB, _SE = 0xFF, 0xFE, 0xFD, 0xFC, 0xFB, 0xFA, 0xF0
_BINARY, _SUPPRESS_GO_AHEAD, _COM_PORT = 0, 3, 44
_SET_BAUDRATE, _SET_DATASIZE, _SET_PARITY, _SET_STOPSIZE, _SET_CONTROL = 1, 2, 3, 4, 5
_SUSPEND, _RESUME = 8, 9
_FROM_SERVER = 100
"""What a server adds to a command's number in its answer (RFC 2217, section 3)."""
_PARITY = {"none": 1, "odd": 2, "even": 3, "mark": 4, "space": 5}
_FLOW = {"none": 1, "xonxoff": 2, "rtscts": 3}
_DTR = {True: 8, False: 9}
_RTS = {True: 11, False: 12}
_LONGEST_OPTION = 512
"""Bytes of a subnegotiation: longer ones are no COM port option."""

_NAMES: Mapping[int, str] = {
    _SET_BAUDRATE: "baudrate",
    _SET_DATASIZE: "bytesize",
    _SET_PARITY: "parity",
    _SET_STOPSIZE: "stopbits",
    _SET_CONTROL: "flow, dtr or rts",
}


async def open_rfc2217(line: Rfc2217, timeout: float, protocol: asyncio.Protocol) -> None:
    """Opens a port of an RFC 2217 server, with the line's settings, and hands it to `protocol`.

    Raises:
        DriverError: `timeout` or `disconnected`: it cannot be reached, knows no port settings, or has others.
    """
    telnet = _Telnet(line, protocol)
    await connect(line.host, line.port, timeout, telnet)
    try:
        async with asyncio.timeout(timeout):
            await telnet.ready
    except TimeoutError:
        telnet.abort()
        text = f"{telnet.name} did not confirm the port's settings in {format_duration(timeout)}: "
        raise DriverError("timeout", text + telnet.unsettled()) from None
    except BaseException:
        telnet.abort()
        raise


class TelnetFilter:
    """Takes Telnet's commands out of a stream; a state machine of bytes. Pure."""

    def __init__(self) -> None:
        self._pending = b""
        self._option: bytearray | None = None

    def feed(self, data: bytes) -> tuple[bytes, list[tuple[int, bytes]]]:
        """The data proper, and the commands: WILL and such with their option, SB with its content.

        Raises:
            ValueError: a subnegotiation is longer than any that is known.
        """
        data = self._pending + data
        plain = bytearray()
        commands: list[tuple[int, bytes]] = []
        place = 0
        while place < len(data):
            into = plain if self._option is None else self._option
            escape = data.find(_IAC, place)
            into += data[place:] if escape < 0 else data[place:escape]
            if self._option is not None and len(self._option) > _LONGEST_OPTION:
                raise ValueError("a Telnet option does not end")
            if escape < 0:
                place = len(data)
                break
            command = data[escape + 1] if escape + 1 < len(data) else None
            size = 3 if command is not None and _WILL <= command <= _DONT else 2
            if escape + size > len(data):
                place = escape
                break
            place = escape + size
            self._take(int(command or 0), data[place - 1 : place], into, commands)
        self._pending = data[place:]
        return bytes(plain), commands

    def _take(self, command: int, option: bytes, into: bytearray, commands: list[tuple[int, bytes]]) -> None:
        if command == _IAC:
            into.append(_IAC)
        elif command == _SB:
            self._option = bytearray()
        elif command == _SE:
            if self._option is not None:
                commands.append((_SB, bytes(self._option)))
            self._option = None
        elif _WILL <= command <= _DONT:
            commands.append((command, option))


class _Telnet(asyncio.Transport, asyncio.Protocol):
    """The protocol of the TCP connection and the transport of the line."""

    def __init__(self, line: Rfc2217, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.name = f"{line.host}:{line.port}"
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line = line
        self._protocol = protocol
        self._filter = TelnetFilter()
        self._tcp: asyncio.Transport
        self._asked: set[tuple[int, int]] = set()
        self._waiting: dict[int, list[bytes]] = {}
        self._accepted = False
        self._suspended = False
        self._held = b""

    # The protocol of the TCP connection.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast(asyncio.Transport, transport)  # uvloop's is none by class
        for verb, option in (
            (_WILL, _COM_PORT),
            (_DO, _COM_PORT),
            (_WILL, _BINARY),
            (_DO, _BINARY),
            (_WILL, _SUPPRESS_GO_AHEAD),
            (_DO, _SUPPRESS_GO_AHEAD),
        ):
            self._asked.add((verb, option))
            self._tcp.write(bytes((_IAC, verb, option)))

    def data_received(self, data: bytes) -> None:
        try:
            plain, commands = self._filter.feed(data)
        except ValueError as error:
            self._refuse(str(error))
            return
        for command, content in commands:
            if command == _SB:
                self._option(content)
            else:
                self._negotiate(command, content[0])
        if plain and self.ready.done() and not self._tcp.is_closing():
            self._protocol.data_received(plain)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self._refuse("it closed the connection")
        elif not self.ready.cancelled() and self.ready.exception() is None:
            self._protocol.connection_lost(exc)

    def _negotiate(self, verb: int, option: int) -> None:
        """Agrees to what we asked for, refuses what we do not know (RFC 854; no answer to an answer)."""
        if option == _COM_PORT and verb in (_DO, _WILL):
            if not self._accepted:  # some servers say the one, some the other
                self._accepted = True
                self._settings()
            return
        if option == _COM_PORT and verb == _DONT and not self._accepted:
            self._refuse("it knows no port settings: it is no RFC 2217 server, try transport: tcp")
            return
        mine = {_DO: _WILL, _WILL: _DO}.get(verb)
        no = _WONT if verb == _DO else _DONT
        if mine is not None and not {(mine, option), (no, option)} & self._asked:
            self._asked.add((no, option))  # once: a server that asks on and on would be answered on and on
            self._tcp.write(bytes((_IAC, no, option)))

    def _settings(self) -> None:
        line = self._line
        wanted = [
            (_SET_BAUDRATE, line.baudrate.to_bytes(4)),
            (_SET_DATASIZE, bytes([line.bytesize])),
            (_SET_PARITY, bytes([_PARITY[line.parity]])),
            (_SET_STOPSIZE, bytes([line.stopbits])),
            (_SET_CONTROL, bytes([_FLOW[line.flow]])),
        ]
        if line.dtr is not None:
            wanted.append((_SET_CONTROL, bytes([_DTR[line.dtr]])))
        if line.rts is not None:
            wanted.append((_SET_CONTROL, bytes([_RTS[line.rts]])))
        for command, value in wanted:
            self._waiting.setdefault(command, []).append(value)
            content = bytes([_COM_PORT, command]) + _escaped(value)
            self._tcp.write(bytes((_IAC, _SB)) + content + bytes((_IAC, _SE)))

    def _option(self, content: bytes) -> None:
        if len(content) < 2 or content[0] != _COM_PORT or content[1] < _FROM_SERVER:
            return
        command, value = content[1] - _FROM_SERVER, content[2:]
        if command in (_SUSPEND, _RESUME):
            self._suspended = command == _SUSPEND
            if not self._suspended:
                held, self._held = self._held, b""
                self._tcp.write(held)
        elif expected := self._waiting.get(command):
            wanted = expected.pop(0)
            if not expected:
                del self._waiting[command]
            if value[: len(wanted)] != wanted:
                asked, has = int.from_bytes(wanted), int.from_bytes(value)
                self._refuse(f"it does not take the line's {_NAMES[command]}: asked {asked}, has {has}")
            elif not self._waiting and not self.ready.done():
                self._protocol.connection_made(self)
                self.ready.set_result(None)

    def unsettled(self) -> str:
        """What a server has not confirmed."""
        if not self._accepted:
            return "it speaks no Telnet; for a serial server in raw mode say transport: tcp"
        return "missing are " + ", ".join(_NAMES[command] for command in self._waiting)

    def _refuse(self, reason: str) -> None:
        if not self.ready.done():
            self.ready.set_exception(DriverError("disconnected", f"{self.name}: {reason}"))
        self._tcp.abort()

    # The transport of the line.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends; while the server asks to wait, what is to be sent is kept."""
        if self._suspended:
            self._held += _escaped(bytes(data))
        else:
            self._tcp.write(_escaped(bytes(data)))

    def is_closing(self) -> bool:
        """Whether the connection is closed or about to be."""
        return self._tcp.is_closing()

    def close(self) -> None:
        """Closes the connection once all is sent."""
        self._tcp.close()

    def abort(self) -> None:
        """Closes the connection at once."""
        self._tcp.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the TCP connection says of itself."""
        return self._tcp.get_extra_info(name, default)


def _escaped(data: bytes) -> bytes:
    return data.replace(b"\xff", b"\xff\xff")
