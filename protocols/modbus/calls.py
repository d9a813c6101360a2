"""The operations of `call`: identification, diagnostics, files, and requests by hand.

The PDUs of the rarer functions are pymodbus's. Imported only when a call is made.
"""

import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal, Protocol

import msgspec
from pymodbus.exceptions import ModbusException as PymodbusError
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.file_message import (
    FileRecord,
    ReadFifoQueueRequest,
    ReadFifoQueueResponse,
    ReadFileRecordRequest,
    ReadFileRecordResponse,
    WriteFileRecordRequest,
)
from pymodbus.pdu.mei_message import ReadDeviceInformationRequest, ReadDeviceInformationResponse

from protocols.base import Refused
from protocols.modbus import pdu
from protocols.modbus.codec import unpack_bits
from protocols.modbus.config import Table
from protocols.modbus.pdu import Function, MalformedAnswer
from protocols.modbus.plan import READ_FUNCTIONS

Exchange = Callable[[bytes], Awaitable[bytes]]
"""Sends a request PDU and gives the answer PDU."""

_Word = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
_Address = Annotated[int, msgspec.Meta(ge=0, le=0x10000)]
_Words = Annotated[list[_Word], msgspec.Meta(min_length=1, max_length=121)]
_Hex = Annotated[str, msgspec.Meta(pattern="^(0x)?([0-9a-fA-F]{2})*$", max_length=506)]

_OBJECTS = (
    "vendor",
    "product-code",
    "revision",
    "vendor-url",
    "product-name",
    "model-name",
    "application-name",
)
_RUN_INDICATORS = {0x00: False, 0xFF: True}


class _Args(msgspec.Struct, forbid_unknown_fields=True):
    """What a method takes."""


class _Call(Protocol):
    """A method with its arguments; `base` is the device's address_base."""

    async def carry_out(self, base: int, exchange: Exchange) -> Any: ...


async def carry_out(method: str, args: Mapping[str, Any], base: int, exchange: Exchange) -> Any:
    """Carries out a method of `call`; the answer is JSON-able.

    Raises:
        Refused: unknown method or wrong arguments.
        ModbusException: the device answered with an exception.
        MalformedAnswer: it answered with something else.
        DriverError: it did not answer.
    """
    kind = METHODS.get(method)
    if kind is None:
        raise Refused(
            "unknown-op", f"a modbus device has no method {method!r:.60}; it has {', '.join(METHODS)}"
        )
    try:
        parsed = msgspec.convert(dict(args), kind)
    except msgspec.ValidationError as error:
        raise Refused("malformed", f"{method}: {error}") from error
    return await parsed.carry_out(base, exchange)


def _start(address: int, base: int, count: int = 1) -> int:
    if not base <= address <= 0x10000 + base - count:
        raise Refused("out-of-range", f"addresses {address}..{address + count - 1} are not all in the table")
    return address - base


async def _ask(exchange: Exchange, request: bytes) -> bytes:
    return pdu.answer_data(request, await exchange(request))


def _encode(message: ModbusPDU) -> bytes:
    return bytes((message.function_code,)) + message.encode()


def _decode(message: ModbusPDU, data: bytes) -> None:
    try:
        message.decode(data)
    except (PymodbusError, struct.error, IndexError, ValueError) as error:
        raise MalformedAnswer(f"its answer to function {message.function_code} cannot be read") from error


def _words(data: bytes) -> list[int]:
    if len(data) % 2:
        raise MalformedAnswer("half a register came")
    return list(struct.unpack(f">{len(data) // 2}H", data))


def _bytes(text: str) -> bytes:
    # With 0x in front a shell's 0x1234 is no number by mistake.
    return bytes.fromhex(text.removeprefix("0x"))


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.hex()


class _Identify(_Args):
    """Function 43/14; a device that has more than fits one answer is asked on."""

    level: Literal["basic", "regular", "extended"] = "basic"

    async def carry_out(self, base: int, exchange: Exchange) -> Any:
        code = ("basic", "regular", "extended").index(self.level) + 1
        objects: dict[int, Any] = {}
        following = 0
        while True:
            request = _encode(ReadDeviceInformationRequest(read_code=code, object_id=following))
            answer = ReadDeviceInformationResponse()
            _decode(answer, await _ask(exchange, request))
            objects.update(answer.information)
            if not answer.more_follows or answer.next_object_id <= following:
                break
            following = answer.next_object_id
        return {_object_name(number): _object_text(value) for number, value in sorted(objects.items())}


def _object_name(number: int) -> str:
    return _OBJECTS[number] if number < len(_OBJECTS) else f"object-{number}"


def _object_text(value: bytes | list[bytes]) -> str:
    return _text(value) if isinstance(value, bytes) else " ".join(map(_text, value))


class _ServerId(_Args):
    """Function 17. What is in its answer, and in which order, is the device's own (section 6.13).

    Most end with the run indicator; where the last byte cannot be one, `running` is null.
    """

    async def carry_out(self, base: int, exchange: Exchange) -> Any:
        data = await _ask(exchange, bytes((Function.REPORT_SERVER_ID,)))
        if len(data) < 2 or data[0] != len(data) - 1:
            raise MalformedAnswer("its identification has another length than it says")
        said = data[1:]
        running = _RUN_INDICATORS.get(said[-1])
        return {"id": _text(said if running is None else said[:-1]), "hex": said.hex(), "running": running}


