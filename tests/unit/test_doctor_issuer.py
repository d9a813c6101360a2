"""What `hilgate doctor` says of the keys that tokens are checked with."""

import json
from pathlib import Path

import issuer
import pytest

from agent.doctor.case import Case
from agent.doctor.configuration import settings
from agent.doctor.finding import Finding, Verdict
from agent.settings import load_settings

BLOCK = """
bench: rig
broker: amqps://broker.example
authorization:
  jwt: {issuer: https://login.example, audience: bench, jwks: keys.json}
  rules: [{anybody: true, ops: [ping]}]
"""


async def rows(folder: Path, document: bytes) -> list[Finding]:
    """The rows of the check `settings` for this set of keys."""
    (folder / "keys.json").write_bytes(document)
    (folder / "settings.yaml").write_text(BLOCK)
    case = Case(None, load_settings(folder / "settings.yaml", {}, {}), 10.0)
    return [finding for look in settings(case).values() for finding in await look()]


async def test_keys_that_can_be_used_are_counted(tmp_path: Path) -> None:
    keys = issuer.public(issuer.key(kid="one"), issuer.key("RS256", kid="two"))
    valid, found = await rows(tmp_path, issuer.key_set(*keys, {"kty": "oct", "k": "AA"}))
    assert valid.verdict is found.verdict is Verdict.OK
    assert found.subject == f"authorization.jwt.jwks ({tmp_path / 'keys.json'})"
    assert found.found == "2 of the issuer's keys can be used; not used: 1"


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"<html>", "is no JSON object"),
        (json.dumps({"keys": []}).encode(), "has no key that can be used"),
    ],
)
async def test_a_set_without_keys_is_a_failure(tmp_path: Path, document: bytes, why: str) -> None:
    _, found = await rows(tmp_path, document)
    assert found.verdict is Verdict.FAILED
    assert why in found.found
    assert "every token is refused" in found.todo


async def test_a_source_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    text = BLOCK.replace("keys.json", "http://127.0.0.1:1/keys")
    (tmp_path / "settings.yaml").write_text(text)
    case = Case(None, load_settings(tmp_path / "settings.yaml", {}, {}), 10.0)
    (found,) = await settings(case)["authorization.jwt.jwks"]()
    assert found.verdict is Verdict.FAILED
    assert "ConnectionRefusedError" in found.found


def test_without_tokens_there_is_no_such_row() -> None:
    case = Case(None, load_settings(None, {}, {"bench": "rig", "broker": "amqps://broker.example"}), 10.0)
    assert list(settings(case)) == [""]
