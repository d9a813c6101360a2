"""The simulated outstation's conversation: link, unsolicited responses, time, restarts, hostile octets."""

import pytest
from dnp3_scripted_master import ACK, BEGIN_MS, NACK, ScriptedMaster, iin, outstation_device, quiet
from hypothesis import given, settings
from hypothesis import strategies as st
from py1815.application import FunctionCode, class_header
from py1815.decode import decode_objects
from py1815.link import PrimaryFunction, SecondaryFunction, build
from py1815.transport import segment

from protocols.dnp3.objects import LAYOUTS, Iin

EVENTS = class_header(1) + class_header(2) + class_header(3)
CLEAR_RESTART = b"\x50\x01\x00\x07\x07\x00"
BROADCAST = 0xFFFD


def spontaneous(**fields: object) -> ScriptedMaster:
    """A master that has heard of the start and has all classes reported unsolicited."""
    master = ScriptedMaster(outstation_device(**fields))  # type: ignore[arg-type]
    (null,) = master.wait(50)
    assert master.confirm(null) == []
    master.request(FunctionCode.ENABLE_UNSOLICITED, EVENTS)
    return master


# The link layer.


def test_the_link_layer_answers() -> None:
    master = quiet()
    assert master.link(PrimaryFunction.REQUEST_LINK_STATUS) == SecondaryFunction.LINK_STATUS
    assert master.link(PrimaryFunction.TEST_LINK_STATES, fcb=True) == NACK  # not reset yet
    assert master.link(PrimaryFunction.RESET_LINK_STATES) == ACK
    assert master.link(PrimaryFunction.TEST_LINK_STATES, fcb=True) == ACK
    assert master.link(PrimaryFunction(0) | 7) == SecondaryFunction.NOT_SUPPORTED  # type: ignore[arg-type]


def test_confirmed_user_data_is_acknowledged_and_a_repeat_not_handed_on() -> None:
    master = quiet()
    (octets,) = segment(master.fragment(FunctionCode.DELAY_MEASURE))
    assert master.link(PrimaryFunction.CONFIRMED_USER_DATA, octets, fcb=True) == NACK
    assert master.fragments == []
    master.link(PrimaryFunction.RESET_LINK_STATES)
    for fcb in (True, True, False):
        assert master.link(PrimaryFunction.CONFIRMED_USER_DATA, octets, fcb=fcb) == ACK
    assert len(master.fragments) == 2


def test_frames_for_others_and_of_others_are_ignored() -> None:
    master = quiet()
    request = master.fragment(FunctionCode.DELAY_MEASURE)
    assert master.send(request, to=11) == []
    assert master.send(request, by=2) == []
    assert master.link(PrimaryFunction.REQUEST_LINK_STATUS, to=11) == -1
    assert len(master.send(request)) == 1


def test_a_frame_with_a_wrong_crc_is_ignored_and_the_next_is_heard() -> None:
    master = quiet()
    (octets,) = segment(master.fragment(FunctionCode.DELAY_MEASURE))
    good = build(0xC4, 10, 1, octets)
    master.feed(good[:-1] + bytes((good[-1] ^ 1,)))
    assert master.fragments == []
    master.feed(good)
    assert len(master.fragments) == 1


def test_segments_out_of_order_are_no_request() -> None:
    master = quiet()
    first, second = segment(master.fragment(FunctionCode.READ, class_header(0) * 100))
    for octets in (second, first, first, bytes((second[0] + 1,)) + second[1:]):
        master.link(PrimaryFunction.UNCONFIRMED_USER_DATA, octets)
    assert master.fragments == []


def test_a_read_by_broadcast_takes_no_events() -> None:
    master = quiet()
    name = next(name for name, one in master.outstation.device.points.items() if one.type == "binary_input")
    master.outstation.set(name, True)
    before = len(list(master.outstation.buffer.waiting()))
    assert before
    assert master.send(master.fragment(FunctionCode.READ, EVENTS), to=BROADCAST) == []
    assert len(list(master.outstation.buffer.waiting())) == before


def test_a_broadcast_is_carried_out_in_silence_and_shown_afterwards() -> None:
    master = quiet()
    assert master.send(master.fragment(FunctionCode.WRITE, CLEAR_RESTART), to=BROADCAST) == []
    assert not master.outstation.restarted
    assert iin(master.request(FunctionCode.DELAY_MEASURE)) & Iin.BROADCAST
    assert not iin(master.request(FunctionCode.DELAY_MEASURE)) & Iin.BROADCAST


