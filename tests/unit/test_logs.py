"""Log lines: one format for structlog and the standard library, and no secret in them."""

import json
import logging
from collections.abc import Iterator

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


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_json_has_one_object_a_line_from_both_kinds_of_logger(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("json", "info")
    structlog.get_logger("bench").info("device online", device="pump", n=3)
    logging.getLogger("pymodbus").warning("late %s", "answer")
    first, second = lines(capsys)
    assert (first["event"], first["device"], first["n"], first["level"]) == (
        "device online",
        "pump",
        3,
        "info",
    )
    assert (second["event"], second["logger"], second["level"]) == ("late answer", "pymodbus", "warning")


def test_the_level_holds_for_both(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("json", "error")
    structlog.get_logger("bench").warning("no")
    logging.getLogger("x").warning("no")
    structlog.get_logger("bench").error("yes")
    assert [line["event"] for line in lines(capsys)] == ["yes"]


def test_what_a_library_says_of_itself_on_import_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("json", "info")
    logging.getLogger("numexpr.utils").info("NumExpr defaulting to 2 threads.")
    logging.getLogger("numexpr.utils").warning("yes")
    assert [line["event"] for line in lines(capsys)] == ["yes"]


@pytest.mark.parametrize("level", ["debug", "info"])
def test_what_a_driver_says_in_its_own_words_its_library_does_not(
    capsys: pytest.CaptureFixture[str], level: logs.LogLevel
) -> None:
    logs.setup("json", level)
    logging.getLogger("asyncua.client.ua_client.UASocketProtocol").error("ServiceFault (BadNodeIdUnknown)")
    logging.getLogger("asyncua.client.client").debug("sent a password")
    structlog.get_logger("bench").info("yes")
    assert [line["event"] for line in lines(capsys)] == ["yes"]


def test_secrets_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("json")
    structlog.get_logger("x").info("login", password="hunter2", url="amqp://joe:hunter2@host:5672")
    logging.getLogger("x").warning("login", extra={"token": "hunter2"})
    first, second = lines(capsys)
    assert first["password"] == second["token"] == "***"
    assert first["url"] == "amqp://***@host:5672"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_secrets_are_masked_wherever_they_are(
    capsys: pytest.CaptureFixture[str], log_format: logs.LogFormat
) -> None:
    logs.setup(log_format)
    given = {"broker": {"Password": "hunter2", "urls": ["mqtt://joe:hunter2@host"], "port": 1}}
    log = structlog.get_logger("x")
    log.info("settings", settings=given, header=("Authorization: Bearer hunter2", {"http_token": "hunter2"}))
    log.warning("failed", error=OSError("amqp://joe:hunter2@host"), release="1.2")
    deep: list[object] = ["hunter2"]
    for _ in range(100):
        deep = [deep]
    log.info("deep", deep=deep)
    try:
        raise OSError("amqp://joe:hunter2@host said: bearer hunter2")
    except OSError:
        log.exception("failed")
    err = capsys.readouterr().err
    assert "hunter2" not in err
    for kept in (
        "mqtt://***@host",
        "Authorization: Bearer ***",
        "1.2",
        "amqp://***@host said: bearer ***",
        "port",
    ):
        assert kept in err
    assert given["broker"]["Password"] == "hunter2", "what was given stays as it is"


def test_a_traceback_does_not_show_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("json")
    secret = "".join(["hun", "ter2"])
    try:
        raise ValueError(len(secret))
    except ValueError:
        structlog.get_logger("x").exception("failed")
    (line,) = lines(capsys)
    assert "ValueError: 7" in str(line["exception"])
    assert secret not in str(line)


def test_text_is_a_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("text")
    structlog.get_logger("bench").info("device online", device="pump")
    err = capsys.readouterr().err
    assert "device online" in err
    assert "device=pump" in err
    assert "\x1b" not in err
