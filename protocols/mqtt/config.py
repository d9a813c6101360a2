"""What a profile says of an MQTT device: its broker, the kind of its payloads, and its points."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from protocols.base import DeviceConfig, Name, Scalar
from protocols.mistakes import Wrong, raise_all
from protocols.mqtt.paths import JsonPath
from protocols.mqtt.point import MqttPoint, QoS, Topic
from protocols.tls import TlsCredentials
from protocols.units import Duration, Size


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Broker(_Part):
    host: str = Field(min_length=1, description="Name or address of the broker.")
    version: Literal["5", "3.1.1"] = Field("5", description="Of MQTT; nothing is fallen back to.")
    client_id: str | None = Field(None, max_length=65535, description="Default: hilgate-<device>-<random>.")
    username: str | None = None
    password_file: str | None = Field(None, description="File whose first line is the password.")
    keep_alive: int = Field(30, ge=1, le=65535, description="Seconds after which silence is a lost link.")
    session_expiry: Duration = Field(
        0.0, ge=0, description="How long the broker keeps what comes when we are gone; needs a client_id."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        raise_all(type(self).__name__, self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Wrong]:
        if self.password_file and not self.username:
            yield ("username",), "a password needs its user name"
        if self.session_expiry and not self.client_id:
            yield ("client_id",), "the broker knows a kept session by its client_id"


class Tcp(_Broker):
    """MQTT over TCP."""

    transport: Literal["tcp"]
    port: int = Field(1883, ge=1, le=65535)
    allow_insecure: bool = Field(False, description="true: send the password where nothing encrypts it.")

    def _mistakes(self) -> Iterator[Wrong]:
        yield from super()._mistakes()
        if self.password_file and not self.allow_insecure:
            text = "the password would go over a line that nothing encrypts: take transport: tls"
            yield ("password_file",), f"{text}; if it has to, say allow_insecure: true"


class Tls(_Broker):
    """MQTT over TLS, with mutual authentication where `cert` is given."""

    transport: Literal["tls"]
    port: int = Field(8883, ge=1, le=65535)
    ca: str | None = Field(None, description="File with the authorities to trust; default: the system's.")
    cert: str | None = Field(None, description="File with our certificate chain.")
    key: str | None = Field(None, description="File with our key; default: it stands in cert.")
    server_name: str | None = Field(None, description="Name in the broker's certificate, if not the host.")
    verify: bool = Field(True, description="false: talk to whoever answers.")

    def _mistakes(self) -> Iterator[Wrong]:
        yield from super()._mistakes()
        if self.key and not self.cert:
            yield ("key",), "a key needs its cert"


Connection = Annotated[Tcp | Tls, Field(discriminator="transport")]


class Presence(_Part):
    """The topic that says whether the device is there: retained, and the device's last will."""

    topic: Topic
    path: JsonPath | None = Field(None, description="Of a JSON payload: where the word stands.")
    online: Scalar = Field("online", description="What it says when it is there.")
    offline: Scalar = Field("offline", description="What its last will says.")


class OwnWill(_Part):
    """What the broker publishes when we are gone without a word, and what we publish when we are there."""

    topic: Topic
    online: str = "online"
    offline: str = "offline"
    qos: QoS = 1
    retain: bool = True


def _level(text: str) -> str:
    if any(sign in text for sign in "/+#"):
        raise ValueError("is one level of a topic: no / + or #")
    return text


_Level = Annotated[str, Field(min_length=1), AfterValidator(_level)]


class Sparkplug(_Part):
    """Where a Sparkplug B device is (Sparkplug 3.0, chapter 4)."""

    group: _Level
    edge_node: _Level
    device: _Level | None = Field(None, description="Without it the points are the edge node's.")
    host: _Level | None = Field(
        None, description="Be the primary host application of this id: publish STATE."
    )


def _twin(text: str) -> str:
    words = text.split("/")
    if any(sign in text for sign in "+#") or not all(words) or len(words) > 2:
        raise ValueError("should be the device's name, or since KubeEdge 1.17 namespace/name; no + or #")
    return text


class KubeEdge(_Part):
    """Which of KubeEdge's device twins (`$hw/events/device/<device>/twin/...`)."""

    device: Annotated[str, Field(min_length=1), AfterValidator(_twin)] = Field(
        description="Name of the device; since KubeEdge 1.17 namespace/name, such as default/pump."
    )


class MqttDevice(DeviceConfig):
    """A device that publishes by MQTT."""

    protocol: Literal["mqtt"]
    connection: Connection
    payload: Literal["topics", "sparkplug", "kubeedge"] = Field(
        "topics", description="Topics of its own, Sparkplug B, or a KubeEdge device twin."
    )
    points: Mapping[Name, MqttPoint]
    sparkplug: Sparkplug | None = None
    kubeedge: KubeEdge | None = None
    qos: QoS = Field(1, description="Of subscriptions and publishes, unless a point says otherwise.")
    share: str | None = Field(
        None, min_length=1, pattern=r"^[^/+#]+$", description="Name of a shared subscription ($share/...)."
    )
    presence: Presence | None = Field(None, description="How the device says that it is there.")
    will: OwnWill | None = Field(None, description="How we say that we are there.")
    timeout: Duration = Field(5.0, gt=0, le=300, description="How long the broker or the device may take.")
    connect_timeout: Duration = Field(5.0, gt=0, le=60, description="How long connecting may take.")
    max_payload: Size = Field(1024 * 1024, ge=1, description="Larger messages are not read.")

    def looked_at(self) -> Self | str:
        """Its broker only: a session of its own, without a will, that subscribes to and publishes nothing."""
        connection = self.connection.model_copy(update={"client_id": None, "session_expiry": 0.0})
        silent = dict.fromkeys(("sparkplug", "kubeedge", "presence", "will", "share"))
        return self.model_copy(update={**silent, "connection": connection, "payload": "topics", "points": {}})

    def credentials(self) -> TlsCredentials | None:
        """The files of its TLS, and that of the password."""
        tls = self.connection if isinstance(self.connection, Tls) else None
        password = self.connection.password_file
        if tls is None and password is None:
            return None
        secrets = {} if password is None else {"password_file": self.folder / password}
        return TlsCredentials(tls, self.folder, secrets)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        raise_all(type(self).__name__, self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Wrong]:
        for section in ("sparkplug", "kubeedge"):
            if (getattr(self, section) is not None) != (self.payload == section):
                yield (section,), f"payload: {section} and the section {section} go together"
        if self.payload != "topics" and self.presence is not None:
            yield ("presence",), f"payload: {self.payload} has a way of its own to say so"
        for section in ("share", "will"):
            if self.payload != "topics" and getattr(self, section) is not None:
                yield (section,), f"means nothing with payload: {self.payload}"
        for name, point in self.points.items():
            for field, text in point.misplaced(self.payload):
                yield ("points", name, field), text
