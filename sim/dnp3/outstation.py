"""A simulated outstation: its state and clock, and what happens to it other than over the wire."""

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from py1815.control import CommandStatus

from protocols.base import Value
from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.objects import Iin, PointType
from protocols.dnp3.point import Dnp3Point
from sim.dnp3.controls import Control
from sim.dnp3.events import CLASSES, EventBuffer
from sim.dnp3.points import Database, SimulatedPoint, raw_of
from sim.dnp3.process import Process

_CLASS_BITS: Final = {1: Iin.CLASS_1_EVENTS, 2: Iin.CLASS_2_EVENTS, 3: Iin.CLASS_3_EVENTS}
_SEQUENCES: Final = 16
_OPERATIONS: Final = 1000
"""Controls that are remembered."""


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """A control that was carried out."""

    time_ms: int
    """When, UTC (not by the outstation's clock)."""
    point: str
    control: Control


@dataclasses.dataclass(frozen=True, slots=True)
class _Selected:
    body: bytes
    sequence: int
    until_ms: int


class SimulatedOutstation:
    """One outstation of the profile, with what tests and faults may do to it beside the wire."""

    def __init__(self, device: Dnp3Device, now: Callable[[], int]) -> None:
        """Makes it; reads files that behaviours play. `now`: milliseconds UTC.

        Raises:
            pydantic.ValidationError: the `sim` section is wrong.
            ValueError: a point of flags begins with one that there is not.
        """
        self.device = device
        self.database = Database(device)
        self.buffer = EventBuffer(device.simulation.event_buffer)
        self.operations: deque[Operation] = deque(maxlen=_OPERATIONS)
        """What was carried out last, in order."""
        self.clock_offset_ms = 0
        """By how much the outstation's own clock is ahead of `now`."""
        self.need_time = device.simulation.need_time
        self.restarted = True
        """Shows DEVICE_RESTART until a master clears it."""
        self.trouble = False
        """Shows DEVICE_TROUBLE."""
        self.silent = False
        """Hears everything and says nothing."""
        self.starts = 1
        """How often it has started."""
        self.unsolicited: set[int] = set()
        """Classes that are reported without being asked."""
        self._now = now
        self._recorded_ms: int | None = None
        self._selected: _Selected | None = None
        self._outputs = _outputs(device)
        self._process = Process(device, self.database, now(), self._changed)

    # What time does.

    @property
    def clock_ms(self) -> int:
        """What its own clock shows, milliseconds UTC."""
        return self._now() + self.clock_offset_ms

    @property
    def wait_ms(self) -> float:
        """How long until something happens by itself; infinity if nothing will."""
        return max(0.0, self._process.next_ms - self._now())

    def advance(self) -> None:
        """Brings its points to the present."""
        self._process.advance(self._now())

    def _changed(self, point: SimulatedPoint, value: Any, flags: int, at_ms: int) -> None:
        if value is point.value and flags == point.flags:
            return
        event = flags != point.flags or point.differs(value, self.device.simulation.deadband)
        point.value, point.flags = value, flags
        if event:
            self._report(point, at_ms + self.clock_offset_ms)

    def _report(self, point: SimulatedPoint, time_ms: int) -> None:
        point.reported, point.time_ms = point.value, time_ms
        if point.event_class:
            self.buffer.add(point, time_ms)

    # For tests and faults.

    def set(
        self, name: str, value: Value | None = None, *, flags: int | None = None, time_ms: int | None = None
    ) -> None:
        """Gives a point of the profile another value (engineering), other flags, or both: an event.

        `time_ms`: the event's stamp, by the outstation's clock; default: now. An event there is always, also
        when nothing changed, if the point has a class.
        """
        self.advance()
        point = self.database[name]
        if value is not None:
            point.value = raw_of(self.device.points[name], value)
        if flags is not None:
            point.flags = flags
        self._report(point, self.clock_ms if time_ms is None else time_ms)

    def overflow(self) -> None:
        """Has it say that events were lost."""
        self.buffer.overflown = True

    def restart(self, *, cold: bool = True) -> None:
        """Starts it again: what a master has set is forgotten, and after a cold restart the events are."""
        self.restarted = True
        self.need_time = self.device.simulation.need_time
        self.unsolicited.clear()
        self.database.reset_classes()
        self._recorded_ms = self._selected = None
        self.starts += 1
        if cold:
            self.buffer.clear()

    @property
    def local(self) -> bool:
        """Its switch stands on local: controls are refused."""
        switch = self.device.simulation.local
        return switch is not None and bool(self.database[switch].value)

    def indications(self) -> Iin:
        """Internal indications as they are now, without those about a request."""
        iin = Iin(0)
        for one in CLASSES:
            if self.buffer.has(one):
                iin |= _CLASS_BITS[one]
        shown = {
            Iin.NEED_TIME: self.need_time,
            Iin.LOCAL_CONTROL: self.local,
            Iin.DEVICE_TROUBLE: self.trouble,
            Iin.DEVICE_RESTART: self.restarted,
            Iin.EVENT_BUFFER_OVERFLOW: self.buffer.overflown,
        }
        for bit, is_set in shown.items():
            if is_set:
                iin |= bit
        return iin

    # What a master does.

    def set_clock(self, time_ms: int) -> None:
        """Sets the clock."""
        self.clock_offset_ms = time_ms - self._now()
        self.need_time = False

    def record_time(self) -> None:
        """Notes when the request came after which the time is written."""
        self._recorded_ms = self._now()

    def set_recorded_clock(self, time_ms: int) -> bool:
        """Sets the clock to what it should have been when `record_time` was called; False: it never was."""
        if self._recorded_ms is None:
            return False
        self.set_clock(time_ms + self._now() - self._recorded_ms)
        self._recorded_ms = None
        return True

    def freeze(self, counter: SimulatedPoint, *, clear: bool) -> None:
        """Copies a counter to the frozen counter of its index, if there is one: an event at every freeze."""
        frozen = self.database.of("frozen_counter").get(counter.index)
        if frozen is not None:
            frozen.value, frozen.flags = counter.value, counter.flags
            self._report(frozen, self.clock_ms)
        if clear:
            self._process.clear(counter, self._now())

    def disarm(self) -> None:
        """Forgets a select: another request has come between it and its operate."""
        self._selected = None

    def select(self, body: bytes, controls: Sequence[Control], sequence: int) -> list[CommandStatus]:
        """Arms controls if all of them could be carried out."""
        statuses = [self._judged(control) for control in controls]
        if not any(statuses):
            until = self._now() + round(self.device.simulation.select_timeout * 1000)
            self._selected = _Selected(body, sequence, until)
        return statuses

    def operate(self, body: bytes, controls: Sequence[Control], sequence: int) -> list[CommandStatus]:
        """Carries controls out that the request just before has armed."""
        selected, self._selected = self._selected, None
        if selected is None or selected.body != body or (selected.sequence + 1) % _SEQUENCES != sequence:
            return [CommandStatus.NO_SELECT] * len(controls)
        if self._now() > selected.until_ms:
            return [CommandStatus.TIMEOUT] * len(controls)
        return self.direct_operate(controls)

    def direct_operate(self, controls: Sequence[Control]) -> list[CommandStatus]:
        """Carries controls out at once, each for itself."""
        return [self._carry_out(control) for control in controls]

    def _judged(self, control: Control) -> CommandStatus:
        if (control.kind, control.index) not in self._outputs:
            return CommandStatus.NOT_SUPPORTED
        return CommandStatus.LOCAL if self.local else control.judged()

    def _carry_out(self, control: Control) -> CommandStatus:
        status = self._judged(control)
        if status == CommandStatus.SUCCESS:
            point = self._outputs[control.kind, control.index]
            self.operations.append(Operation(self._now(), point.name, control))
            self._process.operate(point, control, self._now())
        return status


def _outputs(device: Dnp3Device) -> dict[tuple[PointType, int], Dnp3Point]:
    """Outputs by kind and index; of a value and its flags the value's point."""
    points = sorted(device.points.values(), key=lambda point: point.field == "value")
    return {
        (point.type, point.index): point
        for point in points
        if point.type in ("binary_output", "analog_output")
    }
