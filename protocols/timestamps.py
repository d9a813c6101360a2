"""Times as they stand in messages."""

import functools
import time


@functools.lru_cache(maxsize=8)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def rfc3339(time_ns: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 in UTC with nine decimals.

    Batches call it for each sample: times come mostly from one second, whose text is kept.
    """
    second, fraction = divmod(time_ns, 1_000_000_000)
    return f"{_second(second)}.{fraction:09d}Z"
