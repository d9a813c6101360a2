"""What a simulated unit has beside its tables: file records, FIFO queues, identification. Pure.

Each takes a whole request PDU and gives the answer PDU, or raises `ModbusException`. Sections are those of
the Modbus Application Protocol V1.1b3.
"""

import struct
from collections import deque
from collections.abc import Sequence

from protocols.modbus.pdu import ExceptionCode, Function, ModbusException

_RECORD = struct.Struct(">BHHH")
_MOST_FILE_BYTES = 0xF5
_RUNNING = b"\xff"
_LAST_OBJECT = {1: 0x02, 2: 0x7F, 3: 0xFF}  # of each category: basic, regular, extended


class Files:
    """Functions 20 and 21 (sections 6.14 and 6.15): files 1 to 4 of 256 records, all zero at first."""

    _RECORDS = 256

    def __init__(self) -> None:
        self._files = {number: bytearray(2 * self._RECORDS) for number in range(1, 5)}

    def read(self, request: bytes) -> bytes:
        """Function 20."""
        asked = _counted(request)
        if not asked or len(asked) % _RECORD.size:
            raise _wrong_value(request)
        answer = b""
        for reference, number, record, length in _RECORD.iter_unpack(asked):
            data = self._file(request, reference, number, record, length)[record * 2 : (record + length) * 2]
            if len(answer) + 2 + len(data) > _MOST_FILE_BYTES:
                raise _wrong_value(request)
            answer += bytes((len(data) + 1, 6)) + data
        return bytes((request[0], len(answer))) + answer

    def write(self, request: bytes) -> bytes:
        """Function 21."""
        given = _counted(request)
        writes, at = [], 0
        while at < len(given):
            if len(given) - at < _RECORD.size:
                raise _wrong_value(request)
            reference, number, record, length = _RECORD.unpack_from(given, at)
            at += _RECORD.size + 2 * length
            if at > len(given):
                raise _wrong_value(request)
            file = self._file(request, reference, number, record, length)
            writes.append((file, record * 2, given[at - 2 * length : at]))
        if not writes:
            raise _wrong_value(request)
        for file, start, data in writes:
            file[start : start + len(data)] = data
        return request

    def _file(self, request: bytes, reference: int, number: int, record: int, length: int) -> bytearray:
        if reference != 6 or number not in self._files or record + length > self._RECORDS:
            raise ModbusException(request[0], ExceptionCode.ILLEGAL_DATA_ADDRESS)
        return self._files[number]


class Fifos:
    """Function 24 (section 6.18): the queue at a holding register has the last 31 values written to it."""

    _DEPTH = 31

    def __init__(self) -> None:
        self._queues: dict[int, deque[bytes]] = {}

    def push(self, start: int, registers: bytes) -> None:
        """Takes what was written to registers from `start` on."""
        for at in range(0, len(registers), 2):
            queue = self._queues.setdefault(start + at // 2, deque(maxlen=self._DEPTH))
            queue.append(registers[at : at + 2])

    def read(self, address: int) -> bytes:
        """The answer with the queue at a register; reading does not empty it."""
        queue = self._queues.get(address, ())
        return struct.pack(">BHH", Function.READ_FIFO_QUEUE, 2 + 2 * len(queue), len(queue)) + b"".join(queue)


class Identity:
    """Function 17 (section 6.13), and 43/14 (section 6.21): who the device says it is."""

    _REGULAR = 0x82  # conformity: basic and regular objects, by stream and one by one

    def __init__(self, devices: Sequence[str]) -> None:
        texts = {0: "hilgate", 1: "SIM", 2: "1", 4: ", ".join(devices), 5: "simulated device"}
        # Cut, so that all objects fit into one answer.
        self._objects = {number: text.encode()[:100] for number, text in texts.items()}

    def server_id(self, request: bytes) -> bytes:
        """Function 17."""
        if len(request) != 1:
            raise _wrong_value(request)
        return bytes((request[0], len(self._objects[4]) + 1)) + self._objects[4] + _RUNNING

    def read(self, request: bytes) -> bytes:
        """Function 43, of which only type 14 is known."""
        if request[1:2] != b"\x0e":
            raise ModbusException(request[0], ExceptionCode.ILLEGAL_FUNCTION)
        if len(request) != 4 or not 1 <= request[2] <= 4:
            raise _wrong_value(request)
        category, first = request[2:4]
        if category == 4:
            if first not in self._objects:
                raise ModbusException(request[0], ExceptionCode.ILLEGAL_DATA_ADDRESS)
            found = [first]
        else:
            last = _LAST_OBJECT[category]
            start = first if first in self._objects and first <= last else 0  # unknown: from the beginning
            found = [number for number in self._objects if start <= number <= last]
        objects = b"".join(
            bytes((number, len(self._objects[number]))) + self._objects[number] for number in found
        )
        return bytes((*request[:3], self._REGULAR, 0, 0, len(found))) + objects


def _counted(request: bytes) -> bytes:
    """What follows a length byte that is right."""
    if len(request) < 2 or len(request) != request[1] + 2 or request[1] > _MOST_FILE_BYTES:
        raise _wrong_value(request)
    return request[2:]


def _wrong_value(request: bytes) -> ModbusException:
    return ModbusException(request[0], ExceptionCode.ILLEGAL_DATA_VALUE)
