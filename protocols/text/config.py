"""What a profile says of an instrument that speaks lines: its line, how it speaks, and its points."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from protocols.base import DeviceConfig, Name
from protocols.mistakes import Wrong, raise_all
from protocols.text.checksums import Checksum
from protocols.text.point import MOST_TEXT, TextPoint, compiled, is_line
from protocols.units import Duration, Size


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Tcp(_Part):
    """Lines over TCP: an instrument's socket, or a serial server in raw mode."""

    transport: Literal["tcp"]
    host: str = Field(min_length=1, description="Name or address.")
    port: int = Field(5025, ge=1, le=65535)


class _Line(_Part):
    baudrate: int = Field(9600, ge=50, le=4_000_000, description="Bits a second.")
    bytesize: Literal[7, 8] = Field(8, description="Data bits.")
    parity: Literal["none", "even", "odd", "mark", "space"] = "none"
    stopbits: Literal[1, 2] = 1
    flow: Literal["none", "rtscts", "xonxoff"] = Field("none", description="Flow control.")
    dtr: bool | None = Field(None, description="What DTR is set to on opening; default: on.")
    rts: bool | None = Field(None, description="As dtr; not with flow: rtscts.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        both = self.rts is not None and self.flow == "rtscts"
        raise_all(
            type(self).__name__, iter([(("rts",), "flow: rtscts works this line by itself")] if both else [])
        )
        return self


class Serial(_Line):
    """A serial port of this machine, USB adapters included."""

    transport: Literal["serial"]
    port: str = Field(min_length=1, description="/dev/serial/by-id/... stays the same over a replug.")


class Rfc2217(_Line):
    """A serial port of another machine, whose settings go over Telnet too (RFC 2217)."""

    transport: Literal["rfc2217"]
    host: str = Field(min_length=1, description="Name or address.")
    port: int = Field(2217, ge=1, le=65535)


Connection = Annotated[Tcp | Serial | Rfc2217, Field(discriminator="transport")]


def _pattern(text: str) -> str:
    compiled(text)
    return text


def _command(text: str) -> str:
    if not is_line(text):
        raise ValueError("is one line without control characters: the terminator is the device's")
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
Command = Annotated[str, Field(min_length=1, max_length=MOST_TEXT), AfterValidator(_command)]
Ending = Annotated[str, Field(min_length=1, max_length=8)]


class Identify(_Part):
    """The query whose answer says what the instrument is (IEEE 488.2, 10.14).

    It is asked at connecting, and after an answer that did not come: what arrives before its own answer is
    known to be late and dropped.
    """

    query: Command = "*IDN?"
    expect: Pattern | None = Field(None, description="Pattern that the whole answer has to be of.")


class Errors(_Part):
    """The query that empties the instrument's error queue, one error an answer (SCPI-99, SYSTem:ERRor)."""

    query: Command = "SYST:ERR?"
    ok: Pattern = Field(r"[+-]?0(,.*)?", description="Pattern of the answer that means: no more errors.")
    most: int = Field(20, ge=1, le=1000, description="Answers after which it is given up.")


class Simulation(_Part):
    """How the instrument is simulated where its points do not say it."""

    identity: str | None = Field(None, description="Answer to `identify`; default hilgate,DEVICE,0,sim.")
    no_error: str = Field('0,"No error"', description="Answer to `errors` when there is none.")
    answers: Mapping[str, str] = Field(
        default_factory=dict, description="Query to its answer, with {point} for a value, {point:.3f} too."
    )


class TextDevice(DeviceConfig):
    """An instrument that is asked and answers in lines."""

    protocol: Literal["text"]
    connection: Connection
    points: Mapping[Name, TextPoint]
    terminator: Ending = Field(
        "\n",
        description='What ends an answer, such as "\\r\\n"; in double quotes.',
        json_schema_extra={"default": "\\n"},  # as people write it
    )
    write_terminator: Ending | None = Field(None, description="What ends a command; default: as terminator.")
    encoding: Literal["ascii", "latin-1", "utf-8"] = "ascii"
    echo: bool = Field(False, description="true: the instrument sends each command back, before its answer.")
    prompt: str | None = Field(
        None, min_length=1, max_length=32, description="What it sends when it is ready for the next command."
    )
    checksum: Checksum | None = None
    shared: bool = Field(False, description="true: several devices are on this line, each with its prefix.")
    prefix: str = Field("", max_length=32, description="Stands before each command, such as an address.")
    answer_prefix: str = Field(
        "", max_length=32, description="Stands before each answer; other lines are not this device's."
    )
    pause: Duration = Field(0.0, ge=0, le=60, description="From an answer, or a write, to the next command.")
    timeout: Duration = Field(1.0, gt=0, le=300, description="How long an answer may take.")
    connect_timeout: Duration = Field(3.0, gt=0, le=60, description="How long opening the line may take.")
    settle: Duration | None = Field(
        None, gt=0, le=300, description="How long the line is left silent after a timeout; default: timeout."
    )
    clear: str | None = Field(
        None, min_length=1, max_length=32, description='Sent after a timeout, as it is, such as "\\x03".'
    )
    max_line: Size = Field(1024, ge=16, le=65536, description="Longer lines are not taken.")
    identify: Identify | None = None
    init: tuple[Command, ...] = Field((), max_length=100, description="Commands sent at connecting.")
    errors: Errors | None = None
    simulation: Simulation = Simulation()

    def looked_at(self) -> Self | str:
        """Without what sets it (`init`, `clear`) and without emptying its list of errors."""
        return self.model_copy(update={"init": (), "clear": None, "errors": None})

    @model_validator(mode="after")
    def _fits(self) -> Self:
        raise_all(type(self).__name__, self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Wrong]:
        if self.shared and not self.prefix:
            yield ("prefix",), "devices on one line are told apart by it"
        for field in ("prefix", "answer_prefix", "prompt"):
            if not is_line(getattr(self, field) or ""):
                yield (field,), "has no control characters"
        for field in ("terminator", "write_terminator", "clear"):
            if not (getattr(self, field) or "").isascii():
                yield (field,), "is of ASCII characters"
        for field in ("prefix", "answer_prefix", "prompt"):
            if not self._encodes(getattr(self, field) or ""):
                yield (field,), f"is not {self.encoding}"
        for place, command in enumerate(self.init):
            if not self._encodes(command):
                yield ("init", place), f"is not {self.encoding}"
        if self.clear is not None and self.prompt is not None:
            yield ("clear",), "with a prompt it would wait for one that nobody asked for"
        for name, point in self.points.items():
            for field in ("query", "write"):
                if not self._encodes(getattr(point, field) or ""):
                    yield ("points", name, field), f"is not {self.encoding}"
            if point.block is not None and self.checksum is not None:
                yield ("points", name, "block"), "a block has no checksum"
        yield from self._query_mistakes()

    def _query_mistakes(self) -> Iterator[Wrong]:
        first: dict[str, TextPoint] = {}
        for name, point in self.points.items():
            if point.query is None:
                continue
            other = first.setdefault(point.query, point)
            if (point.block is None) != (other.block is None):
                yield (
                    ("points", name, "block"),
                    f"{other.name!r} has the same query: both are blocks, or none",
                )

    def _encodes(self, text: str) -> bool:
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return False
        return True

    @property
    def silence(self) -> float:
        """Seconds for which the line is left silent after a timeout."""
        return self.timeout if self.settle is None else self.settle
