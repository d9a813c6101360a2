"""Whether a rule allows a command. Pure."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from agent.authorization.config import OF_DEVICES, Rule
from agent.commands.parse import Command

Holds = Callable[[str, Sequence[str] | None], bool]
"""Whether a lease token is that of a lease that is held on all these devices; None: on the whole bench."""


class Sender(msgspec.Struct, frozen=True):
    """Who sent a command."""

    user: str
    """The user-id, as the broker vouches for it; empty if there is none."""
    subject: str = ""
    """The `sub` of a token that was verified."""
    roles: frozenset[str] = frozenset()


def allowed(rules: Sequence[Rule], sender: Sender, command: Command, holds: Holds) -> bool:
    """Whether some rule allows this; without one, it is denied."""
    devices = _devices(command)
    return any(
        _fits(rule, command, devices) and _is_for(rule, sender, command, devices, holds) for rule in rules
    )


def _fits(rule: Rule, command: Command, devices: Sequence[str]) -> bool:
    """Whether a rule speaks of what a command asks for."""
    if command.op not in rule.ops and "all" not in rule.ops:
        return False
    if rule.devices is not None and not (devices and set(devices) <= set(rule.devices)):
        return False
    return rule.methods is None or command.fields.get("method") in rule.methods


def _is_for(rule: Rule, sender: Sender, command: Command, devices: Sequence[str], holds: Holds) -> bool:
    """Whether a rule speaks of the sender: everything that it says must be true."""
    if rule.users is not None and not (
        sender.user and any(fnmatch.fnmatchcase(sender.user, pattern) for pattern in rule.users)
    ):
        return False
    if rule.roles is not None and sender.roles.isdisjoint(rule.roles):
        return False
    return rule.lease_holder is None or _holds(command, devices, holds)


def _holds(command: Command, devices: Sequence[str], holds: Holds) -> bool:
    whole = command.op in OF_DEVICES and not devices
    return command.token is not None and holds(command.token, None if whole else devices)


def _devices(command: Command) -> Sequence[str]:
    """The devices that a command names; none where it names the whole bench, or is not about devices."""
    if command.op not in OF_DEVICES:
        return ()
    named: Any = command.fields.get("devices") if command.op == "reserve" else [command.fields.get("device")]
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        return ()
    return named
