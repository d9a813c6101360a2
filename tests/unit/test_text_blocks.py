"""Binary blocks and checksums: made, taken apart, and hostile."""

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.text.blocks import Block, BlockError, definite, head
from protocols.text.checksums import Algorithm, Checksum, ChecksumError


def test_heads() -> None:
    found = head(b"#15hello\n", 100)
    assert found is not None
    assert (found.start, found.length) == (3, 5)
    found = head(b"#0abc", 100)
    assert found is not None
    assert (found.start, found.length) == (2, None)
    assert head(b"", 9) is None
    assert head(b"#", 9) is None
    assert head(b"#3", 9) is None
    assert head(b"#312", 9) is None


@pytest.mark.parametrize("data", [b"1.5", b"#a", b"#1x", b"#2 7", b"#210", b"#9999999999"])
def test_what_is_no_block(data: bytes) -> None:
    with pytest.raises(BlockError):
        head(data, 9)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_no_bytes_make_head_fail(data: bytes) -> None:
    try:
        found = head(data, 100)
    except BlockError:
        return
    assert found is None or found.length is None or found.length <= 100


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_a_block_comes_back(data: bytes) -> None:
    whole = definite(data)
    found = head(whole, 1000)
    assert found is not None
    assert found.length is not None
    assert whole[found.start : found.start + found.length] == data
    for cut in range(found.start):
        assert head(whole[:cut], 1000) is None


@pytest.mark.parametrize("order", ["big", "little"])
@pytest.mark.parametrize(
    ("items", "code"),
    [("int8", "b"), ("uint16", "H"), ("int32", "i"), ("uint64", "Q"), ("float32", "f"), ("float64", "d")],
)
def test_items_are_as_struct_has_them(items: Any, code: str, order: Any) -> None:
    block = Block(items=items, order=order)
    data = struct.pack((">" if order == "big" else "<") + code * 3, 0, 1, 100)
    assert block.decode(data) == [0, 1, 100]
    assert block.encode([0, 1, 100]) == data


# The check values of the ASCII digits 1 to 9, as catalogues of CRCs give them.
CHECKS: list[tuple[Algorithm, str]] = [
    ("xor", "31"),
    ("sum8", "DD"),
    ("sum8-2c", "23"),
    ("lrc", "23"),
    ("crc8", "F4"),
    ("crc16-modbus", "4B37"),
]


@pytest.mark.parametrize(("algorithm", "check"), CHECKS)
def test_check_values(algorithm: Algorithm, check: str) -> None:
    assert Checksum(algorithm=algorithm).add(b"123456789") == b"123456789" + check.encode()
    assert Checksum(algorithm=algorithm, format="raw").add(b"123456789")[9:] == bytes.fromhex(check)


def test_where_a_checksum_stands_and_what_it_covers() -> None:
    nmea = Checksum(algorithm="xor", template="${text}*{checksum}", over="text")
    # A sentence as NMEA 0183 receivers send it.
    sentence = b"$GPGLL,5057.970,N,00146.110,E,142451,A*27"
    assert nmea.strip(sentence) == sentence[1:-3]
    assert nmea.add(sentence[1:-3]) == sentence
    swapped = Checksum(algorithm="crc16-modbus", order="little", format="lower-hex")
    assert swapped.add(b"123456789") == b"123456789374b"


@pytest.mark.parametrize(
    "line", [b"", b"$", b"$A*", b"$A*4", b"$A*42", b"A*41", b"$A41", b"$A*41x", b"$A*zz", b"*41"]
)
def test_lines_that_their_checksum_denies(line: bytes) -> None:
    with pytest.raises(ChecksumError):
        Checksum(algorithm="xor", template="${text}*{checksum}", over="text").strip(line)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=60),
    st.sampled_from([algorithm for algorithm, _ in CHECKS]),
    st.sampled_from(["hex", "lower-hex", "raw"]),
    st.sampled_from(["{text}{checksum}", "${text}*{checksum}", "<{text}|{checksum}>"]),
    st.sampled_from(["before", "text"]),
)
def test_a_checksum_comes_off_as_it_went_on(
    text: bytes, algorithm: Algorithm, form: Any, template: str, over: Any
) -> None:
    checksum = Checksum(algorithm=algorithm, format=form, template=template, over=over)
    line = checksum.add(text)
    assert checksum.strip(line) == text
    if text:
        changed = bytearray(line)
        changed[line.index(text)] ^= 0x01
        with pytest.raises(ChecksumError):
            checksum.strip(bytes(changed))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_no_line_makes_strip_fail(line: bytes) -> None:
    for form in ("hex", "raw"):
        try:
            Checksum(algorithm="crc16-modbus", format=form, template="<{text}{checksum}>").strip(line)
        except ChecksumError:
            continue
