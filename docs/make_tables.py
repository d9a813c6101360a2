"""Writes the tables of fields in docs/*.md from the models, between their `<!-- table: NAME -->` marks."""

import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agent.authorization.config import Authorization, Jwt, RateLimit, Rule
from agent.profile.templates import Repeat
from agent.settings import FILE_ONLY, PREFIX, Settings, option
from protocols.base import Batch, DeviceConfig, Point, Quality
from protocols.can.config import (
    Answer,
    CanDevice,
    Checksum,
    Connection,
    Counter,
    Frames,
    Message,
    Record,
    Replay,
    Simulation,
)
from protocols.can.point import CanPoint
from protocols.dnp3 import config as dnp3
from protocols.dnp3.point import Dnp3Point, Feedback
from protocols.modbus.config import ModbusDevice, ModbusPoint, Rtu, RtuTcp, Tcp, Tls
from protocols.mqtt import config as mqtt
from protocols.mqtt.point import MqttPoint, Publish
from protocols.opcua import config as opcua
from protocols.opcua.point import OpcuaPoint
from protocols.opcua.status import QUALITIES
from protocols.text import config as text
from protocols.text.blocks import Block
from protocols.text.checksums import Checksum as TextChecksum
from protocols.text.point import TextPoint
from protocols.units import format_duration
from sim.behaviour import Playback, Ramp, Sine, Spec, Square, Walk

DOCS = Path(__file__).parent
_MARK = re.compile(r"(<!-- table: ([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_HUGE = 1e9
_KINDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "string": "text",
    "array": "list",
    "object": "mapping",
}
_UNITS = {"100ms": "duration", "256KiB": "size"}

Schema = Mapping[str, Any]

_CAN_PARTS: Mapping[str, type[BaseModel]] = {
    "connection": Connection,
    "messages": Message,
    "counter": Counter,
    "checksum": Checksum,
    "frames": Frames,
    "record": Record,
    "simulation": Simulation,
    "answers": Answer,
    "replay": Replay,
}
"""Sections of a CAN device that have a table of their own."""

_DNP3_PARTS: Mapping[str, type[BaseModel]] = {
    "polls": dnp3.Polls,
    "feedback": Feedback,
    "simulation": dnp3.Simulation,
}
"""Sections of a DNP3 device and its points that have a table of their own."""

_TEXT_PARTS: Mapping[str, type[BaseModel]] = {
    "identify": text.Identify,
    "errors": text.Errors,
    "checksum": TextChecksum,
    "block": Block,
    "simulation": text.Simulation,
}
"""Sections of a text device and its points that have a table of their own."""


_OPCUA_PARTS: Mapping[str, type[BaseModel]] = {
    "connection": opcua.Connection,
    "security": opcua.Security,
    "user": opcua.User,
    "subscription": opcua.Subscription,
    "methods": opcua.Method,
}
"""Sections of an OPC UA device that have a table of their own."""

_MQTT_PARTS: Mapping[str, type[BaseModel]] = {
    "presence": mqtt.Presence,
    "will": mqtt.OwnWill,
    "sparkplug": mqtt.Sparkplug,
    "kubeedge": mqtt.KubeEdge,
}
"""Sections of an MQTT device that have a table of their own."""


def tables() -> dict[str, str]:
    """Every table by the name in its mark."""
    common = set(DeviceConfig.model_fields)
    return {
        "settings": _settings(),
        "authorization": "".join(
            f"\n`{name}:`\n\n{_table(model)}" for name, model in
            (("authorization", Authorization), ("rules", Rule), ("jwt", Jwt), ("rate_limit", RateLimit))
        ),
        "device": _table(DeviceConfig),
        "batch": _table(Batch),
        "point": _table(Point),
        "repeat": _table(Repeat),
        "sim": _table(Spec),
        "sim-waves": "".join(
            f"\n`{name}:`\n\n{_table(model)}" for name, model in
            (("sine", Sine), ("ramp", Ramp), ("square", Square), ("walk", Walk), ("csv", Playback))
        ),
        "modbus-device": _table(ModbusDevice, leave_out={*common, "connection"}),
        "modbus-point": _table(ModbusPoint, leave_out=set(Point.model_fields)),
        "modbus-connection": "".join(
            f"\n`transport: {name}`\n\n{_table(model, leave_out={'transport'})}" for name, model in
            (("tcp", Tcp), ("tls", Tls), ("rtu", Rtu), ("rtu-tcp", RtuTcp))
        ),
        "can-device": _table(CanDevice, leave_out={*common, *_CAN_PARTS}),
        "can-point": _table(CanPoint, leave_out=set(Point.model_fields)),
        "can-parts": "".join(f"\n`{name}:`\n\n{_table(model)}" for name, model in _CAN_PARTS.items()),
        "dnp3-device": _table(dnp3.Dnp3Device, leave_out={*common, "connection", *_DNP3_PARTS}),
        "dnp3-point": _table(Dnp3Point, leave_out={*Point.model_fields, *_DNP3_PARTS}),
        "dnp3-connection": "".join(
            f"\n`transport: {name}`\n\n{_table(model, leave_out={'transport'})}" for name, model in
            (("tcp", dnp3.Tcp), ("tls", dnp3.Tls), ("serial", dnp3.Serial))
        ),
        "dnp3-parts": "".join(f"\n`{name}:`\n\n{_table(model)}" for name, model in _DNP3_PARTS.items()),
        "text-device": _table(text.TextDevice, leave_out={*common, "connection", *_TEXT_PARTS}),
        "text-point": _table(TextPoint, leave_out={*Point.model_fields, "block"}),
        "text-connection": "".join(
            f"\n`transport: {name}`\n\n{_table(model, leave_out={'transport'})}" for name, model in
            (("tcp", text.Tcp), ("serial", text.Serial), ("rfc2217", text.Rfc2217))
        ),
        "text-parts": "".join(f"\n`{name}:`\n\n{_table(model)}" for name, model in _TEXT_PARTS.items()),
        "opcua-device": _table(opcua.OpcuaDevice, leave_out={*common, *_OPCUA_PARTS}),
        "opcua-point": _table(OpcuaPoint, leave_out=set(Point.model_fields)),
        "opcua-parts": "".join(f"\n`{name}:`\n\n{_table(model)}" for name, model in _OPCUA_PARTS.items()),
        "opcua-quality": _qualities(),
        "mqtt-device": _table(mqtt.MqttDevice, leave_out={*common, "connection", *_MQTT_PARTS}),
        "mqtt-point": (
            _table(MqttPoint, leave_out={*Point.model_fields, "write"}) + f"\n`write:`\n\n{_table(Publish)}"
        ),
        "mqtt-connection": "".join(
            f"\n`transport: {name}`\n\n{_table(model, leave_out={'transport'})}" for name, model in
            (("tcp", mqtt.Tcp), ("tls", mqtt.Tls))
        ),
        "mqtt-parts": "".join(f"\n`{name}:`\n\n{_table(model)}" for name, model in _MQTT_PARTS.items()),
    }  # fmt: skip


