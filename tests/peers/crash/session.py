"""One session: rounds of commands and faults against one agent, one broker and one pair of devices."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import agents
import rhea
from brokers import Broker
from lines import unique

from crash import proof
from crash.plan import DEVICES, Fault, Order, Round
from crash.proxy import Proxy, proxy
from crash.rig import AGENT_LOG, Agent, Devices, devices
from crash.story import Story, explained

SAMPLES, AVAILABILITY = "io.hilgate.samples.v1", "io.hilgate.availability.v1"
RESEND_S = 3.0
"""After a broker was killed, what has no result for so long is sent again: it may not have got it."""
PATIENCE_S = 120.0
"""By then everything has to be answered. An agent that found no broker for long waits up to 30 s before an
attempt, and one round cuts it off twice."""


class Session:
    """Carries out rounds, and proves at the end of each and of all that nothing was lost or done twice."""

    def __init__(
        self, broker: Broker, agent: Agent, desk: rhea.RheaDesk, link: Proxy, rig: Devices, story: Story
    ) -> None:
        self._broker = broker
        self._agent = agent
        self._desk = desk
        self._link = link
        self._rig = rig
        self._note = story.note
        link.on_spent = lambda: story.note("connections cut: that many bytes have passed")
        self._heard = story.heard
        self._orders: list[Order] = []
        self._answered: set[Any] = set()

    # -- rounds ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when the consumer listens and the agent has said what it measures."""
        await self._desk.until_ready()
        await self._agent.start()
        await self._until_measured()

    async def carry_out(self, one: Round) -> None:
        """Commands, a fault in the middle of them, and an answer to each in the end."""
        self._note(f"round {one.number}: {len(one.orders)} commands, then {one.fault.value}")
        self._orders += (*one.orders, after := Order({"op": "ping"}, f"r{one.number}-after"))
        several = [order for order in one.orders if order.thrice]
        self._send([*one.orders, *several])
        await asyncio.sleep(one.delay)
        self._take_heard()
        self._note(f"{len(self._answered.intersection(order.message_id for order in one.orders))} answered")
        await self._strike(one)
        # The answer to the last tells that the bench is up again, so that the next fault finds one at work.
        self._send([*several, after])
        sent_for_good = one.fault not in (Fault.BROKER, Fault.BOTH)
        await self._until_answered([*one.orders, after], sent_for_good=sent_for_good)
        prove(proof.wrong_results(self._orders, self._heard), self._wrong_effects(one.orders))

    async def finish(self) -> None:
        """Lets everything arrive, and proves the whole session."""
        self._link.cut_after(None)
        await self._until_measured()
        await self._until_stopped()
        heard = self._heard
        prove(
            proof.copies_differ(heard),
            proof.wrong_results(self._orders, heard),
            self._wrong_effects(self._orders),
            proof.wrong_sequences(heard),
            proof.wrong_order(heard),
        )

    def _send(self, orders: Iterable[Order]) -> None:
        for order in orders:
            self._desk.send(order.body, order.message_id)

    # -- faults ---------------------------------------------------------------------------------

    async def _strike(self, one: Round) -> None:
        match one.fault:
            case Fault.AGENT:
                await self._replace_agent()
            case Fault.AGENT_AGAIN:
                await self._replace_agent()
                await asyncio.sleep(one.pause)
                await self._replace_agent()
            case Fault.AGENT_ALONE:
                with self._link.severed():
                    self._note("connections cut")
                    await asyncio.sleep(one.pause)
                    await self._replace_agent()
            case Fault.CUT_IN_DRAIN:
                with self._link.severed():
                    self._note("connections cut")
                    await asyncio.sleep(one.pause)
                self._link.cut_after(one.budget)
                self._note(f"{one.budget} bytes until the next cut")
            case Fault.STALL | Fault.AGENT_IN_STALL:
                with self._link.stalled():
                    self._note("nothing arrives")
                    await asyncio.sleep(one.pause)
                    if one.fault is Fault.AGENT_IN_STALL:
                        await self._replace_agent()
                self._note("connections cut")
            case Fault.CUT:
                self._cut()
            case Fault.FREEZE:
                with self._frozen():
                    await asyncio.sleep(one.pause)
            case Fault.CUT_IN_FREEZE:
                with self._frozen():
                    await asyncio.sleep(one.pause)
                    self._cut()
            case Fault.AGENT_IN_FREEZE:
                with self._frozen():
                    await asyncio.sleep(one.pause)
                    await self._replace_agent()
            case Fault.BROKER:
                await self._kill_broker()
                await asyncio.sleep(one.pause)
                await self._start_broker()
            case Fault.BOTH:
                await self._kill_broker()
                await asyncio.sleep(one.pause)
                await self._replace_agent()
                await self._start_broker()

    def _cut(self) -> None:
        self._link.cut()
        self._note("connections cut")

    async def _replace_agent(self) -> None:
        await self._agent.kill()
        self._note("agent killed")
        await self._agent.start()
        self._note("agent started")

    async def _kill_broker(self) -> None:
        await asyncio.to_thread(self._broker.kill)
        self._note("broker killed")

    async def _start_broker(self) -> None:
        times = len(self._desk.of("ready"))
        await asyncio.to_thread(self._broker.start)
        self._note("broker started")
        await self._desk.until_ready(times + 1)

    @contextlib.contextmanager
    def _frozen(self) -> Iterator[None]:
        with self._broker.frozen():
            self._note("broker frozen")
            yield
        self._note("broker thawed")

    # -- waiting --------------------------------------------------------------------------------

    async def _until_answered(self, orders: Iterable[Order], *, sent_for_good: bool) -> None:
        def waiting() -> list[Order]:
            return [order for order in orders if order.message_id not in self._answered]

        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(None if sent_for_good else RESEND_S):
                            return await self._until(lambda: not waiting())
                    self._note(f"no result of {_names(waiting())}: sent again")
                    self._send(waiting())
        except TimeoutError:
            raise AssertionError(f"no result of {_names(waiting())} in {PATIENCE_S:g} s") from None

    async def _until_measured(self) -> None:
        """Waits for samples of all devices taken from now on: channels are in order, so all else has come."""
        now = time.time()

        def come() -> bool:
            sources = {one["source"] for one in self._desk.messages(SAMPLES) if _taken(one) > now}
            return len(sources) == len(DEVICES)

        await self._until_patiently(come, "samples of all devices")

    async def _until_stopped(self) -> None:
        """Stops the agent; what it cannot send in its last moments waits for the next one."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await self._is_gone():
                    self._note("no goodbye of the agent: another one is to send it")
                    await self._agent.start()
                    await self._until_measured()
        except TimeoutError:
            raise AssertionError(f"no goodbye of the agent in {PATIENCE_S:g} s") from None

    async def _is_gone(self) -> bool:
        """Stops the agent, and says whether it has said so."""
        await self._agent.stop()
        self._note("the agent stopped")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RESEND_S):
                await self._until(lambda: self._desk.messages(AVAILABILITY)[-1]["data"]["state"] == "offline")
                return True
        return False

    async def _until_patiently(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._until(condition)
        except TimeoutError:
            raise AssertionError(f"waited {PATIENCE_S:g} s for {what}") from None

    async def _until(self, condition: Callable[[], bool]) -> None:
        while True:
            self._take_heard()
            if condition():
                return
            await self._desk.news()

    def _take_heard(self) -> None:
        for event in self._desk.events[len(self._heard) :]:
            one = _heard(event)
            self._heard.append(one)
            if one.kind == proof.RESULT:
                self._answered.add(one.correlation_id)

    # -- proof ----------------------------------------------------------------------------------

    def _wrong_effects(self, orders: Iterable[Order]) -> list[str]:
        writes = [order for order in orders if order.device]
        counts = {(one.device, one.register): self._rig.writes(one.device, one.register) for one in writes}
        return proof.wrong_effects(writes, self._heard, counts)


def prove(*violations: list[str]) -> None:
    """Fails with all that was violated."""
    found = list(itertools.chain(*violations))
    assert not found, "\n".join(found)


def _names(orders: Iterable[Order]) -> str:
    return ", ".join(order.message_id for order in orders)


def _taken(event: Mapping[str, Any]) -> float:
    """When an event's first sample was taken, in seconds since 1970."""
    return datetime.fromisoformat(event["time"]).timestamp()


def _heard(event: Mapping[str, Any]) -> proof.Heard:
    return proof.Heard(
        kind=event["type"],
        source=event["source"],
        address=event["to"],
        event_id=event["id"],
        epoch=int(event["epoch"]),
        sequence=int(event["sequence"]),
        correlation_id=event.get("correlation_id"),
        body=event["body"],
        priority=int(event["priority"]),
    )


@contextlib.asynccontextmanager
async def session(broker: Broker, folder: Path) -> AsyncIterator[Session]:
    """Everything that a session needs, running."""
    bench = unique("crash")
    config = await asyncio.to_thread(agents.desk_config, broker, bench, durable=True)
    story = Story(folder / AGENT_LOG)
    with devices() as rig, explained(story):
        async with proxy(broker.port) as link, rhea.desk(config) as desk:
            agent = Agent(folder, rig.profile(), bench, link.port)
            story.said = desk.said
            one = Session(broker, agent, desk, link, rig, story)
            try:
                async with asyncio.TaskGroup() as group:
                    watching = group.create_task(agent.watch(), name="agent's life")
                    await one.start()
                    yield one
                    watching.cancel()
            finally:
                await agent.kill()
    print(*story.steps, story.summary(), sep="\n")