class _ExceptionStatus(_Args):
    """Function 7."""

    async def carry_out(self, base: int, exchange: Exchange) -> Any:
        data = await _ask(exchange, bytes((Function.READ_EXCEPTION_STATUS,)))
        if len(data) != 1:
            raise MalformedAnswer(f"{len(data)} bytes of status came instead of 1")
        return {"flags": unpack_bits(data)}


class _Diagnostics(_Args):
    """Function 8: the answer starts with the sub-function."""

    sub_function: _Word = 0
    data: _Hex = "0000"

    async def carry_out(self, base: int, exchange: Exchange) -> Any:
        head = struct.pack(">H", self.sub_function)
        answer = await _ask(exchange, bytes((Function.DIAGNOSTICS,)) + head + _bytes(self.data))
        if answer[:2] != head:
            raise MalformedAnswer("another sub-function was answered")
        return {"data": answer[2:].hex()}


class _CommEventCounter(_Args):
    """Function 11."""

    async def carry_out(self, base: int, exchange: Exchange) -> Any:
        data = await _ask(exchange, bytes((Function.GET_COMM_EVENT_COUNTER,)))
        if len(data) != 4:
            raise MalformedAnswer(f"{len(data)} bytes came instead of 4")
        status, events = _words(data)
        return {"busy": status != 0, "events": events}


class _Read(_Args):
    """Functions 1 to 4."""

    table: Table
    address: _Address
    count: Annotated[int, msgspec.Meta(ge=1, le=pdu.MAX_READ_BITS)] = 1

    async def carry_out(self, base: int, exchange: Exchange) -> Any:
        bits = self.table in ("coil", "discrete")
        if not bits and self.count > pdu.MAX_READ_REGISTERS:
            raise Refused("out-of-range", f"at most {pdu.MAX_READ_REGISTERS} registers can be read at once")
        start = _start(self.address, base, self.count)
        data = await _ask(exchange, pdu.read(READ_FUNCTIONS[self.table], start, self.count))
        return {"bits": unpack_bits(data)[: self.count]} if bits else {"registers": _words(data)}


class _ReadWrite(_Args):
    """Function 23."""

    address: _Address
    count: Annotated[int, msgspec.Meta(ge=1, le=pdu.MAX_READ_REGISTERS)]
    write_address: _Address
    registers: _Words

    async def carry_out(self, base: int, exchange: Exchange) -> Any:
        start = _start(self.address, base, self.count)
        write_start = _start(self.write_address, base, len(self.registers))
        registers = struct.pack(f">{len(self.registers)}H", *self.registers)
        data = await _ask(exchange, pdu.read_write_registers(start, self.count, write_start, registers))
        return {"registers": _words(data)}


class _ReadFile(_Args):
    """Function 20, one group of records."""

    file: _Word
    record: _Word
    count: Annotated[int, msgspec.Meta(ge=1, le=122)]

    async def carry_out(self, base: int, exchange: Exchange) -> Any:
        record = FileRecord(file_number=self.file, record_number=self.record, record_length=self.count * 2)
        answer = ReadFileRecordResponse()
        _decode(answer, await _ask(exchange, _encode(ReadFileRecordRequest([record]))))
        data = b"".join(part.record_data for part in answer.records)
        if len(data) != self.count * 2:
            raise MalformedAnswer(f"{len(data) // 2} registers came where {self.count} were asked for")
        return {"registers": _words(data)}


class _WriteFile(_Args):
    """Function 21, one group of records; the answer is an echo."""

    file: _Word
    record: _Word
    registers: _Words

    async def carry_out(self, base: int, exchange: Exchange) -> Any:
        data = struct.pack(f">{len(self.registers)}H", *self.registers)
        record = FileRecord(file_number=self.file, record_number=self.record, record_data=data)
        request = _encode(WriteFileRecordRequest([record]))
        if await _ask(exchange, request) != request[1:]:
            raise MalformedAnswer("the device confirmed something else than was written")
        return {"registers": self.registers}


class _ReadFifo(_Args):
    """Function 24."""

    address: _Address

    async def carry_out(self, base: int, exchange: Exchange) -> Any:
        answer = ReadFifoQueueResponse()
        request = ReadFifoQueueRequest(address=_start(self.address, base))
        _decode(answer, await _ask(exchange, _encode(request)))
        return {"registers": answer.values}


class _Raw(_Args):
    """Any request; the answer is given as it came, after its function code."""

    function: Annotated[int, msgspec.Meta(ge=1, le=127)]
    data: _Hex = ""

    async def carry_out(self, base: int, exchange: Exchange) -> Any:
        answer = await exchange(bytes((self.function,)) + _bytes(self.data))
        if answer[0] != self.function:
            pdu.answer_data(bytes((self.function,)), answer)
        return {"data": answer[1:].hex()}


METHODS: Mapping[str, type[_Call]] = {
    "identify": _Identify,
    "server-id": _ServerId,
    "exception-status": _ExceptionStatus,
    "diagnostics": _Diagnostics,
    "comm-event-counter": _CommEventCounter,
    "read": _Read,
    "read-write": _ReadWrite,
    "read-file": _ReadFile,
    "write-file": _WriteFile,
    "read-fifo": _ReadFifo,
    "raw": _Raw,
}
