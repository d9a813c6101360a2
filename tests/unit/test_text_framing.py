"""Answers taken apart as they come: whole, in pieces, wrong, and hostile."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_devices import device

from protocols.base import Refused
from protocols.text.framing import LINE, NOTHING, Framing, Garbled, Reply, Want
from protocols.text.rfc2217 import TelnetFilter

BLOCK = Want(block=100)


def framing(**fields: Any) -> Framing:
    return Framing(device(**fields))


def taken(
    data: bytes, want: Want = LINE, sent: bytes = b"VOLT?\n", **fields: Any
) -> tuple[Reply, bytes, bool]:
    """A reply that was given the data byte by byte, what is left, and whether it is whole."""
    reply = Reply(framing(**fields), sent, want)
    buffer = bytearray()
    whole = reply.complete
    for byte in data:
        buffer.append(byte)
        whole = whole or reply.take(buffer)
    return reply, bytes(buffer), whole


def test_commands() -> None:
    assert framing().command("VOLT?") == b"VOLT?\n"
    made = framing(prefix="01 ", write_terminator="\r", checksum={"algorithm": "sum8"})
    assert made.command("A") == b"01 AC2\r"
    assert framing().command("DATA \0", b"#11\n") == b"DATA #11\n\n"
    for wrong in ("", "A\nB", "A\0", "µ"):
        with pytest.raises(Refused):
            framing().command(wrong)


def test_a_line() -> None:
    reply, left, whole = taken(b"12.5\r\nMORE")
    assert (reply.text, whole, left) == ("12.5", True, b"MORE")
    assert taken(b"12.5")[2] is False
    assert taken(b"", want=NOTHING)[2] is True


def test_an_echo_comes_before_the_answer() -> None:
    for echo in (b"VOLT?\n", b"VOLT?\r\n", b"VOLT?\r\r\n", b"VOLT?"):
        assert taken(echo + b"12.5\n", echo=True)[0].text == "12.5"
    assert taken(b"VOLT 1\n", NOTHING, b"VOLT 1\n", echo=True)[2] is True
    with pytest.raises(Garbled, match="echo is not what was sent"):
        taken(b"VOLU?\n12.5\n", echo=True)


def test_a_prompt_ends_the_answer() -> None:
    reply, left, whole = taken(b"\r\n12.5\r\n> ", prompt="> ")
    assert (reply.text, whole, left) == ("12.5", True, b"")
    assert taken(b"a\nb\n> ", prompt="> ")[0].text == "a\nb"
    assert taken(b"12.5\n>", prompt="> ")[2] is False
    assert taken(b"\r\n> ", NOTHING, prompt="> ")[2] is True
    with pytest.raises(Garbled, match="has not answered"):
        taken(b"\r\n> ", prompt="> ")


def test_what_is_not_the_answer_is_put_aside() -> None:
    want = Want(line=True, unasked=lambda line: line.startswith("KEY"))
    reply = taken(b"KEY 1\n12.5\n", want)[0]
    assert (reply.text, reply.aside) == ("12.5", ["KEY 1"])
    want = Want(line=True, accept=lambda line: line == "ME")
    assert taken(b"12.5\nME\n", want)[0].aside == ["12.5"]
    reply = taken(b"02 7\n01 12.5\n", answer_prefix="01")[0]
    assert (reply.text, reply.aside) == ("12.5", ["02 7"])
    with pytest.raises(Garbled, match="none was the answer"):
        taken(b"x\n" * 2000, Want(line=True, accept=lambda line: False))


def test_blocks() -> None:
    reply, left, whole = taken(b"#15a\n#c\xff\nMORE", BLOCK)
    assert (reply.block, whole, left) == (b"a\n#c\xff", True, b"MORE")
    assert taken(b"#13abc\r\n", BLOCK, terminator="\r\n")[0].block == b"abc"
    assert taken(b"#10\n", BLOCK)[0].block == b""
    report = Want(block=100, unasked=lambda line: line.startswith("KEY"))
    assert taken(b"KEY 1\n#11x\n", report)[0].block == b"x"
    for wrong in (b"#13abcX", b"1.5\n", b"#3200", b"#12abc\n"):
        with pytest.raises(Garbled):
            taken(wrong, BLOCK)


def test_a_block_of_indefinite_length_ends_where_no_more_comes() -> None:
    reply, left, whole = taken(b"#0a\nb\n", BLOCK)
    assert (whole, reply.open_ended) == (False, True)
    reply.end(bytearray(left))
    assert (reply.complete, reply.block) == (True, b"a\nb")
    assert taken(b"#0a\nb", BLOCK)[0].open_ended is False
    with pytest.raises(Garbled, match="indefinite"):
        taken(b"#0" + b"a" * 200, BLOCK)


@pytest.mark.parametrize(
    ("data", "fields", "text"),
    [
        (b"a" * 2000, {}, "longer than max_line"),
        (b"a" * 17 + b"\n", {"max_line": "16B"}, "longer than max_line"),
        (b"\xff\n", {}, "is not ascii"),
        (b"\xc3\n", {"encoding": "utf-8"}, "is not utf-8"),
        (b"12.500\n", {"checksum": {"algorithm": "sum8"}}, "has the checksum"),
    ],
)
def test_what_cannot_be_an_answer(data: bytes, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(Garbled, match=text):
        taken(data, **fields)


def test_a_raw_checksum_may_hold_the_terminator() -> None:
    made = {"algorithm": "sum8", "format": "raw"}
    # 0x04 + 0x06 makes a line feed.
    assert taken(b"\x04\x06\n\n", checksum=made)[0].text == "\x04\x06"
    assert taken(b"12.5\xc6\n", checksum=made)[0].text == "12.5"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([b"VOLT?", b"\n", b"\r\n", b"> ", b"#", b"#13", b"#0", b"1.5", b"\0\xff"])),
    st.sampled_from([LINE, NOTHING, BLOCK]),
    st.booleans(),
    st.sampled_from([None, "> "]),
    st.sampled_from([None, {"algorithm": "xor"}, {"algorithm": "crc16-modbus", "format": "raw"}]),
)
def test_no_bytes_make_a_reply_fail_or_hold_more_than_its_bounds(
    pieces: list[bytes], want: Want, echo: bool, prompt: str | None, checksum: Any
) -> None:
    made = framing(echo=echo, prompt=prompt, checksum=checksum, max_line="16B")
    reply, buffer = Reply(made, b"VOLT?\n", want), bytearray()
    for piece in pieces:
        buffer += piece
        try:
            if reply.take(buffer):
                break
        except Garbled:
            break
        assert len(buffer) <= 120


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.lists(st.integers(1, 10), max_size=20))
def test_telnet_is_taken_out_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    # Everything that is data has its 0xFF doubled; commands may stand between.
    stream = (
        b"\xff\xfd\x2c" + data.replace(b"\xff", b"\xff\xff") + b"\xff\xfa\x2c\x65\xff\xff\xff\xf0\xff\xf1"
    )
    telnet = TelnetFilter()
    plain, place = b"", 0
    commands: list[tuple[int, bytes]] = []
    for cut in [*cuts, len(stream)]:
        some, more = telnet.feed(stream[place : place + cut])
        plain, commands, place = plain + some, commands + more, place + cut
    assert plain == data
    assert commands == [(0xFD, b"\x2c"), (0xFA, b"\x2c\x65\xff")]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=20), max_size=20))
def test_no_bytes_make_the_telnet_filter_fail(pieces: list[bytes]) -> None:
    telnet = TelnetFilter()
    for piece in pieces:
        telnet.feed(piece)


def test_an_option_without_an_end_is_given_up() -> None:
    with pytest.raises(ValueError, match="does not end"):
        TelnetFilter().feed(b"\xff\xfa" + b"a" * 2000)
