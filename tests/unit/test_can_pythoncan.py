"""What of the python-can bus needs no bus: messages, stamps, arguments, errors, echoes, the inbox, turns."""

import builtins
import errno
import math
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import can
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.base import DriverError
from protocols.can.buses.pythoncan import PythonCan
from protocols.can.buses.pythoncan_inbox import BATCH_MOST, Batch, Inbox
from protocols.can.buses.pythoncan_interfaces import INTERFACES, arguments, echoes, open_error
from protocols.can.buses.pythoncan_messages import ERROR_PROTOCOL, Stamps, frame_of, message_of
from protocols.can.buses.pythoncan_threads import Echoes, Job, Turns
from protocols.can.config import Connection
from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, FD_LENGTHS, FDF, OWN, REMOTE, Frame

identifiers = st.integers(0, 0x7FF) | st.integers(0, 0x1FFFFFFF).map(lambda number: number | EXTENDED)
classical = st.builds(Frame, st.just(7), identifiers, st.binary(max_size=8), st.just(0))
remote = st.builds(
    lambda identifier, length: Frame(7, identifier | REMOTE, bytes(length)), identifiers, st.integers(0, 8)
)
fd = st.builds(
    lambda identifier, length, flags: Frame(7, identifier, b"\xa5" * length, FDF | flags),
    identifiers,
    st.sampled_from(FD_LENGTHS),
    st.sampled_from([0, BRS, ESI, BRS | ESI]),
)
frames = classical | remote | fd


@given(frames)
def test_a_frame_is_the_same_after_it_was_a_message(frame: Frame) -> None:
    message = message_of(frame)
    message._check()  # python-can's own idea of what is right
    assert frame_of(message, 7, False) == frame


anything = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=70)
)


@given(anything, anything, st.binary(max_size=70), st.tuples(*[st.booleans()] * 7))
def test_a_message_of_anything_is_a_frame_or_an_error(
    identifier: Any, length: Any, data: bytes, flags: tuple[bool, ...]
) -> None:
    message = can.Message()
    message.arbitration_id, message.dlc, message.data = identifier, length, bytearray(data)
    message.is_extended_id, message.is_remote_frame, message.is_error_frame, *others = flags
    message.is_fd, message.bitrate_switch, message.error_state_indicator, linux = others
    try:
        frame = frame_of(message, 7, linux)
    except (ValueError, TypeError):
        return
    assert len(frame.data) in (FD_LENGTHS if frame.flags & FDF else range(9))
    assert 0 <= frame.can_id < 1 << 32
    if not frame.can_id & ERROR:
        assert frame.identifier == identifier


def test_error_frames_keep_their_content_only_where_it_is_that_of_linux() -> None:
    message = can.Message(arbitration_id=0x42, is_error_frame=True, is_extended_id=True, data=b"\0\x10")
    assert frame_of(message, 7, True) == Frame(7, ERROR | 0x42, b"\0\x10" + bytes(6))
    assert frame_of(message, 7, False) == Frame(7, ERROR | ERROR_PROTOCOL, bytes(8))


def test_stamps_of_the_interface_are_kept_while_they_are_utc() -> None:
    stamps = Stamps("test")
    now = time.time()
    assert stamps.of(can.Message(timestamp=now - 1.5)) == round((now - 1.5) * 1e9)
    for odd in (12.5, 0.0, math.nan, math.inf, -1.0):
        distrusted = Stamps("test")
        before = time.time_ns()
        assert before <= distrusted.of(can.Message(timestamp=odd)) <= time.time_ns()
        before = time.time_ns()
        assert distrusted.of(can.Message(timestamp=now - 1.5)) >= before


