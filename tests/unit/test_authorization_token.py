"""Tokens: made by one library, judged by another; what is not in order gives no rights."""

import base64
import json
import time
from typing import Any

import issuer
import jwt
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agent.authorization.keys import KeySet, read_keys
from agent.authorization.token import MAX_BYTES, MAX_CACHED, BadToken, UnknownKey, Verifier, roles_in

ALGORITHMS = ("RS256", "ES256", "EdDSA")


def verifier(*entries: Any, **changed: Any) -> Verifier:
    settings = issuer.settings(**changed)
    made = Verifier(settings)
    made.use(read_keys(issuer.key_set(*(entries or (issuer.key(),))), settings.algorithms))
    return made


def refused(text: str, by: Verifier | None = None) -> str:
    by = by or verifier()
    with pytest.raises(BadToken) as caught:
        by.verify(text)
    assert by.cached(text) is None
    assert str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_in_order_gives_its_subject_and_roles(algorithm: str) -> None:
    key = issuer.key(algorithm)
    by = verifier(key)
    said = by.verify(issuer.token(key, aud=["other", "hilgate"]))
    assert (said.subject, said.roles) == ("alice", frozenset({"operator"}))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_only_the_algorithms_of_the_settings_are_taken(algorithm: str) -> None:
    other = next(name for name in ALGORITHMS if name != algorithm)
    by = verifier(*(issuer.key(name, name) for name in ALGORITHMS), algorithms=[other])
    assert "way that is not taken" in refused(issuer.token(issuer.key(algorithm, algorithm)), by)


def test_none_is_refused_in_every_spelling() -> None:
    names: list[Any] = ["none", "None", "NONE", "", None, 0, ["none"], {}]
    for name in names:
        assert "not taken" in refused(issuer.unsigned({"alg": name, "kid": "one"}, issuer.claims()))
    assert "not taken" in refused(issuer.unsigned({"kid": "one"}, issuer.claims()))


def test_a_public_key_is_no_secret_of_hmac() -> None:
    key = issuer.key("RS256")
    by = verifier(key)
    secrets = (key.export_to_pem(), key.export_public().encode(), key.export_to_pem().strip())
    for secret in secrets:
        encoded = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
        forged = issuer.token(issuer.jwk.JWK(kty="oct", k=encoded, kid="one"))
        assert "not taken" in refused(forged, by)
        # Said to be RS256, its HMAC is no signature.
        header, payload, signature = forged.split(".")
        fields = json.loads(base64.urlsafe_b64decode(header + "==")) | {"alg": "RS256"}
        relabelled = base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()
        assert "signature is false" in refused(f"{relabelled}.{payload}.{signature}", by)


def test_each_claim_that_is_needed_is_missed() -> None:
    for name in ("exp", "iss", "aud", "sub"):
        said = refused(issuer.token(**{name: None}))
        assert name in said or "audience" in said, said


def test_times_are_judged_with_the_skew() -> None:
    by, now = verifier(leeway="30s"), time.time()
    assert by.verify(issuer.token(exp=now - 10)).subject == "alice"
    assert "expired" in refused(issuer.token(exp=now - 40), by)
    assert by.verify(issuer.token(nbf=now + 10, iat=now + 10)).subject == "alice"
    assert "not valid yet" in refused(issuer.token(nbf=now + 100), by)
    assert "not valid yet" in refused(issuer.token(iat=now + 100), by)


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", ["soon", [], {}, float("nan"), float("inf"), 10**400, True and "1e3"], ids=repr
)
def test_times_that_are_none(claim: str, value: Any) -> None:
    if value == 10**400:
        value = -value if claim == "exp" else value
    refused(issuer.token(**{claim: value}))


def test_other_audiences_and_issuers() -> None:
    for audience in ("hilgate2", ["a", "b"], "", [], {"hilgate": 1}, ["hilgate", 5], "HILGATE"):
        assert "audience" in (said := refused(issuer.token(aud=audience))) or "aud" in said
    for other in (issuer.ISSUER + "/", "https://evil.example", [issuer.ISSUER], 5):
        assert "issuer" in refused(issuer.token(iss=other))


def test_subjects_that_are_none() -> None:
    for subject in ("", "a" * 257, "a\nb", 5, ["alice"], "a\x1b[2J"):
        refused(issuer.token(sub=subject))


