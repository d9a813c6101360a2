"""Rules: what no rule allows is denied; everything that a rule says must be true."""

from collections.abc import Sequence
from typing import Any

import issuer
import pytest

from agent.authorization.config import Rule
from agent.authorization.rules import Sender, allowed

NOBODY = Sender("")
ANNE = Sender("anne")
ALICE = Sender("broker-client", "alice", frozenset({"operator"}))


def may(rule: dict[str, Any] | list[dict[str, Any]], sender: Sender, op: str, **fields: Any) -> bool:
    rules = [Rule.model_validate(one) for one in (rule if isinstance(rule, list) else [rule])]

    def holds(token: str, devices: Sequence[str] | None) -> bool:
        held = {"held": {"pump", "valve"}, "whole": None}.get(token, set())
        return held is None or (token == "held" and devices is not None and held.issuperset(devices))

    return allowed(rules, sender, issuer.command(op, **fields), holds)


def test_without_a_rule_everything_is_denied() -> None:
    for op in ("ping", "describe", "read", "enable", "levitate", ""):
        assert not may([], ALICE, op)


def test_anybody_and_all() -> None:
    assert may({"ops": ["ping", "read"], "anybody": True}, NOBODY, "read", device="pump")
    assert not may({"ops": ["ping", "read"], "anybody": True}, NOBODY, "write", device="pump")
    assert may({"ops": "all", "anybody": True}, NOBODY, "enable")


def test_users_by_name_and_pattern() -> None:
    rule = {"ops": ["ping"], "users": ["anne", "ci-*"]}
    for user, fits in {"anne": 1, "Anne": 0, "anne ": 0, "ci-7": 1, "ci-": 1, "x-ci-7": 0, "": 0}.items():
        assert may(rule, Sender(user), "ping") is bool(fits), user
    assert not may({"ops": ["ping"], "users": "*"}, NOBODY, "ping")
    # A token's subject is no user-id: nobody becomes another by what an issuer calls him.
    assert not may(rule, Sender("", "anne"), "ping")


def test_roles_are_exact() -> None:
    for role, fits in {"operator": True, "oper*": False, "Operator": False, "operator2": False}.items():
        assert may({"ops": ["ping"], "roles": [role]}, ALICE, "ping") is fits
    assert not may({"ops": ["ping"], "roles": ["operator"]}, ANNE, "ping")


def test_the_lease_holder_shows_the_token_of_a_lease_on_that_device() -> None:
    rule = {"ops": ["write", "enable", "renew", "release"], "lease_holder": True}
    assert may(rule, NOBODY, "write", device="pump", lease="held")
    assert not may(rule, NOBODY, "write", device="motor", lease="held")
    assert not may(rule, NOBODY, "write", device="pump", lease="other")
    assert not may(rule, NOBODY, "write", device="pump")
    assert may(rule, NOBODY, "enable", lease="held")
    assert not may(rule, NOBODY, "enable")
    assert may(rule, NOBODY, "renew", lease="held")


@pytest.mark.parametrize("op", ["record", "reserve"])
def test_a_lease_of_some_devices_is_none_of_the_whole_bench(op: str) -> None:
    rule = {"ops": [op], "lease_holder": True}
    for lease, fits in {"held": False, "whole": True, "other": False}.items():
        assert may(rule, NOBODY, op, lease=lease) is fits
        assert may(rule, NOBODY, op, lease=lease, device=5, devices=[5]) is fits
    assert may(rule, NOBODY, op, lease="held", device="pump", devices=["pump"])
    assert not may(rule, NOBODY, op, lease="held", device="motor", devices=["pump", "motor"])


def test_what_stands_in_one_rule_must_all_be_true() -> None:
    rule = {"ops": ["write"], "users": "broker-*", "roles": "operator", "lease_holder": True}
    assert may(rule, ALICE, "write", device="pump", lease="held")
    assert not may(rule, ALICE, "write", device="pump")
    assert not may(rule, Sender("broker-client"), "write", device="pump", lease="held")
    assert not may(rule, Sender("x", "alice", frozenset({"operator"})), "write", device="pump", lease="held")


def test_one_rule_that_fits_is_enough() -> None:
    rules = [{"ops": ["write"], "roles": "admin"}, {"ops": ["write"], "users": "anne", "devices": ["pump"]}]
    assert may(rules, ANNE, "write", device="pump")
    assert not may(rules, ANNE, "write", device="valve")


@pytest.mark.parametrize("op", ["read", "write", "call", "record"])
def test_devices_narrow_a_rule(op: str) -> None:
    rule = {"ops": [op], "devices": ["pump", "valve"], "anybody": True}
    assert may(rule, NOBODY, op, device="pump")
    others: list[Any] = ["motor", "Pump", None, 5, ["pump"], {}, "", "pump "]
    for device in others:
        assert not may(rule, NOBODY, op, device=device), device
    assert not may(rule, NOBODY, op)


def test_a_lease_of_devices_and_one_of_the_whole_bench() -> None:
    rule = {"ops": ["reserve"], "devices": ["pump", "valve"], "anybody": True}
    assert may(rule, NOBODY, "reserve", devices=["pump"])
    assert may(rule, NOBODY, "reserve", devices=["pump", "valve"])
    for devices in (["pump", "motor"], [], None, "pump", ["pump", 5], [["pump"]]):
        assert not may(rule, NOBODY, "reserve", devices=devices), devices
    assert not may(rule, NOBODY, "reserve")
    assert may({"ops": ["reserve"], "anybody": True}, NOBODY, "reserve")


def test_methods_narrow_calls() -> None:
    rule = {"ops": "call", "methods": ["identify"], "anybody": True}
    assert may(rule, NOBODY, "call", device="pump", method="identify")
    others: list[Any] = ["reset", None, ["identify"], {}, "identify "]
    for method in others:
        assert not may(rule, NOBODY, "call", device="pump", method=method)
