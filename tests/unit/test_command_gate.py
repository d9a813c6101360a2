"""The gate: what waits for a key keeps its order, and holds up nothing else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import issuer
import pytest

from agent.authorization.judge import Authorizer, Denied, KeyAwaited
from agent.authorization.rules import Sender
from agent.commands import gate
from agent.commands.gate import Gate
from agent.commands.parse import Command
from protocols.base import Refused


class SlowIssuer:
    """An authorizer whose tokens that begin with `new` are of a key that comes later."""

    on = True

    def __init__(self) -> None:
        self.key, self.known = asyncio.Event(), False

    async def run(self) -> None:
        """Nothing."""

    def judge(self, command: Command, *, looked: bool = False) -> Sender:
        if command.op == "flood":
            raise Denied("rate-limited", "too often")
        if command.op != "safe" and (command.bearer or "").startswith("new") and not self.known:
            assert not looked
            raise KeyAwaited
        return Sender(command.user)

    async def judge_later(self, command: Command) -> Sender:
        await self.key.wait()
        return self.judge(command, looked=True)


Take = Callable[..., None]


@contextlib.asynccontextmanager
async def opened(
    authorizer: SlowIssuer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Take, list[int], list[Refused]]]:
    """A gate that takes commands by number, op and token; which passed, and why others did not."""
    passed: list[int] = []
    refused: list[Refused] = []
    parts: dict[str, Any] = dict.fromkeys(("store", "counts", "begun", "answer"), None)
    parts["store"] = type("NoStore", (), {"audit": None})
    one = Gate(
        cast("Authorizer", authorizer), **parts, admit=lambda command, _: passed.append(command.fields["n"])
    )
    monkeypatch.setattr(one, "refuse", lambda _command, _delivery, error: refused.append(error))
    running = asyncio.create_task(one.run())
    await asyncio.sleep(0)

    def take(number: int, op: str, bearer: str | None) -> None:
        one.take(issuer.command(op, bearer=bearer, n=number), cast("Any", None))

    yield take, passed, refused
    running.cancel()
    await asyncio.wait([running])


async def test_what_comes_with_the_same_token_does_not_overtake(monkeypatch: pytest.MonkeyPatch) -> None:
    authorizer = SlowIssuer()
    async with opened(authorizer, monkeypatch) as (take, passed, refused):
        take(1, "write", "new")
        take(2, "write", "new")
        take(3, "write", "old")
        take(4, "write", None)
        take(5, "safe", "new")
        assert passed == [3, 4, 5]
        authorizer.known = True  # and nobody who waits has heard of it yet
        take(6, "write", "new")
        take(7, "flood", "new")
        take(8, "write", "new")
        authorizer.key.set()
        async with asyncio.timeout(10):
            while len(passed) < 7:
                await asyncio.sleep(0)
        assert passed == [3, 4, 5, 1, 2, 6, 8]
        assert [str(error) for error in refused] == ["too often"]
        take(9, "write", "new")
        assert passed[-1] == 9, "nothing is left behind"


async def test_what_waits_for_a_key_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BEHIND_BYTES", 3 * issuer.command().size)
    authorizer = SlowIssuer()
    async with opened(authorizer, monkeypatch) as (take, passed, refused):
        for number, bearer in enumerate(["new", "new", "new 2", "new", "new 3"]):
            take(number, "write", bearer)
        assert [error.code for error in refused] == ["busy", "busy"]
        take(5, "write", "old")
        take(6, "safe", "new")
        assert passed == [5, 6]
        authorizer.known = True
        authorizer.key.set()
        async with asyncio.timeout(10):
            while len(passed) < 5:
                await asyncio.sleep(0)
        authorizer.known = False
        authorizer.key.clear()
        for number in range(10, 14):
            take(number, "write", "new")
        assert len(refused) == 3, "what waits no more takes no room"
