"""What a profile says of an outstation: its channel, its addresses, what is polled when, and its points."""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from protocols.base import DeviceConfig, Name
from protocols.dnp3.objects import FlagName
from protocols.dnp3.point import Dnp3Point
from protocols.mistakes import Wrong, raise_all
from protocols.tls import TlsCredentials
from protocols.units import Duration

HIGHEST_ADDRESS = 65519
"""Link addresses above are broadcasts or reserved (IEEE 1815-2012, 9.2.4.1.4)."""

EventClass = Literal[1, 2, 3]
_Address = Annotated[int, Field(ge=0, le=HIGHEST_ADDRESS)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _host_address(text: str) -> str:
    return str(ipaddress.ip_address(text))


class _Network(_Part):
    host: str = Field(
        min_length=1, description="Name or address; with role: listen the address to listen on."
    )
    port: int = Field(20000, ge=1, le=65535)
    role: Literal["connect", "listen"] = Field(
        "connect", description="listen: the outstation calls us, as ones behind a modem do."
    )
    accept_from: Sequence[Annotated[str, AfterValidator(_host_address)]] = Field(
        (), description="With role: listen, the only addresses that may call; by default all."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        raise_all(type(self).__name__, self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Wrong]:
        if self.accept_from and self.role == "connect":
            yield ("accept_from",), "only a listening end is called: set role: listen"


class Tcp(_Network):
    """DNP3 over TCP (IEEE 1815-2012, clause 13)."""

    transport: Literal["tcp"]


class Tls(_Network):
    """DNP3 over TLS (IEEE 1815-2012, 13.5; IEC 62351-3), with mutual authentication where `cert` is given."""

    transport: Literal["tls"]
    ca: str | None = Field(None, description="File with the authorities to trust; default: the system's.")
    cert: str | None = Field(None, description="File with our certificate chain.")
    key: str | None = Field(None, description="File with our key; default: it stands in cert.")
    server_name: str | None = Field(
        None, description="Name in the outstation's certificate, if not the host."
    )
    verify: bool = Field(True, description="false: talk to whoever answers.")

    def _mistakes(self) -> Iterator[Wrong]:
        yield from super()._mistakes()
        if self.key and not self.cert:
            yield ("key",), "a key needs its cert"
        if self.role == "listen" and not self.cert:
            yield ("cert",), "the listening end of TLS needs a certificate"


class Serial(_Part):
    """DNP3 on a serial line."""

    transport: Literal["serial"]
    port: str = Field(min_length=1, description="Such as /dev/ttyUSB0 or /dev/serial/by-id/...")
    baudrate: int = Field(9600, ge=50, le=4_000_000, description="Bits a second.")
    parity: Literal["none", "even", "odd"] = "none"
    stopbits: Literal[1, 2] = 1


Connection = Annotated[Tcp | Tls | Serial, Field(discriminator="transport")]

Period = Annotated[Duration, Field(gt=0)] | Literal["never"]


class Polls(_Part):
    """What is asked for without a command, and how often."""

    class_1: Period | None = Field(None, description="Events of class 1; default: the device's poll.")
    class_2: Period | None = Field(None, description="Events of class 2; default: the device's poll.")
    class_3: Period | None = Field(None, description="Events of class 3; default: the device's poll.")
    integrity: Period = Field(3600.0, description="Events and present values of everything.")


class Simulation(_Part):
    """The outstation when it is simulated."""

    event_buffer: int = Field(1000, ge=1, le=65535, description="Events that each class holds.")
    select_timeout: Duration = Field(10.0, gt=0, le=3600, description="How long a select stays armed.")
    operate_delay: Duration = Field(
        0.1, ge=0, le=3600, description="Until a feedback point follows its control."
    )
    local: Name | None = Field(
        None, description="A binary_input: while it is true, controls are refused as local."
    )
    need_time: bool = Field(True, description="Ask for the time at the start.")
    deadband: float = Field(
        0.0, ge=0, description="By how much a number changes, raw, before it is an event."
    )
    classes: Mapping[Name, Literal[0, 1, 2, 3]] = Field(
        default_factory=dict,
        description="Class of a point's events; default: binaries 1, numbers 2, the rest 3.",
    )


class Dnp3Device(DeviceConfig):
    """An outstation, alone on its channel or one of several."""

    protocol: Literal["dnp3"]
    connection: Connection
    outstation: _Address = Field(description="The outstation's link address.")
    master: _Address = Field(1, description="Our link address, as the outstation has it set.")
    points: Mapping[Name, Dnp3Point]
    polls: Polls = Polls()
    unsolicited: Sequence[EventClass] = Field(
        (1, 2, 3),
        description="Classes that the outstation may report without being asked; [] switches it off.",
    )
    timeout: Duration = Field(
        5.0, gt=0, le=300, description="How long a response, or the next part of it, may take."
    )
    connect_timeout: Duration = Field(3.0, gt=0, le=60, description="How long opening the channel may take.")
    retries: int = Field(0, ge=0, le=5, description="How often a read is asked again; a control never is.")
    keep_alive: Period = Field(30.0, description="After so long a silence the link's status is asked for.")
    time_sync: Literal["lan", "non-lan", "never"] = Field(
        "lan", description="How the clock is set when the outstation asks for the time."
    )
    event_time: Literal["outstation", "gateway"] = Field(
        "outstation", description="Whose clock stamps events; gateway: when they came."
    )
    tolerate: Sequence[FlagName] = Field(
        ("remote-forced", "local-forced", "rollover", "discontinuity"),
        description="Quality flags with which a value still counts as good.",
    )
    max_fragment: int = Field(2048, ge=249, le=65536, description="Largest response fragment in octets.")
    simulation: Simulation = Simulation()

    def looked_at(self) -> Self | str:
        """No way: a master's first request is that nothing is reported unasked."""
        return "a master's first request would switch its unsolicited responses off"

    def credentials(self) -> TlsCredentials | None:
        """The files of its TLS."""
        if not isinstance(self.connection, Tls):
            return None
        return TlsCredentials(self.connection, self.folder, listens=self.connection.role == "listen")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        raise_all(type(self).__name__, self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Wrong]:
        if self.master == self.outstation:
            yield ("master",), "master and outstation are two stations: give them two addresses"
        if len(set(self.unsolicited)) < len(self.unsolicited):
            yield ("unsolicited",), "name each class once"
        if "online" in self.tolerate:
            yield ("tolerate",), "online is no fault; leave it out"
        yield from self._point_mistakes()
        yield from self._simulation_mistakes()

    def _point_mistakes(self) -> Iterator[Wrong]:
        taken: dict[tuple[str, int, str], str] = {}
        for name, point in self.points.items():
            other = taken.setdefault((point.type, point.index, point.field), name)
            if other != name:
                text = f"{point.type} {point.index} is {other!r} already"
                yield ("points", name, "index"), text
            feedback = point.feedback
            if feedback is None:
                continue
            shown = self.points.get(feedback.point)
            where = ("points", name, "feedback", "point")
            if shown is None:
                yield where, f"no point is called {feedback.point!r}"
            elif not shown.readable or shown.field == "flags" or feedback.point == name:
                yield where, f"{feedback.point!r} cannot show it: take another point that can be read"
            elif not _comparable(point, shown):
                yield (
                    where,
                    f"{feedback.point!r} (type {shown.kind}) cannot show a value of type {point.kind}",
                )

    def _simulation_mistakes(self) -> Iterator[Wrong]:
        for name in self.simulation.classes:
            if name not in self.points:
                yield ("simulation", "classes", name), f"no point is called {name!r}"
        local = self.simulation.local
        if local is not None and (local not in self.points or self.points[local].type != "binary_input"):
            yield ("simulation", "local"), f"{local!r} is not a binary_input of this device"


def _comparable(control: Dnp3Point, shown: Dnp3Point) -> bool:
    if control.type == "binary_output":
        return shown.kind == "boolean" or shown.type == "double_bit_input"
    return shown.kind in ("number", "integer")
