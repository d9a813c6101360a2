"""JWK Sets: only keys that may verify signatures of their one algorithm are taken."""

import http.client
import json
from typing import Any

import issuer
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agent.authorization.keys import MAX_BYTES, MAX_KEYS, BadKeys, read_keys
from agent.authorization.source import NoKeys, body_of

ALL = ("RS256", "ES256", "EdDSA")


def bad(document: Any, algorithms: tuple[str, ...] = ALL) -> str:
    with pytest.raises(BadKeys) as caught:
        read_keys(document if isinstance(document, bytes) else issuer.key_set(document), algorithms)
    return str(caught.value)


def changed(algorithm: str, **members: Any) -> dict[str, Any]:
    (entry,) = issuer.public(issuer.key(algorithm), **members)
    return {name: value for name, value in entry.items() if value is not None}


def test_the_keys_of_a_set_by_name_and_algorithm() -> None:
    document = issuer.key_set(*(issuer.key(name, name) for name in ALL))
    assert set(read_keys(document, ALL).keys) == {(name, name) for name in ALL}
    assert set(read_keys(document, ("ES256",)).keys) == {("ES256", "ES256")}


def test_what_is_not_for_us_is_skipped_and_said() -> None:
    """As Keycloak's set has it: a key for encryption, and one whose algorithm we do not take."""
    entries = (
        changed("RS256", use="enc", alg="RSA-OAEP", kid="enc"),
        changed("RS256", use="sig", alg="RS512", kid="512"),
        changed("RS256", use="sig", alg="RS256", kid="good"),
        changed("RS256", kid="good"),
        "text",
    )
    found = read_keys(issuer.key_set(*entries[:4]), ALL)
    assert set(found.keys) == {("good", "RS256")}
    assert [text.split(")")[0] for text in found.skipped] == ["key 0 ('enc'", "key 1 ('512'", "key 3 ('good'"]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (changed("RS256", use="enc"), "not for signatures"),
        (changed("RS256", use=["sig"]), "not for signatures"),
        (changed("ES256", key_ops=["sign"]), "not for verifying"),
        (changed("ES256", key_ops="verify"), "not for verifying"),
        (changed("ES256", kid=5), "no usable name"),
        (changed("ES256", kid="x" * 300), "no usable name"),
        (changed("ES256", alg="ES384"), "algorithm"),
        (changed("ES256", alg="HS256"), "algorithm"),
        (changed("RS256", alg="none"), "algorithm"),
        (changed("ES256", crv="P-384"), "type"),
        (changed("ES256", crv="secp256k1"), "type"),
        (changed("ES256", crv=None), "type"),
        (changed("ES256", crv=["P-256"]), "type"),
        (changed("EdDSA", crv="Ed448"), "type"),
        (changed("EdDSA", crv="X25519"), "type"),
        (changed("EdDSA", crv=None), "type"),
        (changed("ES256", kty="RSA"), "type"),
        (changed("ES256", x="AAAA"), "broken"),
        (changed("ES256", y=changed("ES256")["x"]), "broken"),
        (changed("ES256", x=5), "broken"),
        (changed("ES256", y=None), "broken"),
        (changed("EdDSA", x="AAAA"), "broken"),
        (changed("EdDSA", x="é"), "broken"),
        (changed("RS256", n="AQAB"), ""),
        (changed("RS256", e="AQ"), "broken"),
        (changed("RS256", e="Ag"), "broken"),
        (changed("RS256", n="!"), ""),
        ({"kty": "oct", "k": "c2VjcmV0", "kid": "one"}, "secret"),
        (json.loads(issuer.key("RS256").export_private()), "secret"),
        (json.loads(issuer.key("EdDSA").export_private()), "secret"),
        ({"kty": "oct", "kid": "one"}, "type"),
        ({}, "type"),
        ([], "object"),
        (None, "object"),
    ],
)
def test_a_key_that_does_not_fit_is_not_used(entry: Any, why: str) -> None:
    assert why in bad(json.dumps({"keys": [entry]}).encode())


def test_weak_rsa_keys_are_not_used() -> None:
    weak = issuer.jwk.JWK.generate(kty="RSA", size=1024, kid="weak")
    assert "1024 bits" in bad(issuer.key_set(weak))


@pytest.mark.parametrize(
    "document",
    [b"", b"null", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys"', b"\xff", b"[" * 100_000],
)
def test_what_is_no_set_of_keys(document: bytes) -> None:
    assert bad(document)


def test_bounds_of_a_set() -> None:
    many = [changed("ES256", kid=str(number)) for number in range(MAX_KEYS + 1)]
    assert len(read_keys(issuer.key_set(*many[:-1]), ALL).keys) == MAX_KEYS
    assert "at most" in bad(issuer.key_set(*many))
    assert "larger" in bad(issuer.key_set(issuer.key()) + b" " * MAX_BYTES)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
_MEMBERS = st.dictionaries(
    st.sampled_from(["kty", "crv", "n", "e", "x", "y", "use", "key_ops", "alg", "kid", "x5c"]),
    st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "sig", "verify", "AQAB", "AA", ""]) | _JSON,
)


@given(st.sampled_from(ALL), _MEMBERS)
@hypothesis_settings(max_examples=100, deadline=None)
def test_members_of_any_kind_make_a_key_or_none(algorithm: str, members: Any) -> None:
    try:
        found = read_keys(issuer.key_set(changed(algorithm) | members), ALL)
    except BadKeys:
        return
    ((_, taken_by),) = found.keys
    assert taken_by in ALL


@given(st.binary(max_size=300) | _JSON.map(lambda made: json.dumps(made).encode()))
@hypothesis_settings(max_examples=100, deadline=None)
def test_a_document_of_any_kind_is_read_or_refused(document: bytes) -> None:
    bad(document)


# -- answers of servers -----------------------------------------------------------------------------


def test_bodies_of_answers() -> None:
    assert body_of(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}rest") == b"{}"
    assert body_of(b"HTTP/1.0 200 OK\r\n\r\n{}") == b"{}"
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
    assert body_of(chunked) == b"{}"


def test_an_answer_that_is_cut_off_does_not_count() -> None:
    for length in (b"3", b"%d" % 2**63, b"9" * 400):
        with pytest.raises((NoKeys, http.client.IncompleteRead)):
            body_of(b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n{}" % length)
    with pytest.raises(http.client.IncompleteRead):
        body_of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}")


@pytest.mark.parametrize("status", [301, 302, 307, 404, 500, 204])
def test_no_answer_but_200_counts(status: int) -> None:
    with pytest.raises(NoKeys, match=str(status)):
        body_of(f"HTTP/1.1 {status} X\r\nLocation: https://evil.example/\r\n\r\n{{}}".encode())


@given(
    st.binary(max_size=200)
    | st.binary(max_size=100).map(lambda rest: b"HTTP/1.1 200 OK\r\n" + rest)
    | st.binary(max_size=60).map(lambda rest: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + rest)
    | st.integers().map(lambda n: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n{}" % n)
)
@hypothesis_settings(max_examples=200, deadline=None)
def test_an_answer_of_any_kind_is_a_body_or_one_of_the_errors_that_are_caught(answer: bytes) -> None:
    try:
        assert isinstance(body_of(answer), bytes)
    except (NoKeys, http.client.HTTPException, ValueError, OSError):
        pass
