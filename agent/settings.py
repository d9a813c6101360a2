"""Settings: where one agent runs. From a file, then the environment, then the command line."""

import difflib
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from agent.authorization.config import Authorization, RateLimit, mistakes, not_empty
from agent.document import Entry, MappingNode, Node, ScalarNode, plain, read_document
from agent.problems import ConfigErrors, Place, Problem, did_you_mean
from agent.validation import MISSING, locate, news, problems_of
from agent.web.token import is_loopback, read_token
from protocols.units import WRITTEN, Duration, Size

PREFIX = "HILGATE_"
FILE_ONLY = ("authorization", "rate_limit")
"""Fields that are blocks of the settings file, and neither a variable nor an option."""
_PAIRS = [
    ("tls_cert", "tls_key"),
    ("tls_key", "tls_cert"),
    ("http_cert", "http_key"),
    ("http_key", "http_cert"),
]
_NEAR_MISS = 0.85


def _bench(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name):
        raise ValueError("should be up to 63 of a-z, 0-9 and -, not beginning or ending with -")
    return name


def _broker(url: str) -> str:
    if "@" in url:  # before anything that repeats a part of it
        raise ValueError("holds credentials; give them by username and password_file")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from None
    if parts.scheme not in ("amqp", "amqps") or not host:
        raise ValueError("should be a URL such as amqp://host:5672 or amqps://host:5671")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("has something after the port; addresses follow from the bench id")
    return url


