"""What others can provoke is bounded in the log; the journal gets priorities; lines say what they are of."""

import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from agent import logs


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_flood_of_warnings_is_bounded_and_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    logs.setup("json", "info")
    log = structlog.get_logger("commands")
    for number in range(10_000):
        log.warning("message is no command", why=f"try {number}")
    written = events(capsys)
    assert len(written) == logs.MOST_ALIKE
    assert "note" in written[-1]
    assert not any("note" in line for line in written[:-1])
    now += 61.0
    log.warning("message is no command", why="later")
    (later,) = events(capsys)
    assert (later["why"], later["held_back"]) == ("later", 10_000 - logs.MOST_ALIKE)
    log.warning("message is no command", why="again")
    assert "held_back" not in events(capsys)[0]


def test_one_flood_hides_neither_other_warnings_nor_other_devices(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("json", "info")
    log = structlog.get_logger("device")
    for _ in range(2 * logs.MOST_ALIKE):
        log.warning("device is not reachable", device="pump")
    log.warning("device is not reachable", device="valve")
    log.warning("driver did not close", device="pump")
    structlog.get_logger("safety").error("fault", key="safe:pump")
    assert [line["event"] for line in events(capsys)[logs.MOST_ALIKE :]] == [
        "device is not reachable",
        "driver did not close",
        "fault",
    ]


def test_what_is_told_at_info_is_never_held_back(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("json", "info")
    for number in range(3 * logs.MOST_ALIKE):
        structlog.get_logger("commands").info("command", id=number)
    assert len(events(capsys)) == 3 * logs.MOST_ALIKE


def test_texts_from_outside_make_no_kinds_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("json", "info")
    for number in range(5000):
        structlog.get_logger("availability").error(f"another agent (host {number}) also runs bench rig")
        logging.getLogger("library").warning("odd frame from peer %s", number)
    assert len(events(capsys)) == 2 * logs.MOST_ALIKE


def test_what_a_peer_sends_begins_no_line_and_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("text", "info")
    structlog.get_logger("mqtt").warning("odd topic", topic="a\x1b[2J\nb\x9b1m")
    logging.getLogger("library").warning("peer said %s", "hello\r\n[info] all is well\x1b[0m")
    first, second = capsys.readouterr().err.splitlines()
    assert "a\\x1b[2J\\x0ab\\x9b1m" in first
    assert "hello\\x0d\\x0a[info] all is well\\x1b[0m" in second


def test_what_a_peer_has_an_exception_say_does_not_look_like_a_record(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.setup("text", "info")
    logger = structlog.get_logger("commands")
    for fault in (ValueError("odd \x1b[2J\n2026-01-01 [info ] all is well\r\x9b1m"), KeyError("\u202edne")):
        try:
            raise fault
        except (ValueError, KeyError):
            logger.exception("command failed")
    first, *others = capsys.readouterr().err.splitlines()
    assert "command failed" in first
    assert [line for line in others if not line.startswith("    ") and "command failed" not in line] == []
    assert "    ValueError: odd \\x1b[2J" in others
    assert "    2026-01-01 [info ] all is well\\x0d\\x9b1m" in others
    assert "\u202e" not in "".join(others)


def test_every_line_bears_the_bench_and_what_is_bound(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("json", "info", "rig-07")
    with structlog.contextvars.bound_contextvars(id="s:1", device="pump"):
        structlog.get_logger("modbus").info("slow")
        logging.getLogger("pymodbus").warning("late")
    structlog.get_logger("agent").info("idle")
    first, second, third = events(capsys)
    assert (first["bench"], first["id"], first["device"]) == ("rig-07", "s:1", "pump")
    assert (second["bench"], second["id"], second["device"]) == ("rig-07", "s:1", "pump")
    assert third["bench"] == "rig-07"
    assert "id" not in third


def test_a_token_that_stands_in_a_text_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJqb2UifQ.c2lnbmF0dXJlLXRoYXQtaXMtc2VjcmV0"
    logs.setup("json", "debug")
    structlog.get_logger("x").warning("odd", why=f"what is {token}?", bearer=token)
    text = capsys.readouterr().err
    assert token not in text
    assert "c2lnbmF0dXJl" not in text


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2)]
)
def test_priorities_are_those_of_syslog(level: str, priority: int) -> None:
    number = logging.getLevelNamesMapping()[level.upper()]
    assert logs.with_priority("one\ntwo", number) == f"<{priority}>one\n<{priority}>two"


def test_the_journal_gets_priorities_and_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stderr"
    kept = os.dup(2)
    with path.open("w") as file:
        os.dup2(file.fileno(), 2)
        monkeypatch.setattr(sys, "stderr", file)
        try:
            status = os.fstat(2)
            for stream in (f"{status.st_dev}:{status.st_ino}", "1:2", "", "rubbish"):
                monkeypatch.setenv("JOURNAL_STREAM", stream)
                logs.setup("json", "info")
                structlog.get_logger("x").error("yes")
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    first, *others = path.read_text().splitlines()
    assert first.startswith('<3>{"')
    assert len(others) == 3
    assert all(line.startswith('{"') for line in others)
