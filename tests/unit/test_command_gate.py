"""The gate: what waits for a key keeps its order, and holds up nothing else."""

import asyncio
from typing import Any, cast

import issuer
import pytest

from agent.authorization.judge import Authorizer, Denied, KeyAwaited
from agent.authorization.rules import Sender
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


async def test_what_comes_with_the_same_token_does_not_overtake(monkeypatch: pytest.MonkeyPatch) -> None:
    authorizer, passed = SlowIssuer(), []
    refused: list[Refused] = []
    parts: dict[str, Any] = dict.fromkeys(("store", "counts", "begun", "answer"), None)
    parts["store"] = type("NoStore", (), {"audit": None})
    gate = Gate(
        cast("Authorizer", authorizer), **parts, admit=lambda command, _: passed.append(command.fields["n"])
    )
    monkeypatch.setattr(gate, "refuse", lambda _command, _delivery, error: refused.append(error))
    running = asyncio.create_task(gate.run())
    await asyncio.sleep(0)

    def take(number: int, op: str, bearer: str | None) -> None:
        gate.take(issuer.command(op, bearer=bearer, n=number), cast("Any", None))

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
    running.cancel()
    await asyncio.wait([running])
