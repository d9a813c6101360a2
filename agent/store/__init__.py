"""What must outlive a message in flight: the outbox, the command journal, sequence counters and the epoch.

`base` says what a store does; `memory` keeps it for the life of the process.
"""

from agent.store.base import (
    REPLIES,
    AuditEntry,
    Journal,
    JournalEntry,
    Lane,
    Loss,
    Outbox,
    OutboxStats,
    Outgoing,
    Store,
)
from agent.store.memory import MemoryStore

__all__ = [
    "REPLIES",
    "AuditEntry",
    "Journal",
    "JournalEntry",
    "Lane",
    "Loss",
    "MemoryStore",
    "Outbox",
    "OutboxStats",
    "Outgoing",
    "Store",
]
