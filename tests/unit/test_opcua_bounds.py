"""Lengths that a hostile server sends are held against the bytes that are there."""

import struct

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer, NotEnoughData
from asyncua.ua import ua_binary
from hypothesis import given
from hypothesis import strategies as st

import protocols.opcua.bounds  # noqa: F401  # what is tested is its effect

HUGE = struct.pack("<i", 2**31 - 1)
BACK = struct.pack("<i", -8)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80" + HUGE,  # an array of Null
        b"\x8c" + HUGE + BACK,  # an array of String, whose first goes back to the array's own length
        b"\x96" + HUGE + b"\x00\x00\x01" + BACK,  # an array of ExtensionObject, likewise
        b"\x0c" + BACK,
    ],
)
def test_no_length_goes_on_without_bytes(data: bytes) -> None:
    with pytest.raises(NotEnoughData):
        ua_binary.variant_from_binary(Buffer(data))


@given(
    st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=5),
    st.binary(max_size=5),
)
def test_what_is_right_is_read_as_ever(texts: list[str | None], after: bytes) -> None:
    packed = ua_binary.variant_to_binary(ua.Variant(texts, ua.VariantType.String, is_array=True))
    buffer = Buffer(packed + after)
    assert ua_binary.variant_from_binary(buffer).Value == texts
    assert len(buffer) == len(after)


def test_an_empty_array_of_null_is_one() -> None:
    assert ua_binary.variant_from_binary(Buffer(b"\x80" + bytes(4))).Value == []
