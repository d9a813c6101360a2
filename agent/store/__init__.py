"""What must outlive a message in flight: outbox, command journal, counters, epoch, small values, audit.

`base` says what a store does; `sqlite` does it. A thread (`keeper`) owns the database; the loop gives it
units of work (`handover`) and hears back what was stored.
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
from agent.store.sqlite import SqliteStore

__all__ = [
    "REPLIES",
    "AuditEntry",
    "Journal",
    "JournalEntry",
    "Lane",
    "Loss",
    "Outbox",
    "OutboxStats",
    "Outgoing",
    "SqliteStore",
    "Store",
]