def connection(interface: str, **fields: Any) -> Connection:
    return Connection(interface=interface, channel="x", **fields)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (
            connection("slcan", bitrate=500_000, listen_only=True),
            {"timeout": 0.05, "bitrate": 500_000, "listen_only": True},
        ),
        (
            connection("slcan", options={"timeout": 1, "tty_baudrate": 9600}),
            {"timeout": 1, "tty_baudrate": 9600},
        ),
        (
            connection("pcan", bitrate=250_000, listen_only=True),
            {"bitrate": 250_000, "receive_own_messages": True, "state": can.BusState.PASSIVE},
        ),
        (connection("kvaser", listen_only=True), {"receive_own_messages": True, "driver_mode": False}),
        (connection("vector", listen_only=True), {"receive_own_messages": True, "listen_only": True}),
        (connection("cantact", listen_only=True), {"monitor": True}),
        (connection("seeedstudio", listen_only=True), {"operation_mode": "silent"}),
        (connection("gs_usb", bitrate=1_000_000, listen_only=True), {"bitrate": 1_000_000}),
        (connection("virtual"), {"receive_own_messages": True, "protocol": can.CanProtocol.CAN_20}),
        (connection("virtual", fd=True), {"receive_own_messages": True, "protocol": can.CanProtocol.CAN_FD}),
        (connection("udp_multicast"), {"fd": False}),
        (connection("udp_multicast", fd=True, bitrate=1000), {"fd": True, "bitrate": 1000}),
        (
            connection("ixxat", fd=True, bitrate=500_000, data_bitrate=2_000_000),
            {"receive_own_messages": True, "bitrate": 500_000, "fd": True, "data_bitrate": 2_000_000},
        ),
        (
            connection("pcan", fd=True, options={"f_clock_mhz": 80, "nom_brp": 1, "state": "ACTIVE"}),
            {
                "receive_own_messages": True,
                "fd": True,
                "f_clock_mhz": 80,
                "nom_brp": 1,
                "state": can.BusState.ACTIVE,
            },
        ),
        (connection("kvaser", options={"receive_own_messages": False}), {"receive_own_messages": False}),
        (connection("somebodys_own", bitrate=125_000), {"bitrate": 125_000}),
    ],
)
def test_arguments_of_each_interface(made: Connection, expected: dict[str, Any]) -> None:
    assert arguments(made) == expected


@pytest.mark.parametrize("interface", [name for name, kind in INTERFACES.items() if kind.bit_timing])
def test_can_fd_by_bit_timing(interface: str) -> None:
    timing = arguments(connection(interface, fd=True, bitrate=500_000, data_bitrate=2_000_000))["timing"]
    assert (timing.nom_bitrate, timing.data_bitrate, timing.f_clock) == (500_000, 2_000_000, 80_000_000)
    assert (timing.nom_sample_point, timing.data_sample_point) == (80.0, 80.0)
    with pytest.raises(ValueError, match="needs bitrate and data_bitrate"):
        arguments(connection(interface, fd=True, bitrate=500_000))


def test_whether_own_frames_come_back_is_known_or_said() -> None:
    assert not echoes(connection("slcan"))
    assert echoes(connection("pcan"))
    assert not echoes(connection("pcan", options={"receive_own_messages": False}))
    assert echoes(connection("somebodys_own", options={"receive_own_messages": True}))
    assert echoes(connection("udp_multicast", options={"receive_own_messages": False}))


def chained(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("interface", "error", "code", "text"),
    [
        (
            "slcan",
            FileNotFoundError(errno.ENOENT, "No"),
            "disconnected",
            "is no x; is the adapter plugged in",
        ),
        ("slcan", chained(can.CanError("?"), PermissionError(errno.EACCES, "No")), "disconnected", "dialout"),
        ("slcan", OSError(errno.EBUSY, "Busy"), "disconnected", "used by another program"),
        ("slcan", ValueError("Invalid bitrate"), "device-error", "these settings: Invalid bitrate$"),
        ("seeedstudio", KeyError(123), "device-error", "these settings: 123 is none of its values"),
        ("pcan", OSError("pcanbasic library not found."), "disconnected", r"needs PEAK's PCAN-Basic"),
        ("kvaser", NameError("canGetNumberOfChannels"), "disconnected", "needs Kvaser's CANlib"),
        ("gs_usb", can.CanInterfaceNotImplementedError("No module usb"), "disconnected", "package gs-usb"),
        ("gs_usb", ValueError("No backend available"), "disconnected", "libusb"),
        ("socketcand", TypeError("missing 2 required positional arguments"), "disconnected", "host and port"),
        ("slcna", NotImplementedError("not supported"), "device-error", "did you mean slcan"),
        ("unheard_of_bus", NotImplementedError("not supported"), "device-error", "it has .*kvaser"),
        (
            "pcan",
            can.CanInitializationError("channel is busy"),
            "disconnected",
            "cannot be opened: channel is",
        ),
        (
            "udp_multicast",
            chained(can.CanInitializationError("no socket"), OSError(errno.ENETUNREACH, "")),
            "disconnected",
            "no socket: Network is unreachable",
        ),
    ],
)
def test_errors_of_opening_say_what_helps(interface: str, error: Exception, code: str, text: str) -> None:
    with pytest.raises(DriverError, match=text) as caught:
        raise open_error(connection(interface), error)
    assert caught.value.code == code


@pytest.mark.parametrize("interface", ["pcan", "kvaser", "vector", "ixxat", "neovi", "canalystii", "cantact"])
async def test_an_interface_without_its_library_is_said(interface: str) -> None:
    bus = PythonCan(Connection(interface=interface, channel=0))
    with pytest.raises(DriverError, match=INTERFACES[interface].needs.partition(" (")[0]) as caught:
        await bus.open(None, None)  # type: ignore[arg-type]  # nobody is told anything
    assert caught.value.code == "disconnected"


