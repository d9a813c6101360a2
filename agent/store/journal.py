"""The journal as the loop sees it."""

from collections.abc import Sequence

import msgspec

from agent.store.base import JournalEntry
from agent.store.handover import Handover


class SqliteJournal:
    """Commands and their results for 24 h; over its bound the oldest finished ones go first."""

    def __init__(self, handover: Handover, since_ns: int, unfinished: Sequence[JournalEntry]) -> None:
        self.since_ns = since_ns
        self._handover = handover
        self._left = {entry.key: entry for entry in unfinished}

    async def find(self, key: str) -> JournalEntry | None:
        """The entry of a message-id."""
        return await self._handover.ask(lambda records: records.find(key))

    async def unfinished(self) -> Sequence[JournalEntry]:
        """What earlier runs began and nobody finished."""
        return list(self._left.values())

    def begin(self, entry: JournalEntry) -> None:
        """Notes a command before it is carried out."""
        kept = msgspec.structs.replace(entry)  # theirs may change before it is written
        self._handover.operate(lambda records: records.begin(kept))

    def finish(self, entry: JournalEntry) -> None:
        """Notes a command's result."""
        kept = msgspec.structs.replace(entry)
        self._left.pop(entry.key, None)
        self._handover.operate(lambda records: records.finish(kept))
