"""What a profile says of an OPC UA server: where it is, how it is trusted, what is monitored and how."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from protocols.base import DeviceConfig, Name
from protocols.mistakes import Wrong, raise_all
from protocols.opcua.credentials import OpcuaCredentials
from protocols.opcua.point import BuiltIn, Node, OpcuaPoint
from protocols.opcua.status import unknown_names
from protocols.units import Duration

_PORT = 4840
"""The registered port of opc.tcp, which a URL without one means."""
BROKEN = ("Basic128Rsa15", "Basic256")
"""Policies that are deprecated, since they rest on SHA-1 (OPC 10000-7, profiles of security policies)."""

Policy = Literal[
    "None",
    "Basic256Sha256",
    "Aes128_Sha256_RsaOaep",
    "Aes256_Sha256_RsaPss",
    "Basic128Rsa15",
    "Basic256",
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _endpoint(text: str) -> str:
    if "@" in text:  # before anything that repeats a part of it
        raise ValueError("holds credentials; give them by user")
    parts = urlsplit(text)
    if parts.scheme != "opc.tcp" or not parts.hostname:
        raise ValueError("should be a URL such as opc.tcp://plc.example:4840")
    if parts.port is None:
        return urlunsplit(parts._replace(netloc=f"{parts.netloc.removesuffix(':')}:{_PORT}"))
    return text


class Security(_Part):
    """How the channel is secured. Nothing is fallen back to: what is asked for is had, or nothing is."""

    policy: Policy = "Basic256Sha256"
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    cert: str | None = Field(None, description="File with our certificate; `hilgate opcua-cert` makes one.")
    key: str | None = Field(None, description="File with our key, in PEM.")
    trust: Sequence[str] = Field(
        (), description="Files or folders with the servers' certificates, or with their authorities."
    )
    verify: bool = Field(True, description="false: talk to whoever answers.")
    allow_insecure: bool = Field(False, description="true: Basic128Rsa15 and Basic256, which are broken.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        raise_all(type(self).__name__, self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Wrong]:
        if self.policy == "None":
            for field in ("cert", "key", "trust"):
                if getattr(self, field):
                    yield (field,), "means nothing with policy: None, which secures nothing"
            return
        if not self.cert or not self.key:
            field = "key" if self.cert else "cert"
            text = f"{self.policy} needs cert and key (`hilgate opcua-cert` makes them); or say policy: None"
            yield (field,), text
        if not self.trust and self.verify:
            yield ("trust",), "say which certificates to trust; or verify: false, to talk to whoever answers"
        if self.policy in BROKEN and not self.allow_insecure:
            yield (
                ("policy",),
                f"{self.policy} is broken; where the server has nothing else: allow_insecure: true",
            )


class User(_Part):
    """Who we are to the server: a name and a password, or a certificate."""

    name: Annotated[str, Field(min_length=1)] | None = None
    password_file: str | None = Field(None, description="File whose first line is the password.")
    cert: str | None = Field(None, description="File with the user's certificate.")
    key: str | None = Field(None, description="File with its key, in PEM.")
    allow_insecure: bool = Field(False, description="true: send the password where nothing encrypts it.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        raise_all(type(self).__name__, self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Wrong]:
        if (self.name is None) == (self.cert is None):
            yield ("name",), "give either name and password_file, or cert and key"
        elif self.name is not None and self.password_file is None:
            yield ("password_file",), "a name needs its password"
        elif self.cert is not None and self.key is None:
            yield ("key",), "a certificate needs its key"


class Connection(_Part):
    """Where the server is, and as whom it is spoken to."""

    url: Annotated[str, AfterValidator(_endpoint)] = Field(description="Such as opc.tcp://plc.example:4840.")
    security: Security = Field(default_factory=Security, validate_default=True)
    user: User | None = Field(None, description="By default anonymous.")


class Subscription(_Part):
    """How changes are reported; the server may revise each, and `call status` shows what it made of them."""

    publishing_interval: Duration = Field(
        0.5, ge=0.001, le=3600, description="How often the server reports what has changed."
    )
    keep_alive: Duration = Field(5.0, gt=0, le=3600, description="It says so after so long without changes.")
    lifetime: Duration = Field(
        60.0, gt=0, le=86400, description="How long it goes on gathering when we are gone."
    )
    max_items: int = Field(5000, ge=1, description="Most monitored items of one subscription; then another.")


class Method(_Part):
    """A method by a name of ours; the types are asked from the server and serve the simulation."""

    object: Node = Field(description="Node id or browse path of the object that has it.")
    method: Node = Field(description="Node id or browse path of the method.")
    inputs: Mapping[str, BuiltIn] = Field(default_factory=dict, description="Arguments and their types.")
    outputs: Mapping[str, BuiltIn] = Field(default_factory=dict, description="Results and their types.")


class OpcuaDevice(DeviceConfig):
    """An OPC UA server, or the part of one that the points name."""

    protocol: Literal["opcua"]
    connection: Connection
    points: Mapping[Name, OpcuaPoint]
    acquisition: Literal["subscribe", "poll"] = Field(
        "subscribe", description="Take what the server reports, or read each `poll`."
    )
    subscription: Subscription = Subscription()
    sampling_interval: Duration | None = Field(
        None, ge=0, description="How often the server looks; default: the publishing interval."
    )
    queue: int = Field(10, ge=1, le=1_000_000, description="Changes of a point that the server holds.")
    time: Literal["source", "server", "gateway"] = Field(
        "source", description="Whose clock stamps values; gateway: when they came in."
    )
    tolerate: Sequence[str] = Field(
        (), description="Names of status codes with which a value still counts as good."
    )
    methods: Mapping[Name, Method] = Field(default_factory=dict, description="Methods for `call`, by name.")
    timeout: Duration = Field(4.0, gt=0, le=300, description="How long an answer may take.")
    connect_timeout: Duration = Field(5.0, gt=0, le=60, description="How long making the session may take.")
    session_timeout: Duration = Field(
        60.0, ge=1, le=86400, description="How long the server keeps the session when we are gone."
    )

    def looked_at(self) -> Self | str:
        """As it is: connecting makes a session and reads what the points' nodes are."""
        return self

    def credentials(self) -> OpcuaCredentials | None:
        """The files of its channel and of its user."""
        made = OpcuaCredentials(self)
        return made if made.paths() or made.caveat else None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        raise_all(type(self).__name__, self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Wrong]:
        user, security = self.connection.user, self.connection.security
        plain = security.policy == "None" or security.mode == "Sign"
        if user is not None and user.name is not None and plain and not user.allow_insecure:
            text = "the password would go over a channel that does not encrypt it"
            yield ("connection", "user", "password_file"), f"{text}; if it has to, say allow_insecure: true"
        for place, text in unknown_names(self.tolerate):
            yield ("tolerate", place), text
        if self.acquisition == "poll":
            for name, point in self.points.items():
                if point.events is not None:
                    yield (
                        ("points", name, "events"),
                        "events are reported, not polled: acquisition: subscribe",
                    )
