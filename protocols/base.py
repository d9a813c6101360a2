"""The ground every protocol stands on: what a point, a sample and a driver are.

A protocol is a package of the same shape everywhere: `config` (pydantic: device and point), `plan` (pure:
which requests serve these points), `codec` (pure: bytes to engineering values and back) and `driver` (I/O
only). It is found by the entry point group `hilgate.protocols`, which names a `DeviceProtocol`.
"""

import abc
import enum
import math
import operator
from collections.abc import Collection, Hashable, Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, StringConstraints, model_validator

from protocols.interlock import Interlock, Requirement
from protocols.interlock import Scalar as Scalar
from protocols.interlock import Value as Value
from protocols.tls import Credentials
from protocols.units import Duration, Size

NAME_PATTERN = r"^[a-z0-9_][a-z0-9_-]{0,62}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""Device and point names (wire.md section 1): no dot, so a name is one word of an address."""


class Quality(enum.StrEnum):
    """Why a point has no good value now (wire.md section 2, `bad`)."""

    TIMEOUT = "timeout"
    DISCONNECTED = "disconnected"
    DEVICE_ERROR = "device-error"
    OUT_OF_RANGE = "out-of-range"
    STALE = "stale"
    NOT_A_NUMBER = "not-a-number"
    BAD_CONFIG = "bad-config"


class DeviceState(enum.StrEnum):
    """A device as availability shows it (wire.md section 3)."""

    ONLINE = "online"
    CONNECTING = "connecting"
    DEGRADED = "degraded"
    OFFLINE = "offline"
    DISABLED = "disabled"


def number(value: Value) -> float:
    """The value of a point of a kind that is numbers.

    Raises:
        TypeError: it is of another kind.
    """
    if isinstance(value, list | dict):
        raise TypeError(f"{value!r:.60} is no number")
    return float(value)


class Sample(msgspec.Struct, frozen=True, gc=False):
    """Readings of some points of one device that were taken together.

    `time_ns` is UTC in nanoseconds since 1970. `values` holds good values only, in engineering units;
    `bad` says of every other point that was asked why it has none. A driver may hand out the same
    `values` object again when nothing changed: nobody changes it.
    """

    time_ns: int
    values: Mapping[str, Value]
    bad: Mapping[str, Quality] = {}


