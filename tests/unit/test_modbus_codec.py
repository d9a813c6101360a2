"""The codec: every type in every order there and back, and blocks like their points one by one."""

import itertools
import math
import struct
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.base import Quality, Refused
from protocols.modbus.codec import compile_bits, compile_registers, pack_bits, swap_bytes, unpack_bits
from protocols.modbus.config import ModbusDevice, ModbusPoint

ORDERS = ["ABCD", "BADC", "CDAB", "DCBA"]
RANGES = {
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint64": (0, 2**64 - 1),
    "bcd16": (0, 9999),
    "bcd32": (0, 99999999),
}
SIZES = {"int16": 2, "uint16": 2, "bcd16": 2, "float16": 2, "int64": 8, "uint64": 8, "float64": 8}


def points(**fields: dict[str, Any]) -> dict[str, ModbusPoint]:
    device = {
        "protocol": "modbus",
        "connection": {"transport": "tcp", "host": "plc.example"},
        "address_base": 0,
        "points": {
            name: {"table": "holding", "address": 0, "access": "rw"} | point for name, point in fields.items()
        },
    }
    return dict(ModbusDevice.model_validate(device).points)


def point(**fields: Any) -> ModbusPoint:
    return points(p=fields)["p"]


@pytest.mark.parametrize(
    ("type_", "order", "raw", "value"),
    [
        ("uint32", "ABCD", "01020304", 0x01020304),
        ("uint32", "BADC", "02010403", 0x01020304),
        ("uint32", "CDAB", "03040102", 0x01020304),
        ("uint32", "DCBA", "04030201", 0x01020304),
        ("uint16", "ABCD", "0102", 0x0102),
        ("uint16", "BADC", "0201", 0x0102),
        ("uint16", "CDAB", "0102", 0x0102),
        ("uint16", "DCBA", "0201", 0x0102),
        ("uint64", "ABCD", "0102030405060708", 0x0102030405060708),
        ("uint64", "BADC", "0201040306050807", 0x0102030405060708),
        ("uint64", "CDAB", "0708050603040102", 0x0102030405060708),
        ("uint64", "DCBA", "0807060504030201", 0x0102030405060708),
        ("float32", "ABCD", "42f6e979", struct.unpack(">f", bytes.fromhex("42f6e979"))[0]),
        ("float32", "CDAB", "e97942f6", struct.unpack(">f", bytes.fromhex("42f6e979"))[0]),
        ("bcd32", "ABCD", "12345678", 12345678),
        ("bcd32", "CDAB", "56781234", 12345678),
        ("int16", "ABCD", "ff85", -123),
    ],
)
def test_orders_are_those_of_the_field(type_: str, order: str, raw: str, value: float) -> None:
    codec = point(type=type_, order=order).codec
    assert codec.decode(bytes.fromhex(raw)) == value
    assert codec.encode(value).hex() == raw


@given(st.data(), st.sampled_from(sorted(RANGES)), st.sampled_from(ORDERS))
def test_integers_come_back_exactly(data: st.DataObject, type_: str, order: str) -> None:
    value = data.draw(st.integers(*RANGES[type_]))
    subject = point(type=type_, order=order)
    assert subject.accept(value) == value
    assert subject.codec.decode(subject.codec.encode(value)) == value
    assert type(subject.codec.decode(subject.codec.encode(value))) is int


@pytest.mark.parametrize("type_", sorted(RANGES))
def test_integers_out_of_range_are_refused(type_: str) -> None:
    low, high = RANGES[type_]
    for value in (low - 1, high + 1):
        with pytest.raises(Refused) as refused:
            point(type=type_).accept(value)
        assert refused.value.code == "out-of-range"


@given(st.data(), st.sampled_from([16, 32, 64]), st.sampled_from(ORDERS))
def test_floats_come_back_exactly(data: st.DataObject, width: Literal[16, 32, 64], order: str) -> None:
    value = data.draw(st.floats(width=width, allow_nan=False, allow_infinity=False))
    codec = point(type=f"float{width}", order=order).codec
    assert codec.decode(codec.encode(value)) == value