async def test_a_missing_python_can_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **named: Any) -> Any:
        if name == "can":
            raise ImportError(name)
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DriverError, match=r"install hilgate\[can\]"):
        await PythonCan(connection("virtual")).open(None, None)  # type: ignore[arg-type]


def test_a_bus_is_made_without_importing_python_can() -> None:
    script = (
        "import sys; from protocols.can.bus import make_bus; from protocols.can.config import Connection;"
        "make_bus(Connection(interface='virtual', channel='x'));"
        "assert not {'can', 'cantools', 'serial', 'isotp', 'udsoncan'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def begun(frame: Frame) -> Job:
    job = Job(frame, 1.0)
    assert job.begin()
    return job


def test_echoes_of_equal_frames_come_back_in_order_and_others_may_overtake() -> None:
    row = Echoes()
    first, second, third = (begun(Frame(0, can_id, b"x")) for can_id in (5, 5, 1))
    for job in (first, second, third):
        row.expect(job)
    assert row.match(Frame(9, 5, b"y")) is None
    assert row.match(Frame(9, 5, b"x", FDF)) is None
    assert row.match(Frame(9, 1, b"x")) is third
    assert row.match(Frame(9, 5, b"x")) is first
    row.forget(second)
    row.forget(second)
    assert row.match(Frame(9, 5, b"x")) is None


def test_echoes_that_do_not_come_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Echoes()
    old = begun(Frame(0, 5, b"x"))
    row.expect(old)
    later = time.monotonic() + 61
    monkeypatch.setattr("protocols.can.buses.pythoncan_threads.time.monotonic", lambda: later)
    row.expect(begun(Frame(0, 6, b"x")))
    assert row.match(Frame(9, 5, b"x")) is None
    assert row.match(Frame(9, 6, b"x")) is not None
    row.expect(begun(Frame(0, 7, b"x")))
    row.forget_given_up()
    assert row.match(Frame(9, 7, b"x")) is None


def test_a_job_is_either_begun_or_given_up() -> None:
    job = Job(Frame(0, 1, b""), 1.0)
    assert job.give_up()
    assert not job.begin()
    job = Job(Frame(0, 1, b""), 1.0)
    assert job.begin()
    assert not job.give_up()


def test_turns_keep_their_rhythm_and_skip_what_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns([Frame(0, 1, b"a"), Frame(0, 1, b"b")], 0.5, 1.0)
    assert [turns.next().frame.data for _ in range(3)] == [b"a", b"b", b"a"]
    for now, due in ((100.0, 100.5), (100.4, 100.5), (100.6, 101.0), (102.1, 102.5)):
        monkeypatch.setattr("protocols.can.buses.pythoncan_threads.time.monotonic", lambda now=now: now)
        assert turns.due_after(100.0) == pytest.approx(due)


def taken(inbox: Inbox) -> Sequence[Batch]:
    batches = []
    more = True
    while more:
        batch, more = inbox.take()
        if batch is not None:
            batches.append(batch)
    return batches


def test_the_inbox_counts_what_does_not_fit_where_it_was() -> None:
    woken: list[int] = []
    inbox = Inbox(3, lambda: woken.append(1))
    some = [Frame(number, number, b"") for number in range(8)]
    job = Job(some[4], 1.0)
    for frame in some[:4]:
        inbox.put(frame)
    inbox.put(some[4]._replace(flags=OWN), job)
    assert len(woken) == 1
    batch, more = inbox.take()
    assert batch is not None
    assert (batch.frames, batch.lost, more) == (some[:3], 2, False)
    assert batch.taken == [(job, some[4]._replace(flags=OWN))]
    inbox.put(some[5])
    inbox.lose()
    inbox.put(some[6])
    assert len(woken) == 2
    assert [(batch.frames, batch.lost) for batch in taken(inbox)] == [([some[5]], 1), ([some[6]], 0)]
    assert inbox.take() == (None, False)
    error = Frame(0, ERROR | 1, bytes(8))
    inbox.put(error)
    assert [batch.errors for batch in taken(inbox)] == [[error]]


def test_the_inbox_hands_over_in_pieces_what_several_threads_put() -> None:
    inbox = Inbox(10_000, lambda: None)

    def put(thread: int) -> None:
        for number in range(1000):
            inbox.put(Frame(number, thread, b""))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batches = taken(inbox)
    assert max(len(batch.frames) for batch in batches) == BATCH_MOST
    everything = [frame for batch in batches for frame in batch.frames]
    assert len(everything) == 3000
    for number in range(3):
        assert [frame.time_ns for frame in everything if frame.can_id == number] == list(range(1000))
