"""Logs: one line per event on standard error, as text for people or as JSON for machines."""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator
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

_SECRET_KEYS = frozenset({"authorization", "lease", "password", "secret", "token"})
_URL_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is at that moment, so that a live table can take lines above itself."""

    @property
    def stream(self) -> TextIO:
        """The present standard error."""
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """Takes the base class's assignment, which would pin one stream."""


def hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Masks values under secret names, and user and password in URLs."""
    for key, value in event.items():
        if key in _SECRET_KEYS:
            event[key] = "***"
        elif isinstance(value, str) and "://" in value:
            event[key] = _URL_PASSWORD.sub("***@", value)
    return event


def _encode(event: Any, **_: Any) -> str:
    import msgspec

    return msgspec.json.encode(event, enc_hook=str).decode()


_CHATTY = {"numexpr": logging.WARNING, "asyncua": logging.CRITICAL}
"""Libraries that say what nobody asked, or what the drivers say in their own words, and from which level on
they are heard."""


def setup(log_format: LogFormat = "text", level: LogLevel = "info") -> None:
    """Sends structlog's and the standard library's log records to standard error in one format.

    Args:
        log_format: `text` for people, coloured on a terminal; `json` for one object a line.
        level: The least severe level that is shown.
    """
    shared: list[Processor] = [
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
    handler = _StderrHandler()
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


def _renderers(log_format: LogFormat) -> list[Processor]:
    if log_format == "json":
        # Tracebacks as plain text: structlog's dictionaries of them would carry local variables, so secrets.
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_encode)]
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]
