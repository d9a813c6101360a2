"""What `hilgate send` was told, as the body of a command (wire.md section 4). Pure."""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from agent.cli.exits import Exit, Failure
from agent.problems import did_you_mean
from protocols.units import parse_duration

USAGE = {
    "ping": "ping",
    "describe": "describe",
    "read": "read DEVICE [POINT...]",
    "write": "write DEVICE POINT=VALUE...",
    "call": "call DEVICE METHOD [ARG=VALUE...]",
    "enable": "enable",
    "disable": "disable",
    "safe": "safe",
    "reserve": "reserve HOLDER TIME",
    "renew": "renew",
    "release": "release",
    "record": "record [DEVICE] start|stop [format=FORMAT]",
}
"""The operations this agent takes, each with the words that follow it."""

BY_TOKEN = ("renew", "release")
"""Operations that are about the lease whose token they are given."""

_BELONGS = {
    "verify": ("write",),
    "reason": ("enable", "disable", "safe"),
    "devices": ("reserve",),
    "dte": ("reserve",),
    "priority": ("reserve",),
    "deadman_s": ("reserve",),
}
"""The options that become fields, with the operations that have them."""


_HEX = ("data", "answer_data", "id", "answer_id", "tx", "rx")
"""Arguments of `call` that are hex whatever they look like: payloads and arbitration ids."""


def body(op: str, words: Sequence[str], options: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """The JSON body of a command, but for a lease's token.

    Args:
        op: One of `USAGE`.
        words: What stands behind the op on the command line.
        options: Fields by options; those that are None, false or empty were not given.

    Raises:
        Failure: with the usage code, where the words do not make this command.
    """
    if op not in USAGE:
        raise Failure(f"There is no operation {op!r}; {did_you_mean(op, USAGE)}", Exit.USAGE)
    given = {name: value for name, value in options.items() if value not in (None, "") and value is not False}
    for name in given:
        if op not in (ops := _BELONGS[name]):
            flag = name.removesuffix("_s")
            raise Failure(f"--{flag} belongs to {' and '.join(ops)}, not to {op}", Exit.USAGE)
    return _fields(op, list(words)) | given


def _fields(op: str, words: list[str]) -> dict[str, Any]:
    match op, words:
        case "read", [device]:
            return {"op": op, "device": device}
        case "read", [device, *points]:
            return {"op": op, "device": device, "points": points}
        case "write", [device, first, *more]:
            return {"op": op, "device": device, "values": assignments([first, *more])}
        case "call", [device, method, *arguments]:
            return {"op": op, "device": device, "method": method, "args": _arguments(arguments)}
        case "reserve", [holder, time]:
            return {"op": op, "holder": holder, "ttl_s": _seconds(time)}
        case "record", [("start" | "stop") as what, *more]:
            return {"op": op, what: True} | _format(more)
        case "record", [device, ("start" | "stop") as what, *more]:
            return {"op": op, "device": device, what: True} | _format(more)
        case (
            ("ping" | "describe" | "enable" | "disable" | "safe" | "renew" | "release"),
            [],
        ):
            return {"op": op}
    raise Failure(f"Write it as: hilgate send BENCH {USAGE[op]}", Exit.USAGE)


def _arguments(words: Sequence[str]) -> dict[str, Any]:
    """Arguments of a call; those in hex stay text where they look like a number: `data=1122`, `data=1e10`."""
    found = assignments(words)
    for word in words:
        name, _, text = word.partition("=")
        if name in _HEX and isinstance(found[name], int | float):
            found[name] = text
    return found


def _format(words: Sequence[str]) -> dict[str, Any]:
    """`format=...`, if given."""
    fields = assignments(words)
    if fields.keys() - {"format"}:
        raise Failure(f"Write it as: hilgate send BENCH {USAGE['record']}", Exit.USAGE)
    return fields


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise Failure(f"{text!r} is no time: {error}", Exit.USAGE) from None


def assignments(words: Sequence[str]) -> dict[str, Any]:
    """Words such as `setpoint=1500` as names and values.

    Raises:
        Failure: a word is no assignment, or a name comes twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals):
            raise Failure(f"{word!r} should be NAME=VALUE, such as setpoint=1500", Exit.USAGE)
        if name in found:
            raise Failure(f"{name!r} is given twice", Exit.USAGE)
        found[name] = value(text)
    return found


def value(text: str) -> Any:
    """A word as JSON where it is JSON (`1500`, `true`, `"7"`, `[1, 2]`), else as the string it is."""
    try:
        found = json.loads(text)
        json.dumps(found, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    return found
