"""What a session of the crash test does, drawn from a seed: the same seed gives the same plan. Pure."""

import enum
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

DEVICES = ("left", "right")
REGISTERS = 200
"""Registers of each device that a session may write, each once."""
HIGHEST = 60_000
"""The `max` of each: a greater value is out of range."""
MOST_WRITES = 8


class Fault(enum.Enum):
    """What befalls a round."""

    AGENT = "the agent is killed"
    AGENT_AGAIN = "the agent is killed, and killed again as it starts"
    CUT = "the agent's connections are cut"
    AGENT_ALONE = "the agent is killed while it has no connection"
    CUT_IN_DRAIN = "the agent's connections are cut, and cut again while it sends what waited"
    STALL = "nothing arrives any more, and then the agent's connections are cut"
    AGENT_IN_STALL = "the agent is killed after a while in which nothing arrived"
    FREEZE = "the broker is frozen for a while"
    CUT_IN_FREEZE = "the agent's connections are cut while the broker is frozen and settles nothing"
    AGENT_IN_FREEZE = "the agent is killed while the broker is frozen"
    BROKER = "the broker is killed"
    BOTH = "both are killed"


_KILLS = (
    *(Fault.AGENT,) * 11,
    *(Fault.AGENT_AGAIN,) * 4,
    *(Fault.AGENT_ALONE,) * 3,
    *(Fault.AGENT_IN_STALL,) * 2,
    Fault.AGENT_IN_FREEZE,
    Fault.BOTH,
)
_OTHERS = (
    *(Fault.CUT,) * 3,
    *(Fault.CUT_IN_DRAIN,) * 3,
    *(Fault.STALL,) * 2,
    Fault.FREEZE,
    *(Fault.CUT_IN_FREEZE,) * 2,
    Fault.BROKER,
)
"""Never two of these in a row: an agent whose link goes again and again waits ever longer."""
SESSION = len(_KILLS) + len(_OTHERS)
"""Rounds that share one store, one broker and one pair of devices."""


@dataclass(frozen=True)
class Order:
    """One command; a write has a register of its own, so that the device can tell how often it came."""

    body: dict[str, Any]
    message_id: str = ""
    thrice: bool = False
    """It is sent twice at once, as an impatient sender does, and once more after the fault."""
    device: str = ""
    """Whose register is written, if any."""
    register: int = 0
    value: int = 0


@dataclass(frozen=True)
class Round:
    """Commands, a moment, and a fault."""

    number: int
    orders: tuple[Order, ...]
    delay: float
    """Seconds from the commands to the fault."""
    fault: Fault
    pause: float
    """Seconds for which what was hit stays away."""
    budget: int
    """Bytes that the agent may still send, where it is cut off in the midst of sending."""


def plan(seed: str, rounds: int) -> list[Round]:
    """The rounds of one session, at most `SESSION`."""
    chance = random.Random(seed)
    faults = _faults(chance)
    registers = {device: iter(range(REGISTERS)) for device in DEVICES}
    return [_round(chance, number, fault, registers) for number, fault in enumerate(faults[:rounds], 1)]


def _faults(chance: random.Random) -> list[Fault]:
    """Each as often as it should come, in random order."""
    kills = chance.sample(_KILLS, len(_KILLS))
    others = iter(chance.sample(_OTHERS, len(_OTHERS)))
    followed = chance.sample(range(len(kills)), len(_OTHERS))
    return [
        fault
        for place, kill in enumerate(kills)
        for fault in ((kill, next(others)) if place in followed else (kill,))
    ]


def _round(chance: random.Random, number: int, fault: Fault, registers: dict[str, Iterator[int]]) -> Round:
    orders = [
        Order({"op": "ping"}),
        Order({"op": "read", "device": chance.choice(DEVICES), "points": ["pulse"]}),
        *(_write(chance, registers) for _ in range(chance.randint(2, MOST_WRITES))),
    ]
    chance.shuffle(orders)
    named = tuple(
        replace(order, message_id=f"r{number}-{place}", thrice=chance.random() < 0.15)
        for place, order in enumerate(orders)
    )
    # A broker takes some 10 to 50 ms to hand the commands over, an agent some 20 ms to carry them out.
    return Round(
        number, named, chance.uniform(0, 0.1), fault, chance.uniform(0.1, 1.0), chance.randint(2_000, 20_000)
    )


def _write(chance: random.Random, registers: dict[str, Iterator[int]]) -> Order:
    device = chance.choice(DEVICES)
    register = next(registers[device])
    value = chance.randint(1, HIGHEST) if chance.random() < 0.9 else HIGHEST + 1
    body = {"op": "write", "device": device, "values": {f"w{register}": value}}
    return Order(body, device=device, register=register, value=value)
