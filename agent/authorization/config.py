"""The settings of command authorization and of the rate limit."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from protocols.units import Duration

Op = Literal[
    "all",
    "ping",
    "describe",
    "read",
    "write",
    "call",
    "record",
    "reserve",
    "renew",
    "release",
    "enable",
    "disable",
    "mode",
    "fault",
    "scenario",
]
"""What a rule may name: the ops of the wire contract but `safe`, which is always allowed."""
OF_DEVICES = frozenset(("read", "write", "call", "record", "reserve", "mode", "fault"))
"""The ops that are about devices."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _listed(value: Any) -> Any:
    """One text stands for a list of one."""
    return [value] if isinstance(value, str) else value


def not_empty(value: Any) -> Any:
    """Refuses what is named and says nothing, for instance since all that stood there is a comment now.

    Raises:
        ValueError: it would be taken for what is left out, which allows more.
    """
    if value is None:
        raise ValueError("is empty, which would allow more: give something, or leave it out")
    return value


def _op_is_not_safe(value: Any) -> Any:
    if value == "safe":
        raise ValueError("is always allowed and needs no rule; leave it out")
    return value


def _source(text: str) -> str:
    """A path, or a URL that is safe to fetch keys from."""
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        why = "" if "@" in text else f": {error}"  # which may hold a part of a password
        raise ValueError(f"is not a URL{why}") from None
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or parts.fragment:
        raise ValueError("should be a file or a URL such as https://idp.example/certs")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("holds characters that a URL cannot have")
    if parts.scheme == "http" and host not in LOOPBACK:
        raise ValueError("should begin with https://; http is for loopback only")
    return text


_Name = Annotated[str, Field(min_length=1, max_length=256)]
_Names = Annotated[tuple[_Name, ...], BeforeValidator(_listed), Field(min_length=1)]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Rule(_Block):
    """One permission. It allows a command for which everything that it says is true."""

    ops: Annotated[
        tuple[Annotated[Op, BeforeValidator(_op_is_not_safe)], ...],
        BeforeValidator(_listed),
        Field(min_length=1),
    ] = Field(description="What may be done: ops of the wire contract, or `all`.")
    devices: _Names | None = Field(
        None, description="Only to these devices; a command to the whole bench is then not allowed by it."
    )
    methods: _Names | None = Field(None, description="With ops: [call], only these methods of the devices.")
    users: _Names | None = Field(
        None,
        description="Who: user-ids as the broker vouches for them; `*`, `?`, `[...]` as in file names.",
    )
    roles: _Names | None = Field(None, description="Who: bearers of a token with one of these roles.")
    lease_holder: Literal[True] | None = Field(
        None,
        description="Who: whoever shows the token of a lease that is held on the device or bench.",
    )
    anybody: Literal[True] | None = Field(None, description="Who: everybody who can send to the bench.")

    _empty = field_validator(
        "devices", "methods", "users", "roles", "lease_holder", "anybody", mode="before"
    )(not_empty)

    @model_validator(mode="after")
    def _says_whom(self) -> "Rule":
        whom = (self.users, self.roles, self.lease_holder)
        if self.anybody and any(whom):
            raise ValueError("says anybody and somebody; leave one of them out")
        if not self.anybody and not any(whom):
            raise ValueError("says nobody; give users, roles, lease_holder: true or anybody: true")
        return self

    @model_validator(mode="after")
    def _narrows_what_can_be(self) -> "Rule":
        if self.devices and not OF_DEVICES.issuperset(self.ops):
            stray = next(op for op in self.ops if op not in OF_DEVICES)
            raise ValueError(f"devices narrows {', '.join(sorted(OF_DEVICES))}, not {stray}")
        if self.methods and self.ops != ("call",):
            raise ValueError("methods needs ops: [call]")
        return self


class Jwt(_Block):
    """Whose tokens are taken (RFC 7519), and where the keys come from (RFC 7517)."""

    issuer: _Name = Field(description="The claim `iss` of a token, letter by letter.")
    audience: _Name = Field(description="What the claim `aud` of a token must be or hold.")
    jwks: Annotated[_Name, AfterValidator(_source)] = Field(
        description="The issuer's keys: a file, or an https URL (http for loopback only)."
    )
    ca: Path | None = Field(None, description="Certificates that the URL's server is checked against (PEM).")
    algorithms: Annotated[
        tuple[Literal["RS256", "ES256", "EdDSA"], ...], BeforeValidator(_listed), Field(min_length=1)
    ] = Field(("RS256", "ES256", "EdDSA"), description="Signatures that are taken.")
    roles_claim: _Name = Field(
        "realm_access.roles", description="Where a token has its roles: names of claims with dots between."
    )
    leeway: Duration = Field(
        30.0, ge=0, le=300, description="How far the issuer's clock and the agent's may be apart."
    )
    cache: Duration = Field(600.0, ge=30, le=86400, description="How often the keys of a URL are fetched.")
    keep: Duration = Field(
        86400.0, ge=60, le=30 * 86400, description="How long keys stay in force while their source is away."
    )

    @property
    def is_url(self) -> bool:
        """Whether the keys are fetched over HTTP."""
        return "://" in self.jwks

    @model_validator(mode="after")
    def _ca_is_for_https(self) -> "Jwt":
        if self.ca is not None and not self.jwks.startswith("https://"):
            raise ValueError("ca is for a jwks that begins with https://")
        return self


class Authorization(_Block):
    """Who may do what. A command that no rule allows is rejected as `unauthorized`."""

    rules: tuple[Rule, ...] = Field(description="Permissions; one that fits is enough, in any order.")
    jwt: Jwt | None = Field(None, description="Tokens that give roles (extra jwt).")

    @model_validator(mode="after")
    def _roles_come_from_somewhere(self) -> "Authorization":
        if self.jwt is None and any(rule.roles for rule in self.rules):
            raise ValueError("a rule names roles, which come from tokens: give jwt too")
        return self


class RateLimit(_Block):
    """How many commands one sender may send: a token bucket."""

    per_second: float = Field(500.0, gt=0, le=1e6, description="Commands a second, in the long run.")
    burst: int = Field(10_000, ge=1, le=1_000_000, description="Commands at once, after a pause.")
    senders: int = Field(
        1000, ge=1, le=100_000, description="Senders that are remembered; all beyond share one allowance."
    )
    together: float = Field(
        4.0,
        ge=1,
        le=1e5,
        description="Allowances of one sender that all without a verified token have together.",
    )


def mistakes(authorization: Authorization) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is missing on this machine: the place in the block, and what is wrong there."""
    jwt = authorization.jwt
    if jwt is None:
        return
    if find_spec("jwt") is None or find_spec("cryptography") is None:
        yield ("jwt",), "needs the packages pyjwt and cryptography; install hilgate[jwt]"
    files = {"ca": jwt.ca, "jwks": None if jwt.is_url else Path(jwt.jwks)}
    for field, path in files.items():
        if path is not None:
            try:
                path.open("rb").close()
            except (OSError, ValueError) as error:  # ValueError: a NUL, for instance
                yield ("jwt", field), f"{path} cannot be read: {getattr(error, 'strerror', '') or error}"
