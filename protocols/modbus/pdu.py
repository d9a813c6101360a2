"""Modbus requests and answers, for both ends of a line. Pure.

A PDU is a function code and its data (Modbus Application Protocol V1.1b3, section 4.1). Addresses count
from 0 here, as on the wire.
"""

import enum
import struct

import msgspec

MAX_PDU = 253
MAX_READ_BITS, MAX_WRITE_BITS = 2000, 1968
MAX_READ_REGISTERS, MAX_WRITE_REGISTERS = 125, 123
_READ_WRITE_REGISTERS = 121  # most that function 23 writes


class Function(enum.IntEnum):
    """Function codes (section 5.1)."""

    READ_COILS = 1
    READ_DISCRETE_INPUTS = 2
    READ_HOLDING_REGISTERS = 3
    READ_INPUT_REGISTERS = 4
    WRITE_SINGLE_COIL = 5
    WRITE_SINGLE_REGISTER = 6
    READ_EXCEPTION_STATUS = 7
    DIAGNOSTICS = 8
    GET_COMM_EVENT_COUNTER = 11
    GET_COMM_EVENT_LOG = 12
    WRITE_MULTIPLE_COILS = 15
    WRITE_MULTIPLE_REGISTERS = 16
    REPORT_SERVER_ID = 17
    READ_FILE_RECORD = 20
    WRITE_FILE_RECORD = 21
    MASK_WRITE_REGISTER = 22
    READ_WRITE_REGISTERS = 23
    READ_FIFO_QUEUE = 24
    ENCAPSULATED_INTERFACE = 43


class ExceptionCode(enum.IntEnum):
    """What a device says instead of an answer (section 7)."""

    ILLEGAL_FUNCTION = 1
    ILLEGAL_DATA_ADDRESS = 2
    ILLEGAL_DATA_VALUE = 3
    SERVER_DEVICE_FAILURE = 4
    ACKNOWLEDGE = 5
    SERVER_DEVICE_BUSY = 6
    NEGATIVE_ACKNOWLEDGE = 7
    MEMORY_PARITY_ERROR = 8
    GATEWAY_PATH_UNAVAILABLE = 10
    GATEWAY_TARGET_FAILED_TO_RESPOND = 11


class ModbusException(Exception):
    """An exception answer. `code` may be one that no standard knows."""

    def __init__(self, function: int, code: int) -> None:
        super().__init__(f"exception {code} to function {function}")
        self.function = function
        self.code = code


class MalformedAnswer(Exception):
    """An answer that does not fit its request; the text says how."""


# Requests, as a client makes them.


def read(function: int, start: int, count: int) -> bytes:
    """Functions 1 to 4: read bits or registers."""
    return struct.pack(">BHH", function, start, count)


def write_coil(start: int, on: bool) -> bytes:
    """Function 5."""
    return struct.pack(">BHH", Function.WRITE_SINGLE_COIL, start, 0xFF00 if on else 0)


def write_coils(start: int, count: int, packed: bytes) -> bytes:
    """Function 15; `packed` has the first coil in the lowest bit of its first byte."""
    return struct.pack(">BHHB", Function.WRITE_MULTIPLE_COILS, start, count, len(packed)) + packed


def write_register(start: int, register: bytes) -> bytes:
    """Function 6."""
    return struct.pack(">BH", Function.WRITE_SINGLE_REGISTER, start) + register


