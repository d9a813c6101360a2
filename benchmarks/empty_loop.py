"""A loop that only wakes every 10 ms: the cycles that it misses, the machine has taken from everybody.

Run as a process beside a benchmark; prints the count after the seconds that its argument names.
"""

import asyncio
import sys

from protocols.schedule import Schedule

PERIOD_S = 0.010


async def count_missed(seconds: float) -> int:
    """Keeps the schedule of a poll and does nothing else."""
    clock = asyncio.get_running_loop().time
    schedule, end, total = Schedule(PERIOD_S, clock()), clock() + seconds, 0
    while clock() < end:
        await asyncio.sleep(schedule.due - clock())
        total += schedule.begin(clock())
    return total


if __name__ == "__main__":
    print(asyncio.run(count_missed(float(sys.argv[1]))))
