"""An issuer of tokens, as an identity provider is one. Made by jwcrypto, which hilgate does not use."""

import base64
import functools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jwcrypto import jwk as jwk  # type: ignore[import-untyped]  # it has no annotations
from jwcrypto import jws

from agent.authorization.config import Jwt
from agent.commands.parse import Command

ISSUER = "https://idp.example/realms/benches"
AUDIENCE = "hilgate"
_KINDS: Mapping[str, Mapping[str, Any]] = {
    "RS256": {"kty": "RSA", "size": 2048},
    "ES256": {"kty": "EC", "crv": "P-256"},
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"},
}


@functools.cache
def key(algorithm: str = "ES256", kid: str = "one") -> Any:
    """A key pair, made once in a run."""
    return jwk.JWK.generate(kid=kid, **_KINDS[algorithm])


def public(*keys: Any, **members: Any) -> list[dict[str, Any]]:
    """Public keys as members of a JWK Set, each with `members` added."""
    return [{**json.loads(one.export_public()), **members} for one in keys]


def key_set(*entries: Any) -> bytes:
    """A JWK Set of keys or of entries."""
    listed = [public(one)[0] if isinstance(one, jwk.JWK) else one for one in entries]
    return json.dumps({"keys": listed}).encode()


def claims(**changed: Any) -> dict[str, Any]:
    """Claims that are in order now; None leaves one out."""
    now = int(time.time())
    made = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "iat": now,
        "exp": now + 300,
        "realm_access": {"roles": ["operator"]},
    }
    return {name: value for name, value in (made | changed).items() if value is not None}


def token(
    signer: Any | None = None, header: Mapping[str, Any] | None = None, body: Any = None, **changed: Any
) -> str:
    """A signed token; `header` is added to its header, `body` goes in place of the claims."""
    signer = key() if signer is None else signer
    kind = signer["kty"]
    head: dict[str, Any] = {
        "alg": {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA", "oct": "HS256"}[kind],
        "kid": signer.get("kid"),
        "typ": "JWT",
    }
    head = {name: value for name, value in (head | dict(header or {})).items() if value is not None}
    payload = json.dumps(claims(**changed) if body is None else body)
    signed = jws.JWS(payload.encode())
    signed.allowed_algs = [head["alg"]]
    signed.add_signature(signer, None, json.dumps(head))
    return str(signed.serialize(compact=True))


def unsigned(header: Any, payload: Any, signature: bytes = b"") -> str:
    """Three parts that nobody signed."""
    parts = (json.dumps(header).encode(), json.dumps(payload).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def settings(jwks: str | Path = "keys.json", **changed: Any) -> Jwt:
    """The block `jwt` for this issuer."""
    return Jwt.model_validate({"issuer": ISSUER, "audience": AUDIENCE, "jwks": str(jwks), **changed})


def command(op: str = "ping", *, user: str = "", bearer: str | None = None, **fields: Any) -> Command:
    """A command as the gate sees it."""
    lease = fields.pop("lease", None)
    return Command(
        key="s:1",
        op=op,
        fields={"op": op, **fields},
        reply_to=None,
        correlation_id="1",
        user=user,
        created_ms=None,
        expires_ms=None,
        received_ns=time.time_ns(),
        size=10,
        token=lease,
        bearer=bearer,
    )