def test_the_key_is_found_by_its_name_alone() -> None:
    other = issuer.key("ES256", "other")
    by = verifier(issuer.key(), other)
    assert by.verify(issuer.token(other)).subject == "alice"
    assert "does not publish" in refused(issuer.token(issuer.key("ES256", "stranger")), by)
    # Another's name does not lend its key.
    assert "signature is false" in refused(issuer.token(issuer.key("ES256", "stranger"), {"kid": "one"}), by)


@pytest.mark.parametrize(
    "kid", ["../../../../dev/null", "/etc/passwd", "one\x00", "' OR 1=1 --", "https://evil.example/k", ""]
)
def test_a_key_name_is_nothing_but_a_name(kid: str) -> None:
    by = verifier()
    with pytest.raises(UnknownKey):
        by.verify(issuer.token(issuer.key(), {"kid": kid}))


@pytest.mark.parametrize("kid", [5, ["one"], {"one": 1}, True, "x" * 300], ids=repr)
def test_key_names_that_are_none(kid: Any) -> None:
    refused(issuer.unsigned({"alg": "ES256", "kid": kid}, issuer.claims()))


def test_without_a_name_the_only_key_that_fits_is_meant() -> None:
    text = issuer.token(issuer.key(), {"kid": None})
    assert verifier(issuer.key(), issuer.key("RS256")).verify(text).subject == "alice"
    with pytest.raises(UnknownKey):
        verifier(issuer.key(), issuer.key("ES256", "other")).verify(text)


def test_keys_that_a_token_brings_along_are_not_looked_at() -> None:
    stranger = issuer.key("ES256", "stranger")
    brought = {
        "jwk": issuer.public(stranger)[0],
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/chain",
        "x5c": ["MIIB"],
    }
    for name, value in brought.items():
        for kid in ("one", None):
            header = {name: value, "kid": kid}
            assert "false" in refused(issuer.token(stranger, header))


def test_a_header_that_demands_what_is_not_known_is_refused() -> None:
    headers: list[Any] = [{"crit": ["exp"]}, {"crit": []}, {"crit": ["b64"], "b64": False}, {"b64": False}]
    for header in headers:
        refused(issuer.unsigned({"alg": "ES256", "kid": "one"} | header, issuer.claims(), b"x" * 64))


def test_a_huge_token_is_not_even_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    by = verifier()
    text = issuer.token(pad="x" * MAX_BYTES)
    monkeypatch.setattr(jwt, "get_unverified_header", lambda _token: pytest.fail("was decoded"))
    assert "16 KiB" in refused(text, by)


def test_what_is_no_token() -> None:
    broken = ["", ".", "..", "...", "a.b.c", "é", "\ud800", "e30.e30.", "e30." * 2000, "bnVsbA.e30.e30", " "]
    for text in broken:
        refused(text)
    refused(issuer.unsigned([], []))
    refused(issuer.token(body=[1]))
    refused(issuer.token(body="text"))


def test_a_deep_token_is_no_recursion_error() -> None:
    deep = base64.urlsafe_b64encode(b"[" * 11_000).rstrip(b"=").decode()
    refused(f"{deep}.e30.e30")


def test_what_was_verified_is_remembered_until_it_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    by = verifier(leeway="0s")
    text = issuer.token(nbf=time.time() - 10)
    assert by.cached(text) is None
    said = by.verify(text)
    assert by.cached(text) == said
    real = time.time()
    for shift, in_force in ((299, True), (301, False), (-11, False)):
        monkeypatch.setattr("agent.authorization.token.time.time", lambda shift=shift: real + shift)
        assert (by.cached(text) is not None) is in_force, shift


def test_a_new_set_of_keys_ends_what_the_former_verified() -> None:
    by, text = verifier(), issuer.token()
    by.verify(text)
    by.use(read_keys(issuer.key_set(issuer.key("ES256", "two")), ALGORITHMS))
    assert by.cached(text) is None
    with pytest.raises(UnknownKey):
        by.verify(text)
    by.use(KeySet())
    with pytest.raises(UnknownKey):
        by.verify(text)


