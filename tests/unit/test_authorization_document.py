"""The worked example of docs/authorization.md is a file of settings, and does what the text says."""

import re
from pathlib import Path

import issuer

from agent.authorization.config import Authorization
from agent.authorization.judge import Authorizer
from agent.authorization.keys import read_keys
from agent.settings import load_settings
from protocols.base import Refused

ROOT = Path(__file__).parents[2]


def example(folder: Path) -> Authorization:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/authorization.md").read_text(), re.DOTALL)
    for name in ("ca.pem", "idp-ca.pem", "password"):
        (folder / name).write_text("")
        text = re.sub(rf"/\S+/{name}", str(folder / name), text)
    (folder / "settings.yaml").write_text(text)
    found = load_settings(folder / "settings.yaml", {}, {})
    assert found.rate_limit is not None
    assert (found.rate_limit.per_second, found.rate_limit.burst) == (50, 500)
    assert found.authorization is not None
    return found.authorization


def test_the_example_does_what_it_says(tmp_path: Path) -> None:
    one = Authorizer(example(tmp_path), None, lambda token, _device: token == "held")
    assert one._verifier is not None
    one._verifier.use(read_keys(issuer.key_set(issuer.key()), ["ES256"]))
    tokens = {role: issuer.token(realm_access={"roles": [role]}) for role in ("bench-user", "bench-operator")}

    def may(op: str, *, user: str = "", role: str = "", **fields: object) -> bool:
        try:
            one.judge(issuer.command(op, user=user, bearer=tokens.get(role), **fields))
        except Refused as refused:
            assert refused.code == "unauthorized"
            return False
        return True

    for op in ("ping", "describe", "read", "safe"):
        assert may(op, device="pump-plc")
    assert may("reserve", role="bench-user")
    assert not may("reserve", role="bench-operator")
    assert may("write", device="pump-plc", lease="held")
    assert not may("write", device="pump-plc", lease="other")
    assert may("call", device="pump-plc", method="identify", user="ci-7")
    assert not may("call", device="pump-plc", method="reset", user="ci-7")
    assert may("enable", role="bench-operator")
    assert not may("enable", user="commissioning")
    assert may("write", device="pump-plc", user="commissioning", role="bench-operator")
    assert not may("write", device="pump-plc", user="commissioning")
    assert not may("write", device="valve", user="commissioning", role="bench-operator")
    assert not may("scenario", role="bench-operator")


def test_refusals_say_nothing_of_what_others_may(tmp_path: Path) -> None:
    one = Authorizer(example(tmp_path), None, lambda _token, _device: False)
    try:
        one.judge(issuer.command("enable", user="joe"))
    except Refused as refused:
        said = str(refused)
    for word in ("bench-operator", "commissioning", "ci-"):
        assert word not in said
    assert "'joe'" in said
    assert "enable" in said
