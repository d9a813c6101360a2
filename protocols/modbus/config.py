"""What a profile says of a Modbus device: its line, its quirks and its points."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from protocols.base import DeviceConfig, Kind, Name, Point, Value
from protocols.mistakes import Wrong, raise_all
from protocols.modbus.codec import PointCodec
from protocols.tls import TlsCredentials
from protocols.units import Duration

Table = Literal["coil", "discrete", "input", "holding"]
Order = Literal["ABCD", "BADC", "CDAB", "DCBA"]
DataType = Literal[
    "bool",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
    "bcd16",
    "bcd32",
    "string",
    "bytes",
]

ADDRESSES = 65536
"""Addresses in each table (Modbus Application Protocol V1.1b3, section 4.4)."""

_SCALABLE = {"int16", "uint16", "int32", "uint32", "int64", "uint64", "bcd16", "bcd32"}
_FLOATS = {"float16", "float32", "float64"}
_BIG = 1e30  # keeps every scaled 64-bit value far inside what a float can hold


def _bit_range(text: Any) -> Any:
    if isinstance(text, str):
        low, dots, high = text.partition("..")
        if dots and low.isdecimal() and high.isdecimal() and int(low) < int(high) <= 15:
            return int(low), int(high)
        raise ValueError("write the lowest and the highest bit, such as 4..7 (0 is the least significant)")
    return text


BitRange = Annotated[
    tuple[int, int],
    BeforeValidator(_bit_range),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,2}\.\.[0-9]{1,2}$", "examples": ["4..7"]}),
]


class ModbusPoint(Point):
    """One value in a table of a Modbus device."""

    table: Table = Field(description="coil and discrete hold bits, input and holding 16-bit registers.")
    address: int = Field(ge=0, le=ADDRESSES, description="Counted from the device's address_base.")
    bit: int | None = Field(None, ge=0, le=15, description="One bit of a register; 0 is the lowest.")
    bits: BitRange | None = Field(None, description="A field of bits of one register, such as 4..7.")
    type: DataType = Field("uint16", description="Default: bool for bits, uint16 for registers.")
    order: Order = Field("ABCD", description="Bytes as they arrive; A is the most significant.")
    length: int | None = Field(None, ge=1, le=250, description="Bytes of a string or of raw bytes.")
    scale: float = Field(1.0, description="value = raw * scale + offset")
    offset: float = Field(0.0, ge=-_BIG, le=_BIG, description="value = raw * scale + offset")
    labels: Mapping[int, str] | None = Field(None, description="Makes an enumeration: raw code to label.")

    @model_validator(mode="before")
    @classmethod
    def _bits_are_bool(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "type" in data:
            return data
        bits = data.get("table") in ("coil", "discrete") or data.get("bit") is not None
        return {**data, "type": "bool"} if bits else data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        raise_all(type(self).__name__, self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Wrong]:
        yield from self._type_mistakes()
        yield from self._number_mistakes()
        if self.table in ("discrete", "input") and self.access != "ro":
            yield ("access",), f"table {self.table} can only be read; use coil or holding, or access: ro"
        if self.labels is not None:
            yield from self._label_mistakes(self.labels)

    def _type_mistakes(self) -> Iterator[Wrong]:
        if self.is_bit and self.type != "bool":
            yield ("type",), f"table {self.table} holds bits: its only type is bool"
        if self.is_bit and (self.bit is not None or self.bits is not None):
            yield ("bit" if self.bit is not None else "bits",), "only registers have bits to pick"
        if not self.is_bit and self.bit is None and self.type == "bool":
            yield ("type",), "a bool in a register needs bit: 0 to 15"
        if self.bit is not None and self.bits is not None:
            yield ("bits",), "give either bit or bits"
        if not self.is_bit and self.bit is not None and self.type != "bool":
            yield ("type",), "a single bit is of type bool"
        if self.bits is not None and self.type != "uint16":
            yield ("type",), "a field of bits is of type uint16"
        if (self.type in ("string", "bytes")) != (self.length is not None):
            yield ("length",), "string and bytes need a length, and no other type takes one"
        if self.type in ("string", "bytes") and self.order not in ("ABCD", "BADC"):
            yield ("order",), "text and raw bytes have no word order: ABCD, or BADC for swapped bytes"

    def _number_mistakes(self) -> Iterator[Wrong]:
        number = self.type in _SCALABLE | _FLOATS and self.labels is None
        if not 1 / _BIG <= abs(self.scale) <= _BIG:
            yield ("scale",), f"the size of scale must be from {1 / _BIG:g} to {_BIG:g}"
        for field in ("scale", "offset", "min", "max"):
            if not number and field in self.model_fields_set and getattr(self, field) is not None:
                yield (field,), f"only numbers have a {field}"

    def _label_mistakes(self, labels: Mapping[int, str]) -> Iterator[Wrong]:
        if self.type not in _SCALABLE or self.type.startswith("bcd"):
            yield ("labels",), f"labels need an integer type, not {self.type}"
            return
        if len(set(labels.values())) != len(labels) or not labels:
            yield ("labels",), "give at least one label, each of them once"
        low, high = PointCodec.raw_range(self)
        for code in labels:
            if not low <= code <= high:
                yield ("labels", str(code)), f"the code does not fit: {low} to {high}"

    @property
    def is_bit(self) -> bool:
        """Lies in a table of bits, not of registers."""
        return self.table in ("coil", "discrete")

    @property
    def width(self) -> int:
        """How many addresses it takes: bits, or registers."""
        if self.is_bit:
            return 1
        return (PointCodec.size(self) + 1) // 2

    @property
    def kind(self) -> Kind:
        """The JSON type of the point's values."""
        if self.type == "bool":
            return "boolean"
        if self.labels is not None:
            return "enumeration"
        if self.type in ("string", "bytes"):
            return "string"
        return "integer" if self.codec.integral else "number"

    @property
    def choices(self) -> Sequence[str]:
        """The labels of an enumeration, else empty."""
        return tuple((self.labels or {}).values())

    @cached_property
    def codec(self) -> PointCodec:
        """Turns the point's registers into its value and back."""
        return PointCodec(self)

    def accept(self, value: Any) -> Value:
        """Extends `Point.accept` by what the type can hold after scale and offset.

        A number that rounding would carry over a limit is refused, so that `min` and `max` hold for what
        the device gets.

        Raises:
            Refused: `read-only`, `bad-type` or `out-of-range`.
        """
        good = super().accept(value)
        if self.is_bit:
            return good
        meaning = self.codec.meaning(good)
        if self.type in _SCALABLE and meaning != good:
            super().accept(meaning)
        return good


