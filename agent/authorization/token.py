"""A token (RFC 7519) from hostile text to a subject with roles. Keys are given; nothing is fetched here."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec

from agent.authorization.config import Jwt
from agent.authorization.keys import MAX_KID, KeySet
from agent.commands.parse import MAX_BEARER

MAX_BYTES = MAX_BEARER
"""Bytes of a token."""
MAX_SUBJECT = 256
MAX_ROLES = 1000
MAX_CACHED = 1000
"""Tokens that need not be verified again."""


class BadToken(Exception):
    """The token gives no rights; the text says to its bearer why."""


class UnknownKey(BadToken):
    """The token names a key that is not at hand; its issuer may have it."""


class Claims(msgspec.Struct, frozen=True):
    """What a token that was verified says."""

    subject: str
    roles: frozenset[str]
    not_before: float
    """UTC in seconds, as are all times here."""
    expires: float


class Verifier:
    """Verifies tokens of one issuer, and remembers those that it verified."""

    def __init__(self, settings: Jwt) -> None:
        self._settings = settings
        self._keys = KeySet()
        self._cache: OrderedDict[bytes, Claims] = OrderedDict()

    def use(self, keys: KeySet) -> None:
        """From now on these keys count, and no others: nothing that the former verified stands."""
        self._keys = keys
        self._cache.clear()

    def cached(self, token: str) -> Claims | None:
        """What a token says that was verified before and is in force now; costs no cryptography."""
        if len(token) > MAX_BYTES:
            return None
        claims = self._cache.get(_digest(token))
        now, leeway = time.time(), self._settings.leeway
        in_force = claims is not None and claims.not_before - leeway <= now < claims.expires + leeway
        return claims if in_force else None

    def verify(self, token: str) -> Claims:
        """What a token says.

        Raises:
            UnknownKey: it names a key that is not at hand.
            BadToken: it is not in force, not for us, or no token.
        """
        if not token.isascii() or len(token) > MAX_BYTES:
            raise BadToken(f"the token is none, or longer than {MAX_BYTES // 1024} KiB")
        claims = self._verified(token)
        self._cache[_digest(token)] = claims
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return claims

    def _verified(self, token: str) -> Claims:
        import jwt  # an extra, and slow to import

        algorithm, kid = self._header(token)
        key = self._keys.find(kid, algorithm)
        if key is None:
            raise UnknownKey("the token is signed by a key that its issuer does not publish")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                options={"require": ["exp", "iss", "aud", "sub"]},
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=self._settings.leeway,
            )
            return self._claims(claims)
        except jwt.ExpiredSignatureError:
            raise BadToken("the token has expired; get a new one from its issuer") from None
        except jwt.ImmatureSignatureError:
            raise BadToken("the token is not valid yet; compare the issuer's clock and the bench's") from None
        except jwt.InvalidAudienceError:
            raise BadToken("the token is for another audience; get one for this bench") from None
        except jwt.InvalidIssuerError:
            raise BadToken("the token is of an issuer that this bench does not take") from None
        except jwt.MissingRequiredClaimError as error:
            raise BadToken(f"the token has no claim {error.claim!r:.20}, which this bench needs") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise BadToken("the token is broken, or its signature is false") from None

    def _header(self, token: str) -> tuple[str, str | None]:
        """The algorithm and the key's name. All else in a header (`jku`, `x5u`, `jwk`) is not looked at.

        Raises:
            BadToken: it is no token, or signed in a way that is not taken.
        """
        import jwt

        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise BadToken("what was shown is no token: `Bearer` and a signed JWT are wanted") from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._settings.algorithms:
            taken = ", ".join(self._settings.algorithms)
            raise BadToken(f"the token is signed in a way that is not taken; taken are {taken}")
        if "crit" in header or "b64" in header:  # RFC 7515, section 4.1.11: what is not known must be refused
            raise BadToken("the token's header demands what this bench does not know")
        if kid is not None and len(kid) > MAX_KID:
            raise BadToken("the token's key has no usable name")
        return algorithm, kid

    def _claims(self, claims: Mapping[str, Any]) -> Claims:
        if claims["iss"] != self._settings.issuer:  # PyJWT 2.10.0 takes a part of it too (CVE-2024-53861)
            raise BadToken("the token is of an issuer that this bench does not take")
        subject = claims["sub"]
        if not subject or len(subject) > MAX_SUBJECT or not subject.isprintable():
            raise BadToken(f"the token's subject should be 1 to {MAX_SUBJECT} printable characters")
        return Claims(
            subject=subject,
            roles=roles_in(claims, self._settings.roles_claim),
            not_before=float(claims.get("nbf", 0)),
            expires=float(claims["exp"]),
        )


def roles_in(claims: Mapping[str, Any], path: str) -> frozenset[str]:
    """The roles at a path: a list of texts, or one text with spaces between them; anything else is none."""
    found: Any = claims
    if path in claims:  # a claim's name may have dots of its own
        found = claims[path]
    else:
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        found = found.split()
    if not isinstance(found, list):
        return frozenset()
    return frozenset(role for role in found[:MAX_ROLES] if isinstance(role, str))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
