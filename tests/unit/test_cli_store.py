"""How `hilgate store` and `hilgate audit` show what is kept, whatever stands in it."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent import clock
from agent.cli import letters, store_tables
from agent.cli.audit import line, moment
from agent.cli.exits import Failure
from agent.store import AuditEntry, Lane, Loss
from agent.store.inspect import DeadLetter, Kept, Overview, Waiting
from protocols.amqp.cloudevents import Event, to_message
from protocols.amqp.codec import Message, encode

AT = 1_795_315_846_500_000_000
SHOWN = "2026-11-22 02:50:46.500Z"
EVENT = Event(
    id="x-1",
    source="/benches/rig-07",
    type="io.hilgate.lease.v1",
    time_ns=AT,
    sequence=5,
    epoch=3,
    mode="hil",
    data=b'{"holder": "joe\xc2\x9b1m"}',
)


def text(picture: Any, width: int = 200) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(picture)
    return out.getvalue()


def letter(data: bytes, **more: Any) -> DeadLetter:
    fields: dict[str, Any] = {
        "id": 7,
        "buried_ns": AT,
        "reason": "amqp:not-allowed: no",
        "address": "hil.rig-07.events.bench",
        "lane": Lane.EVENT,
        "source": EVENT.source,
        "sequence": 5,
        "time_ns": AT,
        "event_id": EVENT.id,
        "data": data,
    }
    return DeadLetter(**fields | more)


@pytest.mark.parametrize("structured", [False, True])
def test_a_dead_letter_tells_its_type_and_body(structured: bool) -> None:
    one = letter(encode(to_message(EVENT, structured=structured)))
    assert letters.summary(one)["type"] == EVENT.type
    assert "joe" in json.dumps(letters.whole(one)["body"])
    shown = text(store_tables.dead_letter(one))
    for word in ("x-1", "holder", "hil.rig-07.events.bench", "amqp:not-allowed: no", "content_type"):
        assert word in shown
    assert "\x9b" not in shown
    assert SHOWN in text(store_tables.dead_letters([one]))


@pytest.mark.parametrize("body", [b"\xd4\xc3\xb2\xa1", b"[" * 100_000, b'{"a": NaN'])
def test_a_body_that_is_no_json_is_left_to_export(body: bytes) -> None:
    one = letter(encode(Message(body=body, content_type="application/vnd.tcpdump.pcap")))
    assert letters.whole(one)["body"] is None
    assert f"{len(body):,} bytes of application/vnd.tcpdump.pcap" in text(store_tables.dead_letter(one))


@given(data=st.binary(), reason=st.text(), address=st.text())
def test_nothing_in_a_dead_letter_steers_the_terminal(data: bytes, reason: str, address: str) -> None:
    one = letter(data, reason=reason, address=address)
    for shown in (text(store_tables.dead_letters([one])), text(store_tables.dead_letter(one))):
        assert all(c.isprintable() or c == "\n" for c in shown)
    assert json.dumps(letters.exported(one) | {"message_base64": ""})


def test_export_never_overwrites(tmp_path: Path) -> None:
    file = tmp_path / "letters.jsonl"
    assert letters.write(file, [{"id": 1}, {"id": 2}]) == 2
    with pytest.raises(Failure, match="exists already"):
        letters.write(file, [])
    assert file.read_text() == '{"id":1}\n{"id":2}\n'


def test_the_overview_tells_of_everything() -> None:
    shown = text(
        store_tables.overview(
            Overview(
                directory="/var/lib/hilgate/rig-07",
                in_use=False,
                epoch=12,
                schema=1,
                files={"store.db": 1_000_000},
                waiting=[
                    Waiting(
                        "hil.rig-07.events.plc", "telemetry", 1234, 99_000, clock.now_ns() - 7_200 * 10**9
                    ),
                    Waiting("", "result", 1, 700, clock.now_ns()),
                ],
                kept={
                    "dead letters": Kept(0, 0, None),
                    "journal": Kept(17, 900, clock.now_ns(), "1 unfinished"),
                },
                losses=[Loss("/benches/rig-07/devices/plc", "outbox-full", 40, 3, 42, AT, AT)],
                leases=[
                    {
                        "id": "0a1b2c3d4e5f",
                        "holder": "joe",
                        "devices": None,
                        "state": "held",
                        "hash": "never",
                    },
                    {"id": "f0", "holder": "ann\x1b[31m", "devices": ["plc"], "state": "ending"},
                ],
            )
        )
    )
    for word in ("epoch 12", "no agent runs", "store.db 1.0 MB", "1,234", "2 h ago", "(replies)", "17"):
        assert word in shown
    for word in ("1 unfinished", "outbox-full", "3-42", SHOWN, "0a1b2c3d4e5f", "joe", "all", "plc", "ending"):
        assert word in shown
    assert "\x1b" not in shown
    assert "never" not in shown


def entry(**more: Any) -> AuditEntry:
    fields: dict[str, Any] = {"time_ns": AT, "finished_ns": AT, "who": "joe", "op": "write", "status": "ok"}
    return AuditEntry(**fields | more)


def test_audit_says_who_did_what_and_what_came_of_it() -> None:
    shown = text(
        store_tables.audit(
            [
                entry(device="plc", what='{"values":{"speed":1}}', lease="0a1b", holder="ann"),
                entry(who="", status="rejected", code="out-of-range", message="at most 3\x1b[2J"),
            ]
        )
    )
    for word in (SHOWN, "joe", "ann 0a1b", "write", "plc", '{"values":{"speed":1}}', "ok"):
        assert word in shown
    for word in ("(not said)", "rejected out-of-range: at most 3\N{REPLACEMENT CHARACTER}[2J"):
        assert word in shown
    assert "no such entries" in text(store_tables.audit([]))


def test_an_audit_line_has_times_as_text_and_nothing_empty() -> None:
    assert line(entry(device="plc")) == {
        "time": "2026-11-22T02:50:46.500000000Z",
        "finished": "2026-11-22T02:50:46.500000000Z",
        "who": "joe",
        "op": "write",
        "status": "ok",
        "device": "plc",
    }


def test_a_moment_is_a_time_or_how_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ns", lambda: AT)
    assert moment("1h") == AT - 3600 * 10**9
    assert moment("2026-11-22T03:50:46.5+01:00") == AT
    for wrong in ("soon", "", "5", "2026-11-22T02:50:46"):
        with pytest.raises(typer.BadParameter, match="should be how long ago"):
            moment(wrong)
