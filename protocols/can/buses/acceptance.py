"""The kernel filter of a socket that has to see its own frames too. Pure."""

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from protocols.can.bus import Filter
from protocols.can.filters import exactly, passes
from protocols.can.frame import ERROR

MAX_FILTERS: Final = 512
"""CAN_RAW_FILTER_MAX (linux/can/raw.h)."""
_FILTER: Final = struct.Struct("=II")
_EVERYTHING: Final = Filter(0, 0)
_REMEMBERED: Final = 65_536


class Acceptance:
    """What the kernel lets pass: what is wanted, and the identifiers we send, so that we see them sent.

    Where the kernel has to let more pass than what is wanted, `wants` tells them apart.
    """

    def __init__(self, filters: Sequence[Filter] | None, sent: Iterable[int] = ()) -> None:
        """`filters` None: everything is wanted; `sent`: identifiers with flags, as in frames."""
        self._wanted = None if filters is None else _merged(filters)
        self._sent: dict[int, Filter] = {}
        self._judged: dict[int, bool] = {}
        for can_id in sent:
            self.admit(can_id)

    @property
    def sent(self) -> Iterable[int]:
        """What was admitted because we send it."""
        return self._sent.keys()

    @property
    def exact(self) -> bool:
        """Whether only what is wanted passes."""
        return self._wanted is None or (not self._sent and len(self._wanted) <= MAX_FILTERS)

    def admit(self, can_id: int) -> bool:
        """Lets our own frames with this identifier pass; whether the kernel has to be told for it."""
        if self._wanted is None or can_id in self._sent or self.wants(can_id):
            return False
        self._sent[can_id] = exactly(can_id)
        return len(self._wanted) + len(self._sent) <= MAX_FILTERS + 1

    def kernel(self) -> bytes:
        """The value of CAN_RAW_FILTER; everything if the kernel does not take so many filters."""
        filters = [_EVERYTHING] if self._wanted is None else [*self._wanted, *self._sent.values()]
        if len(filters) > MAX_FILTERS:
            filters = [_EVERYTHING]
        return b"".join(_FILTER.pack(*one) for one in filters)

    def wants(self, can_id: int) -> bool:
        """Whether frames of others with this identifier are wanted; error frames always are."""
        known = self._judged.get(can_id)
        if known is None:
            known = self._wanted is None or bool(can_id & ERROR) or passes(self._wanted, can_id)
            if len(self._judged) < _REMEMBERED:
                self._judged[can_id] = known
        return known


def _merged(filters: Iterable[Filter]) -> Sequence[Filter]:
    """Filters that pass the same frames; fewer where two differ in one bit, if there are too many."""
    # In the kernel the ERROR bit of a filter inverts it or makes it one of error frames.
    distinct = {Filter(can_id & mask & ~ERROR, mask & ~ERROR) for can_id, mask in filters}
    for bit in range(32):
        if len(distinct) <= MAX_FILTERS:
            break
        one = 1 << bit
        for can_id, mask in sorted(distinct):
            pair = {Filter(can_id, mask), Filter(can_id | one, mask)}
            if mask & one and not can_id & one and pair <= distinct:
                distinct -= pair
                distinct.add(Filter(can_id, mask & ~one))
    return sorted(distinct)
