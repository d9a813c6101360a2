"""Requests and answers: what fits, what does not, and how long each is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.modbus import pdu
from protocols.modbus.pdu import MalformedAnswer, MaskWrite, ModbusException, Read, ReadWrite, Write

REQUESTS = [
    (pdu.read(1, 19, 10), pdu.read_answer(1, b"\xcd\x01"), b"\xcd\x01"),
    (pdu.read(2, 0, 8), pdu.read_answer(2, b"\xac"), b"\xac"),
    (pdu.read(3, 107, 3), pdu.read_answer(3, b"\2\x2b\0\0\0\x64"), b"\2\x2b\0\0\0\x64"),
    (pdu.read(4, 8, 1), pdu.read_answer(4, b"\0\x0a"), b"\0\x0a"),
    (pdu.write_coil(172, True), b"\x05\0\xac\xff\0", b"\0\xac\xff\0"),
    (pdu.write_register(1, b"\0\3"), b"\x06\0\1\0\3", b"\0\1\0\3"),
    (pdu.write_coils(19, 10, b"\xcd\1"), b"\x0f\0\x13\0\x0a", b"\0\x13\0\x0a"),
    (pdu.write_registers(1, b"\0\x0a\1\2"), b"\x10\0\1\0\2", b"\0\1\0\2"),
    (pdu.mask_write(4, 0xF2, 0x25), b"\x16\0\4\0\xf2\0\x25", b"\0\4\0\xf2\0\x25"),
    (pdu.read_write_registers(3, 1, 14, b"\0\xff"), b"\x17\2\0\xfe", b"\0\xfe"),
]


@pytest.mark.parametrize(("request_", "answer", "data"), REQUESTS)
def test_the_examples_of_the_standard(request_: bytes, answer: bytes, data: bytes) -> None:
    assert pdu.answer_data(request_, answer) == data
    assert pdu.answer_length(request_, answer) == len(answer)
    assert pdu.request_length(request_) == len(request_)
    assert pdu.usual_answer_size(request_) <= len(answer) + 2


@pytest.mark.parametrize(("request_", "answer", "_data"), REQUESTS)
def test_an_exception_is_said(request_: bytes, answer: bytes, _data: bytes) -> None:
    with pytest.raises(ModbusException) as said:
        pdu.answer_data(request_, pdu.exception_answer(request_[0], 2))
    assert (said.value.function, said.value.code) == (request_[0], 2)
    assert pdu.answer_length(request_, pdu.exception_answer(request_[0], 2)) == 2


@pytest.mark.parametrize(("request_", "answer", "_data"), REQUESTS)
def test_what_does_not_fit_is_no_answer(request_: bytes, answer: bytes, _data: bytes) -> None:
    wrong = [answer[:-1], answer + b"\0", bytes((answer[0] ^ 1,)) + answer[1:], bytes((answer[0] | 0x80,))]
    for other in wrong:
        with pytest.raises(MalformedAnswer):
            pdu.answer_data(request_, other)


def test_an_echo_of_something_else_is_no_answer() -> None:
    for request, answer, _ in REQUESTS[4:9]:
        with pytest.raises(MalformedAnswer):
            pdu.answer_data(request, answer[:1] + b"\x77" + answer[2:])


@given(st.binary(min_size=1, max_size=260), st.sampled_from([request for request, _, _ in REQUESTS]))
def test_any_answer_has_an_outcome(answer: bytes, request: bytes) -> None:
    try:
        data = pdu.answer_data(request, answer)
    except (ModbusException, MalformedAnswer):
        return
    assert data
    assert answer[0] == request[0]


@given(st.binary(max_size=260))
def test_any_request_has_an_outcome(request: bytes) -> None:
    try:
        parsed = pdu.parse(request)
    except ModbusException as error:
        assert error.code in (1, 3)
    else:
        assert isinstance(parsed, Read | Write | MaskWrite | ReadWrite)
    assert pdu.request_length(request) >= pdu.UNKNOWN


def test_requests_are_parsed() -> None:
    assert pdu.parse(pdu.read(3, 107, 3)) == Read(3, 107, 3)
    assert pdu.parse(pdu.write_coil(172, True)) == Write(5, 172, 1, b"\1")
    assert pdu.parse(pdu.write_coil(172, False)) == Write(5, 172, 1, b"\0")
    assert pdu.parse(pdu.write_register(1, b"\0\3")) == Write(6, 1, 1, b"\0\3")
    assert pdu.parse(pdu.write_coils(19, 10, b"\xcd\1")) == Write(15, 19, 10, b"\xcd\1")
    assert pdu.parse(pdu.write_registers(1, b"\0\x0a\1\2")) == Write(16, 1, 2, b"\0\x0a\1\2")
    assert pdu.parse(pdu.mask_write(4, 0xF2, 0x25)) == MaskWrite(4, 0xF2, 0x25)
    both = pdu.parse(pdu.read_write_registers(3, 6, 14, b"\0\xff"))
    assert both == ReadWrite(Read(3, 3, 6), Write(16, 14, 1, b"\0\xff"))


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"", 1),
        (b"\x63", 1),
        (pdu.read(3, 0, 0), 3),
        (pdu.read(3, 0, 126), 3),
        (pdu.read(1, 0, 2001), 3),
        (pdu.read(3, 0, 1) + b"\0", 3),
        (b"\x05\0\0\x12\0", 3),
        (b"\x10\0\0\0\2\x02\0\0", 3),
        (b"\x0f\0\0\0\x09\x01\0", 3),
        (b"\x17\0\0\0\0\0\0\0\1\2\0\0", 3),
    ],
)
def test_wrong_requests_have_their_exception(request_: bytes, code: int) -> None:
    with pytest.raises(ModbusException) as said:
        pdu.parse(request_)
    assert said.value.code == code


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"\x07", b"\x07\x6d"),
        (b"\x08\0\0\xa5\x37", b"\x08\0\0\xa5\x37"),
        (b"\x0b", b"\x0b\xff\xff\x01\x08"),
        (b"\x11", b"\x11\x03ab\xff"),
        (b"\x14\x07\x06\0\x04\0\1\0\2", b"\x14\x06\x05\x06\x0d\xfe\0\x20"),
        (b"\x18\x04\xde", b"\x18\0\x06\0\2\1\xb8\x12\x84"),
        (b"\x2b\x0e\x01\0", b"\x2b\x0e\x01\x01\0\0\x02\0\x03abc\x01\x02de"),
    ],
)
def test_the_length_of_rarer_answers_shows_as_they_come(request_: bytes, answer: bytes) -> None:
    for end in range(len(answer) + 1):
        assert pdu.answer_length(request_, answer[:end]) in (pdu.MORE, len(answer))
    assert pdu.answer_length(request_, answer + b"rest") == len(answer)


def test_an_unknown_function_ends_with_silence() -> None:
    assert pdu.answer_length(b"\x64\1", b"\x64\1\2") == pdu.UNKNOWN
    assert pdu.request_length(b"\x64\1") == pdu.UNKNOWN
    assert pdu.answer_length(b"\x03\0\0\0\1", b"\x04\2\0\0") == pdu.IMPOSSIBLE
