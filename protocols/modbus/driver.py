"""The Modbus driver: I/O only. What is asked comes from `plan` and `writes`, how it is asked from `line`."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from protocols.base import DeviceState, DriverError, Quality, Sample, Shared, Sink, Value
from protocols.modbus import pdu
from protocols.modbus.config import ModbusDevice
from protocols.modbus.errors import driver_error
from protocols.modbus.line import join, part
from protocols.modbus.pdu import ExceptionCode, Function, MalformedAnswer, ModbusException
from protocols.modbus.plan import Poll, blocks_of, polls_of
from protocols.modbus.reader import Reading
from protocols.modbus.station import Station
from protocols.modbus.transport import name_of
from protocols.modbus.writes import Step, steps
from protocols.schedule import Schedule

_DEGRADED_AFTER = 2  # cycles in a row without any answer
_READINGS = 16  # selections of points whose plans are kept for `read`
_GATEWAY = (ExceptionCode.GATEWAY_PATH_UNAVAILABLE, ExceptionCode.GATEWAY_TARGET_FAILED_TO_RESPOND)


class ModbusDriver:
    """One Modbus unit, alone on its line or one of several."""

    def __init__(self, device: ModbusDevice, shared: Shared) -> None:
        self._device = device
        self._shared = shared
        self._unit = f"unit {device.connection.unit} of {name_of(device.connection)}"
        self._station_or_none: Station | None = None
        self._readings: dict[tuple[str, ...], Reading] = {}
        self._lacks: set[int] = set()
        self._unanswered = 0

    @property
    def _station(self) -> Station:
        if self._station_or_none is None:
            raise DriverError("disconnected", f"{self._unit} is not connected")
        return self._station_or_none

    async def connect(self) -> None:
        """Opens the line, unless another device has, and sees whether the unit answers.

        What was learnt about the device (addresses and functions that it refuses) is forgotten.

        Raises:
            DriverError: the line cannot be opened, or the unit does not answer.
        """
        device = self._device
        if self._station_or_none is None:
            self._station_or_none = join(device, self._shared)
        await self._station.line.open(device.connect_timeout, device.pause_after_connect)
        self._readings.clear()
        self._lacks.clear()
        self._unanswered = 0
        await self._probe()

    async def _probe(self) -> None:
        polls = polls_of(self._device)
        if not polls:
            return
        block = polls[0].blocks[0]
        try:
            await self._ask(pdu.read(block.function, block.start, block.count))
        except ModbusException as error:
            if error.code in _GATEWAY:
                raise driver_error(self._unit, error) from error
        except MalformedAnswer as error:
            raise driver_error(self._unit, error) from error

    async def run(self, sink: Sink) -> None:
        """Polls, each rate on its own schedule, until cancelled.

        Raises:
            DriverError: the line was lost.
        """
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._until_lost(), name=f"{self._device.name}: watch line")
                for poll in polls_of(self._device):
                    group.create_task(
                        self._poll(poll, sink), name=f"{self._device.name}: poll {poll.period}s"
                    )
        except* DriverError as lost:
            reason = str(lost.exceptions[0])
        raise DriverError("disconnected", reason)

    async def _until_lost(self) -> None:
        raise DriverError("disconnected", await self._station.line.lost())

    async def _poll(self, poll: Poll, sink: Sink) -> None:
        station = self._station
        reading = Reading(self._device, poll.blocks, station, self._unit)
        schedule = Schedule(poll.period, station.line.now())
        while True:
            await asyncio.sleep(schedule.due - station.line.now())
            if missed := schedule.begin(station.line.now()):
                sink.missed(missed, poll.period)
            if station.resting:
                sink.sample(reading.failed(time.time_ns(), Quality.TIMEOUT))
                continue
            for sample in await reading.read():
                sink.sample(sample)
            self._judge(reading, sink)

    def _judge(self, reading: Reading, sink: Sink) -> None:
        if reading.answered:
            if self._unanswered >= _DEGRADED_AFTER:
                sink.state(DeviceState.ONLINE)
            self._unanswered = 0
        else:
            self._unanswered += 1
            if self._unanswered == _DEGRADED_AFTER:
                sink.state(DeviceState.DEGRADED, str(reading.error))

    async def read(self, points: Sequence[str]) -> Sample:
        """Reads points now; the time is that of the first answer.

        Raises:
            DriverError: not one point could be read.
        """
        names = tuple(points)
        reading = self._readings.pop(names, None)
        if reading is None:
            blocks = blocks_of(self._device, [self._device.points[name] for name in names])
            reading = Reading(self._device, blocks, self._station, self._unit)
        samples = await reading.read(urgent=True)
        if reading.complete:
            self._readings[names] = reading
            if len(self._readings) > _READINGS:
                del self._readings[next(iter(self._readings))]
        if reading.error is not None and not any(sample.values for sample in samples):
            raise reading.error
        if len(samples) == 1:
            return samples[0]
        values = {name: value for sample in samples for name, value in sample.values.items()}
        bad = {name: quality for sample in samples for name, quality in sample.bad.items()}
        return Sample(samples[0].time_ns, values, bad)

    async def write(self, values: Mapping[str, Value]) -> Sample:
        """Writes values, and says what they are after rounding to what the registers hold.

        A request whose answer is lost is not repeated.

        Raises:
            DriverError: not all were written; its `written` holds those that were.
        """
        written: dict[str, Value] = {}
        station = self._station
        for step in steps(self._device, values):
            async with station.line.lock(station.unit):
                await self._write(step, station, written)
            for name in step.points:
                written[name] = self._meaning(name, values[name])
        return Sample(time.time_ns(), written)

    async def _write(self, step: Step, station: Station, written: Mapping[str, Value]) -> None:
        if station is not self._station_or_none or not station.line.is_open:
            raise DriverError("disconnected", f"{self._unit} is not connected", written)
        try:
            await self._carry_out(step)
        except (ModbusException, MalformedAnswer) as error:
            failure = driver_error(self._unit, error)
            raise DriverError(failure.code, str(failure), written) from error
        except DriverError as error:
            text = f"{error}; whether {', '.join(step.points)} was written is not known"
            raise DriverError(error.code, text, written) from error

    def _meaning(self, name: str, value: Value) -> Value:
        point = self._device.points[name]
        return value if point.is_bit else point.codec.meaning(value)

    async def _carry_out(self, step: Step) -> None:
        start, data = step.start, step.data
        if step.kind == "coils":
            several = pdu.write_coils(start, step.count, data)
            single = pdu.write_coil(start, data[0] == 1) if step.count == 1 else several
            await self._with_fallback(single, lambda: self._ask(several))
        elif step.kind == "registers":
            several = pdu.write_registers(start, data)
            single = pdu.write_register(start, data) if step.count == 1 else several
            await self._with_fallback(single, lambda: self._ask(several))
        else:
            masked = pdu.mask_write(start, ~step.mask & 0xFFFF, int.from_bytes(data))
            if self._device.mask_write == "no":
                await self._read_modify_write(step)
            else:
                await self._with_fallback(masked, lambda: self._read_modify_write(step))

    async def _with_fallback(self, request: bytes, otherwise: Callable[[], Awaitable[object]]) -> None:
        """Sends a request, or does otherwise if the device has said that it lacks the function."""
        function = request[0]
        if function not in self._lacks:
            try:
                await self._ask(request)
                return
            except ModbusException as error:
                if error.code != ExceptionCode.ILLEGAL_FUNCTION or not self._may_fall_back(function):
                    raise
            self._lacks.add(function)
        await otherwise()

    def _may_fall_back(self, function: int) -> bool:
        if function == Function.MASK_WRITE_REGISTER:
            return self._device.mask_write == "auto"
        return function in (Function.WRITE_SINGLE_COIL, Function.WRITE_SINGLE_REGISTER)

    async def _read_modify_write(self, step: Step) -> None:
        before = int.from_bytes(await self._ask(pdu.read(Function.READ_HOLDING_REGISTERS, step.start, 1)))
        after = before & ~step.mask | int.from_bytes(step.data)
        await self._carry_out(Step("registers", step.start, 1, after.to_bytes(2), step.points))

    async def _ask(self, request: bytes) -> bytes:
        return pdu.answer_data(request, await self._exchange(request))

    async def _exchange(self, request: bytes) -> bytes:
        answer = (await self._station.exchange([request], urgent=True))[0]
        if answer.error is not None:
            raise answer.error
        return answer.pdu

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        """Carries out one of `PROTOCOL.methods`.

        Raises:
            Refused: unknown method or wrong arguments; nothing was sent.
            DriverError: the device said no or did not answer, or the package pymodbus is missing.
        """
        try:
            from protocols.modbus.calls import carry_out
        except ImportError as error:
            text = "calls need the package pymodbus; install hilgate[modbus]"
            raise DriverError("device-error", text) from error
        try:
            return await carry_out(method, args, self._device.address_base, self._exchange)
        except (ModbusException, MalformedAnswer) as error:
            raise driver_error(self._unit, error) from error

    def rest(self) -> None:
        """Nothing of a Modbus device goes on by itself."""

    async def close(self) -> None:
        """Leaves the line, which closes after its last device."""
        station, self._station_or_none = self._station_or_none, None
        if station is not None:
            await part(station, self._shared)
