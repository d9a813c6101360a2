"""What goes on in a simulated outstation over time: behaviours, pulses, and points that follow controls."""

import dataclasses
import heapq
import itertools
import math
from collections.abc import Callable
from typing import Any, Final

from py1815.control import OperationType, TripCloseCode

from protocols.base import Value
from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.objects import DOUBLE_BIT
from protocols.dnp3.point import Dnp3Point
from sim.behaviour import Behaviour, behaviours
from sim.dnp3.controls import Control
from sim.dnp3.points import Database, SimulatedPoint, flags_of, raw_of

STEP_MS: Final = 50
"""How often behaviours are looked at for changes."""
_LOOKS: Final = 20_000
"""When much time has passed at once, behaviours are looked at so often in all, and no more."""

Changed = Callable[[SimulatedPoint, Any, int, int], None]
"""Takes a point, its new raw value and flags, and when that was, in milliseconds UTC."""


@dataclasses.dataclass(slots=True, order=True)
class _Due:
    at_ms: int
    order: int
    act: Callable[[int], None] = dataclasses.field(compare=False)
    cancelled: bool = dataclasses.field(default=False, compare=False)


class Process:
    """Moves the points of a database along with time; all times are in milliseconds UTC."""

    def __init__(self, device: Dnp3Device, database: Database, begin_ms: int, changed: Changed) -> None:
        """Sets the points to where they begin; reads files that behaviours play.

        Raises:
            pydantic.ValidationError: the `sim` section is wrong.
            ValueError: a point of flags begins with one that there is not.
        """
        self._device = device
        self._database = database
        self._changed = changed
        self._begin_ms = self._seen_ms = begin_ms
        self._delay_ms = round(device.simulation.operate_delay * 1000)
        self._due: list[_Due] = []
        self._order = itertools.count()
        self._planned: dict[str, _Due] = {}
        self._moving: list[tuple[Dnp3Point, Behaviour]] = []
        self._followers: dict[str, list[Behaviour]] = {}
        made = behaviours(device)
        for name, behaviour in made.items():
            if behaviour.follows is not None:
                self._followers.setdefault(behaviour.follows, []).append(behaviour)
            self._begin(device.points[name], behaviour)
        for name, point in device.points.items():
            shown = self._shown_by(point)
            if shown is not None and name in made:
                simulated = database[shown.name]
                simulated.value = simulated.reported = _as_shown(shown, made[name].at(0.0))

    def _begin(self, point: Dnp3Point, behaviour: Behaviour) -> None:
        simulated = self._database[point.name]
        if point.field == "flags":
            simulated.flags = flags_of(point.type, str(behaviour.at(0.0)))
        else:
            simulated.value = simulated.reported = raw_of(point, behaviour.at(0.0))
        simulated.time_ms = self._begin_ms
        if not behaviour.steady:
            self._moving.append((point, behaviour))

    def _shown_by(self, point: Dnp3Point) -> Dnp3Point | None:
        """The point that follows this control, unless it has a behaviour of its own."""
        feedback = point.feedback
        if feedback is None or feedback.point in self._device.sim:
            return None
        return self._device.points[feedback.point]

    @property
    def next_ms(self) -> float:
        """When something is to be done next; infinity if never."""
        look = self._seen_ms + STEP_MS if self._moving else math.inf
        return min(look, self._due[0].at_ms) if self._due else look

    def advance(self, now_ms: int) -> None:
        """Does what was due until now, in order."""
        step = STEP_MS
        if self._moving:
            most = max(1, _LOOKS // len(self._moving))
            step = max(step, (now_ms - self._seen_ms) // most)
        while True:
            look = self._seen_ms + step if self._moving else math.inf
            due = self._due[0].at_ms if self._due else math.inf
            if min(look, due) > now_ms:
                return
            if due <= look:
                action = heapq.heappop(self._due)
                if not action.cancelled:
                    action.act(action.at_ms)
            else:
                self._seen_ms += step
                self._look(self._seen_ms)

    def _look(self, at_ms: int) -> None:
        t = (at_ms - self._begin_ms) / 1000
        for point, behaviour in self._moving:
            simulated = self._database[point.name]
            value, flags = simulated.value, simulated.flags
            if point.field == "flags":
                try:
                    flags = flags_of(point.type, str(behaviour.at(t)))
                except ValueError:
                    continue  # a recording may hold words that are no flags; they change nothing
            else:
                value = raw_of(point, behaviour.at(t))
                if simulated.kind == "counter":
                    value = (value - simulated.base) % 2**32
            self._changed(simulated, value, flags, at_ms)

    def clear(self, counter: SimulatedPoint, at_ms: int) -> None:
        """Has a counter count from zero, also one that counts by a behaviour."""
        counter.base = (counter.base + counter.value) % 2**32
        self._changed(counter, 0, counter.flags, at_ms)

    # Controls.

    def operate(self, point: Dnp3Point, control: Control, at_ms: int) -> None:
        """Carries a control out: on the output's status, what follows it, and what shows it."""
        output = self._database[point.name]
        if control.kind == "analog_output":
            self._cancel(point.name)
            self._set(output, control.value, at_ms)
            self._follow(point, control.value, at_ms)
            return
        if control.clear:
            self._cancel(point.name)
        if control.count == 0 or (control.operation, control.trip_close) == (0, 0):
            return
        self._cancel(point.name)
        latched = control.operation in (OperationType.LATCH_ON, OperationType.LATCH_OFF)
        if control.trip_close != TripCloseCode.NUL:
            state = control.trip_close == TripCloseCode.CLOSE
        else:
            state = control.operation in (OperationType.LATCH_ON, OperationType.PULSE_ON)
        if latched:
            self._set(output, state, at_ms)
        else:
            self._pulses(point.name, output, control, at_ms)
        self._follow(point, state, at_ms)

    def _pulses(self, name: str, output: SimulatedPoint, control: Control, at_ms: int) -> None:
        """Goes through the pulses of a control; one planned at a time, however many there are."""
        active = control.operation != OperationType.PULSE_OFF

        def begin(left: int, at_ms: int) -> None:
            self._set(output, active, at_ms)
            length = control.on_ms if active else control.off_ms
            self._plan(name, at_ms + length, lambda at: end(left - 1, at))

        def end(left: int, at_ms: int) -> None:
            self._set(output, not active, at_ms)
            if left:
                pause = control.off_ms if active else control.on_ms
                self._plan(name, at_ms + pause, lambda at: begin(left, at))

        begin(control.count, at_ms)

    def _follow(self, point: Dnp3Point, raw: Any, at_ms: int) -> None:
        value = point.value_of(raw)
        if not isinstance(value, int | float):
            return  # an analog output that its scale carries beyond all numbers: nothing can follow it
        for follower in self._followers.get(point.name, ()):
            follower.aim((at_ms - self._begin_ms) / 1000, value)
        shown = self._shown_by(point)
        if shown is None:
            return
        simulated = self._database[shown.name]
        self._cancel(shown.name)
        if shown.type == "double_bit_input":
            self._set(simulated, DOUBLE_BIT.index("intermediate"), at_ms)
        final = _as_shown(shown, value)
        self._plan(shown.name, at_ms + self._delay_ms, lambda at: self._set(simulated, final, at))

    def _set(self, simulated: SimulatedPoint, value: Any, at_ms: int) -> None:
        self._changed(simulated, value, simulated.flags, at_ms)

    def _plan(self, name: str, at_ms: int, act: Callable[[int], None]) -> None:
        due = _Due(at_ms, next(self._order), act)
        heapq.heappush(self._due, due)
        self._planned[name] = due

    def _cancel(self, name: str) -> None:
        """Drops what a point was going to do next."""
        if name in self._planned:
            self._planned.pop(name).cancelled = True


def _as_shown(shown: Dnp3Point, value: Value) -> Any:
    """The raw value of the point that shows a control's."""
    if shown.type == "double_bit_input":
        return DOUBLE_BIT.index("on" if value else "off")
    return raw_of(shown, value)