# Requests.


def test_the_restart_bit_is_cleared_by_the_write_for_it_alone() -> None:
    master = quiet()
    assert iin(master.request(FunctionCode.WRITE, b"\x50\x01\x00\x04\x04\x00")) & Iin.PARAMETER_ERROR
    assert iin(master.request(FunctionCode.WRITE, b"\x50\x01\x00\x07\x07\x01")) & Iin.DEVICE_RESTART
    assert not iin(master.request(FunctionCode.WRITE, CLEAR_RESTART)) & Iin.DEVICE_RESTART
    assert iin(master.request(FunctionCode.WRITE, b"\x6e\x01\x00\x00\x00a")) & Iin.OBJECT_UNKNOWN


def test_the_time_is_needed_until_it_is_written() -> None:
    master = quiet()
    assert iin(master.request(FunctionCode.DELAY_MEASURE)) & Iin.NEED_TIME
    assert master.request(FunctionCode.DELAY_MEASURE).body == b"\x34\x02\x07\x01\x00\x00"
    time = (BEGIN_MS + 5000).to_bytes(6, "little")
    assert not iin(master.request(FunctionCode.WRITE, b"\x32\x01\x07\x01" + time)) & Iin.NEED_TIME
    assert master.outstation.clock_ms == BEGIN_MS + 5000
    master.wait(1000)
    assert master.read(b"\x32\x01\x07\x01") == b"\x32\x01\x07\x01" + (BEGIN_MS + 6000).to_bytes(6, "little")
    for wrong in (b"\x32\x01\x07\x01" + time[:5], b"\x32\x01\x07\x02" + time * 2, b"\x32\x01\x06"):
        assert iin(master.request(FunctionCode.WRITE, wrong)) & Iin.PARAMETER_ERROR


def test_the_time_is_set_by_the_lan_procedure() -> None:
    master = quiet()
    write = b"\x32\x03\x07\x01" + (BEGIN_MS + 60_000).to_bytes(6, "little")
    assert iin(master.request(FunctionCode.WRITE, write)) & Iin.PARAMETER_ERROR  # nothing was recorded
    master.request(FunctionCode.RECORD_CURRENT_TIME)
    master.wait(300)
    assert not iin(master.request(FunctionCode.WRITE, write)) & (Iin.PARAMETER_ERROR | Iin.NEED_TIME)
    assert master.outstation.clock_ms == BEGIN_MS + 60_300


def test_a_function_that_is_not_supported_is_said_to_be() -> None:
    master = quiet()
    for function in (FunctionCode.OPEN_FILE, FunctionCode.AUTH_REQUEST, 0x70):
        assert iin(master.request(function)) & Iin.FUNCTION_NOT_SUPPORTED
    assert master.send(bytes((0xC1, FunctionCode.RESPONSE, 0, 0))) == []
    assert master.send(bytes((0x41, FunctionCode.READ))) == []  # a request is one fragment


@pytest.mark.parametrize(("function", "delay", "kept"), [
    (FunctionCode.COLD_RESTART, 500, 0), (FunctionCode.WARM_RESTART, 100, 1),
])  # fmt: skip
def test_a_restart_is_announced_and_forgets(function: int, delay: int, kept: int) -> None:
    master = spontaneous()
    master.request(FunctionCode.WRITE, CLEAR_RESTART)
    master.outstation.set("door", True)
    response = master.request(function)
    assert response.body == b"\x34\x02\x07\x01" + delay.to_bytes(2, "little")
    assert master.hung_up == 1
    assert master.send(master.fragment(FunctionCode.DELAY_MEASURE)) == []  # it is not back yet
    (null,) = master.wait(delay)
    assert null.unsolicited
    assert null.body == b""
    assert iin(null) & Iin.DEVICE_RESTART
    assert len(master.outstation.buffer) == kept
    master.confirm(null)
    assert master.wait(1000) == []  # unsolicited responses are to be enabled again


def test_a_silent_outstation_says_nothing() -> None:
    master = spontaneous()
    master.outstation.silent = True
    assert master.send(master.fragment(FunctionCode.DELAY_MEASURE)) == []
    assert master.link(PrimaryFunction.REQUEST_LINK_STATUS) == -1
    master.outstation.set("door", True)
    assert master.wait(50) == []


