"""Commands from hostile messages: a command or a clear refusal, never anything else."""

import json
import tracemalloc
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.commands.parse import (
    MAX_BEARER,
    MAX_COMMAND_BYTES,
    MAX_ID,
    MAX_SAFE,
    NotACommand,
    journal_key,
    parse,
)
from protocols.amqp.codec import Message
from protocols.amqp.types import ULong

NOW_NS = 1_800_000_000_000_000_000
NOW_MS = NOW_NS // 1_000_000


def command(body: bytes = b'{"op":"ping"}', **fields: Any) -> Message:
    return Message(body=body, **({"message_id": "id-1"} | fields))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_command_or_refused(body: bytes) -> None:
    try:
        parsed = parse(command(body), NOW_NS)
    except NotACommand as error:
        assert error.code == "malformed"
    else:
        assert json.loads(body)["op"] == parsed.op


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b'{"op": 5}',
        b'{"no": "op"}',
        b'{"op": "write", "values": {"a": NaN}}',
        b'{"op": "write", "values": {"a": Infinity}}',
        b'{"op": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"op": "ping"} trailing',
    ],
)
def test_what_is_no_command_is_malformed(body: bytes) -> None:
    with pytest.raises(NotACommand) as caught:
        parse(command(body), NOW_NS)
    assert caught.value.code == "malformed"


def test_a_huge_integer_survives_as_itself_or_is_refused() -> None:
    digits = "9" * 400
    try:
        parsed = parse(command(b'{"op": "write", "values": {"a": %b}}' % digits.encode()), NOW_NS)
    except NotACommand as error:
        assert error.code == "malformed"
    else:
        assert parsed.fields["values"]["a"] in (int(digits), float("inf"))


def test_too_large_is_said_before_anything_is_read() -> None:
    with pytest.raises(NotACommand) as caught:
        parse(command(b" " * (MAX_COMMAND_BYTES + 1)), NOW_NS)
    assert caught.value.code == "too-large"


def test_without_a_message_id_it_is_no_command() -> None:
    with pytest.raises(NotACommand, match="message-id"):
        parse(command(message_id=None), NOW_NS)


def test_ids_of_different_types_are_different_commands() -> None:
    same = uuid.UUID(int=49)
    keys = [
        journal_key("1"),
        journal_key(b"1"),
        journal_key(ULong(1)),
        journal_key(same),
        journal_key(str(same)),
    ]
    assert len(set(keys)) == len(keys)


def test_a_result_answers_the_correlation_id_else_the_message_id() -> None:
    assert parse(command(correlation_id=ULong(7)), NOW_NS).correlation_id == ULong(7)
    assert parse(command(), NOW_NS).correlation_id == "id-1"


@pytest.mark.parametrize(
    ("fields", "expires"),
    [
        ({}, None),
        ({"absolute_expiry_ms": NOW_MS + 5}, NOW_MS + 5),
        ({"ttl_ms": 100}, NOW_MS + 100),
        ({"ttl_ms": 100, "creation_ms": NOW_MS - 50}, NOW_MS + 50),
        ({"ttl_ms": 100, "absolute_expiry_ms": NOW_MS + 5}, NOW_MS + 5),
    ],
)
def test_the_earlier_expiry_counts(fields: dict[str, Any], expires: int | None) -> None:
    assert parse(command(**fields), NOW_NS).expires_ms == expires


def traced(body: bytes) -> tuple[int, int]:
    """Bytes that a command takes, measured and as it says."""
    tracemalloc.start()
    try:
        parsed = parse(command(body, properties={"x": "y" * 1_000_000}), NOW_NS)
        return tracemalloc.get_traced_memory()[0], parsed.size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("unit", ["{},", "[],", "[[1]],", '{"a":1},', '"ab",', "1.5,", '"\U0001f600",'])
def test_no_command_takes_more_than_it_says(unit: str) -> None:
    item = f'{{"op":"ping","x":[{unit * (200_000 // len(unit))}0]}}'
    taken, said = traced(item.encode())
    assert taken <= said + 10_000
    taken, _ = traced(item.replace("ping", "safe").encode())
    assert taken <= 50_000, "any number of these may wait"


def test_what_is_longer_than_it_ever_is_is_not_kept() -> None:
    long = "x" * 100_000
    for fields in ({"reply_to": long}, {"correlation_id": long}, {"correlation_id": long.encode()}):
        with pytest.raises(NotACommand, match="reply-to or correlation-id is longer than 1024"):
            parse(command(**fields), NOW_NS)
    parsed = parse(command(properties={"lease": long, "authorization": f"Bearer {long}"}), NOW_NS)
    assert parsed.token is not None
    assert parsed.bearer is not None
    assert len(parsed.token) == MAX_ID
    assert len(parsed.bearer) == MAX_BEARER + 1, "so it is seen to be too long"
    said = parse(command(json.dumps({"op": "safe", "reason": long}).encode()), NOW_NS)
    assert said.fields == {"op": "safe", "reason": "x" * MAX_SAFE}