def _listen(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("should be host:port, such as 127.0.0.1:8080")
    return address


def _labels(value: Any) -> Any:
    """Labels from the environment or the command line: `site=muc,rack=7`."""
    if not isinstance(value, str):
        return value
    pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
    if any(not equals or not key.strip() for key, equals, _ in pairs):
        raise ValueError("should be key=value pairs, such as site=muc,rack=7")
    return {key.strip(): text.strip() for key, _, text in pairs}


class Settings(BaseModel):
    """Where this agent runs, what it talks to, and what it keeps."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    bench: Annotated[str, AfterValidator(_bench)] = Field(
        description="The bench's id, a word of every AMQP address: up to 63 of a-z, 0-9 and - inside."
    )
    labels: Annotated[dict[str, str], BeforeValidator(_labels)] = Field(
        {}, description="Added to the profile's labels; one of the same key wins over the profile's."
    )
    enabled: bool = Field(True, description="false: the bench starts in maintenance.")
    sil: bool = Field(False, description="true: every device is simulated from the profile.")

    broker: Annotated[str, AfterValidator(_broker)] = Field(
        description="The AMQP 1.0 broker: amqp://host:port or amqps://host:port."
    )
    flavour: Literal["auto", "artemis", "rabbitmq", "rabbitmq3", "embedded", "generic"] = Field(
        "auto", description="Which broker it is; auto asks the broker."
    )
    queue_prefix: str = Field("", description="With flavour generic: put before the name of a queue.")
    topic_prefix: str = Field("", description="With flavour generic: put before the name of a topic.")
    username: str | None = Field(None, description="The name to log in with.")
    username_file: Path | None = Field(None, description="A file with the name to log in with.")
    password_file: Path | None = Field(None, description="A file with the password.")
    allow_plain: bool = Field(False, description="true: the password may go over a line without TLS.")
    sasl: Literal["auto", "ANONYMOUS", "PLAIN", "EXTERNAL"] = Field(
        "auto", description="How to log in; auto: PLAIN with a name, EXTERNAL with tls_cert, else ANONYMOUS."
    )
    tls_ca: Path | None = Field(None, description="Certificates that the broker is checked against (PEM).")
    tls_cert: Path | None = Field(None, description="The agent's own certificate (PEM).")
    tls_key: Path | None = Field(None, description="The key of tls_cert (PEM).")
    tls_verify: bool = Field(True, description="false: the broker's certificate is not checked.")
    cloudevents: Literal["binary", "structured"] = Field("binary", description="CloudEvents content mode.")

    heartbeat: Duration = Field(5.0, gt=0, le=3600, description="How often availability is sent.")
    max_command_age: Duration = Field(60.0, gt=0, description="An older command is rejected as expired.")
    require_command_time: bool = Field(
        False, description="true: a command that writes must have a creation time."
    )
    require_lease: bool = Field(False, description="true: a command that writes needs a lease.")
    max_lease: Duration = Field(24 * 3600.0, gt=0, description="The longest time a lease may be asked for.")
    safe_after_broker_loss: Duration | None = Field(
        None, gt=0, description="Make the bench safe when the broker was away this long; none: do not."
    )
    outbox_size: Size = Field(
        1024**3,
        ge=1024 * 1024,
        description="What is kept of events while the broker is away; without a store 64 MiB at most.",
    )
    outbox_age: Duration = Field(24 * 3600.0, gt=0, description="How long such events are kept.")
    store: Path | None = Field(
        None, description="Directory of what outlives the agent; none: all is in memory."
    )
    synchronous: Literal["normal", "full"] = Field(
        "normal", description="normal: the store survives a killed agent; full: a power cut too, and slower."
    )
    audit_age: Duration = Field(30 * 24 * 3600.0, gt=0, description="How long the audit is kept.")
    http: Annotated[str, AfterValidator(_listen)] | None = Field(
        None,
        description="host:port of health, status and metrics over HTTP (extra web); none by default.",
    )
    http_token_file: Path | None = Field(
        None, description="A file with the token that HTTP is asked with; needed off loopback."
    )
    http_cert: Path | None = Field(None, description="The certificate of HTTP over TLS (PEM).")
    http_key: Path | None = Field(None, description="The key of http_cert (PEM).")
    http_client_ca: Path | None = Field(
        None, description="Authorities whose clients need no token (PEM); off loopback, this or a token."
    )
    authorization: Annotated[Authorization | None, BeforeValidator(not_empty)] = Field(
        None, description="Who may do what: docs/authorization.md. Without it everybody may do everything."
    )
    rate_limit: RateLimit | None = Field(
        RateLimit(), description="How often one sender may command: docs/authorization.md; null: no limit."
    )
    log_format: Literal["text", "json"] = Field("text", description="How log lines are written.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least to be logged."
    )

    def credentials(self) -> tuple[str | None, str | None]:
        """The name and the password to log in with, read now, so that a changed file counts.

        Raises:
            OSError: a file cannot be read.
            UnicodeDecodeError: a file is not UTF-8 text.
        """
        username, password = _first_line(self.username_file), _first_line(self.password_file)
        return self.username if username is None else username, password


def _first_line(path: Path | None) -> str | None:
    return None if path is None else path.read_text("utf-8").partition("\n")[0].rstrip("\r")


def load_settings(
    file: Path | None, environ: Mapping[str, str], overrides: Mapping[str, Any], *, files: bool = True
) -> Settings:
    """Settings from a YAML file, then `HILGATE_<FIELD>` variables, then the command line; the later wins.

    An empty variable and an override of None count as not given. Paths in a file are relative to it,
    and may hold variables as in profiles: `${CREDENTIALS_DIRECTORY}/password`. Without `files` nobody
    looks whether what they name can be read.

    Raises:
        ConfigErrors: everything that is wrong, each with the file and line, variable or option it came from.
    """
    problems: list[Problem] = []
    root = MappingNode(Place("settings"), {})
    if file is not None:
        root.entries |= _from_file(file, environ, problems)
    root.entries |= _from_environment(environ, problems)
    root.entries |= _from_overrides(overrides)
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(plain(root), context=WRITTEN)
    except ValidationError as error:
        wrong = problems_of(error, root, schema=Settings.model_json_schema())
        problems += map(_say_how, news(wrong, problems))
    problems += _at_odds(root, settings, files)
    if settings is None or problems:
        raise ConfigErrors(problems)
    return settings


def option(field: str) -> str:
    """The command line's name of a field."""
    return f"--{field.replace('_', '-')}"


def _from_file(file: Path, environ: Mapping[str, str], problems: list[Problem]) -> dict[str, Entry]:
    from agent.profile.variables import Substitution  # dear to import, and rarely needed otherwise

    document = read_document(file, str(file))
    problems += document.problems
    if not isinstance(document.root, MappingNode):
        if document.root is not None:
            problems.append(Problem.at(document.root.place, "", "should be a mapping of settings"))
        return {}
    for field in _PATHS & document.root.entries.keys():
        node = document.root.entries[field].node
        if isinstance(node, ScalarNode) and isinstance(node.value, str):
            path = Substitution(environ, problems).text(node.value, node.place, field)
            node.value = str(file.parent / path)
    _from_folder(document.root, file.parent, "authorization", "jwt")
    return document.root.entries


def _from_folder(node: Node, folder: Path, *blocks: str) -> None:
    """Makes the files of authorization's block relative to the settings file, where they are there."""
    for name in blocks:
        if not isinstance(node, MappingNode) or name not in node.entries:
            return
        node = node.entries[name].node
    entries = node.entries if isinstance(node, MappingNode) else {}
    for name in entries.keys() & {"ca", "jwks"}:
        found = entries[name].node
        if isinstance(found, ScalarNode) and isinstance(found.value, str) and "://" not in found.value:
            found.value = str(folder / found.value)


_PATHS = {"username_file", "password_file", "tls_ca", "tls_cert", "tls_key", "store"} | {
    f"http_{name}" for name in ("token_file", "cert", "key", "client_ca")
}


def _from_environment(environ: Mapping[str, str], problems: list[Problem]) -> dict[str, Entry]:
    entries = {}
    fields = {PREFIX + field.upper(): field for field in Settings.model_fields}
    for name, text in environ.items():
        place = Place(f"environment variable {name}")
        if fields.get(name) in FILE_ONLY:
            problems.append(Problem.at(place, fields[name], "is a block of the settings file"))
        elif name in fields:
            if text:
                entries[fields[name]] = Entry(place, ScalarNode(place, text))
        elif name.startswith(PREFIX) and _is_slip(name):
            # Others use the prefix too (Kubernetes, for a service of that name): only a slip is an error.
            problems.append(Problem.at(place, "", "unknown setting", did_you_mean(name, fields)))
    return entries


def _is_slip(name: str) -> bool:
    word = name.removeprefix(PREFIX).lower()  # the prefix alone makes any two names alike
    return bool(difflib.get_close_matches(word, Settings.model_fields, 1, _NEAR_MISS))


def _from_overrides(overrides: Mapping[str, Any]) -> dict[str, Entry]:
    entries = {}
    for field, value in overrides.items():
        if value is not None:
            place = Place(f"option {option(field)}")
            entries[field] = Entry(place, _node(place, value))
    return entries


def _node(place: Place, value: Any) -> Node:
    if isinstance(value, Mapping):
        return MappingNode(place, {str(key): Entry(place, _node(place, item)) for key, item in value.items()})
    return ScalarNode(place, str(value) if isinstance(value, Path) else value)


def _say_how(problem: Problem) -> Problem:
    """A missing setting has no place: say by which ways it can be given."""
    if problem.message != MISSING:
        return problem
    field = problem.field
    if problem.field.partition(".")[0] in FILE_ONLY:
        return problem
    hint = f"give {option(field)}, {PREFIX}{field.upper()} or `{field}:` in the settings file"
    return Problem("settings", 0, 0, field, MISSING, hint)


def _at_odds(root: MappingNode, settings: Settings | None, files: bool) -> list[Problem]:
    """What no setting shows alone: pairs that belong together, and files and packages that are missing."""
    given = root.entries
    problems = []

    def wrong(field: str, message: str) -> None:
        problems.append(Problem.at(given[field].place, field, message))

    if "username" in given and "username_file" in given:
        wrong("username_file", "goes against username; give one of them")
    if "password_file" in given and not {"username", "username_file"} & given.keys():
        wrong("password_file", "needs a username or username_file")
    for field, other in (*_PAIRS, ("http_client_ca", "http_cert")):
        if field in given and other not in given:
            wrong(field, f"needs {other} too")
    if settings is None:
        return problems
    if settings.broker.startswith("amqp://"):
        for field in [field for field in given if field.startswith("tls_")]:
            wrong(field, "needs a broker URL that begins with amqps://")
    if settings.http is None:
        for field in [field for field in given if field.startswith("http_")]:
            wrong(field, "needs http too")
    else:
        if no_http := _why_no_http(settings, settings.http):
            wrong("http", no_http)
    if settings.flavour != "generic":
        for field in ("queue_prefix", "topic_prefix"):
            if field in given:
                wrong(field, "needs flavour generic")
    for loc, message in mistakes(settings.authorization) if settings.authorization else ():
        spot = locate(root, ("authorization", *loc))
        problems.append(Problem.at(spot.place, spot.field, message))
    for field in (_PATHS - {"store"}) & given.keys() if files else ():
        if (why := _unreadable(getattr(settings, field))) is not None:
            wrong(field, why)
        elif field == "http_token_file" and settings.http_token_file is not None:
            try:
                read_token(settings.http_token_file)
            except (OSError, ValueError) as error:
                wrong(field, str(error))
    return problems


def _why_no_http(settings: Settings, listen: str) -> str:
    for package in ("aiohttp", "prometheus_client"):
        if find_spec(package) is None:
            return f"needs the package {package}; install hilgate[web]"
    guarded = settings.http_token_file is not None or settings.http_client_ca is not None
    if not guarded and not is_loopback(listen.rpartition(":")[0]):
        return "can be reached from elsewhere: give http_token_file or http_client_ca, or use 127.0.0.1"
    return ""


def _unreadable(path: Path) -> str | None:
    try:
        with path.open("rb"):
            return None
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except ValueError:  # a NUL, for instance
        return "is no path"
