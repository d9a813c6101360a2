"""One agent: bench, commands, availability and uplink around one AMQP connection."""

import asyncio
import platform
from collections.abc import Collection

import structlog

from agent.availability import Availability
from agent.bench import Bench
from agent.commands.ops import Ops
from agent.commands.service import QUEUE_LIMIT, CommandService
from agent.connection import client_options
from agent.events import AVAILABILITY_ADDRESS, Events
from agent.profile import Profile
from agent.rivals import Rivals
from agent.settings import Settings
from agent.store import MemoryStore
from agent.uplink import Uplink
from protocols.amqp.client import Address, Client, LinkState, Receiver

COMMAND_GRACE_S = 4.0
"""How long a stop waits for commands under way."""
FLUSH_GRACE_S = 2.0
"""How long a stop waits for the broker to take what is left."""
CLOSE_GRACE_S = 1.5
"""How long a stop waits for links to close."""
RIVAL_CREDIT = 100


class Agent:
    """The gateway of one bench.

    Raises (on construction):
        OSError: the store directory cannot be written.
    """

    def __init__(self, profile: Profile, settings: Settings) -> None:
        self._settings = settings
        self.store = MemoryStore(settings.store, settings.outbox_size, settings.outbox_age)
        self.events = Events(settings.bench, self.store, structured=settings.cloudevents == "structured")
        self.bench = Bench(profile, self.events, sil=settings.sil)
        self.client = Client(client_options(settings, role="agent"), self._on_link)
        self.rivals = Rivals(settings.bench, self.events, self.bench.changed.set)
        self.availability = Availability(
            settings.bench,
            self.bench,
            self.events,
            self.store,
            self.rivals,
            interval=settings.heartbeat,
            connected=lambda: self.client.connected,
            labels={**profile.labels, **settings.labels},
            enabled=settings.enabled,
        )
        self.uplink = Uplink(self.client, self.store.outbox)
        self.commands = CommandService(
            Ops(settings.bench, self.store.epoch, self.bench, self.availability),
            self.store.journal,
            self.events,
            self.bench.mode,
            max_age=settings.max_command_age,
            require_time=settings.require_command_time,
        )
        self._log = structlog.get_logger("agent").bind(bench=settings.bench)

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, then stops gracefully within 10 s.

        Raises:
            ExceptionGroup: a part of the agent failed by a fault of its own.
        """
        self._log.info("agent starts", epoch=self.store.epoch, mode=self.bench.mode, arch=platform.machine())
        async with asyncio.TaskGroup() as group:
            link = [
                group.create_task(self.client.run(), name="amqp client"),
                group.create_task(self.uplink.run(), name="uplink"),
            ]
            work = [
                group.create_task(self.bench.run(), name="bench"),
                group.create_task(self.commands.run(), name="commands"),
                group.create_task(self.availability.run(), name="availability"),
            ]
            if self._settings.http is not None:
                from agent.web import serve  # aiohttp is an extra, and slow to import

                work.append(
                    group.create_task(serve(self.availability, self.bench, self._settings.http), name="web")
                )
            receivers = self._listen()
            await stop.wait()
            self._log.info("agent stops")
            self.availability.leave("stopping")
            await self.commands.stop(COMMAND_GRACE_S)
            for receiver in receivers:
                receiver.close()
            await _end(work)
            self.availability.leave("offline")
            if self.client.connected:
                await self.uplink.flush(FLUSH_GRACE_S)
            await _end(link)
        self.store.close()
        self._log.info("agent stopped")

    def _listen(self) -> tuple[Receiver, ...]:
        bench = self._settings.bench
        # Queues bound what waits for one device; credit must let the other devices' commands past it.
        credit = QUEUE_LIMIT * (len(self.bench.profile.devices) + 2)
        commands = Address(f"hil.{bench}.commands", "queue")
        return (
            self.client.receiver(commands, self.commands.on_message, credit=credit),
            self.client.receiver(AVAILABILITY_ADDRESS, self.rivals.on_message, credit=RIVAL_CREDIT),
        )

    def _on_link(self, state: LinkState, reason: str) -> None:
        self._log.info("broker link", state=state, reason=reason)
        if state is LinkState.CONNECTED:
            self.availability.changed()


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancels tasks and gives them a moment to close what they hold."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=CLOSE_GRACE_S)
