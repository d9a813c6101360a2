"""What a profile says of a CAN bus: its interface, its database, its points and how frames are passed on."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from protocols.base import DeviceConfig, Name
from protocols.can.checks import bind, message_mistakes, mistakes
from protocols.can.frame import parse_id
from protocols.can.point import CanPoint
from protocols.can.signals.database import Database, load
from protocols.mistakes import Wrong, raise_all
from protocols.units import Duration, Size


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_ID_TYPES: Final = [{"type": "string"}, {"type": "integer"}]


def _id_range(text: Any) -> Any:
    if isinstance(text, str) and ".." in text:
        low, _, high = text.partition("..")
        first, last = parse_id(low), parse_id(high)
        if first > last or (first ^ last) >> 31:
            raise ValueError("write the lowest and the highest id, both of 11 or both of 29 bits")
        return first, last
    if isinstance(text, str | int):
        return parse_id(text), parse_id(text)
    return text


IdRange = Annotated[
    tuple[int, int],
    BeforeValidator(_id_range),
    WithJsonSchema({"anyOf": _ID_TYPES, "examples": ["0x123", "0x100..0x1FF", "0x18DAF110"]}),
]
"""Arbitration ids from the first to the last, with the EXTENDED bit where they have 29 bits."""

Id = Annotated[
    int,
    BeforeValidator(parse_id),
    WithJsonSchema({"anyOf": _ID_TYPES, "examples": ["0x123", "0x18DAF110"]}),
]
"""One arbitration id, with the EXTENDED bit where it has 29 bits."""


class Connection(_Part):
    """The interface that the bus is behind."""

    interface: str = Field(
        "socketcan",
        pattern=r"^[a-z0-9_]+$",
        description="socketcan, or a name of python-can: slcan, pcan, kvaser, vector, gs_usb ...",
    )
    channel: str | int = Field(description="Such as can0, /dev/ttyACM0, PCAN_USBBUS1 or 0.")
    bitrate: int | None = Field(
        None, ge=1000, le=1_000_000, description="Bits a second; of SocketCAN it is checked, else it is set."
    )
    data_bitrate: int | None = Field(
        None, ge=1000, le=20_000_000, description="Bits a second in the data phase of CAN FD."
    )
    fd: bool = Field(False, description="Whether the bus carries CAN FD frames too.")
    listen_only: bool = Field(False, description="Never send, nor acknowledge where the interface can do so.")
    timestamps: Literal["kernel", "hardware"] = Field(
        "kernel", description="SocketCAN: stamp of the kernel, or of the controller where it has one."
    )
    receive_buffer: Size = Field(
        4 * 1024 * 1024,
        ge=4096,
        description="SocketCAN: what may wait in the kernel before frames are lost.",
    )
    options: Mapping[str, Any] = Field(
        default_factory=dict, description="More arguments for python-can, such as {tty_baudrate: 115200}."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        raise_all(type(self).__name__, self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Wrong]:
        if self.data_bitrate is not None and not self.fd:
            yield ("data_bitrate",), "only a bus with fd: true has a data phase"
        if self.interface == "socketcan":
            if not isinstance(self.channel, str) or not 1 <= len(self.channel.encode()) <= 15:
                yield ("channel",), "should be the name of a network interface, such as can0"
            if self.options:
                yield ("options",), "are for python-can; socketcan takes none"

    @property
    def key(self) -> tuple[str, str]:
        """What tells one bus from another on this machine."""
        return self.interface, str(self.channel)

    def __str__(self) -> str:
        return f"{self.interface}:{self.channel}"


class Frames(_Part):
    """The raw view: frames as they are, in pcap bodies."""

    ids: Sequence[IdRange] = Field((), description="Only these arbitration ids; by default all.")
    max_rate: float | None = Field(
        None, gt=0, description="Most frames a second; what is over is dropped, counted and said as a loss."
    )
    errors: bool = Field(True, description="Error frames too.")
    own: bool = Field(True, description="Frames that this agent sent too.")


class Counter(_Part):
    """A signal that is counted up with each frame that is sent."""

    signal: str = Field(description="Its name in the database.")
    first: int = Field(0, ge=0, description="Value in the first frame.")
    last: int | None = Field(None, ge=1, description="Highest value; then 0 again. By default all bits.")


class Checksum(_Part):
    """A signal that holds a checksum over the rest of the frame."""

    signal: str = Field(description="Its name in the database.")
    profile: str = Field(description="Such as sum8, xor8, crc8-j1850, e2e-p01, e2e-p02.")
    data_id: int | None = Field(None, ge=0, le=0xFFFF, description="Data ID of AUTOSAR E2E profile 1.")
    data_ids: Sequence[Annotated[int, Field(ge=0, le=0xFF)]] = Field(
        (), description="The 16 data IDs of AUTOSAR E2E profile 2."
    )


class Message(_Part):
    """What the profile says of one message of the database."""

    cycle: Duration | None = Field(None, gt=0, description="How often it is sent; default: the database's.")
    timeout: Duration | None = Field(
        None,
        gt=0,
        description="Then its points are stale; default: 3 cycles, 100ms at least; without a cycle never.",
    )
    report: Literal["every", "change"] | Duration | None = Field(
        None, description="every frame, on change, or the newest each 100ms; default: as the device."
    )
    send: Literal["write", "cyclic"] = Field(
        "write", description="Once at each write, or from the first write on also each cycle."
    )
    counter: Counter | None = Field(None, description="Of messages that are sent: a signal that counts them.")
    checksum: Checksum | None = Field(None, description="Of messages that are sent: a signal for a checksum.")


class Record(_Part):
    """Where recordings go (op `record`), and how large they get."""

    folder: str = Field("recordings", min_length=1, description="Relative to the profile.")
    format: Literal["blf", "asc", "log", "pcapng"] = Field("blf", description="Unless the command says one.")
    max_size: Size = Field(64 * 1024 * 1024, ge=4096, description="Then a next file is begun.")
    max_time: Duration = Field(3600.0, gt=0, description="Then a next file is begun.")
    files: int = Field(16, ge=1, le=10_000, description="The oldest recordings over this go.")
    always: bool = Field(False, description="Record from the start, not on command only.")


class Answer(_Part):
    """What a simulated node says to a frame."""

    request: Id = Field(description="Arbitration id of the request.")
    data: str = Field(
        "",
        pattern=r"^([0-9A-Fa-f.]{2})*$",
        description="Hex that the request begins with; a dot is any digit.",
    )
    response: Id = Field(description="Arbitration id of the answer.")
    respond: str = Field(pattern=r"^([0-9A-Fa-f]{2})*$", description="Hex of the answer's data.")
    delay: Duration = Field(0.0, ge=0, description="From request to answer.")


class Replay(_Part):
    """A recording that a simulated node plays."""

    file: str = Field(min_length=1, description="BLF, ASC, log, ... ; relative to the profile.")
    speed: float = Field(1.0, gt=0, le=1000, description="2: twice as fast as it was recorded.")
    loop: bool = Field(True, description="Again and again.")


class Simulation(_Part):
    """How the bus is simulated."""

    bus: Literal["auto", "vcan", "vxcan", "virtual", "udp_multicast"] = Field(
        "auto", description="auto: vcan where the kernel has it and lets us, else virtual, within the agent."
    )
    namespace: str | None = Field(None, description="vxcan: network namespace of the other end.")
    channel: str | None = Field(None, description="Name to give it; default: made up.")
    silent: Sequence[str] = Field((), description="Messages of the database that the node does not send.")
    answers: Sequence[Answer] = Field((), description="Frames that the node answers.")
    replay: Replay | None = Field(None, description="A recording that the node plays.")


class CanDevice(DeviceConfig):
    """One CAN bus."""

    lasting: ClassVar[bool] = True

    protocol: Literal["can"]
    connection: Connection
    database: str | Sequence[str] = Field(
        (), description="DBC, KCD, SYM or ARXML file, or several; relative to the profile."
    )
    frames: Frames | None = Field(None, description="Pass on raw frames too.")
    messages: Mapping[str, Message] = Field(default_factory=dict, description="Messages by name.")
    points: Mapping[Name, CanPoint] = Field(default_factory=dict)
    timeout: Duration = Field(1.0, gt=0, le=60, description="How long the bus may take to take a frame.")
    record: Record = Record()
    simulation: Simulation = Simulation()
    _database: Database = PrivateAttr(default_factory=Database)
    _attached: Mapping[str, bytes] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _known_to_database(self, info: ValidationInfo) -> Self:
        context = info.context or {}
        folder, attached = context.get("folder", Path()), context.get("attached", {})
        raise_all(type(self).__name__, self._mistakes(folder, attached))
        return self

    def _mistakes(self, folder: Path, attached: Mapping[str, bytes]) -> Iterator[Wrong]:
        files = {name: folder / name for name in self.database_files}
        try:
            self._database = load(
                list(files.values()), {folder / name: data for name, data in attached.items()}
            )
        except ValueError as error:
            yield ("database",), str(error)
        else:
            self._attached = {name: self._database.files[file] for name, file in files.items()}
            yield from bind(self, self._database)
            yield from message_mistakes(self, self._database)
        yield from mistakes(self)

    def looked_at(self) -> Self | str:
        """An interface of the kernel's is only listened to; another's adapter would join the bus."""
        if self.connection.interface == "socketcan":
            return self
        return "opening its adapter would have it take part in the bus"

    def attachments(self) -> Mapping[str, bytes]:
        """The database files, by the name that the profile has for them."""
        return self._attached

    @property
    def contents(self) -> Database:
        """What the database files say; empty where none are named."""
        return self._database

    @property
    def database_files(self) -> Sequence[str]:
        """The names of the database files."""
        return (self.database,) if isinstance(self.database, str) else tuple(self.database)

    def settings_of(self, message: str) -> Message:
        """What the profile says of a message; defaults where it says nothing."""
        return self.messages.get(message) or Message()
