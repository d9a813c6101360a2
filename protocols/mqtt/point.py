"""What a profile says of a value that a device publishes, or takes."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from protocols.mistakes import Wrong
from protocols.mqtt.encodings import NUMBERS
from protocols.mqtt.paths import JsonPath
from protocols.units import Duration
from protocols.values import TypedPoint

QoS = Literal[0, 1, 2]

Encoding = Literal[
    "json",
    "plain",
    "hex",
    "base64",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float32",
    "float64",
    "int16-le",
    "uint16-le",
    "int32-le",
    "uint32-le",
    "int64-le",
    "uint64-le",
    "float32-le",
    "float64-le",
]
"""How a payload holds a value: JSON, text, bytes as text, or a binary number (big-endian unless -le)."""


def _topic(text: str) -> str:
    if not text or "+" in text or "#" in text or "\0" in text or len(text.encode()) > 65535:
        raise ValueError("should be a topic name: without + and #, which are for filters (MQTT 5.0, 4.7)")
    return text


def _filter(text: str) -> str:
    levels = text.split("/")
    good = bool(text) and "\0" not in text and len(text.encode()) <= 65535
    good = good and all(level in ("+", "#") or not set(level) & set("+#") for level in levels)
    if not good or "#" in levels[:-1]:
        raise ValueError("should be a topic filter: + for a level, # for all that follow (MQTT 5.0, 4.7.1)")
    return text


Topic = Annotated[str, AfterValidator(_topic)]
Filter = Annotated[str, AfterValidator(_filter)]


class Publish(BaseModel):
    """How a value is written: what is published where."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    topic: Topic
    template: str | None = Field(
        None,
        description="Payload: {value} is the value as JSON, {text} as text; {point}, {device}, {time}, {id} "
        "too. Without it: the value in the point's encoding.",
    )
    qos: QoS | None = Field(None, description="Instead of the device's.")
    retain: bool = False
    expiry: Duration | None = Field(None, ge=1, description="MQTT 5: how long the broker may keep it.")
    answer: Filter | None = Field(
        None, description="Topic on which the device says that it took it; it is waited for."
    )
    answer_path: JsonPath | None = Field(
        None, description="Of a JSON answer: where the value or the word stands."
    )
    answer_ok: str | None = Field(None, description="The word that means yes; by default any answer does.")


class MqttPoint(TypedPoint):
    """A value in what a device publishes."""

    topic: Filter | None = Field(
        None, description="payload: topics. Where it is published; + and # as in filters."
    )
    encoding: Encoding = Field("json", description="How the payload holds the value.")
    path: JsonPath | None = Field(
        None, description="Of a JSON payload: where the value stands, such as motor.speed or axes[0].pos."
    )
    time_path: JsonPath | None = Field(
        None, description="Of a JSON payload: where its time stands: RFC 3339 or a number since 1970."
    )
    time_unit: Literal["s", "ms", "us", "ns"] = Field("s", description="Unit of a time that is a number.")
    wildcard: str | None = Field(
        None, description="What the + and # of the topic have to stand for, such as line1/cell3; default all."
    )
    offset_bytes: int = Field(0, ge=0, description="Of a binary number: where it begins in the payload.")
    qos: QoS | None = Field(None, description="Instead of the device's.")
    stale_after: Duration | None = Field(None, gt=0, description="After so long a silence it is stale.")
    retained: Literal["take", "skip"] = Field(
        "take", description="skip: what the broker had kept is not a value of now."
    )
    write: Publish | None = Field(None, description="payload: topics. How the value is written.")
    metric: str | None = Field(None, min_length=1, description="payload: sparkplug. Name of the metric.")
    property: str | None = Field(None, min_length=1, description="payload: kubeedge. Name of the twin.")

    def misplaced(self, payload: str) -> Iterator[tuple[str, str]]:
        """Fields that are missing, or mean nothing, with this kind of payload."""
        names = {"topics": "topic", "sparkplug": "metric", "kubeedge": "property"}
        needed = names[payload]
        if getattr(self, needed) is None and (payload != "topics" or self.readable):
            yield needed, f"payload: {payload} needs a {needed}"
        for other in sorted({*names.values()} - {needed}):
            if getattr(self, other) is not None:
                yield other, f"means nothing with payload: {payload}"
        if payload != "topics" and self.stale_after is not None:
            yield "stale_after", f"means nothing with payload: {payload}, which says only what has changed"
        if payload == "topics" and self.writable and self.write is None:
            yield "write", "say how it is written; or access: ro"
        if self.write is not None and (payload != "topics" or not self.writable):
            yield "write", "means nothing here: the point is not written by a publish of its own"

    def mistakes(self) -> Iterator[Wrong]:
        """What is wrong with the point by itself."""
        yield from super().mistakes()
        if self.encoding != "json":
            for field in ("path", "time_path"):
                if getattr(self, field) is not None:
                    yield (field,), f"only JSON has paths, and the encoding is {self.encoding}"
        if self.encoding in NUMBERS and self.type not in ("number", "integer", "boolean", "enumeration"):
            yield ("encoding",), f"{self.encoding} is a number, and the point a {self.type}"
        if self.encoding in ("hex", "base64") and self.type != "string":
            yield ("encoding",), f"{self.encoding} is bytes as text: give type: string"
        if self.encoding != "json" and self.type in ("array", "object"):
            yield ("encoding",), f"only JSON holds an {self.type}"
        if self.offset_bytes and self.encoding not in NUMBERS:
            yield ("offset_bytes",), f"only binary numbers have a place, and the encoding is {self.encoding}"
        if self.wildcard is not None and not (self.topic and set(self.topic) & set("+#")):
            yield ("wildcard",), "the topic has no + or #"
