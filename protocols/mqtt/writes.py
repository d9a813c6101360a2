"""Values as publishes: by the point's encoding or a template, and whether the device took them."""

import re
import time
import uuid
from collections.abc import Mapping
from typing import Any

from protocols.base import DriverError, Sample, Value
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.encodings import UnreadableError, encoded, json_of, text_of
from protocols.mqtt.message import Host, Message, Publication
from protocols.mqtt.paths import MISSING, follow, steps_of
from protocols.mqtt.point import MqttPoint
from protocols.timestamps import rfc3339

_WORD = re.compile(r"\{(value|text|point|device|time|id)\}")


async def publish_values(device: MqttDevice, host: Host, values: Mapping[str, Value]) -> Sample:
    """Publishes one value after the other; the first that fails ends it, and none is published twice.

    Raises:
        Refused: `out-of-range`: a value cannot be represented; nothing was published.
        DriverError: not all were written; `written` has those that were.
    """
    publications = {
        name: publication_of(device, device.points[name], value) for name, value in values.items()
    }
    written: dict[str, Value] = {}
    for name, publication in publications.items():
        try:
            await _publish(device, host, device.points[name], publication, values[name])
        except DriverError as error:
            if error.code == "verify-mismatch":
                written[name] = values[name]
            text = f"{name} was not written: {error}"
            raise DriverError(error.code, text, written, error.unverified) from error
        written[name] = values[name]
    return Sample(time.time_ns(), written)


def publication_of(device: MqttDevice, point: MqttPoint, value: Value) -> Publication:
    """What is published to write a value.

    Raises:
        Refused: `out-of-range`: the value cannot be represented.
    """
    how = point.write
    assert how is not None, "the profile was checked: a writable point says how"
    raw = point.raw(value)
    if how.template is None:
        payload = encoded(point.encoding, raw)
    else:
        words = {
            "value": encoded("json", raw).decode(),
            "text": text_of(raw),
            "point": point.name,
            "device": device.name,
            "time": rfc3339(time.time_ns()),
            "id": uuid.uuid4().hex,
        }
        payload = _WORD.sub(lambda found: words[found[1]], how.template).encode()
    return Publication(
        how.topic,
        payload,
        device.qos if how.qos is None else how.qos,
        how.retain,
        expiry_s=None if how.expiry is None else int(how.expiry),
    )


async def _publish(
    device: MqttDevice, host: Host, point: MqttPoint, publication: Publication, value: Value
) -> None:
    how = point.write
    assert how is not None, "the profile was checked: a writable point says how"
    if how.answer is None:
        await host.publish(publication)
        return
    _judge(point, await host.request(publication, how.answer, device.timeout), value)


def _judge(point: MqttPoint, answer: Message, value: Value) -> None:
    """Whether an answer means that the value was taken.

    Raises:
        DriverError: `device-error`: it means no; `verify-mismatch`: it has another value.
    """
    how = point.write
    assert how is not None, "the profile was checked: a writable point says how"
    if how.answer_path is None and how.answer_ok is None:
        return
    try:
        said: Any = answer.payload.decode() if how.answer_path is None else json_of(answer.payload)
    except (UnicodeDecodeError, UnreadableError):
        raise DriverError("device-error", f"the answer on {answer.topic:.100} cannot be read") from None
    if how.answer_path is not None:
        said = follow(said, steps_of(how.answer_path))
        if said is MISSING:
            text = f"the answer on {answer.topic:.100} has no {how.answer_path}"
            raise DriverError("device-error", text)
    if how.answer_ok is not None:
        if text_of(said) != how.answer_ok:
            raise DriverError("device-error", f"the device answered {text_of(said)!r:.100}")
        return
    if point.engineering(said) != value:
        text = f"the device answered that it has {text_of(said)!r:.100}"
        raise DriverError("verify-mismatch", text, unverified=[point.name])
