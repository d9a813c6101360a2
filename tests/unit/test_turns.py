"""Whose turn it is with a device: commands one by one, and before all of them whoever makes it safe."""

import asyncio
import contextlib

import pytest

from agent.turns import Overtaken, Turns
from protocols.base import Refused


class Command:
    """A command that moves a device from its start until it is let go or broken off."""

    def __init__(self, turns: Turns, overtakes: int | None = None) -> None:
        self.begun = asyncio.Event()
        self.let_go = asyncio.Event()
        self._turns = turns
        self._overtakes = turns.overtakes if overtakes is None else overtakes
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> str:
        async with self._turns.commanded(self._overtakes):
            self.begun.set()
            await self.let_go.wait()
        return "done"


async def test_commands_take_turns() -> None:
    turns = Turns("plc")
    first, second = Command(turns), Command(turns)
    await first.begun.wait()
    assert not second.begun.is_set()
    first.let_go.set()
    await second.begun.wait()
    second.let_go.set()
    assert [await first.task, await second.task] == ["done", "done"]


async def test_one_under_way_has_time_to_end_and_none_that_came_before_moves_the_device_after() -> None:
    turns = Turns("plc")
    first, second = Command(turns), Command(turns)
    await first.begun.wait()
    asyncio.get_running_loop().call_soon(first.let_go.set)
    async with turns.overtaken(5):
        assert await first.task == "done"
        late = Command(turns)
        with pytest.raises(Refused, match="made safe after this command came"):
            await second.task
    await late.begun.wait()
    late.let_go.set()
    assert await late.task == "done"


async def test_one_that_does_not_end_is_broken_off() -> None:
    turns = Turns("plc")
    stuck = Command(turns)
    await stuck.begun.wait()
    async with turns.overtaken(0.01):
        with pytest.raises(Overtaken, match="may or may not have had effect"):
            await stuck.task
        # The task itself goes on: it was its command that was broken off.
        assert not stuck.task.cancelled()


async def test_one_that_swallows_its_cancellation_keeps_nobody_from_making_the_device_safe() -> None:
    turns = Turns("plc")
    begun, let_go = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        async with turns.commanded(0):
            begun.set()
            while not let_go.is_set():
                try:
                    await let_go.wait()
                except asyncio.CancelledError:
                    continue

    task = asyncio.create_task(stubborn())
    await begun.wait()
    async with turns.overtaken(0.01):
        assert not task.done()
    let_go.set()
    await task


async def test_a_stop_that_comes_meanwhile_stays_a_cancellation() -> None:
    turns = Turns("plc")
    stuck = Command(turns)
    await stuck.begun.wait()
    stuck.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stuck.task
    async with turns.overtaken(1):
        pass
    assert turns.overtakes == 1


async def test_two_that_make_safe_do_not_mix() -> None:
    turns = Turns("plc")
    order: list[str] = []

    async def make_safe(name: str) -> None:
        async with turns.overtaken(5):
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    await asyncio.gather(make_safe("a"), make_safe("b"))
    assert order == ["a begins", "a ends", "b begins", "b ends"]


async def test_one_that_ends_in_its_own_way_when_it_is_broken_off_is_not_cancelled_later() -> None:
    turns = Turns("plc")
    begun = asyncio.Event()

    async def move() -> int:
        async with turns.commanded(turns.overtakes):
            begun.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    moving = asyncio.create_task(move())
    await begun.wait()
    async with turns.overtaken(0.01):
        assert await moving == 0


async def test_a_pause_holds_commands_back_and_not_who_makes_safe() -> None:
    turns = Turns("plc")
    order: list[str] = []

    async def make_safe(name: str) -> None:
        async with turns.overtaken(3600):
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    async with asyncio.timeout(30):
        async with turns.paused():
            late = Command(turns, overtakes=2)
            await asyncio.gather(make_safe("a"), make_safe("b"))
            assert not late.begun.is_set()
        await late.begun.wait()
        late.let_go.set()
        assert await late.task == "done"
    assert order == ["a begins", "a ends", "b begins", "b ends"]


async def test_a_pause_that_waits_for_a_command_comes_after_who_makes_safe() -> None:
    turns = Turns("plc")
    stuck = Command(turns)
    await stuck.begun.wait()

    async def pause() -> None:
        async with turns.paused():
            await turns.calm(3600)

    async with asyncio.timeout(30):
        pausing = asyncio.create_task(pause())
        await asyncio.sleep(0)
        async with turns.overtaken(0.01):
            with pytest.raises(Overtaken):
                await stuck.task
            for _ in range(10):
                await asyncio.sleep(0)
            assert not pausing.done()
        await pausing


async def test_nobody_is_waited_for_longer_than_was_said() -> None:
    turns = Turns("plc")
    async with asyncio.timeout(30), turns.overtaken(1):
        await turns.calm(0.01)
