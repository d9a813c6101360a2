"""An outstation that writes down what it is asked, and answers as a test says."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from protocols.base import DriverError
from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.decoder import decode
from protocols.dnp3.fragment import NotSent, Reply
from protocols.dnp3.objects import Iin

NAME = "outstation 10 at rtu.bench.example:20000"
TIMEOUT = DriverError("timeout", f"{NAME} did not answer within 5 s")
NOT_SENT = NotSent("disconnected", f"{NAME} is not connected")


class Asked(NamedTuple):
    """A request as it came."""

    function: int
    body: bytes
    responds: bool


FINE = Iin(0)

Answer = Reply | Exception | Callable[[bytes], Reply]
"""Of a request: the reply, how asking fails, or what makes a reply of the request's body."""


def reply(body: bytes = b"", iin: Iin = FINE) -> Reply:
    """What is told of a response with these objects."""
    decoded = decode(body)
    return Reply(iin, decoded.blocks, 1_700_000_000_000_000_000, decoded.problem)


def echo(*statuses: int, iin: Iin = FINE) -> Callable[[bytes], Reply]:
    """Answers a control by itself, with these statuses (the last one for the rest; by default SUCCESS)."""

    def answer(body: bytes) -> Reply:
        left = list(statuses) or [0]
        blocks = []
        for block in decode(body).blocks:
            values = [
                octets[:-1] + bytes((left.pop(0) if len(left) > 1 else left[0],)) for octets in block.values
            ]
            blocks.append(msgspec.structs.replace(block, values=values))
        return Reply(iin, blocks, 1_700_000_000_000_000_000)

    return answer


def at(sent_ms_ago: int, took_ms: int, body: str = "") -> Callable[[bytes], Reply]:
    """A reply to a request that left so long ago, and whose answer took so long."""

    def answer(_: bytes) -> Reply:
        sent_ns = time.time_ns() - sent_ms_ago * 1_000_000
        told = reply(bytes.fromhex(body))
        return msgspec.structs.replace(told, sent_ns=sent_ns, time_ns=sent_ns + took_ms * 1_000_000)

    return answer


class AskedOutstation:
    """`fragment.Outstation`, and what calls need to know of the link."""

    def __init__(self, *answers: Answer) -> None:
        self.name = NAME
        self.asked: list[Asked] = []
        self.last_iin = Iin(0)
        self.heard_ns = 0
        self.dropped: Counter[str] = Counter()
        self._answers = list(answers)

    @property
    def functions(self) -> Sequence[int]:
        return [one.function for one in self.asked]

    async def ask(
        self, function: int, body: bytes = b"", *, responds: bool = True, report: bool = False
    ) -> Reply:
        self.asked.append(Asked(function, body, responds))
        answer = self._answers.pop(0) if self._answers or responds else reply()
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Reply) else answer(body)


def outstation_with(points: dict[str, Any], **fields: Any) -> Dnp3Device:
    """A device with these points."""
    device = {
        "protocol": "dnp3",
        "connection": {"transport": "tcp", "host": "rtu.bench.example"},
        "outstation": 10,
        "points": points,
    }
    return Dnp3Device.model_validate(device | fields)
