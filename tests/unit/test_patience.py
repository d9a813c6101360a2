"""The loop that tests run on: standing still is no time, waiting is."""

import asyncio
import time

from tests.patience import STEP_S, PatientLoop


async def test_tests_run_on_it() -> None:
    assert isinstance(asyncio.get_running_loop(), PatientLoop)


async def test_what_was_there_in_time_is_taken_however_long_the_process_stood_still() -> None:
    ours, theirs = asyncio.Event(), asyncio.Event()

    async def answer() -> None:
        await theirs.wait()
        await asyncio.sleep(0.03)
        time.sleep(0.3)  # noqa: ASYNC251 - the process stands still
        ours.set()

    task = asyncio.create_task(answer())
    async with asyncio.timeout(0.2):
        theirs.set()
        await ours.wait()
    await task


async def test_waiting_counts() -> None:
    began, real = asyncio.get_running_loop().time(), time.monotonic()
    await asyncio.sleep(0.1)
    assert asyncio.get_running_loop().time() - began >= 0.1 - STEP_S
    assert time.monotonic() - real >= 0.1 - STEP_S


async def test_the_clock_is_never_ahead_of_the_machines() -> None:
    loop = asyncio.get_running_loop()
    real, began = time.monotonic(), loop.time()
    for _ in range(20):
        await asyncio.sleep(0.001)
        passed = loop.time() - began
        assert passed <= time.monotonic() - real
