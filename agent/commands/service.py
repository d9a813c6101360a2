"""Commands in, results out: each carried out once, in order per device, and answered once."""

import asyncio
import contextlib
from typing import Any

import structlog

from agent import clock
from agent.authorization.judge import Authorizer
from agent.commands.gate import Gate
from agent.commands.ops import Ops
from agent.commands.parse import Command, NotACommand, answer_to, is_answerable, parse
from agent.commands.record import answer_to_another, asker, audited, begun, no_command
from agent.commands.result import Result, indeterminate, of_error, result
from agent.events import Events, Identity, Mode
from agent.metrics.counts import CommandCounts
from agent.store import JournalEntry, Store
from agent.turns import Overtaken
from protocols.amqp.client import Delivery
from protocols.amqp.codec import Message, MessageId
from protocols.amqp.types import CodecError
from protocols.base import DriverError, Refused

QUEUE_LIMIT = 1000
"""Commands that may wait for one device; one more is answered `busy`."""
WAITING_BYTES = 64 * 1024 * 1024
"""Bytes that all commands that wait may take, beyond which another is answered `busy`."""
LOOK_UP_S = 0.2
"""How long op `safe` waits to hear whether it was carried out before."""
SETTLE_GRACE_S = 0.5
"""How long a stop waits for the answers to what it gave up."""

_Asker = tuple[str | None, MessageId | None]
"""Where an answer goes, and what it answers."""

_STOPPED = "the agent stopped while this was being carried out; it may or may not have had effect"
_FORGOTTEN = "an agent had this before and kept no record of it: it may or may not have had effect"


