"""Answers of the kernel about interfaces: those of real CAN controllers by the layout of the headers."""

import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.can.bus import BusState
from protocols.can.buses import netlink
from protocols.can.buses.netlink import Link, link, make_vcan, parse_link, parse_messages, remove


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def u32(*numbers: int) -> bytes:
    return struct.pack(f"={len(numbers)}I", *numbers)


def answer(kind: str, data: bytes, xstats: bytes = b"", up: bool = True, hardware: int = 280) -> bytes:
    info = attribute(1, kind.encode() + b"\0") + attribute(0x8000 | 2, data)
    if xstats:
        info += attribute(3, xstats)
    return (
        struct.pack("=BxHiII", 0, hardware, 7, 0x40000 | up, 0)
        + attribute(3, b"can0\0")
        + attribute(4, u32(72))
        + attribute(0x8000 | 18, info)
    )


CAN_DATA = (
    attribute(1, u32(500_000, 875, 125, 6, 7, 2, 1, 5))
    + attribute(9, u32(2_000_000, 750, 125, 1, 1, 1, 1, 1))
    + attribute(4, u32(2))
    + attribute(5, u32(0, 0x02 | 0x20 | 0x10))
    + attribute(8, struct.pack("=HH", 130, 96))
)


def test_all_that_a_controller_tells_is_read() -> None:
    payload = answer("can", CAN_DATA, xstats=u32(9, 9, 9, 9, 9, 3))
    assert parse_link(payload) == Link(
        name="can0",
        is_can=True,
        up=True,
        mtu=72,
        kind="can",
        state=BusState.PASSIVE,
        bitrate=500_000,
        data_bitrate=2_000_000,
        listen_only=True,
        fd=True,
        tx_errors=130,
        rx_errors=96,
        restarts=3,
    )


def test_a_virtual_interface_tells_no_more_than_that_it_is_there() -> None:
    found = parse_link(answer("vcan", b"", up=False))
    assert found == Link(name="can0", is_can=True, up=False, mtu=72, kind="vcan")


def test_a_bit_rate_that_was_never_set_is_none() -> None:
    found = parse_link(answer("can", attribute(1, u32(0, 0, 0, 0, 0, 0, 0, 0))))
    assert found.bitrate is None


@pytest.mark.parametrize(
    ("number", "state"),
    [
        (0, BusState.ACTIVE),
        (1, BusState.WARNING),
        (3, BusState.BUS_OFF),
        (4, BusState.STOPPED),
        (5, BusState.STOPPED),
        (6, BusState.UNKNOWN),
    ],
)
def test_states_have_the_kernels_numbers(number: int, state: BusState) -> None:
    assert parse_link(answer("can", attribute(4, u32(number)))).state is state


def test_the_data_of_other_kinds_is_not_taken_for_that_of_can() -> None:
    assert parse_link(answer("vlan", CAN_DATA, hardware=1)).bitrate is None


@pytest.mark.parametrize("cut", [1, 4, 17, 40, 90])
def test_an_answer_that_is_cut_off_is_told(cut: int) -> None:
    with pytest.raises(OSError, match="cannot be read") as caught:
        parse_link(answer("can", CAN_DATA)[:-cut])
    assert caught.value.errno == errno.EBADMSG


@given(st.binary(max_size=200))
def test_whatever_the_kernel_says_is_a_link_or_an_error(data: bytes) -> None:
    for parse in (parse_link, lambda data: list(parse_messages(data))):
        try:
            parse(data)
        except OSError as error:
            assert error.errno == errno.EBADMSG


@given(st.integers(0, len(answer("can", CAN_DATA)) - 1), st.integers(0, 255))
def test_an_answer_with_a_wrong_byte_is_a_link_or_an_error(index: int, byte: int) -> None:
    data = bytearray(answer("can", CAN_DATA, xstats=u32(9, 9, 9, 9, 9, 3)))
    data[index] = byte
    try:
        found = parse_link(bytes(data))
    except OSError as error:
        assert error.errno == errno.EBADMSG
    else:
        assert isinstance(found, Link)


def test_messages_are_split_at_their_padded_lengths() -> None:
    def one(kind: int, payload: bytes) -> bytes:
        return struct.pack("=IHHII", 16 + len(payload), kind, 0, 1, 0) + payload + bytes(-len(payload) % 4)

    assert list(parse_messages(one(16, b"abcde") + one(3, u32(0)))) == [(16, b"abcde"), (3, u32(0))]


def test_the_loopback_of_this_machine_is_found_and_is_no_bus() -> None:
    loopback = link("lo")
    assert (loopback.name, loopback.is_can, loopback.mtu > 0) == ("lo", False, True)
    assert "lo" in [name for _, name in socket.if_nameindex()]
    assert "lo" not in [one.name for one in netlink.can_links()]


def test_an_interface_that_is_not_there_has_an_error_number() -> None:
    with pytest.raises(OSError, match="there is no interface nosuch0") as caught:
        link("nosuch0")
    assert caught.value.errno == errno.ENODEV


@pytest.mark.parametrize("name", ["", "a-name-of-16-byte"])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    for act in (link, make_vcan, remove):
        with pytest.raises(OSError, match="1 to 15 bytes"):
            act(name)