def test_hooks_show_in_the_indications() -> None:
    master = quiet()
    master.outstation.trouble = True
    master.outstation.overflow()
    shown = iin(master.request(FunctionCode.DELAY_MEASURE))
    assert shown == Iin.DEVICE_TROUBLE | Iin.EVENT_BUFFER_OVERFLOW | Iin.DEVICE_RESTART | Iin.NEED_TIME


# Unsolicited responses.


def test_the_start_is_announced_with_the_same_octets_until_it_is_confirmed() -> None:
    master = ScriptedMaster(outstation_device())
    (null,) = master.wait(50)
    assert null.unsolicited
    assert null.control.con
    assert iin(null) & Iin.DEVICE_RESTART
    assert master.wait(4000) == []
    assert master.wait(1100) == [null]
    assert master.fragments[0] == master.fragments[1]
    master.confirm(null)
    assert master.wait(60_000) == []


def test_an_outstation_that_is_not_to_report_says_nothing_by_itself() -> None:
    master = quiet()
    master.outstation.set("door", True)
    assert master.wait(60_000) == []


def test_events_are_reported_once_their_class_is_enabled_and_until_it_is_not() -> None:
    master = spontaneous()
    master.request(FunctionCode.DISABLE_UNSOLICITED, class_header(2))
    master.outstation.set("voltage", 1)
    assert master.wait(50) == []
    master.outstation.set("door", True)
    (first,) = master.wait(50)
    assert first.body[:2] == b"\x02\x02"
    assert iin(first) & Iin.CLASS_2_EVENTS
    master.outstation.set("door", False)
    assert master.wait(50) == []  # one at a time
    master.confirm(first)
    (second,) = master.wait(50)
    assert second.control.sequence == (first.control.sequence + 1) % 16
    master.confirm(second)
    master.request(FunctionCode.DISABLE_UNSOLICITED, EVENTS)
    master.outstation.set("door", True)
    assert master.wait(50) == []
    assert iin(master.request(FunctionCode.ENABLE_UNSOLICITED, b"\x1e\x00\x06")) & Iin.OBJECT_UNKNOWN


def test_reports_keep_the_order_of_events_of_all_classes() -> None:
    master = spontaneous()
    for name, value in (("voltage", 1), ("door", True), ("voltage", 2)):
        master.outstation.set(name, value)
    (report,) = master.wait(50)
    assert [one.group for one in decode_objects(report.body).objects] == [32, 2, 32]


def test_a_report_of_a_class_that_was_switched_off_is_not_repeated() -> None:
    master = spontaneous()
    master.outstation.set("door", True)
    (report,) = master.wait(50)
    master.request(FunctionCode.DISABLE_UNSOLICITED, EVENTS)
    assert master.wait(60_000) == []
    master.confirm(report)  # too late
    assert iin(master.request(FunctionCode.DELAY_MEASURE)) & Iin.CLASS_1_EVENTS


def test_a_restart_ends_the_report_that_was_under_way() -> None:
    master = spontaneous()
    master.outstation.set("door", True)
    assert len(master.wait(50)) == 1
    master.request(FunctionCode.COLD_RESTART)
    (null,) = master.wait(500)
    assert null.body == b""


def test_the_confirmation_of_one_start_is_not_that_of_the_next() -> None:
    master = ScriptedMaster(outstation_device())
    (first,) = master.wait(50)
    master.outstation.restart()
    master.confirm(first)
    (second,) = master.wait(50)
    assert second.body == b""
    assert second.control.sequence != first.control.sequence


def test_an_unconfirmed_report_is_repeated_octet_for_octet() -> None:
    master = spontaneous()
    master.outstation.set("door", True)
    (first,) = master.wait(50)
    master.outstation.set("door", False)
    master.wait(5000)
    assert master.fragments[-1] == master.fragments[-2]
    master.confirm(first)
    (second,) = master.wait(50)
    assert second.body != first.body
    master.confirm(second)
    assert len(master.outstation.buffer) == 0


def test_a_wrong_confirmation_confirms_nothing() -> None:
    master = spontaneous()
    master.outstation.set("door", True)
    (report,) = master.wait(50)
    sequence = report.control.sequence
    master.send(bytes((0xC0 | sequence, FunctionCode.CONFIRM)))  # a solicited one
    master.send(bytes((0xD0 | (sequence + 1) % 16, FunctionCode.CONFIRM)))
    assert len(master.outstation.buffer) == 1
    master.confirm(report)
    assert len(master.outstation.buffer) == 0