_UNIT = "The device's number on the line or behind the gateway."


class _Connection(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tcp(_Connection):
    """Modbus/TCP."""

    transport: Literal["tcp"]
    host: str = Field(min_length=1, description="Name or address.")
    port: int = Field(502, ge=1, le=65535)
    unit: int = Field(1, ge=0, le=255, description=_UNIT)


class Tls(_Connection):
    """Modbus/TCP Security: TLS, with a client certificate where `cert` is given."""

    transport: Literal["tls"]
    host: str = Field(min_length=1, description="Name or address.")
    port: int = Field(802, ge=1, le=65535)
    unit: int = Field(1, ge=0, le=255, description=_UNIT)
    ca: str | None = Field(None, description="File with the authorities to trust; default: the system's.")
    cert: str | None = Field(None, description="File with the client's certificate chain.")
    key: str | None = Field(None, description="File with the client's key; default: it stands in cert.")
    server_name: str | None = Field(None, description="Name in the server's certificate, if not the host.")
    verify: bool = Field(True, description="false: talk to whoever answers.")

    @model_validator(mode="after")
    def _key_has_cert(self) -> Self:
        raise_all("Tls", iter([(("key",), "a key needs its cert")] if self.key and not self.cert else []))
        return self


class Rtu(_Connection):
    """Modbus RTU on a serial port."""

    transport: Literal["rtu"]
    port: str = Field(min_length=1, description="Such as /dev/ttyUSB0 or /dev/serial/by-id/...")
    unit: int = Field(1, ge=1, le=247, description=_UNIT)
    baudrate: int = Field(19200, ge=50, le=4_000_000, description="Bits a second.")
    parity: Literal["none", "even", "odd"] = "even"
    stopbits: Literal[1, 2] = 1


class RtuTcp(_Connection):
    """Modbus RTU frames over TCP, as simple serial servers give them."""

    transport: Literal["rtu-tcp"]
    host: str = Field(min_length=1, description="Name or address.")
    port: int = Field(ge=1, le=65535)
    unit: int = Field(1, ge=1, le=247, description=_UNIT)


Connection = Annotated[Tcp | Tls | Rtu | RtuTcp, Field(discriminator="transport")]


class ModbusDevice(DeviceConfig):
    """A Modbus device: a unit behind a line, and how it wants to be spoken to."""

    protocol: Literal["modbus"]
    connection: Connection
    address_base: Literal[0, 1] = Field(description="Whether the first address is written as 0 or as 1.")
    points: Mapping[Name, ModbusPoint]
    timeout: Duration = Field(1.0, gt=0, le=60, description="How long an answer may take.")
    connect_timeout: Duration = Field(3.0, gt=0, le=60, description="How long opening the line may take.")
    retries: int = Field(0, ge=0, le=5, description="How often a read is asked again; a write never is.")
    depth: int = Field(
        1,
        ge=1,
        le=64,
        description="Requests under way at once; tcp and tls only.",
    )
    pause_after_connect: Duration = Field(0.0, ge=0, le=60, description="From opening to the first request.")
    pause_between_requests: Duration = Field(
        0.0, ge=0, le=60, description="From an answer to the next request."
    )
    one_request_per_point: bool = Field(False, description="For devices that take no others.")
    max_registers: int = Field(125, ge=1, le=125, description="Most registers in one request.")
    max_bits: int = Field(2000, ge=1, le=2000, description="Most bits in one request.")
    gap: int = Field(
        4, ge=0, le=124, description="Registers that may be read over to save a request; for bits 16 each."
    )
    mask_write: Literal["auto", "yes", "no"] = Field(
        "auto", description="Function 22 for bits of a register; auto: until the device says it has none."
    )

    def looked_at(self) -> Self | str:
        """As it is: connecting opens the line and reads once."""
        return self

    def credentials(self) -> TlsCredentials | None:
        """The files of its TLS."""
        return TlsCredentials(self.connection, self.folder) if isinstance(self.connection, Tls) else None

    @model_validator(mode="after")
    def _points_fit(self) -> Self:
        raise_all(type(self).__name__, self._mistakes())
        return self

    def _mistakes(self) -> Iterator[Wrong]:
        if self.depth > 1 and isinstance(self.connection, Rtu | RtuTcp):
            yield ("depth",), "an RTU line takes one request at a time"
        for name, point in self.points.items():
            start = point.address - self.address_base
            if start < 0:
                yield ("points", name, "address"), "with address_base: 1 the first address is 1"
            if start + point.width > ADDRESSES:
                last = ADDRESSES - point.width + self.address_base
                yield ("points", name, "address"), f"reaches past the end of the table: at most {last}"
            if not point.is_bit and point.width > self.max_registers:
                yield ("points", name), f"takes {point.width} registers, over the device's max_registers"
