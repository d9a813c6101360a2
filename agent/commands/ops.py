"""What each op does. The service decides when."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from agent import clock
from agent.availability import Availability
from agent.bench import Bench
from agent.commands.parse import Command, object_field, text_field
from agent.commands.result import NotSafe, NotVerified
from agent.device import Device
from agent.lease.keeper import Leases
from agent.plugins import protocols
from agent.safety import Safety
from agent.safety.readback import read_back
from protocols.base import DriverError, Point, Refused, Sample, Value
from protocols.timestamps import rfc3339

DEVICE_OPS = ("read", "write", "call")
"""What every device takes."""
RECORD = "record"
"""An op of the devices whose protocol has a method of that name."""


class Ops:
    """The operations of a bench. Each takes a command and returns its result's `data`.

    Each raises `Refused` when nothing was done, `DriverError` when the device said no.
    """

    def __init__(
        self,
        bench_id: str,
        epoch: int,
        bench: Bench,
        availability: Availability,
        leases: Leases,
        safety: Safety,
    ) -> None:
        self._bench_id = bench_id
        self._epoch = epoch
        self._bench = bench
        self._availability = availability
        self._leases = leases
        self._safety = safety
        self._driving = asyncio.Lock()
        self._drives = 0
        """How many drives by op safe have begun, the last of them that ended, and what came of it."""
        self._driven = 0
        self._said: Mapping[str, Any] = {}
        self._table: Mapping[str, Callable[[Command], Awaitable[Any]]] = {
            "reserve": self._reserve,
            "renew": self._renew,
            "release": self._release,
            "safe": self._safe,
            "ping": self._ping,
            "describe": self._describe,
            "read": self._read,
            "write": self._write,
            "call": self._call,
            RECORD: self._record,
            "enable": self._enable,
            "disable": self._disable,
        }

    def known(self, op: str) -> bool:
        """Whether there is such an op."""
        return op in self._table

    def device_of(self, command: Command) -> Device | None:
        """The device whose queue a command belongs in, or None for one of the bench itself.

        Raises:
            Refused: no such device.
        """
        if command.op == RECORD and "device" not in command.fields:
            return self._only_recording_device()
        if command.op not in (*DEVICE_OPS, RECORD):
            return None
        name = text_field(command.fields, "device")
        device = self._bench.devices.get(name)
        if device is None:
            known = ", ".join(self._bench.devices) or "none"
            raise Refused(
                "unknown-device", f"bench {self._bench_id} has no device {name!r:.80}; it has {known}"
            )
        return device

    def _only_recording_device(self) -> Device:
        able = [device for device in self._bench.devices.values() if _can_record(device)]
        if len(able) == 1:
            return able[0]
        if not able:
            raise Refused("unknown-op", f"no device of bench {self._bench_id} can record")
        names = ", ".join(device.name for device in able)
        raise Refused("malformed", f"op record needs the field 'device': {names} can record")

    def waits_for_nobody(self, command: Command) -> bool:
        """Whether it begins at once, whatever else is under way: it may take long, or is urgent."""
        return command.op in ("reserve", "renew", "release", "safe")

    def moves(self, command: Command) -> bool:
        """Whether it may change something in a device."""
        if command.op != "call":
            return command.op == "write"
        device = self._bench.devices.get(str(command.fields.get("device")))
        return device is not None and str(command.fields.get("method")) in _writing_methods(device)

    def has_effect(self, command: Command) -> bool:
        """Whether to carry it out twice would be another thing than once."""
        if command.op == "call" and command.fields.get("method") == RECORD:
            return True
        return self.moves(command) or command.op in (
            "enable",
            "disable",
            "reserve",
            "renew",
            "release",
            "safe",
            RECORD,
        )

    def whose(self, command: Command) -> tuple[str, str]:
        """The public id and the holder of the lease that a command came with, or two empty strings."""
        return self._leases.whose(command.token)

    async def carry_out(self, command: Command, overtakes: int, judge: Callable[[], None]) -> Any:
        """Does what the command asks.

        Args:
            command: The command.
            overtakes: Its device's count from when the command came.
            judge: Raises `Refused` once it is too late; asked right before a device is moved.
        """
        if self.moves(command):
            return await self._move(command, overtakes, judge)
        return await self._table[command.op](command)

    async def _move(self, command: Command, overtakes: int, judge: Callable[[], None]) -> Any:
        device = self._need_device(command)
        async with device.turns.commanded(overtakes):
            judge()
            self._need_open()
            self._leases.check(device.name, command.token)
            return await self._table[command.op](command)

    async def _ping(self, command: Command) -> Any:
        return {"time": rfc3339(clock.now_ns()), "epoch": self._epoch}

    async def _describe(self, command: Command) -> Any:
        bench, profile = self._bench, self._bench.profile
        return {
            "bench": self._bench_id,
            "profile": {"name": profile.profile, "digest": profile.digest},
            "labels": self._availability.labels,
            "mode": bench.mode,
            "devices": {name: _describe_device(device) for name, device in bench.devices.items()},
        }

    async def _read(self, command: Command) -> Any:
        device = self._need_device(command)
        names = command.fields.get("points")
        if names is None:
            names = [name for name, point in device.config.points.items() if point.readable]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Refused("malformed", "op read takes the field 'points' as a list of names")
        for name in names:
            if not _point(device, name).readable:
                raise Refused("bad-type", f"point {name!r} is write-only: it cannot be read")
        if not names:
            return {"values": {}, "bad": {}, "time": rfc3339(clock.now_ns())}
        sample = await device.read(list(dict.fromkeys(names)))
        return {"values": sample.values, "bad": sample.bad, "time": rfc3339(sample.time_ns)}

    async def _write(self, command: Command) -> Any:
        device = self._need_device(command)
        wanted = object_field(command.fields, "values")
        verify = command.fields.get("verify", False)
        if not isinstance(verify, bool):
            raise Refused("malformed", "op write takes the field 'verify' as true or false")
        if not wanted:
            raise Refused("malformed", "op write needs at least one point in 'values'")
        values = {name: _point(device, name).accept(value) for name, value in wanted.items()}
        if verify and (blind := [name for name in values if not device.config.points[name].readable]):
            raise Refused("bad-type", f"point {blind[0]!r} is write-only: it cannot be verified")
        written = await self._safety.write(device, values)
        if not verify:
            return {"values": written.values}
        return {"values": written.values, "read_back": await _verify(device, written)}

    async def _call(self, command: Command) -> Any:
        device = self._need_device(command)
        method = text_field(command.fields, "method")
        args = object_field(command.fields, "args", required=False)
        methods = protocols()[device.config.protocol].methods
        if method not in methods:
            known = ", ".join(methods)
            raise Refused("unknown-op", f"device {device.name} has no method {method!r:.80}; it has {known}")
        return await device.call(method, args)

    async def _record(self, command: Command) -> Any:
        device = self._need_device(command)
        if not _can_record(device):
            raise Refused("unknown-op", f"device {device.name} cannot record: its protocol has no recordings")
        known = ("start", "stop", "format")
        fields: dict[str, Any] = {name: command.fields[name] for name in known if name in command.fields}
        wanted = [name for name in ("start", "stop") if name in fields]
        if len(wanted) != 1 or fields[wanted[0]] is not True:
            raise Refused("malformed", "op record takes either 'start': true or 'stop': true")
        if "format" in fields and not ("start" in fields and isinstance(fields["format"], str)):
            raise Refused("malformed", "op record takes the field 'format' as a string, with 'start'")
        return await device.call(RECORD, fields)

    async def _reserve(self, command: Command) -> Any:
        if not command.reply_to:
            raise Refused("malformed", "op reserve needs a reply-to: its result is a secret, not for a topic")
        self._need_open()
        return await self._leases.reserve(command.fields)

    async def _renew(self, command: Command) -> Any:
        return await self._leases.renew(command.fields)

    async def _release(self, command: Command) -> Any:
        return await self._leases.release(command.fields)

    async def _safe(self, command: Command) -> Any:
        reason = command.fields.get("reason")
        asked_at = self._drives
        # Drives at the same time would hold each other up: all who ask during one share the next.
        async with self._driving:
            if self._driven <= asked_at:
                self._drives = number = self._drives + 1
                # A reason that is no text keeps nobody from making the bench safe.
                text = reason if isinstance(reason, str) else ""
                self._said = await self._safety.drive("command", reason=text)
                self._driven = number
            said = self._said
        if not said["safe"]:
            raise NotSafe(said)
        return said

    async def _enable(self, command: Command) -> Any:
        self._safety.clear()
        self._availability.enable(True)
        return {"enabled": True}

    async def _disable(self, command: Command) -> Any:
        self._availability.enable(False, text_field(command.fields, "reason", required=False))
        return {"enabled": False}

    def _need_device(self, command: Command) -> Device:
        device = self.device_of(command)
        if device is None or not device.config.enabled:
            name = command.fields["device"] if device is None else device.name
            raise Refused("disabled", f"device {name} is disabled in the profile")
        return device

    def _need_open(self) -> None:
        if not self._availability.enabled:
            raise Refused("disabled", f"bench {self._bench_id} is disabled; op enable opens it again")
        if self._safety.faults:
            why = "; ".join(self._safety.faults.values())
            raise Refused("disabled", f"bench {self._bench_id} is in fault ({why}); op enable opens it again")


def _writing_methods(device: Device) -> Collection[str]:
    return protocols()[device.config.protocol].writing


def _can_record(device: Device) -> bool:
    return RECORD in protocols()[device.config.protocol].methods


def _point(device: Device, name: str) -> Point:
    point = device.config.points.get(name)
    if point is None:
        raise Refused(
            "unknown-point", f"device {device.name} has no point {name!r:.80}; op describe lists them"
        )
    return point


async def _verify(device: Device, written: Sample) -> Mapping[str, Value]:
    """Reads back what was written.

    Raises:
        NotVerified: it reads back as something else, or not at all.
    """
    try:
        back, differs = await read_back(device, written.values)
    except DriverError as error:
        text = f"written, but not read back: {error}"
        raise NotVerified(DriverError(error.code, text), written.values, {}) from error
    if differs:
        mismatch = DriverError("verify-mismatch", "; ".join(differs.values()))
        raise NotVerified(mismatch, written.values, back)
    return back


def _describe_device(device: Device) -> dict[str, Any]:
    protocol = protocols()[device.config.protocol]
    return {
        "protocol": device.config.protocol,
        "description": device.config.description,
        "mode": device.mode,
        "state": device.status,
        "poll_s": device.config.poll,
        "ops": (*DEVICE_OPS, RECORD) if _can_record(device) else DEVICE_OPS,
        "methods": protocol.methods,
        "writing_methods": sorted(protocol.writing),
        "points": {name: _describe_point(point) for name, point in device.config.points.items()},
    }


def _describe_point(point: Point) -> dict[str, Any]:
    described: dict[str, Any] = {"unit": point.unit, "type": point.kind, "access": point.access}
    optional = {
        "min": point.min,
        "max": point.max,
        "max_rate": point.max_rate,
        "safe": point.safe,
        "requires": point.model_dump(include={"requires"}, exclude_none=True)["requires"] or None,
        "choices": list(point.choices) or None,
        "description": point.description or None,
    }
    return described | {key: value for key, value in optional.items() if value is not None}
