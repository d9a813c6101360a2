"""Whatever is done in whatever order, wherever the agent is killed: nothing lost, reordered, renumbered."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Literal, TypeAlias
from unittest import mock

from hypothesis import example, given, settings
from hypothesis import strategies as st
from storing import TOPIC, message

from agent.store import Outgoing, SqliteStore, spool
from protocols.amqp.flavours import Address

Step: TypeAlias = Literal["put", "passing", "take", "done", "retry", "stored", "turn", "kill", "restart"]
OFTEN: list[Step] = ["put", "passing", "take", "done", "stored"]
SELDOM: list[Step] = ["retry", "turn", "kill", "restart"]
SOURCE = "/benches/rig"


class Run:
    """One store after another in copies of a directory, and what a right one would do."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lives = 0
        self.given: list[int] = []
        """Durable messages, in order; a kill may lose those that are not sure."""
        self.sure = 0
        """How many of them are stored for sure."""
        self.done: set[int] = set()
        self.highest = 0
        """The highest number that anybody saw."""
        self._open()

    @property
    def _directory(self) -> Path:
        return self._root / str(self._lives)

    def _open(self) -> None:
        self.store = SqliteStore(self._directory, 10**9, 3600.0)
        self.channels: list[Address] = []
        self.store.outbox.on_channel = self.channels.append
        self.flying: list[Outgoing] = []
        self.last = 0
        """The number that was taken last."""
        self.done_now: set[int] = set()

    async def step(self, step: Step) -> None:
        match step:
            case "put" | "passing":
                self._put(durable=step == "put")
            case "take":
                self._take()
            case "done" if self.flying:
                found = self.flying.pop(0)
                self.done.add(found.sequence)
                self.done_now.add(found.sequence)
                self.store.outbox.done(found)
            case "retry" if self.flying:
                self.store.outbox.retry(self.flying)
                self.last, self.flying = self.flying[0].sequence - 1, []
            case "stored":
                await self.store.stored()
                self.sure = len(self.given)
            case "turn":
                await asyncio.sleep(0)
            case "kill":
                self._kill()
            case "restart":
                self.store.close()
                self.sure = len(self.given)
                self._open()

    def _put(self, *, durable: bool) -> None:
        number = self.store.next_sequence(SOURCE)
        assert number > self.highest, "a number that somebody saw is given again"
        self.store.outbox.put(message(number, durable=durable))
        if durable:
            self.given.append(number)

    def _take(self) -> bool:
        found = self.store.outbox.take(TOPIC) if TOPIC in self.channels else None
        if found is None:
            return False
        assert found.sequence > self.last, "out of order"
        assert found.sequence not in self.done_now, "taken again though it was done"
        self.last = found.sequence
        self.highest = max(self.highest, found.sequence)
        self.flying.append(found)
        return True

    def _kill(self) -> None:
        """What is on disk at this instant is all that is left."""
        old, self._lives = self._directory, self._lives + 1
        self._directory.mkdir()
        for name in ("store.db", "store.db-wal"):  # in this order no commit is seen in part
            shutil.copy(old / name, self._directory)
        self.store.close()
        # What was not stored was not sent: it is gone, or it is not, and its number is given again.
        self.given = self.given[: self.sure]
        self._open()

    async def check(self) -> None:
        """Drains, and compares with what was given."""
        await self.step("retry")
        await self.step("stored")
        left = []
        while self._take():
            left.append(self.flying[-1].sequence)
            await self.step("done")
            await self.step("stored")
        missing = set(self.given) - self.done - set(left)
        assert not missing, "lost"
        await self.store.outbox.empty()
        self.store.close()


@settings(max_examples=100)
@example(["put", "stored", "take", "restart", "put", "stored", "take", "kill", "put"], 2)
@example(["put", "passing", "put", "passing", "put", "stored", "take", "take", "done", "retry"], 1)
@given(st.lists(st.sampled_from(OFTEN * 3 + SELDOM), max_size=60), st.integers(1, 6))
def test_nothing_is_lost_reordered_or_numbered_twice(steps: list[Step], window: int) -> None:
    async def run(root: Path) -> None:
        one = Run(root)
        for step in steps:
            await one.step(step)
        await one.check()

    with tempfile.TemporaryDirectory() as root, mock.patch.object(spool, "WINDOW", window):
        asyncio.run(run(Path(root)))
