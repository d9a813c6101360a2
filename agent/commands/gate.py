"""The gate before the command service: who may not pass is answered here, and that is all."""

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from agent import clock
from agent.authorization.judge import Authorizer, Denied, KeyAwaited
from agent.authorization.refusals import Refusals
from agent.authorization.rules import Sender
from agent.commands.parse import Command
from agent.commands.record import audited, is_answer_to, is_of
from agent.commands.result import Result, of_error
from agent.metrics.counts import CommandCounts
from agent.store import AuditEntry, JournalEntry, Store
from protocols.amqp.client import Delivery
from protocols.base import Refused

BEHIND_BYTES = 16 * 1024 * 1024
"""Bytes that all commands which wait for a key may take, beyond which another is answered `busy`."""


class Gate:
    """Has each command judged before the service knows of it."""

    def __init__(
        self,
        authorizer: Authorizer,
        store: Store,
        counts: CommandCounts,
        *,
        begun: Callable[[Command], JournalEntry],
        answer: Callable[[JournalEntry, Result], None],
        admit: Callable[[Command, Delivery], None],
    ) -> None:
        """What the service does for it.

        Args:
            authorizer: Who judges.
            store: Where refusals are audited.
            counts: Where they are counted.
            begun: Makes the journal's entry of a command.
            answer: Sends a result that is not kept.
            admit: Takes a command that may pass; raises `Refused` where its message-id is another sender's.
        """
        self._authorizer = authorizer
        self._store = store
        self._counts = counts
        self._begun = begun
        self._answer = answer
        self._admit = admit
        self._refusals = Refusals(store.audit)
        self._behind: dict[str | None, list[tuple[Command, Delivery]]] = {}
        """By a token whose key is looked for: what came with it meanwhile, which does not overtake."""
        self._behind_bytes = 0
        self._group: asyncio.TaskGroup | None = None
        self._log = structlog.get_logger("commands")

    async def run(self) -> None:
        """Keeps what commands are judged by fresh, until cancelled; then audits what it gathered."""
        try:
            async with asyncio.TaskGroup() as self._group:
                await self._authorizer.run()
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None
            self._refusals.flush()

    def take(self, command: Command, delivery: Delivery) -> None:
        """Lets a command pass, or answers it. Until the gate runs it stays unsettled."""
        if self._group is None:
            return
        if command.op != "safe" and (behind := self._behind.get(command.bearer)) is not None:
            if self._has_room(command, delivery):
                behind.append((command, delivery))
        else:
            self._judge(command, delivery)

    def _judge(self, command: Command, delivery: Delivery, *, looked: bool = False) -> None:
        assert self._group is not None  # nothing is taken while there is none
        try:
            self._pass(command, delivery, self._authorizer.judge(command, looked=looked))
        except KeyAwaited:
            if self._has_room(command, delivery):
                self._behind[command.bearer] = []
                self._group.create_task(self._judge_later(command, delivery), name="look for a key")
        except Refused as error:
            self.refuse(command, delivery, error)

    def _has_room(self, command: Command, delivery: Delivery) -> bool:
        """Whether a command may wait for a key; else it is answered."""
        if self._behind_bytes + command.size > BEHIND_BYTES:
            self.refuse(command, delivery, Denied("busy", "too many commands wait for the issuer's keys"))
            return False
        self._behind_bytes += command.size
        return True

    def refuse(self, command: Command, delivery: Delivery, error: Refused) -> None:
        """Answers a command that may not pass; nothing of it is kept but the audit, so it may come again."""
        assert self._group is not None  # nothing is taken while there is none
        self._group.create_task(self._refuse(command, delivery, error), name=f"refuse {command.op}")

    def refuse_another(self, command: Command, delivery: Delivery) -> None:
        """Answers a command whose message-id was another sender's."""
        self.refuse(command, delivery, _not_yours())

    def audit_no_command(self, line: AuditEntry) -> None:
        """Audits a message that is no command; those of one who sends many of them as one."""
        if self._authorizer.spare(line.who):
            self._store.audit(line)
            self._log.warning("message is no command", why=line.message)
        else:
            self._refusals.note(line)

    def demand_same_sender(self, command: Command, first: Command) -> None:
        """A message-id is known already: a result is for who asked for it, where there are rules.

        Raises:
            Refused: the one that is known is another's.
        """
        if self._authorizer.on and (first.user, first.subject) != (command.user, command.subject):
            raise _not_yours()

    def is_anothers(self, entry: JournalEntry, command: Command) -> bool:
        """Whether a recorded result is not for the sender of this command, where there are rules."""
        return self._authorizer.on and not is_of(entry, command)

    async def _judge_later(self, command: Command, delivery: Delivery) -> None:
        """Waits for the issuer's keys, with this token's commands alone."""
        try:
            self._pass(command, delivery, await self._authorizer.judge_later(command))
        except Refused as error:
            self.refuse(command, delivery, error)
        behind = self._behind.pop(command.bearer)
        self._behind_bytes -= command.size + sum(waiting.size for waiting, _ in behind)
        for waiting in behind:
            self._judge(*waiting, looked=True)

    def _pass(self, command: Command, delivery: Delivery, sender: Sender) -> None:
        if sender.subject:
            command = msgspec.structs.replace(command, subject=sender.subject)
        if command.op == "safe" and self._authorizer.on:
            # Known by its sender too: nobody keeps the bench from being made safe by using a message-id up.
            known_by = f"safe {command.user!r} {command.subject!r} {command.key}"
            command = msgspec.structs.replace(command, key=known_by)
        self._admit(command, delivery)

    async def _refuse(self, command: Command, delivery: Delivery, error: Refused) -> None:
        # Before its first delivery was lost it may have been carried out: then it has its one result,
        # though its token has expired meanwhile.
        again = isinstance(error, Denied) and command.redelivered
        entry = await self._store.journal.find(command.key) if again else None
        if entry is None or not is_answer_to(entry, command):
            self._say(command, error)
            await self._store.stored()
        delivery.accept()

    def _say(self, command: Command, error: Refused) -> None:
        if isinstance(error, Denied):
            command = msgspec.structs.replace(command, subject=error.subject)
        outcome = of_error(command.op, command.received_ns, error)
        entry = self._begun(command)
        with self._store.together():
            if self._refusals.note(line := audited(entry, outcome)):
                self._log.warning(
                    "command refused",
                    op=line.op,
                    id=line.key,
                    user=line.who,
                    code=line.code,
                    message=line.message,
                )
            self._answer(entry, outcome)
        took = (clock.now_ns() - command.received_ns) / 1e9
        self._counts.finished(outcome.op, outcome.status, outcome.code, took)


def _not_yours() -> Refused:
    return Refused(
        "unauthorized", "another sender's command had this message-id; send yours with one of its own"
    )
