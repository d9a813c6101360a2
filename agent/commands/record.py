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


class _Asked(AuditEntry, omit_defaults=True):
    """What the journal keeps of who asked for what."""

    subject: str = ""
    """Who the command's JWT said it was; `who` is the user-id alone."""


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
    asked = msgspec.structs.asdict(_asked_for(entry))
    who, subject = asked["who"], asked.pop("subject")
    if subject:
        asked["who"] = f"{subject} via {who or 'no user-id'}"
    else:
        asked["who"] = _alone(who)
    came_of_it = {"status": outcome.status, "code": outcome.code, "message": outcome.message}
    return AuditEntry(**(asked | came_of_it | {"finished_ns": clock.now_ns()}))


def is_of(entry: JournalEntry, command: Command) -> bool:
    """Whether an entry is that of a command by the same sender."""
    first = _asked_for(entry)
    return (first.who, first.subject) == (command.user, command.subject)


def is_answer_to(entry: JournalEntry, command: Command) -> bool:
    """Whether an entry's result goes to where this command wants its own: it is the same message."""
    first = _asked_for(entry)
    same = (first.who, first.op, entry.reply_to) == (command.user, command.op, command.reply_to)
    return same and asker(entry) == command.correlation_id


def answer_to_another(entry: JournalEntry, command: Command) -> bytes:
    """The recorded result, for one who sent the same message-id; a token only for who asked for it."""
    assert entry.result is not None  # what a killed agent left was answered at the start
    first, again = _asked_for(entry), _asked(command, "", "")
    if entry.op != "reserve" or (first.op, first.who, first.what) == (again.op, again.who, again.what):
        return entry.result
    result = msgspec.json.decode(entry.result)
    result["data"] = {name: value for name, value in result["data"].items() if name not in _SECRET}
    return msgspec.json.encode(result)


def _asked(command: Command, lease: str, holder: str) -> _Asked:
    asked = {name: value for name, value in command.fields.items() if name not in ("op", *_SECRET)}
    device = asked.pop("device", "")
    return _Asked(
        time_ns=command.received_ns,
        finished_ns=0,
        who=command.user,
        subject=command.subject,
        op=command.op,
        status="",
        device=device[:WHAT_LIMIT] if isinstance(device, str) else "",
        lease=lease,
        holder=holder,
        key=command.key,
        what=msgspec.json.encode(asked).decode()[:WHAT_LIMIT] if asked else "",
    )


def _asked_for(entry: JournalEntry) -> _Asked:
    if not entry.asked:  # written by an earlier version
        return _Asked(entry.received_ns, 0, who="", op=entry.op, status="", key=entry.key)
    return msgspec.json.decode(entry.asked, type=_Asked)


def _alone(user: str) -> str:
    """A user-id as the audit has it without a token; one made up to look like a token's stands out."""
    return repr(user) if " via " in user else user


def no_command(error: NotACommand, received_ns: int, user: bytes | None) -> AuditEntry:
    """The audit's line for a message that is no command at all."""
    return AuditEntry(
        time_ns=received_ns,
        finished_ns=clock.now_ns(),
        who=_alone(user_name(user)),
        op="",
        status="rejected",
        code=error.code,
        message=str(error),
    )