def _qualities() -> str:
    rows = ["| quality | status codes |", "| --- | --- |"]
    for quality, names in QUALITIES.items():
        if quality is not Quality.DEVICE_ERROR:
            rows.append(f"| `{quality}` | {', '.join(names)} |")
    return "\n".join([*rows, "| `device-error` | every other code that is uncertain or bad |"]) + "\n"


def rendered(text: str) -> str:
    """A document with its tables as the models have them now."""
    made = tables()
    return _MARK.sub(lambda mark: mark[1] + made[mark[2]] + mark[3], text)


def _table(model: type[BaseModel], leave_out: Set[str] = frozenset()) -> str:
    rows = ["| field | value | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field, default in _fields(model, leave_out):
        rows.append(f"| `{name}` | {_value(field)} | {default} | {field.get('description', '')} |")
    return "\n".join(rows) + "\n"


def _settings() -> str:
    rows = ["| field | value | default | variable and option | meaning |", "| --- | --- | --- | --- | --- |"]
    for name, field, default in _fields(Settings, set()):
        how = "in the file only" if name in FILE_ONLY else f"`{PREFIX}{name.upper()}` `{option(name)}`"
        rows.append(f"| `{name}` | {_value(field)} | {default} | {how} | {field.get('description', '')} |")
    return "\n".join(rows) + "\n"


def _fields(model: type[BaseModel], leave_out: Set[str]) -> Iterator[tuple[str, Schema, str]]:
    schema = model.model_json_schema()
    if "properties" not in schema:
        schema = next(part for part in schema["anyOf"] if "properties" in part)
    defs = model.model_json_schema().get("$defs", {})
    for name, raw in schema["properties"].items():
        if name not in leave_out:
            field = {**defs.get(raw.get("$ref", "").rpartition("/")[2], {}), **raw}
            default = "required" if name in schema.get("required", ()) else _default(field)
            yield name, {**raw, **({"type": "object"} if "$ref" in raw else {})}, default


def _default(field: Schema) -> str:
    default = field.get("default")
    if default in (None, "", {}) or isinstance(default, dict):
        return ""
    if _unit(field) == "duration" and isinstance(default, float):
        return f"`{format_duration(default) if default else '0s'}`"
    if default and isinstance(default, list) and all(isinstance(one, str) for one in default):
        return f"`[{', '.join(default)}]`"
    if _unit(field) == "size":
        return f"`{default // 1024**2}MiB`" if default % 1024**2 == 0 else f"`{default // 1024}KiB`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _unit(field: Schema) -> str:
    examples = [example for part in (field, *field.get("anyOf", ())) for example in part.get("examples", ())]
    return next((_UNITS[example] for example in examples if example in _UNITS), "")


def _value(field: Schema) -> str:
    if "anyOf" in field:
        return " or ".join(
            dict.fromkeys(_value(part) for part in field["anyOf"] if part.get("type") != "null")
        )
    if "const" in field:
        return f"`{str(field['const']).lower() if field['const'] is True else field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{word}`" for word in field["enum"])
    if unit := _unit(field):
        return unit
    if field.get("format") == "path":
        return "path"
    return _KINDS[field.get("type", "object")] + _bounds(field)


def _bounds(field: Schema) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and high is not None:
        return f", {low:g} to {high:g}" if abs(low) < _HUGE else ""
    if "exclusiveMinimum" in field:
        return f", over {field['exclusiveMinimum']:g}"
    return f", from {low:g}" if low is not None else ""


if __name__ == "__main__":
    for document in sorted(DOCS.glob("*.md")):
        document.write_text(rendered(document.read_text("utf-8")), "utf-8")
