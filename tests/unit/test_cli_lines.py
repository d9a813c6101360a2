"""Events as JSON lines."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.lines import event_line
from protocols.amqp.cloudevents import Event


def event(data: bytes, kind: str = "application/json") -> Event:
    return Event(
        id="a-1",
        source="/benches/rig-07",
        type="io.hilgate.loss.v1",
        time_ns=1_795_314_646_123_456_789,
        sequence=7,
        epoch=3,
        mode="hil",
        data=data,
        datacontenttype=kind,
    )


def test_a_line_is_a_cloudevent() -> None:
    assert json.loads(bytes(event_line(event(b'{"n": 18446744073709551615,\n "x": 1.5}')))) == {
        "specversion": "1.0",
        "id": "a-1",
        "source": "/benches/rig-07",
        "type": "io.hilgate.loss.v1",
        "time": "2026-11-22T02:30:46.123456789Z",
        "sequence": "7",
        "epoch": 3,
        "mode": "hil",
        "datacontenttype": "application/json",
        "data": {"n": 2**64 - 1, "x": 1.5},
    }


@pytest.mark.parametrize("kind", ["application/json", "application/vnd.tcpdump.pcap"])
def test_what_is_no_json_is_base64(kind: str) -> None:
    line = json.loads(bytes(event_line(event(b"\xff\x00", kind))))
    assert base64.b64decode(line["data_base64"]) == b"\xff\x00"
    assert "data" not in line


@given(st.binary() | st.text().map(str.encode) | st.just(b"[" * 100_000))
def test_any_body_makes_one_line_of_json(data: bytes) -> None:
    line = bytes(event_line(event(data)))
    assert b"\n" not in line
    assert json.loads(line)["id"] == "a-1"
