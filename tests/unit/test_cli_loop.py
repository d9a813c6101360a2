"""The loop of a command: signals end it, what runs beside it ends too."""

import asyncio
import contextlib
import os
import signal
import threading

import pytest

from agent.cli import loop
from agent.cli.exits import Exit, Failure
from agent.cli.tasks import beside


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_stop_and_the_command_ends_by_itself(number: signal.Signals) -> None:
    async def main(stop: asyncio.Event) -> str:
        os.kill(os.getpid(), number)
        await stop.wait()
        return "ended well"

    assert loop.execute(main) == "ended well"


def test_a_second_signal_cancels() -> None:
    cleaned = []

    async def main(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        loop.execute(main)
    assert cleaned


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [(None, 0, ""), (Failure("no answer", Exit.NO_ANSWER), 4, "hilgate: no answer\n")],
)
def test_a_thread_that_does_not_end_neither_holds_the_command_nor_hides_how_it_ended(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: Failure | None,
    code: int,
    said: str,
) -> None:
    codes = []
    left = threading.Event()

    def leave(code: int) -> None:
        codes.append(code)
        left.set()

    async def main(stop: asyncio.Event) -> None:
        asyncio.get_running_loop().run_in_executor(None, left.wait, 20)
        if failure is not None:
            raise failure

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(loop, "_EXIT_GRACE_S", 0.01)
    with pytest.raises(Failure) if failure is not None else contextlib.nullcontext():
        loop.execute(main)
    assert codes == [code]
    assert capsys.readouterr().err == said


async def test_every_ends_when_the_time_is_over() -> None:
    clock = asyncio.get_running_loop().time
    began = clock()
    times = [clock() - began async for _ in loop.every(0.01, asyncio.Event(), 0.035)]
    assert 1 <= len(times) <= 4
    assert times[-1] >= 0.034


async def test_every_ends_when_stop_is_set() -> None:
    stop = asyncio.Event()
    count = 0
    async for _ in loop.every(0.001, stop, None):
        count += 1
        if count == 3:
            stop.set()
    assert count == 3


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_work_beside_ends_with_the_body() -> None:
    async with beside(_forever(), "work") as task:
        assert not task.done()
    assert task.cancelled()


async def test_the_bodys_error_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError, match="body"):
        async with beside(_forever(), "work"):
            raise KeyError("body")


async def test_an_error_beside_ends_the_body() -> None:
    async def fails() -> None:
        raise ValueError("beside")

    with pytest.raises(ValueError, match="beside"):
        async with beside(fails(), "work"):
            await _forever()


async def test_of_nested_errors_the_first_one_is_raised() -> None:
    with pytest.raises(KeyError):
        async with beside(_forever(), "outer"), beside(_forever(), "inner"):
            raise KeyError("body")
