"""Logs: one line per event on standard error, as text for people or as JSON for machines."""

import contextlib
import io
import logging
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Set
from typing import Any, Literal, TextIO

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


@contextlib.contextmanager
def _rich_hidden() -> Iterator[None]:
    """Hides rich from structlog, which would import it for tracebacks: 150 ms and 5 MB for nothing."""
    if "rich" in sys.modules:
        yield
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # None makes `import rich` an ImportError
    try:
        yield
    finally:
        del sys.modules["rich"]


with _rich_hidden():
    import structlog
    from structlog.typing import EventDict, Processor, WrappedLogger

_SECRET_KEYS = re.compile(r"authorization|bearer|lease|.*(password|secret|token)", re.IGNORECASE | re.DOTALL)
_MOST_NESTED = 8
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""What ends lines, moves the cursor or turns the direction of text."""
_URL_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")
_TOKEN = re.compile(r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]*|(?<=\bbearer )\S+", re.IGNORECASE)
MOST_ALIKE = 100
"""Warnings of one kind that are written within a minute."""
_WINDOW_S = 60.0
_ALIKE = 18
"""Characters by which two warnings are of one kind: what follows may come from outside."""
_MOST_KINDS = 1000
_PRIORITIES = ((50, 2), (40, 3), (30, 4), (20, 6), (0, 7))
"""Python's levels from which on a record has a priority of syslog(3)."""


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is at that moment, so that a live table can take lines above itself."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """The record's text, for the journal with priorities."""
        text = super().format(record)
        return with_priority(text, record.levelno) if self._journal else text

    @property
    def stream(self) -> TextIO:
        """The present standard error."""
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """Takes the base class's assignment, which would pin one stream."""


class _Bounded(logging.Filter):
    """Holds back what repeats itself, so that nobody who provokes it can fill a disk with it.

    Of warnings and worse that begin alike, of one logger and device, `MOST_ALIKE` are written a minute; the
    last of them says so, and the next that is written says how many were not.
    """

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[tuple[str, str, str], list[float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written."""
        if record.levelno < logging.WARNING:
            return True
        event = record.msg if isinstance(record.msg, dict) else {"event": record.msg}
        key = (record.name, str(event.get("event"))[:_ALIKE], str(event.get("device", "")))
        now = time.monotonic()
        if key not in self._windows and len(self._windows) >= _MOST_KINDS:
            del self._windows[next(iter(self._windows))]
        window = self._windows.setdefault(key, [now, 0, 0])  # since when, written, held back
        if now - window[0] >= _WINDOW_S:
            window[:2] = [now, 0]
        if window[1] >= MOST_ALIKE:
            window[2] += 1
            return False
        window[1] += 1
        if isinstance(record.msg, dict):
            if window[2]:
                record.msg["held_back"] = int(window[2])
            if window[1] == MOST_ALIKE:
                record.msg["note"] = "more of this within a minute are only counted"
        window[2] = 0
        return True


def _in_journal(environ: Mapping[str, str]) -> bool:
    """Whether standard error goes straight to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(2)
    except OSError:  # closed
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def with_priority(text: str, level: int) -> str:
    """A record as the journal takes it: each line with its priority in front (sd-daemon(3))."""
    priority = next(number for least, number in _PRIORITIES if level >= least)
    return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))


def hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Masks values under secret names, user and password in URLs, and bearer tokens; at any depth."""
    for key, value in event.items():
        event[key] = _shown(key, value)
    return event


def _shown(key: Any, value: Any, depth: int = 0) -> Any:
    if key == "exc_info":  # formatted, and masked, later
        return value
    if isinstance(key, str) and _SECRET_KEYS.fullmatch(key):
        return "***"
    if isinstance(value, BaseException):
        value = str(value)
    if isinstance(value, str):
        return _TOKEN.sub("***", _URL_PASSWORD.sub("***@", value) if "://" in value else value)
    if isinstance(value, Mapping | list | tuple | Set) and depth >= _MOST_NESTED:
        return "***"
    if isinstance(value, Mapping):
        return {name: _shown(name, inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple | Set):
        return [_shown(None, inner, depth + 1) for inner in value]
    return value


def show_controls(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Writes control characters out: what a peer sends begins no line and moves no cursor of a terminal."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = _written_out(value)
    return event


def _written_out(text: str) -> str:
    def number(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

    return _CONTROL.sub(number, text)


def _encode(event: Any, **_: Any) -> str:
    import msgspec

    return msgspec.json.encode(event, enc_hook=str).decode()


_CHATTY = {"numexpr": logging.WARNING, "asyncua": logging.CRITICAL}
"""Libraries that say what nobody asked, or what the drivers say in their own words, and from which level on
they are heard."""


def setup(log_format: LogFormat = "text", level: LogLevel = "info", bench: str = "") -> None:
    """Sends structlog's and the standard library's log records to standard error in one format.

    Args:
        log_format: `text` for people, coloured on a terminal; `json` for one object a line.
        level: The least severe level that is shown.
        bench: The bench's id, which each line then bears.
    """

    def name_bench(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        if bench:
            event.setdefault("bench", bench)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        name_bench,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        hide_secrets,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = _StderrHandler(journal=_in_journal(os.environ))
    handler.addFilter(_Bounded())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(log_format)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name, least in _CHATTY.items():
        logging.getLogger(name).setLevel(max(root.level, least))


def _write_traceback(out: TextIO, exc_info: Any) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    # Indented: an exception's own words may have been a peer's, and are not to look like the next record.
    for line in _shown(None, text.getvalue()).strip("\n").split("\n"):
        out.write(f"\n    {_written_out(line)}")


def _renderers(log_format: LogFormat) -> list[Processor]:
    if log_format == "json":
        # Tracebacks as plain text: structlog's dictionaries of them would carry local variables, so secrets.
        return [
            structlog.processors.format_exc_info,
            hide_secrets,
            structlog.processors.JSONRenderer(serializer=_encode),
        ]
    return [
        show_controls,
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_write_traceback),
    ]
