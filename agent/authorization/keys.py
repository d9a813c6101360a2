"""The keys of an issuer, as its JWK Set has them (RFC 7517, section 5). Pure; what comes in is hostile."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from jwt import PyJWK

MAX_BYTES = 256 * 1024
"""Bytes of a JWK Set."""
MAX_KEYS = 100
MAX_KID = 256
"""Characters of a key's name."""
_RSA_BITS = range(2048, 8192 + 1)
_FITS = {"RS256": ("RSA", None), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}
"""By algorithm, the key type and the curve that it takes (RFC 7518, section 3.1; RFC 8037, section 3.1)."""
_PUBLIC = ("kty", "crv", "n", "e", "x", "y")
_SECRET = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")


class BadKeys(Exception):
    """The document is no JWK Set, or has no key that can be used."""


class _Unfit(Exception):
    """One key cannot be used."""


class KeySet(msgspec.Struct, frozen=True):
    """Keys that may verify a token, each with the one algorithm that it is for."""

    keys: Mapping[tuple[str, str], "PyJWK"] = {}
    """By the key's name (empty if it has none) and its algorithm."""
    skipped: tuple[str, ...] = ()
    """Why others of the document are not used."""

    def find(self, kid: str | None, algorithm: str) -> "PyJWK | None":
        """The key that a token's header names; without a name, the only one for its algorithm."""
        if kid is not None:
            return self.keys.get((kid, algorithm))
        fitting = [key for (_, taken_by), key in self.keys.items() if taken_by == algorithm]
        return fitting[0] if len(fitting) == 1 else None


def read_keys(document: bytes, algorithms: Collection[str]) -> KeySet:
    """The keys of a JWK Set that verify signatures of these algorithms.

    Raises:
        BadKeys: it is too large, no JWK Set, or has no such key.
    """
    if len(document) > MAX_BYTES:
        raise BadKeys(f"is larger than {MAX_BYTES // 1024} KiB")
    try:
        # Members that are not known are ignored, as RFC 7517 wants it.
        entries = msgspec.json.decode(document, type=dict[str, Any]).get("keys")
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadKeys(f"is no JSON object: {error}") from None
    if not isinstance(entries, list):
        raise BadKeys("has no list of keys")
    if len(entries) > MAX_KEYS:
        raise BadKeys(f"has {len(entries)} keys; at most {MAX_KEYS} are taken")
    found: dict[tuple[str, str], PyJWK] = {}
    skipped = []
    for number, entry in enumerate(entries):
        try:
            named, key = _key(entry, algorithms)
            if named in found:
                raise _Unfit("has the name of one before it")
        except _Unfit as why:
            name = entry.get("kid") if isinstance(entry, dict) else None
            skipped.append(f"key {number} ({name!r:.80}) {why}")
        else:
            found[named] = key
    if not found:
        raise BadKeys("; ".join(["has no key that can be used", *skipped[:3]]))
    return KeySet(found, tuple(skipped))


def _key(entry: Any, algorithms: Collection[str]) -> tuple[tuple[str, str], "PyJWK"]:
    """A key by its name and algorithm.

    Raises:
        _Unfit: it is for something else, weak, or broken.
    """
    import jwt  # an extra, and slow to import

    if not isinstance(entry, dict):
        raise _Unfit("is no JSON object")
    if any(member in entry for member in _SECRET):
        raise _Unfit("is a secret one, which nobody but the issuer should have")
    if entry.get("use", "sig") != "sig":
        raise _Unfit("is not for signatures")
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise _Unfit("is not for verifying")
    kid = entry.get("kid", "")
    if not isinstance(kid, str) or len(kid) > MAX_KID:
        raise _Unfit("has no usable name")
    kind = entry.get("kty"), entry.get("crv")
    algorithm = next((name for name, (kty, crv) in _FITS.items() if kind in ((kty, crv), (kty, None))), None)
    if algorithm is None or (algorithm != "RS256" and kind[1] is None):
        raise _Unfit("is of a type that is not taken")
    if algorithm not in algorithms or entry.get("alg", algorithm) != algorithm:
        raise _Unfit("is for an algorithm that is not taken")
    members = {name: entry[name] for name in _PUBLIC if name in entry}
    if not all(isinstance(text, str) for text in members.values()):
        raise _Unfit("is broken")
    try:
        key = jwt.PyJWK(members, algorithm)
    except Exception as error:  # noqa: BLE001  # two libraries raise what they like at hostile numbers
        raise _Unfit(f"is broken: {type(error).__name__}") from None
    if algorithm == "RS256" and key.key.key_size not in _RSA_BITS:
        raise _Unfit(f"has {key.key.key_size} bits; {_RSA_BITS[0]} to {_RSA_BITS[-1]} are taken")
    return (kid, algorithm), key
