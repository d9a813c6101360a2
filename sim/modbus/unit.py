"""One simulated unit: what it answers to each request. Pure, but for the clock it is given.

Functions, limits and exception codes are those of the Modbus Application Protocol V1.1b3.
"""

from collections.abc import Callable, Sequence

from protocols.modbus import pdu
from protocols.modbus.codec import unpack_bits
from protocols.modbus.config import ModbusDevice, Table
from protocols.modbus.pdu import ExceptionCode, Function, ModbusException
from sim.modbus.image import IllegalAddress, UnitImage
from sim.modbus.services import Fifos, Files, Identity

_TABLES: dict[int, Table] = {1: "coil", 2: "discrete", 3: "holding", 4: "input"}
_DIGITS = bytes.maketrans(b"\0\1", b"01")


class SimulatedUnit:
    """Answers the requests to one unit, which one or more devices of a profile describe."""

    def __init__(self, devices: Sequence[ModbusDevice], now: Callable[[], float]) -> None:
        self._image = UnitImage(devices)
        self._now = now
        self._fifos, files, identity = Fifos(), Files(), Identity([device.name for device in devices])
        self._messages = self._exceptions = self._events = 0
        self._services: dict[int, Callable[[bytes], bytes]] = {
            Function.READ_EXCEPTION_STATUS: self._exception_status,
            Function.DIAGNOSTICS: self._diagnostics,
            Function.GET_COMM_EVENT_COUNTER: self._event_counter,
            Function.REPORT_SERVER_ID: identity.server_id,
            Function.READ_FILE_RECORD: files.read,
            Function.WRITE_FILE_RECORD: files.write,
            Function.READ_FIFO_QUEUE: self._read_fifo,
            Function.ENCAPSULATED_INTERFACE: identity.read,
        }

    def answer(self, request: bytes) -> bytes:
        """The answer PDU to a request PDU of at least one byte; an exception where one is due."""
        function = request[0]
        self._messages += 1
        try:
            service = self._services.get(function)
            answer = self._serve(pdu.parse(request), request) if service is None else service(request)
        except IllegalAddress:
            code: int = ExceptionCode.ILLEGAL_DATA_ADDRESS
        except ModbusException as refusal:
            code = refusal.code
        else:
            self._events += (
                function != Function.GET_COMM_EVENT_COUNTER
            )  # section 6.9: it does not count itself
            return answer
        self._exceptions += 1
        return pdu.exception_answer(function, code)

    def _serve(self, parsed: pdu.Request, request: bytes) -> bytes:
        if isinstance(parsed, pdu.Read):
            return pdu.read_answer(parsed.function, self._read(parsed))
        if isinstance(parsed, pdu.Write):
            self._write(parsed)
        elif isinstance(parsed, pdu.MaskWrite):
            held = int.from_bytes(self._image["holding"].read(parsed.start, 1, self._now()), "big")
            register = held & parsed.and_mask | parsed.or_mask & ~parsed.and_mask
            self._put(parsed.start, register.to_bytes(2, "big"))
        else:
            self._read(parsed.read)  # so that nothing is written where nothing can be read
            self._write(parsed.write)
            return pdu.read_answer(request[0], self._read(parsed.read))
        return pdu.write_answer(request)

    def _read(self, asked: pdu.Read) -> bytes:
        memory = self._image[_TABLES[asked.function]].read(asked.start, asked.count, self._now())
        if asked.function > Function.READ_DISCRETE_INPUTS:
            return memory
        return int(memory[::-1].translate(_DIGITS), 2).to_bytes((asked.count + 7) // 8, "little")

    def _write(self, given: pdu.Write) -> None:
        if given.function in (Function.WRITE_SINGLE_COIL, Function.WRITE_MULTIPLE_COILS):
            bits = bytes(unpack_bits(given.data)[: given.count])
            self._image["coil"].write(given.start, bits, self._now())
        else:
            self._put(given.start, given.data)

    def _put(self, start: int, registers: bytes) -> None:
        self._image["holding"].write(start, registers, self._now())
        self._fifos.push(start, registers)

    def _read_fifo(self, request: bytes) -> bytes:
        address = int.from_bytes(_exactly(request, 2), "big")
        self._image["holding"].read(address, 1, self._now())
        return self._fifos.read(address)

    def _exception_status(self, request: bytes) -> bytes:
        _exactly(request, 0)
        return bytes((Function.READ_EXCEPTION_STATUS, 0))

    def _event_counter(self, request: bytes) -> bytes:
        _exactly(request, 0)
        return bytes((Function.GET_COMM_EVENT_COUNTER, 0, 0)) + _counter(self._events)

    def _diagnostics(self, request: bytes) -> bytes:
        """Function 8 (section 6.8): echo, and the counters that a server has by itself."""
        sub = int.from_bytes(request[1:3], "big")
        if len(request) < 5:
            raise ModbusException(request[0], ExceptionCode.ILLEGAL_DATA_VALUE)
        if sub == 0:
            return request
        counters = {13: self._exceptions, 14: self._messages}
        if sub != 10 and sub not in counters:
            raise ModbusException(request[0], ExceptionCode.ILLEGAL_FUNCTION)
        if request[3:] != b"\0\0":
            raise ModbusException(request[0], ExceptionCode.ILLEGAL_DATA_VALUE)
        if sub == 10:
            self._messages = self._exceptions = self._events = 0
            return request
        return request[:3] + _counter(counters[sub])


def _counter(count: int) -> bytes:
    return (count & 0xFFFF).to_bytes(2, "big")


def _exactly(request: bytes, size: int) -> bytes:
    if len(request) != size + 1:
        raise ModbusException(request[0], ExceptionCode.ILLEGAL_DATA_VALUE)
    return request[1:]
