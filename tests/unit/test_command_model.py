"""Commands against a model: whatever is killed, lost, repeated or late, each has effect once and one result.

The store here is a model of what `agent.store.base` promises, committed step by step, so that a kill can fall
between any two steps; that the real one keeps these promises is proven where it is tested.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from agent.authorization.judge import Authorizer
from agent.clock import Timeline
from agent.commands.ops import Ops
from agent.commands.parse import Command
from agent.commands.service import CommandService
from agent.events import Events
from agent.store import AuditEntry, Journal, JournalEntry, Outbox, Outgoing, Store
from protocols.amqp.client import Delivery
from protocols.amqp.cloudevents import from_message
from protocols.amqp.codec import Message, decode
from protocols.base import DriverError


class Disk:
    """What outlives an agent."""

    def __init__(self) -> None:
        self.journal: dict[str, JournalEntry] = {}
        self.outbox: list[Outgoing] = []
        self.counters: Counter[str] = Counter()


class SteppedStore:
    """Takes everything at once, and puts it on disk unit by unit when it is told to."""

    epoch = 1
    trouble = ""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.timeline = Timeline()
        self.outbox = cast(Outbox, self)
        self.journal = cast(Journal, self)
        self.since_ns = 0
        self._counters = Counter(disk.counters)
        self._units: list[Callable[[], None]] = []
        self._unit: list[Callable[[], None]] | None = None

    def commit(self, count: int) -> None:
        for unit in self._units[:count]:
            unit()
        del self._units[:count]

    def _give(self, work: Callable[[], None]) -> None:
        (self._units if self._unit is None else self._unit).append(work)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        unit = self._unit = []
        yield
        self._unit = None

        def store() -> None:
            for work in unit:
                work()

        self._units.append(store)

    def _ask(self, answer: Callable[[], Any]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def resolve() -> None:
            if not future.done():
                future.set_result(answer())

        self._give(resolve)
        return future

    async def stored(self) -> None:
        await self._ask(lambda: None)

    async def find(self, key: str) -> JournalEntry | None:
        found: JournalEntry | None = await self._ask(lambda: self.disk.journal.get(key))
        return found

    async def unfinished(self) -> Sequence[JournalEntry]:
        return [msgspec.structs.replace(e) for e in self.disk.journal.values() if e.result is None]

    def begin(self, entry: JournalEntry) -> None:
        kept = msgspec.structs.replace(entry)
        self._give(lambda: self.disk.journal.update({kept.key: kept}))

    finish = begin

    def audit(self, entry: AuditEntry) -> None:
        pass

    def next_sequence(self, counter: str) -> int:
        self._counters[counter] += 1
        return self._counters[counter]

    def put(self, message: Outgoing) -> None:
        def store() -> None:
            self.disk.outbox.append(message)
            self.disk.counters[message.counter] = max(self.disk.counters[message.counter], message.sequence)

        self._give(store)


class Device:
    """Counts the effects of each command; one under way goes on when it is let."""

    def __init__(self, effects: Counter[str]) -> None:
        self.effects = effects
        self.waiting: list[asyncio.Future[bool]] = []

    def known(self, op: str) -> bool:
        return op in ("write", "ping")

    def device_of(self, command: Command) -> None:
        return None

    def waits_for_nobody(self, command: Command) -> bool:
        return command.fields.get("device") == "b"

    def has_effect(self, command: Command) -> bool:
        return command.op == "write"

    moves = has_effect

    def whose(self, command: Command) -> tuple[str, str]:
        return "", ""

    async def carry_out(self, command: Command, overtakes: int, judge: Callable[[], None]) -> Any:
        if command.op == "ping":
            return {}
        go_on: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.waiting.append(go_on)
        works = await go_on
        if not works:
            raise DriverError("timeout", "no answer")
        self.effects[command.key] += 1
        return {"values": {}}


class Given:
    """One delivery of a message to one agent."""

    def __init__(self, queue: "Queue", message: Message, agent: object) -> None:
        self._queue = queue
        self._message = message
        self._agent = agent

    def message(self) -> Message:
        return self._message

    def accept(self) -> None:
        assert self._agent is self._queue.agent, "settled by an agent that is dead"
        self._queue.on_settled(self._message)
        self._queue.unsettled.remove(self)

    def again(self, counted: bool) -> Message:
        count = self._message.delivery_count + 1 if counted else 0
        return msgspec.structs.replace(self._message, delivery_count=count)


class Queue:
    """The commands queue of a broker."""

    def __init__(self, on_settled: Callable[[Message], None]) -> None:
        self.waiting: list[Message] = []
        self.unsettled: list[Given] = []
        self.agent: object = None
        self.on_settled = on_settled


class Bench(RuleBasedStateMachine):
    asked = Bundle("asked")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.disk = Disk()
        self.effects: Counter[str] = Counter()
        self.queue = Queue(self._check_settled)
        self.posted: dict[str, Message] = {}
        self.askers: Counter[tuple[str, str]] = Counter()
        self.received: list[tuple[str, str, str, dict[str, Any]]] = []
        self.running: asyncio.Task[None] | None = None

    def _check_settled(self, message: Message) -> None:
        entry = self.disk.journal.get(f"s:{message.message_id!s}")
        assert entry is not None, "settled before its result was on disk"
        assert entry.result is not None, "settled before its result was on disk"

    @initialize()
    def start(self) -> None:
        self.store = SteppedStore(self.disk)
        self.device = Device(self.effects)
        store, ops = cast(Store, self.store), cast(Ops, self.device)
        events = Events("rig", store)
        self.service = CommandService(
            ops,
            store,
            events,
            "hil",
            Authorizer(None, None, lambda _token, _device: False),
            max_age=1e9,
            require_time=False,
        )
        self.queue.agent = self.service
        self.running = self.loop.create_task(self.service.run())
        self._breathe()

    def _breathe(self) -> None:
        async def breathe() -> None:
            for _ in range(30):
                await asyncio.sleep(0)

        self.loop.run_until_complete(breathe())

    # -- what happens ---------------------------------------------------------------------------

    @rule(target=asked, op=st.sampled_from(["write", "write", "ping"]), device=st.sampled_from("ab"))
    def post(self, op: str, device: str) -> str:
        name = f"m{len(self.posted)}"
        body = msgspec.json.encode({"op": op, "device": device})
        self.posted[name] = Message(body=body, message_id=name, reply_to="desk", creation_ms=10**13)
        self._send(self.posted[name])
        return name

    @rule(name=asked, reply_to=st.sampled_from(["desk", "other"]))
    def ask_again(self, name: str, reply_to: str) -> None:
        self._send(msgspec.structs.replace(self.posted[name], reply_to=reply_to))

    def _send(self, message: Message) -> None:
        self.askers[str(message.message_id), str(message.reply_to)] += 1
        self.queue.waiting.append(message)

    @rule(count=st.integers(1, 5))
    def deliver(self, count: int) -> None:
        for message in self.queue.waiting[:count]:
            given = Given(self.queue, message, self.service)
            self.queue.unsettled.append(given)
            self.service.on_message(cast(Delivery, given))
        del self.queue.waiting[:count]
        self._breathe()

    @rule(count=st.integers(1, 8))
    def commit(self, count: int) -> None:
        self.store.commit(count)
        self._breathe()

    @rule()
    def go_on_a_while(self) -> None:
        for _ in range(2):
            self.deliver(3)
            self.commit(5)

    @rule(works=st.sampled_from([True, True, False]))
    def let_go_on(self, works: bool) -> None:
        if self.device.waiting:
            self.device.waiting.pop(0).set_result(works)
        self._breathe()

    @rule(heard=st.booleans())
    def send_results(self, heard: bool) -> None:
        """The uplink sends what is on disk; not heard: the broker's answer is lost, and it is sent again."""
        for message in self.disk.outbox:
            event = from_message(sent := decode(message.data))
            body = msgspec.json.decode(event.data)
            self.received.append((str(sent.correlation_id), message.address.name, event.id, body))
        if heard:
            self.disk.outbox.clear()

    @rule(counted=st.booleans())
    def kill(self, counted: bool) -> None:
        """counted: the broker counts deliveries; not all do."""
        assert self.running is not None
        self.queue.agent = None
        self.store.disk = Disk()  # nothing reaches the old one any more
        self.running.cancel()
        self.loop.run_until_complete(asyncio.wait([self.running]))
        self.queue.waiting[:0] = [given.again(counted) for given in self.queue.unsettled]
        self.queue.unsettled.clear()
        self.start()

    @rule(looked_up=st.integers(1, 3), counted=st.booleans())
    def touch_and_die(self, looked_up: int, counted: bool) -> None:
        """The worst instant: the device has just done it, and hardly anything of it is on disk."""
        self.deliver(looked_up)
        self.commit(looked_up)
        self.let_go_on(True)
        self.kill(counted)

    # -- what has to hold -----------------------------------------------------------------------

    @invariant()
    def nothing_has_effect_twice(self) -> None:
        assert all(count == 1 for count in self.effects.values())

    @invariant()
    def no_command_has_two_results(self) -> None:
        said: dict[str, tuple[str, dict[str, Any]]] = {}
        for name, _, identity, body in self.received:
            assert said.setdefault(name, (identity, body)) == (identity, body)

    def teardown(self) -> None:
        for _ in range(len(self.posted) + 3):
            self.deliver(10**6)
            self.commit(10**6)
            while self.device.waiting:
                self.let_go_on(True)
                self.commit(10**6)
            self.commit(10**6)
        self.send_results(True)
        self.no_command_has_two_results()
        self.nothing_has_effect_twice()
        assert not self.queue.unsettled
        results = {name: body for name, _, _, body in self.received}
        for name in self.posted:
            effects = self.effects[f"s:{name}"]
            assert results[name]["status"] in ("ok", "failed", "indeterminate"), results[name]
            if results[name]["op"] == "write" and results[name]["status"] != "indeterminate":
                assert effects == (results[name]["status"] == "ok")
        answered = {(name, to) for name, to, _, _ in self.received}
        assert answered == set(self.askers)
        assert self.running is not None
        self.running.cancel()
        self.loop.run_until_complete(asyncio.wait([self.running]))
        self.loop.close()


Bench.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBench = Bench.TestCase


def test_a_stop_waits_for_an_answer_that_is_being_stored() -> None:
    bench = Bench()
    bench.start()
    name = bench.post("write", "a")
    bench.go_on_a_while()
    bench.let_go_on(True)
    bench.commit(9)
    bench.ask_again(name, "other")
    bench.deliver(1)
    bench.commit(1)
    stopping = bench.loop.create_task(bench.service.stop(5))
    bench.commit(0)
    assert not stopping.done()
    bench.commit(9)
    assert stopping.done()
    assert not bench.queue.unsettled
    assert bench.running is not None
    assert not bench.running.done()
    bench.teardown()