@pytest.mark.parametrize(("type_", "value"), [("float16", 70000.0), ("float32", 1e39), ("float32", 10**400)])
def test_a_float_that_does_not_fit_is_refused(type_: str, value: float) -> None:
    with pytest.raises(Refused) as refused:
        point(type=type_).accept(value)
    assert refused.value.code == "out-of-range"


@pytest.mark.parametrize("special", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_bad(special: float) -> None:
    assert point(type="float32").codec.decode(struct.pack(">f", special)) is Quality.NOT_A_NUMBER


@given(
    st.integers(0, 65535), st.sampled_from([0.1, 0.01, 0.001, 0.25, 0.3, 5.0, -0.1]), st.integers(-100, 100)
)
def test_scaled_values_are_the_nearest_to_the_decimal_ones(raw: int, scale: float, offset: int) -> None:
    from decimal import Decimal

    codec = point(type="uint16", scale=scale, offset=offset).codec
    value = codec.decode(raw.to_bytes(2))
    assert isinstance(value, int | float)
    assert float(value) == float(Decimal(raw) * Decimal(str(scale)) + offset)
    assert codec.encode(value) == raw.to_bytes(2)


def test_rounding_is_what_the_register_holds() -> None:
    assert point(scale=0.1).codec.meaning(1500.04) == 1500.0


def test_rounding_does_not_carry_a_value_over_its_limit() -> None:
    with pytest.raises(Refused) as refused:
        point(scale=0.1, max=2.98).accept(2.97)
    assert refused.value.code == "out-of-range"


def test_kinds() -> None:
    kinds: dict[str, dict[str, Any]] = {
        "number": {"scale": 0.1},
        "integer": {"scale": 10, "offset": 3},
        "boolean": {"bit": 4},
        "enumeration": {"labels": {0: "off", 1: "on"}},
        "string": {"type": "string", "length": 4},
    }
    for kind, fields in kinds.items():
        assert point(**fields).kind == kind
    assert point(type="float32").kind == "number"
    assert point(table="coil").kind == "boolean"


def test_enumerations_are_their_labels() -> None:
    subject = point(labels={0: "off", 7: "on"})
    assert subject.codec.decode(b"\0\x07") == "on"
    assert subject.codec.decode(b"\0\x01") is Quality.OUT_OF_RANGE
    assert subject.codec.encode("on") == b"\0\x07"
    with pytest.raises(Refused) as refused:
        subject.accept("auto")
    assert refused.value.code == "out-of-range"


def test_a_bcd_digit_over_nine_is_bad() -> None:
    assert point(type="bcd16").codec.decode(b"\x12\x3a") is Quality.OUT_OF_RANGE


@given(st.text(max_size=12), st.sampled_from(["ABCD", "BADC"]))
def test_text_comes_back_or_is_refused(text: str, order: str) -> None:
    subject = point(type="string", length=11, order=order)
    try:
        subject.accept(text)
    except Refused as refused:
        assert refused.code == "out-of-range"
        assert "\0" in text or len(text.encode(errors="surrogatepass")) > 11 or not text.isprintable()
    else:
        assert subject.codec.meaning(text) == text.rstrip(" ")


def test_text_ends_at_nul_and_blanks() -> None:
    codec = point(type="string", length=6).codec
    assert codec.decode(b"ab\0xyz") == "ab"
    assert codec.decode(b"ab    ") == "ab"
    assert codec.decode(b"\xff\xfeabcd") is Quality.OUT_OF_RANGE


@given(st.binary(min_size=5, max_size=5), st.sampled_from(["ABCD", "BADC"]))
def test_bytes_are_hexadecimal_text(data: bytes, order: str) -> None:
    codec = point(type="bytes", length=5, order=order).codec
    assert codec.decode(codec.encode(data.hex())) == data.hex()


@pytest.mark.parametrize(("text", "code"), [("xy", "bad-type"), ("0102", "out-of-range")])
def test_wrong_bytes_are_refused(text: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        point(type="bytes", length=5).accept(text)
    assert refused.value.code == code


@given(st.integers(0, 65535), st.integers(0, 15), st.sampled_from(ORDERS))
def test_bits_of_a_register(raw: int, bit: int, order: str) -> None:
    codec = point(bit=bit, order=order).codec
    data = raw.to_bytes(2)
    as_number = int.from_bytes(swap_bytes(data) if order in ("BADC", "DCBA") else data)
    assert codec.decode(data) is bool(as_number >> bit & 1)
    assert int.from_bytes(codec.encode(True)) == codec.wire_mask
    assert codec.encode(False) == b"\0\0"


@given(st.integers(0, 65535), st.integers(0, 14), st.data())
def test_fields_of_a_register(raw: int, low: int, data: st.DataObject) -> None:
    high = data.draw(st.integers(low + 1, 15))
    codec = point(bits=f"{low}..{high}").codec
    value = codec.decode(raw.to_bytes(2))
    assert value == raw >> low & (1 << high - low + 1) - 1
    assert int.from_bytes(codec.encode(value)) == raw & codec.wire_mask


VARIANTS: list[dict[str, Any]] = [
    *({"type": type_, "order": order} for type_ in RANGES for order in ORDERS),
    *({"type": type_, "order": order} for type_ in ("float16", "float32", "float64") for order in ORDERS),
    {"type": "int16", "scale": 0.1},
    {"type": "int32", "scale": 10, "offset": 1, "order": "CDAB"},
    {"type": "float32", "scale": 0.5, "offset": 1},
    {"type": "string", "length": 5},
    {"type": "bytes", "length": 3, "order": "BADC"},
    {"bit": 3},
    {"bits": "2..5", "order": "DCBA"},
    {"labels": {0: "off", 1: "on"}},
]


@given(st.lists(st.tuples(st.sampled_from(VARIANTS), st.integers(0, 40)), min_size=1), st.data())
def test_a_block_decodes_like_its_points_one_by_one(
    chosen: list[tuple[dict[str, Any], int]], data: st.DataObject
) -> None:
    made = points(**{f"p{number}": fields for number, (fields, _) in enumerate(chosen)})
    offsets = [offset for _, offset in chosen]
    size = max(offset + made[f"p{n}"].width for n, offset in enumerate(offsets)) * 2
    raw = data.draw(st.binary(min_size=size, max_size=size))
    values, bad = compile_registers(list(made.values()), offsets)(raw)
    expected = {
        name: one.codec.decode(raw[offset * 2 : (offset + one.width) * 2])
        for (name, one), offset in zip(made.items(), offsets, strict=True)
    }
    assert values == {name: v for name, v in expected.items() if not isinstance(v, Quality)}
    assert bad == {name: v for name, v in expected.items() if isinstance(v, Quality)}


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_bits_are_packed_lowest_first(bits: list[bool]) -> None:
    packed = pack_bits(bits)
    assert unpack_bits(packed)[: len(bits)] == bits
    assert [bool(packed[n // 8] >> n % 8 & 1) for n in range(len(bits))] == bits


def test_a_block_of_bits() -> None:
    made = points(a={"table": "coil"}, b={"table": "coil"})
    assert compile_bits(list(made.values()), [9, 0])(b"\x01\x00") == ({"a": False, "b": True}, {})
    assert compile_bits([made["a"]], [0])(b"\x01") == ({"a": True}, {})


def test_swapping_twice_changes_nothing() -> None:
    for size in range(0, 20, 2):
        data = bytes(itertools.islice(itertools.cycle(range(256)), size))
        assert swap_bytes(swap_bytes(data)) == data
