"""What the kernel is asked to let pass: the identifiers that the profile and calls under way need. Pure."""

from collections.abc import Iterable, Iterator

from protocols.can.bus import Filter
from protocols.can.frame import EXTENDED, EXTENDED_MASK, REMOTE, STANDARD_MASK


def exactly(can_id: int) -> Filter:
    """Data frames of one identifier."""
    return Filter(can_id, EXTENDED | REMOTE | _mask(can_id))


def between(first: int, last: int) -> Iterator[Filter]:
    """Data and remote frames with identifiers from `first` to `last`, both with or both without EXTENDED."""
    full, flag = _mask(first), first & EXTENDED
    low, high = first & full, last & full
    while low <= high:
        size = low & -low or full + 1
        while low + size - 1 > high:
            size >>= 1
        yield Filter(low | flag, EXTENDED | full & ~(size - 1))
        low += size


def _mask(can_id: int) -> int:
    return EXTENDED_MASK if can_id & EXTENDED else STANDARD_MASK


def passes(filters: Iterable[Filter], can_id: int) -> bool:
    """Whether a frame with this identifier (and flags) passes one of the filters."""
    return any((can_id ^ wanted) & mask == 0 for wanted, mask in filters)
