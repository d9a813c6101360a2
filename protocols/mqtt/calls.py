"""The operations of `call` that every kind of payload has: publishing by hand, and the link's own status."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from protocols.base import DriverError, Refused
from protocols.mqtt.encodings import UnreadableError, json_of, text_of
from protocols.mqtt.message import Host, Publication
from protocols.timestamps import rfc3339

_Topic = Annotated[str, msgspec.Meta(min_length=1, max_length=65535, pattern=r"\A[^+#\x00]+\Z")]
_Filter = Annotated[str, msgspec.Meta(min_length=1, max_length=65535)]


class _Publish(msgspec.Struct, forbid_unknown_fields=True):
    """A text is published as it is, anything else as JSON."""

    topic: _Topic
    payload: Any = ""
    qos: Literal[0, 1, 2] = 0
    retain: bool = False

    async def carry_out(self, host: Host) -> Any:
        """Publishes; what the broker did not refuse is published."""
        await host.publish(Publication(self.topic, text_of(self.payload).encode(), self.qos, self.retain))
        return {"topic": self.topic}


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    """As `publish`; MQTT 5 sends the response topic and correlation data along."""

    topic: _Topic
    response_topic: _Topic
    payload: Any = ""
    qos: Literal[0, 1, 2] = 0
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=300)] = 5.0

    async def carry_out(self, host: Host) -> Any:
        """Publishes, and gives the answer: as JSON where it is some, else as text, else as hex."""
        publication = Publication(self.topic, text_of(self.payload).encode(), self.qos)
        answer = await host.request(publication, self.response_topic, self.timeout_s)
        said: dict[str, Any] = {"topic": answer.topic, "time": rfc3339(answer.time_ns)}
        try:
            return said | {"payload": json_of(answer.payload)}
        except UnreadableError:
            pass
        try:
            return said | {"payload": answer.payload.decode()}
        except UnicodeDecodeError:
            return said | {"payload_hex": answer.payload.hex()}


METHODS: Final[Mapping[str, type[_Publish] | type[_Request]]] = {"publish": _Publish, "request": _Request}


async def carry_out(method: str, args: Mapping[str, Any], host: Host) -> Any:
    """Carries out a method of `METHODS`; the answer is JSON-able.

    Raises:
        Refused: `malformed`: wrong arguments; nothing was sent.
        DriverError: the broker said no, or the broker or the device did not answer.
    """
    kind = METHODS[method]
    for name in args:
        if name not in kind.__struct_encode_fields__:
            takes = ", ".join(kind.__struct_encode_fields__)
            raise Refused("malformed", f"{method} has no argument {name!r:.40}; it takes {takes}")
    try:
        parsed = msgspec.convert(dict(args), kind)
    except msgspec.ValidationError as error:
        raise Refused("malformed", f"{method}: {error}") from error
    try:
        return await parsed.carry_out(host)
    except DriverError as error:
        raise DriverError(error.code, f"{method}: {error}") from error
