"""HTTP that can be reached from elsewhere has to be guarded, at check as at run."""

from pathlib import Path
from typing import Any

import pytest

from agent.problems import ConfigErrors
from agent.settings import load_settings
from agent.web.token import is_loopback

NEEDED = {"bench": "rig", "broker": "amqp://broker.example"}


def wrong(**settings: Any) -> list[str]:
    with pytest.raises(ConfigErrors) as failed:
        load_settings(None, {}, NEEDED | settings)
    return [f"{problem.field}: {problem.message}" for problem in failed.value.problems]


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.7", "rig-07.example", "::ffff:192.0.2.7"])
def test_off_loopback_a_token_or_an_authority_is_needed(host: str, tmp_path: Path) -> None:
    why = "http: can be reached from elsewhere: give http_token_file or http_client_ca, or use 127.0.0.1"
    assert wrong(http=f"{host}:8080") == [why]
    token = tmp_path / "token"
    token.write_text("sixteen-letters!")
    assert load_settings(None, {}, NEEDED | {"http": f"{host}:8080", "http_token_file": token}).http


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "[::1]", "::1", "localhost", "LOCALHOST"])
def test_on_loopback_nothing_is_needed(host: str) -> None:
    assert is_loopback(host)
    assert load_settings(None, {}, NEEDED | {"http": f"{host}:8080"}).http


@pytest.mark.parametrize("content", ["", "\n", "short", "   \nsecond-line-is-not-it-at-all"])
def test_a_token_that_could_be_guessed_is_none(tmp_path: Path, content: str) -> None:
    token = tmp_path / "token"
    token.write_text(content)
    (said,) = wrong(http="0.0.0.0:8080", http_token_file=token)
    assert said.startswith("http_token_file: ")


def test_what_belongs_together(tmp_path: Path) -> None:
    pem = tmp_path / "some.pem"
    pem.write_text("")
    assert wrong(http_cert=pem) == ["http_cert: needs http_key too", "http_cert: needs http too"]
    assert wrong(http="127.0.0.1:1", http_key=pem) == ["http_key: needs http_cert too"]
    assert wrong(http="127.0.0.1:1", http_client_ca=pem) == ["http_client_ca: needs http_cert too"]
