"""What a simulated node sends and follows, of all messages in the databases of its bus. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import structlog

from protocols.base import Quality, Value
from protocols.can.buses.layout import why_unsendable
from protocols.can.config import CanDevice
from protocols.can.frame import Frame
from protocols.can.point import CanPoint
from protocols.can.signals.database import Message
from protocols.can.signals.decoder import compile_points
from sim import waveforms
from sim.behaviour import Behaviour, behaviours
from sim.can.content import Content, first_value
from sim.can.schedule import Cyclic, Job, OnChange, flags_of

_log = structlog.get_logger("sim")


class _Described(NamedTuple):
    """A message as one device of the profile describes it."""

    device: CanDevice
    message: Message
    points: Sequence[CanPoint]
    behaviours: Mapping[str, Behaviour]
    """By point."""


class _Followed(NamedTuple):
    decode: Callable[[bytes], tuple[Mapping[str, Value], Mapping[str, Quality]]]
    followers: Mapping[str, Sequence[Behaviour]]
    """By the point that they follow."""


class Traffic:
    """The messages of one bus, which one or more devices of a profile describe.

    The node sends messages that have a cycle, and those without one that have points. Those with points that
    may be written are the agent's, and are followed. `sim` has no effect on figures of the bus and on
    multiplexers: they are what they are.
    """

    def __init__(self, devices: Sequence[CanDevice]) -> None:
        """Makes it; reads files that behaviours play.

        Raises:
            pydantic.ValidationError: a `sim` section is wrong.
        """
        described: dict[int, list[_Described]] = {}
        for device in devices:
            for one in _describe(device):
                described.setdefault(one.message.can_id, []).append(one)
        self._fd = any(device.connection.fd for device in devices)
        self._switches = any(device.connection.data_bitrate is not None for device in devices)
        self._silent = {name for device in devices for name in device.simulation.silent}
        self._followed: dict[int, list[_Followed]] = {}
        self._sent: dict[int, tuple[Content, Sequence[_Described]]] = {}
        for can_id, group in described.items():
            if any(point.writable for one in group for point in one.points):
                self._followed[can_id] = [each for one in group if (each := _following(one)).followers]
            elif self._is_sent(group):
                self._sent[can_id] = self._content(group), group

    def _is_sent(self, group: Sequence[_Described]) -> bool:
        message = group[0].message
        if message.name in self._silent or not (_cycle(group) or any(one.points for one in group)):
            return False
        frame = Frame(0, message.can_id, bytes(message.length), self._flags(message))
        if problem := message.unsupported or why_unsendable(frame, self._fd):
            _log.warning("simulated node does not send a message", message=message.name, reason=problem)
        return not problem

    def _content(self, group: Sequence[_Described]) -> Content:
        sources: dict[str, Behaviour] = {}
        named: dict[str, Behaviour] = {}
        for one in group:
            for point in one.points:
                signal = point.bound[1].name
                sources.setdefault(signal, one.behaviours[point.name])
                if point.name in one.device.sim:
                    named.setdefault(signal, one.behaviours[point.name])
        first = group[0]
        return Content(first.message, first.device.settings_of(first.message.name), sources | named)

    def _flags(self, message: Message) -> int:
        return flags_of(message.length, message.fd, self._switches)

    def jobs(self) -> list[Job]:
        """What is to be sent again and again, to begin anew."""
        made: list[Job] = []
        for content, group in self._sent.values():
            cycle, flags = _cycle(group), self._flags(content.message)
            if cycle:
                made.append(Cyclic(content, cycle, flags))
            else:
                poll = min(point.poll or one.device.poll for one in group for point in one.points)
                made.append(OnChange(content, poll, min(one.device.refresh for one in group), flags))
        return made

    @property
    def sent(self) -> Sequence[int]:
        """The identifiers of messages that the node sends."""
        return tuple(self._sent)

    def current(self, can_id: int, t: float) -> Frame | None:
        """A message that the node sends as it is at `t`, for whoever asks by a remote frame."""
        if can_id not in self._sent:
            return None
        content = self._sent[can_id][0]
        return Frame(0, can_id, content.next(t), self._flags(content.message))

    @property
    def followed(self) -> Sequence[int]:
        """The identifiers of messages that the node listens to."""
        return tuple(can_id for can_id, followed in self._followed.items() if followed)

    def follow(self, frame: Frame, t: float) -> None:
        """Takes what the agent sent at `t`."""
        for followed in self._followed.get(frame.can_id, ()):
            values, _ = followed.decode(frame.data)
            for point, value in values.items():
                if isinstance(value, int | float):
                    for follower in followed.followers.get(point, ()):
                        follower.aim(t, value)


def _cycle(group: Sequence[_Described]) -> float | None:
    settings = [one.device.settings_of(one.message.name).cycle for one in group]
    return next((cycle for cycle in settings if cycle is not None), group[0].message.cycle)


def _describe(device: CanDevice) -> Sequence[_Described]:
    made = behaviours(device)
    for name, behaviour in made.items():
        made[name] = _start(device, name, behaviour)
    for behaviour in made.values():
        if behaviour.follows is not None:
            start = made[behaviour.follows].at(0.0)
            if isinstance(start, int | float):
                behaviour.aim(0.0, start)
    points: dict[int, list[CanPoint]] = {}
    for point in device.points.values():
        if point.bus is None:
            points.setdefault(point.bound[0].can_id, []).append(point)
    messages = device.contents.messages.values()
    return [_Described(device, message, points.get(message.can_id, ()), made) for message in messages]


def _start(device: CanDevice, name: str, behaviour: Behaviour) -> Behaviour:
    """What a point does; one that `sim` does not name holds the first value of profile or database."""
    point = device.points[name]
    if name in device.sim or point.safe is not None or point.bus is not None:
        return behaviour
    signal = point.bound[1]
    if point.initial is not None:
        return Behaviour(waveforms.constant(point.initial), steady=True)
    if signal.initial is not None or point.kind in ("integer", "number"):
        return Behaviour(waveforms.constant(first_value(signal)), steady=True)
    return behaviour


def _following(one: _Described) -> _Followed:
    followers: dict[str, list[Behaviour]] = {point.name: [] for point in one.points}
    for behaviour in one.behaviours.values():
        if behaviour.follows in followers:
            followers[behaviour.follows].append(behaviour)
    followed = [point for point in one.points if followers[point.name]]
    return _Followed(
        compile_points(one.message, followed), {point.name: followers[point.name] for point in followed}
    )
