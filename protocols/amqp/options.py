"""How a client reaches its broker and who it says it is: URL, TLS and SASL options, checked when made."""

import ssl
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from protocols.amqp.engine import ClientSasl
from protocols.amqp.flavours import FlavourName
from protocols.tls import Files, client_context

_PORTS = {"amqp": 5672, "amqps": 5671}

Mechanism = Literal["ANONYMOUS", "PLAIN", "EXTERNAL"]


@dataclass(frozen=True)
class Options:
    """A client's options; times in seconds.

    Raises (on construction):
        ValueError: the URL or the way to authenticate cannot work; one sentence says why.
    """

    url: str
    """`amqp://host:port` or `amqps://host:port`."""
    container_id: str
    """Names this client to the broker; unique among its clients."""
    flavour: FlavourName | Literal["auto"] = "auto"
    queue_prefix: str = ""
    """Goes before queue names; flavour `generic`."""
    topic_prefix: str = ""
    """Goes before topic names; flavour `generic`."""
    username: str | None = None
    password: str | None = None
    sasl: tuple[Mechanism, ...] = ()
    """Allowed mechanisms. Default: PLAIN with a user name, EXTERNAL with a certificate, else ANONYMOUS."""
    allow_plain: bool = False
    """Send the password also without TLS."""
    tls: Files | None = None
    max_message_size: int = 16 * 1024 * 1024
    """Of a larger message that arrives no more than this is kept: it is no message to its receiver."""
    idle_timeout: float = 30.0
    """A broker silent for so long has gone."""
    connect_timeout: float = 10.0
    outcome_timeout: float = 20.0
    """A broker that gives credit and settles nothing for so long is hung: connect again."""
    blocked_after: float = 2.0
    """A broker that gives no credit for so long is called blocked."""
    close_timeout: float = 1.0
    backoff_min: float = 0.2
    backoff_max: float = 30.0

    def __post_init__(self) -> None:
        if "@" in self.url:  # before anything that repeats the URL
            raise ValueError("the broker's URL holds no user name or password: give them on their own")
        parts = urlsplit(self.url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"write the broker as amqp://host:port or amqps://host:port, not {self.url!r}")
        try:
            parts.port  # noqa: B018  # urlsplit checks it on access
        except ValueError as error:
            raise ValueError(f"the port in {self.url!r} is none: {error}") from None
        if "PLAIN" in self.mechanisms and parts.scheme == "amqp" and not self.allow_plain:
            raise ValueError(f"a password is not sent to {self.url} without TLS: use amqps://, or allow it")
        if "EXTERNAL" in self.mechanisms and not (self.secure and self.tls is not None and self.tls.cert):
            raise ValueError("SASL EXTERNAL needs amqps:// and a certificate of our own")
        if "PLAIN" in self.mechanisms and (self.username is None or self.password is None):
            raise ValueError("SASL PLAIN needs a user name and a password")

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def host(self) -> str:
        """The broker's host."""
        return self._parts.hostname or ""

    @property
    def port(self) -> int:
        """The broker's port."""
        return self._parts.port or _PORTS[self._parts.scheme]

    @property
    def secure(self) -> bool:
        """Whether TLS is used."""
        return self._parts.scheme == "amqps"

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """The SASL mechanisms that may be used."""
        if self.sasl:
            return self.sasl
        if self.username is not None:
            return ("PLAIN",)
        certified = self.secure and self.tls is not None and self.tls.cert is not None
        return ("EXTERNAL",) if certified else ("ANONYMOUS",)

    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS context for this URL, None without TLS.

        Raises:
            UnusableFile: one of the files of `tls`.
        """
        return client_context(self.tls or Files()) if self.secure else None

    def client_sasl(self) -> ClientSasl:
        """What the engine needs to authenticate."""
        plain_allowed = self.secure or self.allow_plain
        return ClientSasl(self.mechanisms, self.username, self.password, plain_allowed)
