"""Commands in, results out: each carried out once, in order per device, and answered once."""

import asyncio

import structlog

from agent import clock
from agent.commands.ops import Ops
from agent.commands.parse import Command, NotACommand, answer_to, parse
from agent.commands.result import Result, of_error, result
from agent.events import Events, Mode
from agent.store import Journal
from protocols.amqp.client import Delivery
from protocols.amqp.codec import Message
from protocols.amqp.types import CodecError
from protocols.base import DriverError, Refused

QUEUE_LIMIT = 1000
"""Commands that may wait for one device; one more is answered `busy`."""
WAITING_BYTES = 64 * 1024 * 1024
"""Bytes of all commands that wait, beyond which another is answered `busy`."""
BENCH_QUEUE = ""

_WRITING_OPS = ("write", "call")


class CommandService:
    """Takes messages from the commands queue and settles each only after its result is recorded."""

    def __init__(
        self,
        ops: Ops,
        journal: Journal,
        events: Events,
        mode: Mode,
        *,
        max_age: float,
        require_time: bool,
    ) -> None:
        self._ops = ops
        self._journal = journal
        self._events = events
        self._mode = mode
        self._max_age_ms = max_age * 1000
        self._require_time = require_time
        self._pending: dict[str, list[tuple[Command, Delivery]]] = {}
        self._waiting_bytes = 0
        self._queues: dict[str, asyncio.Queue[Command]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._stopping = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._at_work: set[str] = set()
        self.malformed = 0
        """Messages that were no command at all."""
        self._log = structlog.get_logger("commands")

    async def run(self) -> None:
        """Works the queues until cancelled; what is then under way ends as `indeterminate`."""
        try:
            async with asyncio.TaskGroup() as self._group:
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None

    async def stop(self, grace: float) -> None:
        """Finishes what is under way within `grace` seconds, and begins nothing any more.

        What has not begun stays unsettled: the broker has it back when the receiver closes.
        """
        self._stopping = True
        for key in [key for key in self._pending if key not in self._at_work]:
            del self._pending[key]
        try:
            async with asyncio.timeout(grace):
                await self._idle.wait()
        except TimeoutError:
            self._log.warning("commands still under way are given up", count=len(self._at_work))

    def on_message(self, delivery: Delivery) -> None:
        """Takes one message from the commands queue."""
        if self._stopping or self._group is None:
            return  # unsettled, as above; released it would come again at once
        received_ns = clock.now_ns()
        try:
            message = delivery.message()
        except CodecError as error:
            self._reject(delivery, NotACommand("malformed", f"not an AMQP message: {error}"))
            return
        try:
            command = parse(message, received_ns)
        except NotACommand as error:
            self._answer_reject(message, received_ns, error)
            self._reject(delivery, error)
            return
        self._take(command, delivery)

    # -- inside ---------------------------------------------------------------------------------

    def _take(self, command: Command, delivery: Delivery) -> None:
        if (entry := self._journal.find(command.key)) is not None and entry.result is not None:
            self._log.info("command came again; its result is sent again", op=command.op, id=command.key)
            self._send(command, entry.result)
            delivery.accept()
            return
        if (waiting := self._pending.get(command.key)) is not None:
            waiting.append((command, delivery))
            return
        self._pending[command.key] = [(command, delivery)]
        self._waiting_bytes += command.size
        try:
            self._enqueue(command)
        except Refused as error:
            outcome = of_error(command.op, command.received_ns, error)
            # Nothing is held against a command that was sent at a bad moment: it may come again.
            self._finish(command, outcome, outcome.encode(), record=error.code != "busy")

    def _enqueue(self, command: Command) -> None:
        if not self._ops.known(command.op):
            raise Refused("unknown-op", f"this agent has no op {command.op!r}")
        device = self._ops.device_of(command)
        name = BENCH_QUEUE if device is None else device.name
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = asyncio.Queue(QUEUE_LIMIT)
            assert self._group is not None  # on_message takes nothing while there is none
            self._group.create_task(self._work(queue), name=f"commands {name or 'bench'}")
        if queue.full() or self._waiting_bytes > WAITING_BYTES:
            raise Refused("busy", f"{queue.qsize()} commands already wait for {name or 'the bench'}")
        queue.put_nowait(command)

    async def _work(self, queue: asyncio.Queue[Command]) -> None:
        while True:
            command = await queue.get()
            if command.key not in self._pending:
                continue  # left to the broker by stop()
            self._at_work.add(command.key)
            self._idle.clear()
            try:
                await self._carry_out(command)
            finally:
                self._at_work.discard(command.key)
                if not self._at_work:
                    self._idle.set()

    async def _carry_out(self, command: Command) -> None:
        op, received_ns = command.op, command.received_ns
        try:
            self._judge_time(command)
            self._journal.begin(command.key)
            outcome = result(op, received_ns, "ok", data=await self._ops.carry_out(command))
            body = outcome.encode()
        except asyncio.CancelledError:
            text = "the agent stopped while this was being carried out; it may or may not have had effect"
            outcome = result(op, received_ns, "indeterminate", message=text)
            self._finish(command, outcome, outcome.encode())
            raise
        except Exception as error:  # noqa: BLE001  # reported as this command's result
            if not isinstance(error, Refused | DriverError):
                self._log.exception("command failed by a fault of the agent", op=op, id=command.key)
            outcome = of_error(op, received_ns, error)
            body = outcome.encode()
        self._finish(command, outcome, body)

    def _judge_time(self, command: Command) -> None:
        now_ms = clock.now_ns() // 1_000_000
        if command.expires_ms is not None and now_ms > command.expires_ms:
            raise Refused("expired", f"the command expired {now_ms - command.expires_ms} ms ago")
        if command.created_ms is not None and now_ms - command.created_ms > self._max_age_ms:
            age, most = (now_ms - command.created_ms) / 1000, self._max_age_ms / 1000
            raise Refused("expired", f"the command is {age:.1f} s old; max_command_age is {most:g} s")
        if command.created_ms is None and self._require_time and command.op in _WRITING_OPS:
            raise Refused("expired", "this bench wants a creation-time on every command that writes")

    def _finish(self, command: Command, outcome: Result, body: bytes, *, record: bool = True) -> None:
        if record:
            self._journal.finish(command.key, body)
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
        # It may have come more than once meanwhile, for instance over a new connection: whoever asked in
        # the same words has one answer.
        answered = set()
        for asked, delivery in self._pending.pop(command.key, ()):
            if (asked.reply_to, asked.correlation_id) not in answered:
                answered.add((asked.reply_to, asked.correlation_id))
                self._send(asked, body)
            delivery.accept()

    def _send(self, command: Command, body: bytes) -> None:
        self._events.result(
            body, mode=self._mode, reply_to=command.reply_to, correlation_id=command.correlation_id
        )

    def _answer_reject(self, message: Message, received_ns: int, error: NotACommand) -> None:
        if message.reply_to:
            body = result("", received_ns, "rejected", code=error.code, message=str(error)).encode()
            self._events.result(
                body, mode=self._mode, reply_to=message.reply_to, correlation_id=answer_to(message)
            )

    def _reject(self, delivery: Delivery, error: NotACommand) -> None:
        self.malformed += 1
        self._log.warning("message is no command", why=str(error))
        delivery.reject(f"hilgate:{error.code}", str(error))
