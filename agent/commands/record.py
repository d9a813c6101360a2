"""What is kept of a command: its place in the journal, and its line in the audit. Pure."""

import msgspec

from agent import clock
from agent.commands.parse import Command, NotACommand, journal_key, message_id_of, user_name
from agent.commands.result import Result
from agent.store import AuditEntry, JournalEntry
from protocols.amqp.codec import MessageId

WHAT_LIMIT = 2000
"""Characters kept of what a command asked for."""
_SECRET = ("lease",)


def begun(command: Command) -> JournalEntry:
    """The journal's entry of a command that has no result yet."""
    assert command.correlation_id is not None  # parse takes no command without a message-id
    return JournalEntry(
        key=command.key,
        op=command.op,
        received_ns=command.received_ns,
        reply_to=command.reply_to,
        correlation_id=journal_key(command.correlation_id).encode(),
    )


def asker(entry: JournalEntry) -> MessageId:
    """The correlation-id that a result of this entry bears."""
    return message_id_of(entry.correlation_id.decode())


def audited(command: Command, outcome: Result, lease: str, holder: str) -> AuditEntry:
    """The audit's line for a command and its outcome; `lease` is the public id."""
    asked = {name: value for name, value in command.fields.items() if name not in ("op", *_SECRET)}
    device = asked.pop("device", "")
    return AuditEntry(
        time_ns=command.received_ns,
        finished_ns=clock.now_ns(),
        who=command.user,
        op=command.op,
        status=outcome.status,
        code=outcome.code,
        message=outcome.message,
        device=device[:WHAT_LIMIT] if isinstance(device, str) else "",
        lease=lease,
        holder=holder,
        key=command.key,
        what=msgspec.json.encode(asked).decode()[:WHAT_LIMIT] if asked else "",
    )


def cut_off(entry: JournalEntry, outcome: Result) -> AuditEntry:
    """The audit's line for a command that an agent had begun when it was killed: who asked died with it."""
    return AuditEntry(
        time_ns=entry.received_ns,
        finished_ns=clock.now_ns(),
        who="",
        op=entry.op,
        status=outcome.status,
        message=outcome.message,
        key=entry.key,
    )


def no_command(error: NotACommand, received_ns: int, user: bytes | None) -> AuditEntry:
    """The audit's line for a message that is no command at all."""
    return AuditEntry(
        time_ns=received_ns,
        finished_ns=clock.now_ns(),
        who=user_name(user),
        op="",
        status="rejected",
        code=error.code,
        message=str(error),
    )
