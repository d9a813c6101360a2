"""Error frames: what they say of the controller, in states and in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.can.bus import BusState
from protocols.can.buses.errors import Controller, describe
from protocols.can.buses.netlink import Link
from protocols.can.frame import ERROR, Frame


def error(classes: int, *data: int) -> Frame:
    return Frame(0, ERROR | classes, bytes(data).ljust(8, b"\0"))


@pytest.mark.parametrize(
    ("frame", "state"),
    [
        (error(0x004, 0, 0x04), BusState.WARNING),
        (error(0x004, 0, 0x08), BusState.WARNING),
        (error(0x004, 0, 0x10), BusState.PASSIVE),
        (error(0x004, 0, 0x20), BusState.PASSIVE),
        (error(0x004, 0, 0x04 | 0x20), BusState.PASSIVE),
        (error(0x004, 0, 0x40), BusState.ACTIVE),
        (error(0x040), BusState.BUS_OFF),
        (error(0x040 | 0x004, 0, 0x10), BusState.BUS_OFF),
        (error(0x100), BusState.ACTIVE),
    ],
)
def test_a_state_is_told_by_class_and_status(frame: Frame, state: BusState) -> None:
    controller = Controller()
    assert controller.take(frame)
    assert controller.state is state


def test_the_same_state_again_is_no_change_but_a_restart_always_is() -> None:
    controller = Controller()
    assert controller.take(error(0x040))
    assert not controller.take(error(0x040))
    assert controller.take(error(0x100))
    assert controller.take(error(0x100))
    assert controller.restarts == 2


@pytest.mark.parametrize(
    "frame", [error(0x002, 5), error(0x088, 0, 0, 0x04), error(0x004, 0, 0x01), error(0x020)]
)
def test_single_errors_are_no_state(frame: Frame) -> None:
    controller = Controller()
    assert not controller.take(frame)
    assert controller.state is BusState.UNKNOWN


def test_counters_are_taken_only_where_the_frame_says_that_it_has_them() -> None:
    controller = Controller()
    controller.take(error(0x008, 0, 0, 0, 0, 0, 0, 12, 13))
    assert (controller.tx_errors, controller.rx_errors) == (None, None)
    controller.take(error(0x200, 0, 0, 0, 0, 0, 0, 96, 3))
    assert (controller.tx_errors, controller.rx_errors) == (96, 3)


def test_a_data_frame_says_nothing() -> None:
    controller = Controller()
    assert not controller.take(Frame(0, 0x040, bytes(8)))
    assert controller.state is BusState.UNKNOWN


def test_what_the_driver_tells_counts_and_what_it_does_not_tell_stays() -> None:
    controller = Controller()
    controller.take(error(0x240, 0, 0, 0, 0, 0, 0, 96, 3))
    controller.know(Link("vcan0", True, True, 72, "vcan"))
    assert (controller.state, controller.tx_errors) == (BusState.BUS_OFF, 96)
    controller.know(
        Link("can0", True, True, 16, "can", state=BusState.ACTIVE, tx_errors=0, rx_errors=1, restarts=4)
    )
    assert (controller.state, controller.tx_errors, controller.rx_errors) == (BusState.ACTIVE, 0, 1)
    controller.take(error(0x100))
    assert controller.restarts == 5


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (error(0x001), "transmission timed out in the driver"),
        (error(0x002), "arbitration lost"),
        (error(0x002, 11), "arbitration lost (in bit 11)"),
        (error(0x004, 0, 0x21), "controller (receive buffer overflow, error passive by transmit errors)"),
        (
            error(0x088, 0, 0, 0x84, 0x08),
            "protocol violation (bit stuffing error, on transmission, in CRC); bus error",
        ),
        (error(0x008, 0, 0, 0, 0x1F), "protocol violation (in place 0x1F)"),
        (error(0x010), "transceiver"),
        (error(0x010, 0, 0, 0, 0, 0x80), "transceiver (CANL shorted to CANH)"),
        (error(0x010, 0, 0, 0, 0, 0x99), "transceiver (status 0x99)"),
        (error(0x020), "no acknowledgement: is any other node on the bus?"),
        (error(0x040), "bus-off"),
        (
            error(0x300, 0, 0, 0, 0, 0, 0, 1, 2),
            "controller restarted; error counters (transmit 1, receive 2)",
        ),
        (error(0x10000), "unknown class 0x10000"),
        (error(0), "unspecified error"),
    ],
)
def test_each_class_has_words(frame: Frame, text: str) -> None:
    assert describe(frame) == text


@given(st.integers(0, 0xFFFF_FFFF), st.binary(max_size=8))
def test_whatever_a_frame_says_can_be_taken_and_described(can_id: int, data: bytes) -> None:
    frame = Frame(0, can_id, data)
    assert describe(frame)
    controller = Controller()
    changed = controller.take(frame)
    assert changed is (controller.state is not BusState.UNKNOWN)