def write_registers(start: int, registers: bytes) -> bytes:
    """Function 16."""
    size = len(registers)
    return struct.pack(">BHHB", Function.WRITE_MULTIPLE_REGISTERS, start, size // 2, size) + registers


def mask_write(start: int, and_mask: int, or_mask: int) -> bytes:
    """Function 22: the register becomes (itself AND and_mask) OR (or_mask AND NOT and_mask)."""
    return struct.pack(">BHHH", Function.MASK_WRITE_REGISTER, start, and_mask, or_mask)


def read_write_registers(start: int, count: int, write_start: int, registers: bytes) -> bytes:
    """Function 23: writes first, then reads."""
    size = len(registers)
    head = (Function.READ_WRITE_REGISTERS, start, count, write_start, size // 2, size)
    return struct.pack(">BHHHHB", *head) + registers


def answer_data(request: bytes, answer: bytes) -> bytes:
    """What an answer carries, once it is known to belong to its request in function, length and echo.

    Of functions 1 to 4 and 23 that is the bits or registers, of others all after the function code.

    Raises:
        ModbusException: the device answered with an exception.
        MalformedAnswer: it answered with something else.
    """
    function = request[0]
    if answer[0] == function | 0x80 and len(answer) == 2:
        raise ModbusException(function, answer[1])
    if answer[0] != function:
        raise MalformedAnswer(f"function {answer[0]} came in answer to function {function}")
    size = _data_size(request)
    if size is not None:
        if len(answer) != size + 2 or answer[1] != size:
            raise MalformedAnswer(f"{len(answer) - 2} bytes of data came where {size} were asked for")
        return answer[2:]
    echo = _echo(request)
    if echo is not None and answer != echo:
        raise MalformedAnswer(f"function {function} was answered for another address or value")
    return answer[1:]


def usual_answer_size(request: bytes) -> int:
    """Bytes of the answer, or about as many where the request does not tell."""
    size = _data_size(request)
    return 5 if size is None else size + 2


def _data_size(request: bytes) -> int | None:
    function = request[0]
    if function in (1, 2):
        return (int.from_bytes(request[3:5]) + 7) // 8
    if function in (3, 4, 23):
        return int.from_bytes(request[3:5]) * 2
    return None


def _echo(request: bytes) -> bytes | None:
    function = request[0]
    if function in (5, 6, 22):
        return request
    return request[:5] if function in (15, 16) else None


# Lengths: RTU frames do not carry theirs.

MORE = 0
"""More bytes are needed to tell the length."""
UNKNOWN = -1
"""The function does not say its length: only silence ends it."""
IMPOSSIBLE = -2
"""These bytes cannot be what is waited for."""


def answer_length(request: bytes, head: bytes) -> int:
    """How long the PDU is that begins with `head` if it answers `request`; or MORE, UNKNOWN, IMPOSSIBLE."""
    if not head:
        return MORE
    function = request[0]
    if head[0] == function | 0x80:
        return 2
    if head[0] != function:
        return IMPOSSIBLE
    size = _data_size(request)
    if size is not None:
        return (size + 2 if head[1] == size else IMPOSSIBLE) if len(head) > 1 else MORE
    if function in (12, 17, 20, 21):
        return 2 + head[1] if len(head) > 1 else MORE
    if function == Function.READ_FIFO_QUEUE:
        return 3 + int.from_bytes(head[1:3]) if len(head) > 2 else MORE
    if function == Function.ENCAPSULATED_INTERFACE:
        return _identification_length(head) if request[1:2] == b"\x0e" else UNKNOWN
    if function == Function.DIAGNOSTICS:
        return len(request)
    return {5: 5, 6: 5, 7: 2, 11: 5, 15: 5, 16: 5, 22: 7}.get(function, UNKNOWN)


def _identification_length(head: bytes) -> int:
    """Function 43/14 (section 6.21): seven bytes, then objects of id, length and value."""
    if len(head) < 7:
        return MORE
    length = 7
    for _ in range(head[6]):
        if len(head) < length + 2:
            return MORE
        length += 2 + head[length + 1]
    return length


def request_length(head: bytes) -> int:
    """How long the request PDU is that begins with `head`; or MORE, UNKNOWN."""
    if not head:
        return MORE
    function = head[0]
    fixed = {1: 5, 2: 5, 3: 5, 4: 5, 5: 5, 6: 5, 7: 1, 8: 5, 11: 1, 12: 1, 17: 1, 22: 7, 24: 3, 43: 4}
    count_at = {15: 5, 16: 5, 20: 1, 21: 1, 23: 9}.get(function)
    if count_at is None:
        return fixed.get(function, UNKNOWN)
    return count_at + 1 + head[count_at] if len(head) > count_at else MORE


# Requests and answers, as a server takes and gives them.


class Read(msgspec.Struct, frozen=True):
    """Functions 1 to 4."""

    function: int
    start: int
    count: int


class Write(msgspec.Struct, frozen=True):
    """Functions 5, 6, 15 and 16; `data` is packed bits or registers."""

    function: int
    start: int
    count: int
    data: bytes


class MaskWrite(msgspec.Struct, frozen=True):
    """Function 22."""

    start: int
    and_mask: int
    or_mask: int


class ReadWrite(msgspec.Struct, frozen=True):
    """Function 23: the write is carried out before the read."""

    read: Read
    write: Write


Request = Read | Write | MaskWrite | ReadWrite


def parse(request: bytes) -> Request:
    """A request for bits or registers, checked for everything but its addresses.

    Raises:
        ModbusException: code 1 for any other function, 3 for a wrong length, count or value.
    """
    if not request:
        raise ModbusException(0, ExceptionCode.ILLEGAL_FUNCTION)
    function = request[0]
    if function not in (1, 2, 3, 4, 5, 6, 15, 16, 22, 23):
        raise ModbusException(function, ExceptionCode.ILLEGAL_FUNCTION)
    parsed = _parse(function, request[1:]) if len(request) == request_length(request) else None
    if parsed is None:
        raise ModbusException(function, ExceptionCode.ILLEGAL_DATA_VALUE)
    return parsed


def _parse(function: int, data: bytes) -> Request | None:
    start, count = struct.unpack_from(">HH", data)
    if function in (1, 2, 3, 4):
        return Read(function, start, count) if 1 <= count <= _most_read(function) else None
    if function == Function.WRITE_SINGLE_COIL:
        return Write(function, start, 1, bytes([count >> 15])) if count in (0, 0xFF00) else None
    if function == Function.WRITE_SINGLE_REGISTER:
        return Write(function, start, 1, data[2:])
    if function == Function.WRITE_MULTIPLE_COILS:
        fits = 1 <= count <= MAX_WRITE_BITS and data[4] == (count + 7) // 8
        return Write(function, start, count, data[5:]) if fits else None
    if function == Function.WRITE_MULTIPLE_REGISTERS:
        fits = 1 <= count <= MAX_WRITE_REGISTERS and data[4] == count * 2
        return Write(function, start, count, data[5:]) if fits else None
    if function == Function.MASK_WRITE_REGISTER:
        return MaskWrite(*struct.unpack(">HHH", data))
    write_start, write_count, size = struct.unpack_from(">HHB", data, 4)
    if not (1 <= count <= MAX_READ_REGISTERS and 1 <= write_count <= _READ_WRITE_REGISTERS):
        return None
    write = Write(Function.WRITE_MULTIPLE_REGISTERS, write_start, write_count, data[9:])
    read = Read(Function.READ_HOLDING_REGISTERS, start, count)
    return ReadWrite(read, write) if size == write_count * 2 else None


def _most_read(function: int) -> int:
    return MAX_READ_BITS if function in (1, 2) else MAX_READ_REGISTERS


def read_answer(function: int, data: bytes) -> bytes:
    """The answer to functions 1 to 4 and 23."""
    return bytes((function, len(data))) + data


def write_answer(request: bytes) -> bytes:
    """The answer to functions 5, 6, 15, 16 and 22: an echo of the request or of its head."""
    return _echo(request) or request


def exception_answer(function: int, code: int) -> bytes:
    """An exception answer."""
    return bytes((function & 0x7F | 0x80, code))
