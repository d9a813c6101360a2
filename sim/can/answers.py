"""What a simulated node says to the frames of others. Pure."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from protocols.can.config import Answer
from protocols.can.frame import Frame
from sim.can.schedule import flags_of


class _Rule(NamedTuple):
    mask: bytes
    wanted: bytes
    delay: float
    response: Frame


class Answers:
    """The `answers` of a profile, by request.

    Of those with one response id the first that fits is given, so that special ones can stand before general
    ones; those with other response ids are given too, as several nodes answer to one functional address.
    """

    def __init__(self, answers: Sequence[Answer], switches: bool) -> None:
        self._rules: dict[int, list[_Rule]] = {}
        for answer in answers:
            digits = answer.data
            mask = bytes.fromhex("".join("0" if digit == "." else "f" for digit in digits))
            data = bytes.fromhex(answer.respond)
            response = Frame(0, answer.response, data, flags_of(len(data), False, switches))
            rule = _Rule(mask, bytes.fromhex(digits.replace(".", "0")), answer.delay, response)
            self._rules.setdefault(answer.request, []).append(rule)

    @property
    def requests(self) -> Sequence[int]:
        """The identifiers that are answered."""
        return tuple(self._rules)

    def to(self, frame: Frame) -> Iterator[tuple[float, Frame]]:
        """The answers to a data frame, each with its delay in seconds."""
        given = set()
        for rule in self._rules.get(frame.can_id, ()):
            response = rule.response
            if response.can_id not in given and _begins(frame.data, rule):
                given.add(response.can_id)
                yield rule.delay, response


def _begins(data: bytes, rule: _Rule) -> bool:
    head = data[: len(rule.mask)]
    return bytes(a & b for a, b in zip(head, rule.mask, strict=False)) == rule.wanted
