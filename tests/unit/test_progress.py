"""Whether the parts of an agent go on."""

import asyncio
import contextlib
import threading
from pathlib import Path

import pytest
from waiting import until

from agent import progress as progress_module
from agent.progress import LATE_TICKS, Progress, counting
from agent.store import SqliteStore
from agent.store.keeper import IDLE_S


def look(progress: Progress, times: int) -> None:
    for _ in range(times):
        progress.look()


def test_what_goes_on_is_not_stalled() -> None:
    turns = iter(range(1000))
    progress = Progress(counting(lambda: next(turns), "the clock stands"), list)
    look(progress, 10 * LATE_TICKS)
    assert progress.stalled() == ""


def test_it_takes_ten_looks_in_a_row() -> None:
    still: list[str] = []
    progress = Progress(lambda: still)
    still.append("the store sleeps")
    look(progress, LATE_TICKS - 1)
    assert progress.stalled() == ""
    still.clear()
    look(progress, 1)
    still.append("the store sleeps")
    look(progress, LATE_TICKS - 1)
    assert progress.stalled() == ""
    look(progress, 1)
    assert progress.stalled() == "the store sleeps"
    still.clear()
    look(progress, 1)
    assert progress.stalled() == ""


def test_a_slow_part_that_moves_now_and_then_goes_on() -> None:
    turns = iter(number for number in range(100) for _ in range(LATE_TICKS - 1))
    progress = Progress(counting(lambda: next(turns), "slow"))
    for _ in range(50):
        progress.look()
        assert progress.stalled() == ""


async def test_a_task_that_ended_is_a_stall() -> None:
    async def short() -> None: ...

    progress = Progress()
    tasks = [asyncio.create_task(short(), name="commands"), asyncio.create_task(asyncio.sleep(60))]
    progress.follow(tasks)
    await tasks[0]
    look(progress, LATE_TICKS)
    assert progress.stalled() == "commands has ended"
    tasks[1].cancel()


async def test_it_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "TICK_S", 0.001)
    progress = Progress(lambda: ["nothing moves"])
    task = asyncio.create_task(progress.run())
    await until(progress.stalled)
    task.cancel()


async def test_a_store_whose_thread_hangs_is_a_stall_and_an_idle_one_is_none(
    tmp_path: Path,
) -> None:
    go_on = threading.Event()

    def hang(_: object) -> None:
        go_on.wait()

    with contextlib.closing(SqliteStore(tmp_path, 10**6, 3600)) as store:
        progress = Progress(counting(lambda: store.turns, "the store's thread does not answer"))
        try:
            turns = store.turns
            await until(lambda: store.turns > turns + 1)
            store._handover.operate(hang)  # a disk that does not come back
            asked = asyncio.ensure_future(store.stored())
            while store.turns != turns:
                turns = store.turns
                await asyncio.sleep(1.5 * IDLE_S)
            look(progress, LATE_TICKS + 1)
            assert progress.stalled() == "the store's thread does not answer"
        finally:
            go_on.set()
        await asked
        await until(lambda: store.turns > turns)
        progress.look()
        assert progress.stalled() == ""
