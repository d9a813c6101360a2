"""The blocks `authorization` and `rate_limit` of the settings file: each mistake with its place."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent.authorization import config
from agent.problems import ConfigErrors
from agent.settings import Settings, load_settings

HEAD = "bench: rig\nbroker: amqp://broker.example\n"
JWT = "issuer: https://idp.example, audience: hilgate"


def load(folder: Path, text: str, **environ: str) -> Settings:
    path = folder / "settings.yaml"
    path.write_text(HEAD + text)
    return load_settings(path, environ, {})


def wrong(folder: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        load(folder, text, **environ)
    return [line.removeprefix(f"{folder}/settings.yaml:") for line in str(caught.value).splitlines()]


def rules(*lines: str, more: str = "") -> str:
    return "authorization:\n  rules:\n" + "".join(f"    - {line}\n" for line in lines) + more


def test_without_the_blocks_all_is_allowed_at_a_generous_rate(tmp_path: Path) -> None:
    found = load(tmp_path, "")
    assert found.authorization is None
    assert found.rate_limit is not None
    assert (found.rate_limit.per_second, found.rate_limit.burst) == (500.0, 10_000)
    assert load(tmp_path, "rate_limit: null\n").rate_limit is None


def test_files_are_relative_to_the_settings_and_urls_stay(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{}")
    (tmp_path / "ca.pem").write_text("")
    text = f"  jwt: {{{JWT}, jwks: keys.json}}\n"
    jwt = load(tmp_path, rules("{ops: ping, roles: x}", more=text)).authorization
    assert jwt is not None
    assert jwt.jwt is not None
    assert jwt.jwt.jwks == str(tmp_path / "keys.json")
    text = f"  jwt: {{{JWT}, jwks: 'https://idp.example/certs', ca: ca.pem}}\n"
    block = load(tmp_path, rules("{ops: ping, roles: x}", more=text)).authorization
    assert block is not None
    assert block.jwt is not None
    assert (block.jwt.jwks, block.jwt.ca) == ("https://idp.example/certs", tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{ops: pign, anybody: true}", "5: authorization.rules.0.ops: should be all, ping"),
        ("{ops: [wirte], anybody: true}", "did you mean 'write'?"),
        ("{ops: [safe], anybody: true}", "is always allowed and needs no rule"),
        ("{ops: [], anybody: true}", "5: authorization.rules.0.ops"),
        ("{anybody: true}", "5: authorization.rules.0.ops: is missing"),
        ("{ops: ping}", "says nobody"),
        ("{ops: ping, anybody: false}", "5: authorization.rules.0.anybody: should be True"),
        ("{ops: ping, users: []}", "5: authorization.rules.0.users"),
        ("{ops: ping, users: ''}", "5: authorization.rules.0.users"),
        ("{ops: ping, anybody: true, users: joe}", "says anybody and somebody"),
        ("{ops: ping, users: null, roles: x}", "5: authorization.rules.0.users: is empty"),
        ("{ops: ping, users: joe, lease_holder: null}", "5: authorization.rules.0.lease_holder: is empty"),
        ("{ops: write, devices: null, users: joe}", "5: authorization.rules.0.devices: is empty"),
        ("{ops: call, methods: null, users: joe}", "5: authorization.rules.0.methods: is empty"),
        ("{ops: ping, user: joe}", "unknown field; did you mean 'users'?"),
        ("{ops: [read, ping], devices: a, users: joe}", "not ping"),
        ("{ops: [read, call], methods: a, users: joe}", "methods needs ops: [call]"),
        ("{ops: ping, roles: admin}", "give jwt too"),
        ("ping", "5: authorization.rules.0"),
    ],
)
def test_rules_that_are_wrong(tmp_path: Path, rule: str, said: str) -> None:
    (line,) = wrong(tmp_path, rules(rule))
    assert said in line


def test_a_block_that_is_empty_does_not_allow_everything(tmp_path: Path) -> None:
    (line,) = wrong(tmp_path, "authorization:\n  # rules: []\n")
    assert "authorization: has no value" in line
    (line,) = wrong(tmp_path, "authorization: null\n")
    assert "authorization: is empty" in line


@pytest.mark.parametrize(
    ("jwt", "said"),
    [
        ("jwks: https://idp.example/certs", "audience: is missing"),
        ("jwks: 'http://idp.example/certs'", "http is for loopback only"),
        ("jwks: 'ftp://idp.example/certs'", "should be a file or a URL"),
        ("jwks: 'https://joe:secret@idp.example/certs'", "should be a file or a URL"),
        ("jwks: 'https://idp.example/a b'", "characters"),
        ('jwks: "https://idp.example/\\r\\nX: y"', "characters"),
        ("jwks: 'https://[::1/certs'", "is not a URL"),
        ("jwks: 'https://idp.example:99999/'", "is not a URL"),
        ("jwks: nowhere.json", "nowhere.json cannot be read: No such file"),
        ("jwks: 'http://127.0.0.1/certs', ca: ca.pem", "ca is for a jwks that begins with https://"),
        ("jwks: 'https://idp.example/', ca: nowhere.pem", "jwt.ca: "),
        ("jwks: 'https://idp.example/', algorithms: [HS256]", "did you mean 'RS256'?"),
        ("jwks: 'https://idp.example/', algorithms: [none]", "should be RS256, ES256 or EdDSA"),
        ("jwks: 'https://idp.example/', algorithms: []", "algorithms"),
        ("jwks: 'https://idp.example/', leeway: 1h", "less than or equal to 300"),
        ("jwks: 'https://idp.example/', cache: 1s", "greater than or equal to 30"),
        ("jwks: 'https://idp.example/', secret: abc", "unknown field"),
    ],
)
def test_tokens_settings_that_are_wrong(tmp_path: Path, jwt: str, said: str) -> None:
    given = "issuer: https://idp.example" + ("" if "audience" in said else ", audience: hilgate")
    (line,) = wrong(tmp_path, rules("{ops: ping, roles: x}", more=f"  jwt: {{{given}, {jwt}}}\n"))
    assert said in line
    assert line.startswith("6: ")


def test_http_is_for_loopback() -> None:
    for host in ("127.0.0.1", "localhost", "[::1]"):
        assert config._source(f"http://{host}:8080/certs")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> Any:
        return None if name == "jwt" else importlib.util.find_spec(name)

    monkeypatch.setattr(config, "find_spec", find_spec)
    text = f"  jwt: {{{JWT}, jwks: 'https://idp.example/certs'}}\n"
    (line,) = wrong(tmp_path, rules("{ops: ping, roles: x}", more=text))
    assert line == "6: authorization.jwt: needs the packages pyjwt and cryptography; install hilgate[jwt]"
    assert load(tmp_path, rules("{ops: ping, users: joe}")).authorization is not None


def test_they_are_blocks_of_the_file_only(tmp_path: Path) -> None:
    (line,) = wrong(tmp_path, "", HILGATE_AUTHORIZATION="{}")
    assert line.endswith("HILGATE_AUTHORIZATION: authorization: is a block of the settings file")


def test_rates_that_are_none(tmp_path: Path) -> None:
    for text in ("{per_second: 0}", "{per_second: -1}", "{burst: 0}", "{senders: 0}", "{brust: 5}", "5"):
        assert wrong(tmp_path, f"rate_limit: {text}\n")[0].startswith("3: rate_limit")


def test_nothing_of_the_extra_is_imported_without_tokens() -> None:
    code = "import sys, agent.app; print([name for name in ('jwt', 'cryptography') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
