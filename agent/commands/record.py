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


def begun(command: Command, lease: str, holder: str) -> JournalEntry:
    """The journal's entry of a command that has no result yet; `lease` is the public id."""
    assert command.correlation_id is not None  # parse takes no command without a message-id
    return JournalEntry(
        key=command.key,
        op=command.op,
        received_ns=command.received_ns,
        reply_to=command.reply_to,
        correlation_id=journal_key(command.correlation_id).encode(),
        asked=msgspec.json.encode(_asked(command, lease, holder)),
    )


def asker(entry: JournalEntry) -> MessageId:
    """The correlation-id that a result of this entry bears."""
    return message_id_of(entry.correlation_id.decode())


def audited(entry: JournalEntry, outcome: Result) -> AuditEntry:
    """The audit's line for a command and its outcome."""
    return msgspec.structs.replace(
        _asked_for(entry),
        finished_ns=clock.now_ns(),
        status=outcome.status,
        code=outcome.code,
        message=outcome.message,
    )


def answer_to_another(entry: JournalEntry, command: Command) -> bytes:
    """The recorded result, for one who sent the same message-id; a token only for who asked for it."""
    assert entry.result is not None  # what a killed agent left was answered at the start
    first, again = _asked_for(entry), _asked(command, "", "")
    if entry.op != "reserve" or (first.op, first.who, first.what) == (again.op, again.who, again.what):
        return entry.result
    result = msgspec.json.decode(entry.result)
    result["data"] = {name: value for name, value in result["data"].items() if name not in _SECRET}
    return msgspec.json.encode(result)


def _asked(command: Command, lease: str, holder: str) -> AuditEntry:
    asked = {name: value for name, value in command.fields.items() if name not in ("op", *_SECRET)}
    device = asked.pop("device", "")
    return AuditEntry(
        time_ns=command.received_ns,
        finished_ns=0,
        who=command.user,
        op=command.op,
        status="",
        device=device[:WHAT_LIMIT] if isinstance(device, str) else "",
        lease=lease,
        holder=holder,
        key=command.key,
        what=msgspec.json.encode(asked).decode()[:WHAT_LIMIT] if asked else "",
    )


def _asked_for(entry: JournalEntry) -> AuditEntry:
    if not entry.asked:  # written by an earlier version
        return AuditEntry(entry.received_ns, 0, who="", op=entry.op, status="", key=entry.key)
    return msgspec.json.decode(entry.asked, type=AuditEntry)


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