class CommandService:
    """Takes messages from the commands queue and settles each only after its result is on disk."""

    def __init__(
        self,
        ops: Ops,
        store: Store,
        events: Events,
        mode: Mode,
        authorizer: Authorizer,
        *,
        max_age: float,
        require_time: bool,
    ) -> None:
        self._ops = ops
        self._store = store
        self._journal = store.journal
        self._events = events
        self._mode = mode
        self._max_age_ms = max_age * 1000
        self._require_time = require_time
        self._arrived: asyncio.Queue[Command] = asyncio.Queue()
        self._pending: dict[str, list[tuple[Command, Delivery]]] = {}
        self._waiting_bytes = 0
        self._queues: dict[str, asyncio.Queue[tuple[Command, int]]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._at_work: dict[str, asyncio.Task[Any] | None] = {}
        """By key, the task that carries a command out; None while its answer is stored and it is settled."""
        self._given_up: set[str] = set()
        self.malformed = 0
        """Messages that were no command at all."""
        self.counts = CommandCounts()
        self._gate = Gate(
            authorizer,
            store,
            self.counts,
            begun=self._begun,
            answer=lambda entry, outcome: self._record(entry, outcome, keep=False),
            admit=self._admit,
        )
        self._log = structlog.get_logger("commands")

    @property
    def waiting(self) -> int:
        """Commands that came and are not yet settled."""
        return len(self._pending)

    async def run(self) -> None:
        """Works the queues until cancelled; what is then under way ends as `indeterminate`."""
        await self._answer_for_the_killed()
        try:
            async with asyncio.TaskGroup() as self._group:
                self._group.create_task(self._gate.run(), name="gate")
                await self._look_up()
        finally:
            self._group = None

    async def stop(self, grace: float) -> None:
        """Finishes what is under way within `grace` seconds, and begins nothing any more.

        What then still is under way ends as `indeterminate`. What has not begun stays unsettled: the broker
        has it back when the receiver closes.
        """
        self._stopping = True
        for key in [key for key in self._pending if key not in self._at_work]:
            del self._pending[key]
        if await self._idle_within(grace):
            return
        self._log.warning("commands still under way are given up", count=len(self._at_work))
        self._given_up |= self._at_work.keys()
        for task in self._at_work.values():
            if task is not None:
                task.cancel()
        await self._idle_within(SETTLE_GRACE_S)

    async def _idle_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        return self._idle.is_set()

    def on_message(self, delivery: Delivery) -> None:
        """Takes one message from the commands queue."""
        if self._stopping or self._group is None:
            return  # unsettled, as above; released it would come again at once
        received_ns = clock.now_ns()
        try:
            message = delivery.message()
        except CodecError as error:
            self._reject(delivery, NotACommand("malformed", f"not an AMQP message: {error}"), received_ns)
            return
        try:
            command = parse(message, received_ns)
        except NotACommand as error:
            self._answer_reject(message, received_ns, error)
            self._reject(delivery, error, received_ns, message.user_id)
            return
        delivery.data = b""  # all of it that counts is decoded
        self._gate.take(command, delivery)

    def _admit(self, command: Command, delivery: Delivery) -> None:
        """Takes a command that may be carried out.

        Raises:
            Refused: another sender's command has its message-id.
        """
        if self._stopping or self._group is None:
            return  # as above
        if (waiting := self._pending.get(command.key)) is not None:
            self._gate.demand_same_sender(command, waiting[0][0])
            waiting.append((command, delivery))
            return
        self._pending[command.key] = [(command, delivery)]
        self._waiting_bytes += command.size
        if command.op == "safe":
            self._group.create_task(self._look_up_shortly(command), name="look up safe")
        else:
            self._arrived.put_nowait(command)

    # -- before it is carried out ---------------------------------------------------------------

    async def _answer_for_the_killed(self) -> None:
        """Answers what an agent that was killed had begun: nobody can say how far it came."""
        for entry in await self._journal.unfinished():
            outcome = indeterminate(entry.op, entry.received_ns, _STOPPED)
            self._log.warning("command was cut off", op=entry.op, id=entry.key)
            with self._store.together():
                self._store.audit(audited(entry, outcome))
                self._record(entry, outcome)

    async def _look_up(self) -> None:
        """Asks the journal for every command that arrives, all that have arrived at once."""
        while True:
            commands = [await self._arrived.get()]
            while not self._arrived.empty():
                commands.append(self._arrived.get_nowait())
            known = await asyncio.gather(*(self._journal.find(command.key) for command in commands))
            for command, entry in zip(commands, known, strict=True):
                if command.key in self._pending:  # else left to the broker by stop()
                    self._take(command, entry)

    async def _look_up_shortly(self, command: Command) -> None:
        """What makes the bench safe does not wait for a disk that hangs."""
        entry = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_UP_S):
                entry = await self._journal.find(command.key)
        if command.key in self._pending:
            self._take(command, entry)

    def _take(self, command: Command, entry: JournalEntry | None) -> None:
        if entry is not None and self._gate.is_anothers(entry, command):
            self._waiting_bytes -= command.size
            for asked, delivery in self._pending.pop(command.key):
                self._gate.refuse_another(asked, delivery)
        elif entry is not None:
            self._repeat(command, entry)
        elif self._is_forgotten(command):
            self._finish(command, indeterminate(command.op, command.received_ns, _FORGOTTEN))
        else:
            try:
                self._enqueue(command)
            except Refused as error:
                # Nothing is held against a command that was sent at a bad moment: it may come again.
                outcome = of_error(command.op, command.received_ns, error)
                self._finish(command, outcome, keep=error.code != "busy")

    def _repeat(self, command: Command, entry: JournalEntry) -> None:
        """Answers a command that has its result, with the same event as before."""
        self._waiting_bytes -= command.size
        self.counts.repeated += 1
        self._log.info("command came again; its result stands", op=command.op, id=command.key)
        first: _Asker = (entry.reply_to, asker(entry))
        # The broker had not heard that it was settled: the answer is in the outbox, or has left it.
        heard = (
            {first} if command.redelivered and first == (command.reply_to, command.correlation_id) else set()
        )
        self._settle_soon(command.key, entry, heard)

    def _is_forgotten(self, command: Command) -> bool:
        older = command.created_ms is not None and command.created_ms * 1_000_000 < self._journal.since_ns
        return command.redelivered and older and self._ops.has_effect(command)

    def _enqueue(self, command: Command) -> None:
        if not self._ops.known(command.op):
            raise Refused("unknown-op", f"this agent has no op {command.op!r}")
        device = self._ops.device_of(command)
        assert self._group is not None  # nothing is taken while there is none
        if self._waiting_bytes > WAITING_BYTES and command.op != "safe":  # which is always allowed
            raise Refused("busy", f"{len(self._pending)} commands already wait for the bench")
        if device is None and self._ops.waits_for_nobody(command):
            # The receiver's credit bounds how many there are.
            task = self._group.create_task(self._do(command, 0), name=f"command {command.op}")
            self._under_way(command.key, task)
            return
        name = "the bench" if device is None else f"device {device.name}"
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = asyncio.Queue(QUEUE_LIMIT)
            self._group.create_task(self._work(queue), name=f"commands of {name}")
        if queue.full():
            raise Refused("busy", f"{queue.qsize()} commands already wait for {name}")
        queue.put_nowait((command, 0 if device is None else device.turns.overtakes))

    # -- carrying out ---------------------------------------------------------------------------

    async def _work(self, queue: asyncio.Queue[tuple[Command, int]]) -> None:
        while True:
            command, overtakes = await queue.get()
            if command.key in self._pending:  # else left to the broker by stop()
                await self._do(command, overtakes)

    async def _do(self, command: Command, overtakes: int) -> None:
        self._under_way(command.key, asyncio.current_task())
        with structlog.contextvars.bound_contextvars(**self._names(command)):
            self._finish(command, await self._carry_out(command, overtakes))

    def _names(self, command: Command) -> dict[str, str]:
        """What a line that is logged on behalf of a command bears, whoever logs it."""
        lease, _ = self._ops.whose(command)
        device = command.fields.get("device")
        names = {"id": command.key, "lease_id": lease, "device": device if isinstance(device, str) else ""}
        return {name: text for name, text in names.items() if text}

    def _under_way(self, key: str, task: asyncio.Task[Any] | None) -> None:
        self._at_work[key] = task
        self._idle.clear()

    async def _carry_out(self, command: Command, overtakes: int) -> Result:
        op, received_ns = command.op, command.received_ns
        try:
            self._judge_time(command)
            if self._ops.has_effect(command):
                self._journal.begin(self._begun(command))
                if op != "safe":  # what makes the bench safe waits for no disk
                    await self._store.stored()
                    self._judge_time(command)
            # Its turn with the device may come late, so its time is judged again then.
            data = await self._ops.carry_out(command, overtakes, lambda: self._judge_time(command))
            done = result(op, received_ns, "ok", data=data)
            done.encode()  # what JSON cannot hold is found here, where it can still be said
        except asyncio.CancelledError:
            task = self._at_work[command.key]
            if command.key in self._given_up and task is not None and not task.uncancel():
                return indeterminate(op, received_ns, _STOPPED)
            # It goes back to the broker unsettled, and is settled when it comes again.
            self._conclude(command, indeterminate(op, received_ns, _STOPPED))
            raise
        except Overtaken as error:
            return indeterminate(op, received_ns, str(error))
        except Exception as error:  # noqa: BLE001  # reported as this command's result
            if not isinstance(error, Refused | DriverError):
                self._log.exception("command failed by a fault of the agent", op=op, id=command.key)
            return of_error(op, received_ns, error)
        return done

    def _judge_time(self, command: Command) -> None:
        now_ms = clock.now_ns() // 1_000_000
        if command.expires_ms is not None and now_ms > command.expires_ms:
            raise Refused("expired", f"the command expired {now_ms - command.expires_ms} ms ago")
        if command.created_ms is not None and now_ms - command.created_ms > self._max_age_ms:
            age, most = (now_ms - command.created_ms) / 1000, self._max_age_ms / 1000
            raise Refused("expired", f"the command is {age:.1f} s old; max_command_age is {most:g} s")
        told = command.created_ms is not None and command.created_ms - now_ms <= self._max_age_ms
        if not told and self._require_time and self._ops.moves(command):
            raise Refused("expired", "what writes here needs a creation-time that is not ahead of our clock")

    # -- after it was carried out ---------------------------------------------------------------

    def _finish(self, command: Command, outcome: Result, *, keep: bool = True) -> None:
        entry = self._conclude(command, outcome, keep=keep)
        self._settle_soon(command.key, entry, {(command.reply_to, command.correlation_id)})

    def _conclude(self, command: Command, outcome: Result, *, keep: bool = True) -> JournalEntry:
        """Records an outcome, and the answer to whoever asked."""
        log = self._log.info if outcome.status == "ok" else self._log.warning
        log(
            "command",
            op=command.op,
            id=command.key,
            user=command.user,
            status=outcome.status,
            code=outcome.code,
            message=outcome.message,
        )
        self._waiting_bytes -= command.size
        took = (clock.now_ns() - command.received_ns) / 1e9
        self.counts.finished(outcome.op, outcome.status, outcome.code, took)
        entry = self._begun(command)
        with self._store.together():
            self._store.audit(audited(entry, outcome))
            self._record(entry, outcome, keep=keep)
        return entry

    def _begun(self, command: Command) -> JournalEntry:
        return begun(command, *self._ops.whose(command))

    def _record(self, entry: JournalEntry, outcome: Result, *, keep: bool = True) -> None:
        entry.result = outcome.encode()
        identity = self._events.result(
            entry.result, mode=self._mode, reply_to=entry.reply_to, correlation_id=asker(entry)
        )
        entry.event_id, entry.sequence, entry.time_ns, entry.epoch = identity
        if keep:
            self._journal.finish(entry)

    def _settle_soon(self, key: str, entry: JournalEntry, answered: set[_Asker]) -> None:
        assert self._group is not None  # nothing is taken while there is none
        self._under_way(key, None)  # a stop waits for it too, and has nothing to break off
        self._group.create_task(self._settle(key, entry, answered), name=f"settle {key}")

    async def _settle(self, key: str, entry: JournalEntry, answered: set[_Asker]) -> None:
        """Settles a command and its repetitions of the meantime, once all answers are on disk.

        Whoever asked in the same words, for instance over a new connection, has one answer.
        """
        waiting = self._pending[key]
        settled = 0
        while settled < len(waiting):
            several = waiting[settled:]
            for asked, _ in several:
                if (asked.reply_to, asked.correlation_id) not in answered:
                    answered.add((asked.reply_to, asked.correlation_id))
                    self._send_again(asked, entry)
            await self._store.stored()
            for _, delivery in several:
                delivery.accept()
            settled += len(several)
        del self._pending[key]
        self._at_work.pop(key, None)
        if not self._at_work:
            self._idle.set()

    def _send_again(self, command: Command, entry: JournalEntry) -> None:
        self._events.result(
            answer_to_another(entry, command),
            mode=self._mode,
            reply_to=command.reply_to,
            correlation_id=command.correlation_id,
            again=Identity(entry.event_id, entry.sequence, entry.time_ns, entry.epoch or self._store.epoch),
        )

    # -- what is no command ---------------------------------------------------------------------

    def _answer_reject(self, message: Message, received_ns: int, error: NotACommand) -> None:
        if message.reply_to and is_answerable(message):
            body = result("", received_ns, "rejected", code=error.code, message=str(error)).encode()
            self._events.result(
                body, mode=self._mode, reply_to=message.reply_to, correlation_id=answer_to(message)
            )

    def _reject(
        self, delivery: Delivery, error: NotACommand, received_ns: int, user: bytes | None = None
    ) -> None:
        self.malformed += 1
        self._gate.audit_no_command(no_command(error, received_ns, user))
        delivery.reject(f"hilgate:{error.code}", str(error))