def test_the_memory_of_tokens_is_bounded() -> None:
    by = verifier()
    first = issuer.token()
    by.verify(first)
    for number in range(MAX_CACHED):
        by.verify(issuer.token(sub=f"user-{number}"))
    assert by.cached(first) is None
    assert len(by._cache) == MAX_CACHED


@pytest.mark.parametrize(
    ("said", "path", "roles"),
    [
        ({"a": {"b": ["x", "y", 5]}}, "a.b", {"x", "y"}),
        ({"scope": "bench:read bench:write"}, "scope", {"bench:read", "bench:write"}),
        ({"https://x.example/roles": ["x"]}, "https://x.example/roles", {"x"}),
        ({"a": ["x"]}, "a.b", set()),
        ({"a": {"b": {"x": 1}}}, "a.b", set()),
        ({"a": None}, "a", set()),
        ({}, "realm_access.roles", set()),
    ],
)
def test_roles_are_where_the_settings_say(said: Any, path: str, roles: set[str]) -> None:
    assert roles_in(said, path) == roles


# -- what comes from the wire is hostile ------------------------------------------------------------

_BY = verifier(*(issuer.key(name, name) for name in ALGORITHMS))
_GOOD = [issuer.token(issuer.key(name, name), exp=time.time() + 7200) for name in ALGORITHMS]
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \x00é"


@given(st.sampled_from(_GOOD), st.data())
@hypothesis_settings(max_examples=300, deadline=None)
def test_no_changed_token_is_accepted(good: str, data: st.DataObject) -> None:
    letters, place = list(good), st.integers(0, len(good) - 1)
    for _ in range(data.draw(st.integers(1, 3))):
        match data.draw(st.sampled_from(["replace", "insert", "delete", "swap"])):
            case "replace":
                letters[data.draw(place) % len(letters)] = data.draw(st.sampled_from(_LETTERS))
            case "insert":
                letters.insert(data.draw(place) % len(letters), data.draw(st.sampled_from(_LETTERS)))
            case "delete":
                del letters[data.draw(place) % len(letters)]
            case _:
                one, other = data.draw(place) % len(letters), data.draw(place) % len(letters)
                letters[one], letters[other] = letters[other], letters[one]
    changed = "".join(letters)
    if changed != good:
        refused(changed, _BY)


def test_no_token_with_one_letter_changed_is_accepted() -> None:
    """Each letter of a token in turn, by each of many: over 10,000 tokens."""
    (good,) = _GOOD[2:]
    by = verifier(issuer.key("EdDSA", "EdDSA"))
    for at in range(len(good)):
        for letter in _LETTERS[::2]:
            if letter != good[at]:
                with pytest.raises(BadToken):
                    by.verify(good[:at] + letter + good[at + 1 :])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_HEADER = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5u", "enc", "zip"]),
    st.sampled_from(["RS256", "ES256", "EdDSA", "HS256", "none", "one"]) | _JSON,
)


@given(_HEADER | _JSON, _JSON, st.binary(max_size=300))
@hypothesis_settings(max_examples=300, deadline=None)
def test_nothing_that_nobody_signed_is_accepted(header: Any, payload: Any, signature: bytes) -> None:
    refused(issuer.unsigned(header, payload, signature), _BY)


@given(st.text(max_size=200) | st.text(_LETTERS, max_size=200))
@hypothesis_settings(max_examples=150, deadline=None)
def test_no_text_is_accepted(text: str) -> None:
    refused(text, _BY)


@given(
    st.dictionaries(
        st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "realm_access"]), _JSON, min_size=1
    )
)
@hypothesis_settings(max_examples=100, deadline=None)
def test_claims_of_any_kind_end_in_an_answer(changed: Any) -> None:
    try:
        said = _BY.verify(issuer.token(issuer.key("EdDSA", "EdDSA"), body=issuer.claims() | changed))
    except BadToken:
        return
    assert not {"iss", "aud"} & changed.keys()
    assert 1 <= len(said.subject) <= 256


def test_a_part_of_the_issuers_name_is_not_enough_whatever_the_library_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As PyJWT 2.10.0 took it."""
    monkeypatch.setattr(jwt.PyJWT, "_validate_iss", lambda *_: None)
    key = issuer.key()
    assert "issuer" in refused(issuer.token(key, iss="https://idp.example"), verifier(key))
