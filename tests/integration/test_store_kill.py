"""A process that is killed at any instant while it puts, takes and journals: what it left is whole."""

import asyncio
import contextlib
import random
import signal
import sys
from pathlib import Path

from agent.store import Lane, SqliteStore
from protocols.amqp.flavours import Address

ROUNDS = 12
TOPIC = Address("hil.rig.events.plc", "topic")
SOURCE = "/benches/rig"
CHILD = """
import asyncio, random, sys
from pathlib import Path
from agent.store import JournalEntry, Lane, Outgoing, SqliteStore
from protocols.amqp.flavours import Address

TOPIC = Address("hil.rig.events.plc", "topic")
SOURCE = "/benches/rig"

def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()

async def main():
    store = SqliteStore(Path(sys.argv[1]), 10**9, 3600.0)
    store.outbox.on_channel = lambda channel: None
    chance = random.Random(int(sys.argv[2]))
    say("epoch", store.epoch)
    while True:
        for _ in range(chance.randint(1, 20)):
            number = store.next_sequence(SOURCE)
            with store.together():
                store.outbox.put(
                    Outgoing(TOPIC, Lane.RESULT, SOURCE, number, 0, b"x" * 700, durable=number % 5 > 0)
                )
                store.journal.finish(JournalEntry(str(number), "write", 1, None, b"", b"done"))
        if chance.random() < 0.5:
            await store.stored()
            say("stored", number)
        else:
            await asyncio.sleep(0)
        while chance.random() < 0.9 and (found := store.outbox.take(TOPIC)) is not None:
            say("sent", found.sequence)
            store.outbox.done(found)

asyncio.run(main())
"""


class Seen:
    """What one life of the process said."""

    def __init__(self) -> None:
        self.epoch = 0
        self.stored = 0
        self.sent: list[int] = []

    def hear(self, line: bytes) -> None:
        match line.split():
            case [b"epoch", number]:
                self.epoch = int(number)
            case [b"stored", number]:
                self.stored = int(number)
            case [b"sent", number]:
                self.sent.append(int(number))


async def _live(directory: Path, chance: random.Random) -> Seen:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        str(directory),
        str(chance.randrange(10**9)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    seen = Seen()
    try:
        async with asyncio.timeout(20):
            seen.hear(await process.stdout.readline())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(chance.uniform(0.0, 0.15)):
                while line := await process.stdout.readline():
                    seen.hear(line)
    finally:
        process.send_signal(signal.SIGKILL)
        async for line in process.stdout:
            if line.endswith(b"\n"):
                seen.hear(line)
        await process.wait()
    return seen


async def test_what_a_killed_process_stored_is_there_once_and_in_order(tmp_path: Path) -> None:
    chance = random.Random(3)
    directory, sent, highest, stored, epoch = tmp_path / "store", set[int](), 0, 0, 0
    for _ in range(ROUNDS):
        seen = await _live(directory, chance)
        assert seen.epoch > epoch
        assert seen.sent == sorted(set(seen.sent)), "sent twice in one life, or out of order"
        epoch = seen.epoch
        sent.update(seen.sent)
        highest = max(highest, *seen.sent, 0)
        stored = max(stored, seen.stored)
    with contextlib.closing(SqliteStore(directory, 10**9, 3600.0)) as store:
        channels: list[Address] = []
        store.outbox.on_channel = channels.append
        await store.stored()
        left = []
        while channels and (found := store.outbox.take(TOPIC)) is not None:
            left.append(found.sequence)
            assert found.lane is Lane.RESULT
            store.outbox.done(found)
            await store.stored()
        assert left == sorted(set(left))
        last = store.next_sequence(SOURCE) - 1
        durable = {number for number in range(1, last + 1) if number % 5}
        assert not durable - sent - set(left), "lost"
        assert last >= max(stored, highest), "a number that was seen is given again"
        found_keys = [await store.journal.find(str(number)) for number in range(1, last + 1)]
        assert all(found_keys), "a message is there and what was given together with it is not"
    assert sent