class DriverError(Exception):
    """The device was asked and said no, or did not answer: a `failed` result.

    `code` is one of the wire's `failed` codes; the text is one sentence a person can act on. `written`
    holds what a write had already carried out when it failed, `unverified` those points of it that the
    device does not show to have followed (`verify-mismatch`).
    """

    def __init__(
        self,
        code: Literal["device-error", "timeout", "disconnected", "verify-mismatch"],
        message: str,
        written: Mapping[str, Value] | None = None,
        unverified: Collection[str] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.written: Mapping[str, Value] = written or {}
        self.unverified = unverified

    @property
    def quality(self) -> Quality:
        """The quality of the points that this failure left without a value."""
        return {"timeout": Quality.TIMEOUT, "disconnected": Quality.DISCONNECTED}.get(
            self.code, Quality.DEVICE_ERROR
        )


class Refused(Exception):
    """A command is wrong by itself and the device was not touched: a `rejected` result."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


Kind = Literal["boolean", "integer", "number", "string", "enumeration", "array", "object"]
"""What a consumer sees: the JSON type of a point's value."""


class Point(BaseModel, abc.ABC):
    """What every protocol's points have in common; a protocol adds its own fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    access: Literal["ro", "rw", "wo"] = Field("ro", description="Read only, read and write, or write only.")
    unit: str = Field("", description="Engineering unit of the value, after scale and offset.")
    description: str = Field("", description="One line for people.")
    min: float | None = Field(None, description="Lowest value that may be written, in engineering units.")
    max: float | None = Field(None, description="Highest value that may be written, in engineering units.")
    max_rate: float | None = Field(
        None, gt=0, description="Most that the value may be changed by within any second, in its unit."
    )
    safe: Value | None = Field(None, description="The value that leaves the bench safe.")
    requires: Mapping[str, Requirement] = Field(
        default_factory=dict,
        description="Interlocks: what other points have to be when this one is written.",
    )
    poll: Duration | None = Field(None, gt=0, description="Poll period instead of the device's.")
    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        """The point's key in the profile."""
        return self._name

    @property
    def readable(self) -> bool:
        """May be read and polled."""
        return self.access != "wo"

    @property
    def writable(self) -> bool:
        """May be written by a command."""
        return self.access != "ro"

    @property
    @abc.abstractmethod
    def kind(self) -> Kind:
        """The JSON type of the point's values."""

    @property
    def choices(self) -> Sequence[str]:
        """The labels of an enumeration, else empty."""
        return ()

    def accept(self, value: Any) -> Value:
        """The value as it would be written, checked for access, type and limits before anything is touched.

        A protocol's point extends this with what its representation can hold.

        Raises:
            Refused: `read-only`, `bad-type` or `out-of-range`.
        """
        if not self.writable:
            raise Refused("read-only", f"point {self.name!r} is read-only; its profile says access: ro")
        good = self.typed(value)
        if isinstance(good, int | float):
            for word, limit, beyond in (
                ("below its min", self.min, operator.lt),
                ("above its max", self.max, operator.gt),
            ):
                if limit is not None and beyond(good, limit):
                    text = f"{self.name} = {good} is {word} {limit:g} {self.unit}"
                    raise Refused("out-of-range", text.rstrip())
        return good

    def typed(self, value: Any) -> Value:
        """The value as one of the point's type, whether or not it may be written.

        Raises:
            Refused: `bad-type`, or `out-of-range` for a label that an enumeration does not have.
        """
        number = isinstance(value, int | float) and not isinstance(value, bool)
        match self.kind:
            case "boolean" if isinstance(value, bool):
                return value
            case "integer" if number and (isinstance(value, int) or value.is_integer()):
                return int(value)
            case "number" if number and (isinstance(value, int) or math.isfinite(value)):
                return value  # type: ignore[no-any-return]  # narrowed by `number`
            case "string" if isinstance(value, str):
                return value
            case "array" if isinstance(value, list):
                return value
            case "object" if isinstance(value, dict):
                return value
            case "enumeration" if isinstance(value, str):
                if value in self.choices:
                    return value
                labels = ", ".join(self.choices)
                raise Refused("out-of-range", f"{self.name} takes one of {labels}; got {value!r:.60}")
        raise Refused("bad-type", f"{self.name} takes a value of type {self.kind}; got {value!r:.60}")

    def interlocks(self, device: str) -> Iterator[Interlock]:
        """What `requires` says; a key without a device's name means a point of `device`, the point's own."""
        for key, wanted in self.requires.items():
            other, dot, point = key.rpartition(".")
            yield Interlock(key, other if dot else device, point, wanted)


class Batch(BaseModel):
    """When gathered samples leave as one event: whichever of the three comes first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window: Duration = Field(0.05, ge=0, le=3600)
    samples: int = Field(1000, ge=1, le=1000)
    bytes: Size = Field(256 * 1024, ge=1024, le=256 * 1024)


class DeviceConfig(BaseModel):
    """What every protocol's devices have in common.

    A protocol's subclass narrows `protocol` to a literal and `points` to its own point type, and adds
    its `connection`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lasting: ClassVar[bool] = False
    """Whether a command can set something going that goes on by itself: making safe has to end it."""

    protocol: str
    description: str = ""
    enabled: bool = Field(True, description="false: the device is left alone and shown as disabled.")
    poll: Duration = Field(1.0, gt=0, description="How often points are read, unless a point says otherwise.")
    report: Literal["every", "change"] = Field(
        "every", description="Send every reading, or only what changed (and everything each `refresh`)."
    )
    refresh: Duration = Field(10.0, gt=0, description="With report: change, how often all values are sent.")
    batch: Batch = Batch()
    ttl: Duration | None = Field(None, gt=0, description="Time-to-live of the device's events; default none.")
    durable: bool = Field(True, description="Whether store and brokers keep the device's samples on disk.")
    points: Mapping[Name, Point]
    sim: Mapping[str, Any] = Field(default_factory=dict, description="Behaviour of points when simulated.")
    _name: str = PrivateAttr("")
    _folder: Path = PrivateAttr(Path())

    @property
    def name(self) -> str:
        """The device's key in the profile; set by `named`."""
        return self._name

    @property
    def folder(self) -> Path:
        """Where the profile lies: file names in it are relative to this; set by `named`."""
        return self._folder

    def named(self, name: str, folder: Path = Path()) -> Self:
        """Sets the device's name and its profile's folder, once, when the profile is read."""
        self._name = name
        self._folder = folder
        return self

    def credentials(self) -> Credentials | None:
        """The files with certificates, keys and passwords that its link is made of: new ones make it anew."""
        return None

    def attachments(self) -> Mapping[str, bytes]:
        """Files beside the profile that say what the device means, by name: they count for its digest."""
        return {}

    def looked_at(self) -> Self | str:
        """This device so that its driver's `connect` only looks at it, or why there is no such way.

        `hilgate doctor` connects to it so: nothing in the device changes, and nobody else's messages or link
        are taken.
        """
        return "connecting to it may change something in it"

    @model_validator(mode="after")
    def _name_points(self) -> Self:
        for name, point in self.points.items():
            point._name = name
        return self


class Sink(Protocol):
    """Where a driver's `run` puts what it learns. Every call but `kept` returns at once; none fails."""

    def sample(self, sample: Sample) -> None:
        """Takes readings, in the order they were taken."""

    def state(self, state: DeviceState, reason: str = "") -> None:
        """Takes `online` or `degraded` (with a reason) of a device whose link is up."""

    def frames(self, body: bytes, time_ns: int) -> None:
        """Takes raw bus frames: a complete pcap file, and the time of its first frame."""

    def missed(self, cycles: int, period: float) -> None:
        """Counts poll cycles of `period` seconds that were skipped because time ran out."""

    def lost(self, count: int, reason: str) -> None:
        """Counts what came from the device and could not be taken, since the last that could; `reason` is a
        word such as `receive-overflow`."""

    async def kept(self) -> None:
        """Returns when all samples given before would outlive the agent: then a device may forget them."""


class Driver(Protocol):
    """One device. Owned and supervised by one task; never shared between loops."""

    async def connect(self) -> None:
        """Opens the link. Safe to call again after it was lost.

        Raises:
            DriverError: the device cannot be reached.
        """

    async def run(self, sink: Sink) -> None:
        """Polls or subscribes until cancelled.

        Raises:
            DriverError: the link was lost; the owner connects again.
        """

    async def read(self, points: Sequence[str]) -> Sample:
        """Reads points, by name, from the device now, also while `run` is at work.

        Raises:
            DriverError: not one point could be read.
        """

    async def write(self, values: Mapping[str, Value]) -> Sample:
        """Writes values that `Point.accept` has passed, and says what was written.

        Raises:
            DriverError: not all were written; its `written` holds those that were.
        """

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        """Carries out one of the protocol's own operations; the answer is JSON-able.

        Raises:
            Refused: unknown method or wrong arguments; nothing was sent.
            DriverError: the device said no or did not answer.
        """

    def rest(self) -> None:
        """Ends at once what a command set going and what goes on by itself (`DeviceConfig.lasting`)."""

    async def close(self) -> None:
        """Lets the link go. Safe to call at any time, also twice."""


class PlannedRequest(msgspec.Struct, frozen=True):
    """One request of a poll plan, as `hilgate check` shows it."""

    what: str
    points: tuple[str, ...]
    size: int
    size_unit: str
    period: float | None
    """Seconds from each to the next; None: once, at connecting."""


Shared = MutableMapping[Hashable, Any]
"""What the drivers of one agent share, by key: for instance an open line with several units behind it."""


class DeviceProtocol(Protocol):
    """A protocol as the agent finds it. Importing the module that holds it must be cheap."""

    name: str
    """The word that profiles use in `protocol:`."""
    methods: Mapping[str, str]
    """What `call` takes: method name to one line of help."""
    writing: Collection[str]
    """Those of the methods that may change something in the device: they need the lease, as writes do."""

    def config(self) -> type[DeviceConfig]:
        """The pydantic model of a device of this protocol."""

    def plan(self, device: Any) -> Sequence[PlannedRequest]:
        """Which requests would poll this device. Pure."""

    def conflicts(self, devices: Mapping[str, Any]) -> Mapping[str, str]:
        """Which of these devices cannot be together on one bench, and why: name to a sentence. Pure."""

    def driver(self, device: Any, shared: Shared) -> Driver:
        """A driver for this device, not yet connected."""
