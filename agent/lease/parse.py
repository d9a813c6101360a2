"""From the fields of op reserve to what a holder wishes. Pure."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from agent.lease.book import Wish
from agent.problems import did_you_mean
from protocols.base import DeviceConfig, Refused

MAX_NAME = 128
"""Characters of a holder and of a digital twin environment."""
MAX_PRIORITY = 1000

_Positive = Annotated[float, msgspec.Meta(gt=0)]
_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]


class _Fields(msgspec.Struct):
    holder: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    ttl_s: _Positive
    devices: Annotated[list[str], msgspec.Meta(min_length=1)] | None = None
    dte: _Name = ""
    priority: Annotated[int, msgspec.Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = 0
    deadman_s: _Positive | None = None


def wish(fields: Mapping[str, Any], devices: Mapping[str, DeviceConfig], longest: float) -> Wish:
    """What the fields of a command ask for; `longest` is the most that a lease may last, in seconds.

    Raises:
        Refused: `malformed`, `out-of-range`, `unknown-device` or `disabled`.
    """
    try:
        asked = msgspec.convert(fields, _Fields)
    except msgspec.ValidationError as error:
        raise Refused("malformed", f"op reserve: {error}") from None
    if not (asked.holder.isprintable() and asked.dte.isprintable()):
        raise Refused("malformed", "op reserve takes 'holder' and 'dte' without control characters")
    if asked.ttl_s > longest:
        raise Refused(
            "out-of-range", f"ttl_s is {asked.ttl_s:g}; this bench leases for {longest:g} s at most"
        )
    if asked.deadman_s is not None and asked.deadman_s > asked.ttl_s:
        raise Refused("out-of-range", f"deadman_s is {asked.deadman_s:g}, longer than ttl_s: {asked.ttl_s:g}")
    return Wish(
        holder=asked.holder,
        ttl=asked.ttl_s,
        devices=None if asked.devices is None else _known(asked.devices, devices),
        dte=asked.dte,
        priority=asked.priority,
        deadman=asked.deadman_s,
    )


def token_of(fields: Mapping[str, Any]) -> str:
    """The token that op renew or release names.

    Raises:
        Refused: `malformed`: there is none.
    """
    found = fields.get("lease")
    if not isinstance(found, str) or not found:
        raise Refused(
            "malformed", f"op {fields.get('op', 'renew')} needs the field 'lease': the lease's token"
        )
    return found


def _known(names: list[str], devices: Mapping[str, DeviceConfig]) -> tuple[str, ...]:
    """The names, each once, in the profile's order."""
    for name in names:
        if name not in devices:
            hint = did_you_mean(name, devices) if len(name) <= MAX_NAME else ""
            text = f"the bench has no device {name!r:.80}{'; ' if hint else ''}{hint}"
            raise Refused("unknown-device", text)
        if not devices[name].enabled:
            raise Refused("disabled", f"device {name} is disabled in the profile")
    return tuple(name for name in devices if name in names)
