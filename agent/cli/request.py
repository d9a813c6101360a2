"""What `hilgate send` was told, as the body of a command (wire.md section 4). Pure."""

import json
from collections.abc import Sequence
from typing import Any

from agent.cli.exits import Exit, Failure
from agent.problems import did_you_mean

USAGE = {
    "ping": "ping",
    "describe": "describe",
    "read": "read DEVICE [POINT...]",
    "write": "write DEVICE POINT=VALUE...",
    "call": "call DEVICE METHOD [ARG=VALUE...]",
    "enable": "enable",
    "disable": "disable",
    "safe": "safe",
}
"""The operations this agent takes, each with the words that follow it."""


def body(op: str, words: Sequence[str], *, verify: bool = False, reason: str = "") -> dict[str, Any]:
    """The JSON body of a command.

    Args:
        op: One of `USAGE`.
        words: What stands behind the op on the command line.
        verify: Ask a write to be read back.
        reason: Why the bench is enabled, disabled or made safe.

    Raises:
        Failure: with the usage code, where the words do not make this command.
    """
    if op not in USAGE:
        raise Failure(f"There is no operation {op!r}; {did_you_mean(op, USAGE)}", Exit.USAGE)
    if verify and op != "write":
        raise Failure(f"--verify reads back what a write wrote; it says nothing for {op}", Exit.USAGE)
    if reason and op not in ("enable", "disable", "safe"):
        raise Failure(f"--reason belongs to enable, disable and safe, not to {op}", Exit.USAGE)
    match op, list(words):
        case "read", [device]:
            return {"op": op, "device": device}
        case "read", [device, *points]:
            return {"op": op, "device": device, "points": points}
        case "write", [device, first, *more]:
            extra = {"verify": True} if verify else {}
            return {"op": op, "device": device, "values": assignments([first, *more])} | extra
        case "call", [device, method, *arguments]:
            return {"op": op, "device": device, "method": method, "args": assignments(arguments)}
        case (("enable" | "disable" | "safe"), []):
            return {"op": op, "reason": reason} if reason else {"op": op}
        case (("ping" | "describe"), []):
            return {"op": op}
    raise Failure(f"Write it as: hilgate send BENCH {USAGE[op]}", Exit.USAGE)


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