def test_a_read_waits_for_the_confirmation_of_a_report() -> None:
    master = spontaneous()
    master.outstation.set("door", True)
    (report,) = master.wait(50)
    assert master.send(master.fragment(FunctionCode.READ, EVENTS)) == []
    assert master.request(FunctionCode.DELAY_MEASURE).body != b""  # others do not wait, and end its waiting
    assert master.confirm(report) == []
    master.outstation.set("door", False)
    (report,) = master.wait(50)
    assert master.send(master.fragment(FunctionCode.READ, EVENTS)) == []
    (answer,) = master.confirm(report)
    assert answer.body == b""
    assert not answer.unsolicited


def test_a_read_that_waited_has_the_events_of_a_report_that_was_not_confirmed() -> None:
    master = spontaneous()
    master.outstation.set("door", True)
    (report,) = master.wait(50)
    master.send(master.fragment(FunctionCode.READ, EVENTS))
    (answer,) = master.wait(5000)
    assert not answer.unsolicited
    assert answer.body == report.body
    master.confirm(answer)
    assert len(master.outstation.buffer) == 0


def test_no_report_while_a_confirmation_is_awaited() -> None:
    master = quiet(unsolicited=[1])
    (null,) = master.wait(50)
    master.confirm(null)
    master.outstation.set("door", True)
    response = master.request(FunctionCode.READ, EVENTS)
    master.request(FunctionCode.ENABLE_UNSOLICITED, EVENTS)
    response = master.request(FunctionCode.READ, EVENTS)
    master.outstation.set("door", False)
    assert master.wait(100) == []
    master.confirm(response)
    assert len(master.wait(50)) == 1


def test_a_report_that_was_cut_off_comes_again_on_the_next_connection() -> None:
    master = spontaneous()
    master.outstation.set("door", True)
    (report,) = master.wait(50)
    master.disconnect()
    assert master.wait(60_000) == []
    master.connect()
    (again,) = master.wait(50)
    assert again.body == report.body


def test_events_of_a_long_outage_are_kept_with_their_times() -> None:
    master = spontaneous(sim={"door": {"square": {"period": "10s"}}})
    master.disconnect()
    master.wait(300_000)
    assert len(master.outstation.buffer) == 60
    master.connect()
    (report,) = master.wait(50)
    first = BEGIN_MS + 5000
    assert report.body[6:12] == first.to_bytes(6, "little")
    master.confirm(report)
    assert len(master.outstation.buffer) == 0


# Whatever comes.

_GROUPS = sorted({group for group, _ in LAYOUTS} | {60, 80})
_HEADER = st.builds(
    lambda group, variation, qualifier, rest: bytes((group, variation, qualifier)) + rest,
    st.sampled_from(_GROUPS) | st.integers(0, 255),
    st.integers(0, 10),
    st.sampled_from([0, 1, 6, 7, 8, 0x17, 0x28]) | st.integers(0, 255),
    st.binary(max_size=24),
)
_FRAGMENT = st.builds(
    lambda control, function, headers: bytes((control, function)) + b"".join(headers),
    st.integers(0xC0, 0xCF) | st.integers(0, 255),
    st.integers(0, 0x20) | st.integers(0, 255),
    st.lists(_HEADER, max_size=12),
)


@given(st.lists(_FRAGMENT, max_size=12), st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_fragment_makes_it_fail_or_talk_without_end(fragments: list[bytes], reports: bool) -> None:
    master = spontaneous() if reports else quiet()
    for value in range(20):
        master.outstation.set("current", value)
    for fragment in fragments:
        before = master.octets
        master.send(fragment)
        master.wait(60)
        assert master.octets - before < 3 * 2400  # an answer, one that had waited, and a report


@given(
    st.lists(
        st.binary(max_size=300) | _FRAGMENT.map(lambda one: build(0xC4, 10, 1, b"\xc0" + one[:240])),
        max_size=12,
    )
)
@settings(max_examples=200, deadline=None)
def test_no_octets_make_it_fail(pieces: list[bytes]) -> None:
    master = spontaneous()
    for piece in pieces:
        master.feed(piece)
        master.wait(3000)
    master.disconnect()
    master.connect()
    assert master.link(PrimaryFunction.REQUEST_LINK_STATUS) in (-1, SecondaryFunction.LINK_STATUS)


def test_a_read_that_names_everything_many_times_is_answered_once() -> None:
    master = quiet()
    once = len(master.read(class_header(0)))
    assert len(master.read(class_header(0) * 300 + b"\x1e\x00\x06" * 300)) == once
