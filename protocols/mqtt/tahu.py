"""Sparkplug B's payload (Sparkplug 3.0.0, chapter 6). Pure.

The protobuf messages are described here by the field numbers of the specification, so that nothing generated
is kept. What comes in is hostile: `parse` and `Metric.value` say `Malformed`, and nothing else.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]  # it has no types
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]  # as above

from protocols.mqtt.tahu_values import Malformed, put, value_of

_QUALITY = "Quality"

_VALUES = (
    "int_value uint32 {0} int_value|long_value uint64 {1}|float_value float {2}|double_value double {3}|"
)
_FIELDS: Final = {
    "Payload": "1 timestamp uint64|2 metrics *Metric|3 seq uint64|4 uuid string|5 body bytes",
    "Metric": "1 name string|2 alias uint64|3 timestamp uint64|4 datatype uint32|5 is_historical bool|"
    "6 is_transient bool|7 is_null bool|9 properties PropertySet|10 int_value uint32 =|"
    "11 long_value uint64 =|12 float_value float =|13 double_value double =|"
    "14 boolean_value bool =|15 string_value string =|16 bytes_value bytes =|"
    "17 dataset_value DataSet =|18 template_value Template =",
    "PropertySet": "1 keys *string|2 values *PropertyValue",
    "PropertyValue": "1 type uint32|2 is_null bool|3 int_value uint32 =|4 long_value uint64 =",
    "DataSet": "1 num_of_columns uint64|2 columns *string|3 types *uint32|4 rows *Row",
    "Row": "1 elements *Element",
    "Element": "1 int_value uint32 =|2 long_value uint64 =|3 float_value float =|4 double_value double =|"
    "5 boolean_value bool =|6 string_value string =",
    "Template": "1 version string|2 metrics *Metric|3 parameters *Parameter|4 template_ref string|"
    "5 is_definition bool",
    "Parameter": "1 name string|2 type uint32|3 int_value uint32 =|4 long_value uint64 =|"
    "5 float_value float =|6 double_value double =|7 boolean_value bool =|8 string_value string =",
}
"""Each message's fields: number, name, type; * is repeated, = belongs to the one `value`."""


class Metric(msgspec.Struct, frozen=True):
    """A metric of a payload; its value is read once its type is known, from here or from its birth."""

    name: str | None
    alias: int | None
    time_ms: int | None
    datatype: int | None
    historical: bool
    null: bool
    quality: int | None
    """The property Quality (chapter 6, Quality Codes): 0 bad, 192 good, 500 stale; None: not said."""
    raw: Message

    def value(self, datatype: int) -> Any:
        """The value as JSON has it, read as a type.

        Raises:
            Malformed: it is not of that type.
        """
        try:
            return value_of(self.raw, datatype)
        except (UnicodeDecodeError, struct.error) as error:
            raise Malformed(str(error)) from error


class Payload(msgspec.Struct, frozen=True):
    """A payload: what it says of itself, and its metrics."""

    time_ms: int | None
    seq: int | None
    metrics: Sequence[Metric]


def _messages() -> Mapping[str, type[Message]]:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="hilgate/sparkplug_b.proto", package="hilgate.sparkplug_b", syntax="proto2"
    )
    for name, fields in _FIELDS.items():
        described = file.message_type.add(name=name)
        described.oneof_decl.add(name="value")
        for text in fields.split("|"):
            number, field, kind, *of_value = text.split()
            made = described.field.add(name=field, number=int(number))
            repeated, kind = kind.startswith("*"), kind.lstrip("*")
            made.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in _FIELDS:
                made.type, made.type_name = kinds.TYPE_MESSAGE, f".{file.package}.{kind}"
            else:
                made.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
            if of_value:
                made.oneof_index = 0
        if not any("=" in text for text in fields.split("|")):
            del described.oneof_decl[:]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}"))
        for name in _FIELDS
    }


_MESSAGES = _messages()


def parse(body: bytes) -> Payload:
    """A payload.

    Raises:
        Malformed: it is none.
    """
    payload: Any = _MESSAGES["Payload"]()
    try:
        payload.ParseFromString(body)
        metrics = tuple(_metric(one) for one in payload.metrics)
    except (DecodeError, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from error
    return Payload(_field(payload, "timestamp"), _field(payload, "seq"), metrics)


def _field(message: Any, name: str) -> Any:
    return getattr(message, name) if message.HasField(name) else None


def _metric(one: Any) -> Metric:
    quality = None
    if one.HasField("properties"):
        keys, values = one.properties.keys, one.properties.values
        for key, said in zip(keys, values, strict=False):
            if key == _QUALITY and said.WhichOneof("value") is not None:
                quality = getattr(said, said.WhichOneof("value"))
    return Metric(
        _field(one, "name"),
        _field(one, "alias"),
        _field(one, "timestamp"),
        _field(one, "datatype"),
        one.is_historical,
        one.is_null or one.WhichOneof("value") is None,
        quality,
        one,
    )


def encode(
    metrics: Sequence[tuple[str | None, int | None, int, Any]],
    time_ms: int,
    seq: int | None = None,
    *,
    typed: bool = True,
    times: Mapping[str, int] | None = None,
) -> bytes:
    """A payload of metrics (name, alias, data type, value as `Metric.value` gives it; None is null).

    `typed` says whether data types go along, as they have to in births and commands; `times` are times of
    metrics, by name, that are not `time_ms`.

    Raises:
        Malformed: a value is not of its type, or out of its range.
    """
    payload: Any = _MESSAGES["Payload"](timestamp=time_ms)
    if seq is not None:
        payload.seq = seq
    for name, alias, datatype, value in metrics:
        metric = payload.metrics.add(timestamp=(times or {}).get(name or "", time_ms))
        if name is not None:
            metric.name = name
        if alias is not None:
            metric.alias = alias
        if typed:
            metric.datatype = datatype
        if value is None:
            metric.is_null = True
        else:
            put(metric, datatype, value)
    encoded: bytes = payload.SerializeToString()
    return encoded
