"""One agent: bench, commands, availability and uplink around one AMQP connection."""

import asyncio
import contextlib
import platform
from collections.abc import Collection

import structlog

from agent.authorization.judge import Authorizer
from agent.availability import Availability
from agent.bench import Bench
from agent.certificates import Certificates
from agent.commands.ops import Ops
from agent.commands.service import QUEUE_LIMIT, CommandService
from agent.connection import client_options
from agent.events import AVAILABILITY_ADDRESS, Events
from agent.lease.hooks import Hooks
from agent.lease.keeper import Leases
from agent.notify import Service
from agent.profile import Profile
from agent.progress import Progress, counting
from agent.rivals import Rivals
from agent.safety import Safety, left
from agent.settings import Settings
from agent.store import SqliteStore
from agent.uplink import Uplink
from protocols.amqp.client import Address, Client, LinkState

COMMAND_GRACE_S = 2.5
"""How long a stop waits for commands under way."""
SAFE_GRACE_S = 2.5
"""How long a stop takes to make the devices safe."""
FLUSH_GRACE_S = 2.0
"""How long a stop waits for the broker to take what is left."""
CLOSE_GRACE_S = 1.5
"""How long a stop waits for links to close."""
RIVAL_CREDIT = 100
START_GRACE_S = 5.0
"""How long commands wait at the start for devices that do not answer."""
READY_DEVICES_S = 60.0
"""How long readiness waits for devices that do not answer."""
READY_BROKER_S = 5.0
"""How long readiness then waits for a broker that does not answer."""
MAX_CREDIT = 10_000
"""Commands that the broker may hand over at once."""
_RUNNING = "running"
"""The name under which the store remembers the epoch of an agent that has not stopped."""


class Agent:
    """The gateway of one bench.

    Args:
        profile: Its devices.
        settings: Where it runs.
        service: The service manager that started it, and wants to know how it goes.

    Raises (on construction):
        OSError: the store directory cannot be written.
    """

    def __init__(self, profile: Profile, settings: Settings, service: Service | None = None) -> None:
        self._settings = settings
        self._service = service
        self.store = SqliteStore(
            settings.store,
            settings.outbox_size,
            settings.outbox_age,
            synchronous=settings.synchronous,
            audit_age=settings.audit_age,
        )
        self.store.on_trouble = self._on_trouble
        self.events = Events(settings.bench, self.store, structured=settings.cloudevents == "structured")
        self.bench = Bench(profile, self.events, sil=settings.sil)
        self.client = Client(client_options(settings, role="agent"), self._on_link)
        self.certificates = Certificates(settings, self.bench, self.client, self.bench.changed.set)
        self.rivals = Rivals(settings.bench, self.events, self.bench.changed.set)
        self.safety = Safety(
            self.bench,
            self.store,
            self.events,
            changed=self.bench.changed.set,
            connected=lambda: self.client.connected,
            broker_loss=settings.safe_after_broker_loss,
        )
        self.leases = Leases(
            self.bench,
            self.store,
            self.events,
            self.safety,
            Hooks(settings.bench, self.bench, self.store, self.safety),
            changed=self.bench.changed.set,
            required=settings.require_lease,
            longest=settings.max_lease,
        )
        self.availability = Availability(
            settings.bench,
            self.bench,
            self.events,
            self.store,
            self.rivals,
            self.leases,
            self.safety,
            interval=settings.heartbeat,
            connected=lambda: self.client.connected,
            caveat=lambda: self.certificates.reason,
            labels={**profile.labels, **settings.labels},
            enabled=settings.enabled,
        )
        self.uplink = Uplink(self.client, self.store.outbox)
        self.authorizer = Authorizer(settings.authorization, settings.rate_limit, self.leases.holds)
        self.commands = CommandService(
            Ops(settings.bench, self.store.epoch, self.bench, self.availability, self.leases, self.safety),
            self.store,
            self.events,
            self.bench.mode,
            self.authorizer,
            max_age=settings.max_command_age,
            require_time=settings.require_command_time,
        )
        self.ready = asyncio.Event()
        """Set once each device was tried, and the broker too."""
        self.progress = Progress(
            counting(lambda: self.store.turns, "the store's thread does not answer"),
            lambda: filter(None, [device.stuck for device in self.bench.devices.values()]),
        )
        self._broker_tried = asyncio.Event()
        self._log = structlog.get_logger("agent").bind(bench=settings.bench)

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, then stops gracefully within 10 s.

        Raises:
            ExceptionGroup: a part of the agent failed by a fault of its own.
        """
        self._log.info("agent starts", epoch=self.store.epoch, mode=self.bench.mode, arch=platform.machine())
        with contextlib.closing(self.store):
            left.leave(self._settings.store, self.bench.profile, self._settings)  # before a device is touched
            await self._run(stop)
        self._log.info("agent stopped")

    async def _run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            link = [
                group.create_task(self.client.run(), name="amqp client"),
                group.create_task(self.uplink.run(), name="uplink"),
            ]
            if self._service is not None:
                told = self._service.keep_told(self.ready, self.progress.stalled, self._status)
                link.append(group.create_task(told, name="service status"))
            work = [
                group.create_task(self.bench.run(), name="bench"),
                group.create_task(self.safety.run(), name="safety"),
                group.create_task(self.leases.run(), name="leases"),
                group.create_task(self.commands.run(), name="commands"),
                group.create_task(self.availability.run(), name="availability"),
                group.create_task(self.progress.run(), name="progress"),
                group.create_task(self.certificates.run(), name="certificates"),
            ]
            self.progress.follow([*link, *work])
            work.append(group.create_task(self._become_ready(), name="readiness"))
            if self._settings.http is not None:
                from agent.web.server import serve  # aiohttp is an extra, and slow to import

                work.append(group.create_task(serve(self, self._settings), name="web"))
            rivals = self.client.receiver(AVAILABILITY_ADDRESS, self.rivals.on_message, credit=RIVAL_CREDIT)
            taking = group.create_task(self._take_commands(), name="command receiver")
            await stop.wait()
            self._log.info("agent stops")
            if self._service is not None:
                self._service.tell(STOPPING="1")
            self.availability.leave("stopping")
            await self.commands.stop(COMMAND_GRACE_S)
            await self._end_safely()
            # Commands are answered and settled before their link goes; the rest goes back with the link.
            await _end(work)
            await _end([taking])
            rivals.close()
            self.availability.leave("offline")
            if self.client.connected:
                await self.uplink.flush(FLUSH_GRACE_S)
            await _end(link)

    async def _end_safely(self) -> None:
        """Leaves the devices safe, and a word in the store that they are."""
        if self.bench.made.is_set():
            done = await self.safety.drive("stop", within=SAFE_GRACE_S)
            if done["safe"]:
                with contextlib.suppress(OSError):  # then it is made safe once more
                    left.forget(self._settings.store)
        self.store.remember(_RUNNING, None)

    async def _begin_safely(self) -> None:
        """Makes safe what an agent left that was killed, once the devices were tried."""
        killed = self.store.recall(_RUNNING)
        self.store.remember(_RUNNING, b"%d" % self.store.epoch)
        await self.bench.made.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_GRACE_S):
                await self.bench.tried.wait()
        if killed is not None:
            await self.safety.drive("crash", reason=f"the agent before (epoch {killed.decode()}) was killed")
        elif self.store.anew:
            await self.safety.drive(
                "crash", reason="the store was damaged: how the bench was left is not known"
            )

    async def _become_ready(self) -> None:
        """Sets `ready`; neither a broker that is away nor a driver that hangs holds it up for good."""
        for tried, within in ((self.bench.tried, READY_DEVICES_S), (self._broker_tried, READY_BROKER_S)):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await tried.wait()
        self._log.info("agent is ready", state=self.availability.state, reason=self.availability.reason)
        self.ready.set()

    def _status(self) -> str:
        """How it goes, in a line."""
        link = "" if self.client.connected else "no connection to the broker"
        return "; ".join(filter(None, [self.availability.state, self.availability.reason, link]))

    async def _take_commands(self) -> None:
        """Receives commands from when the devices were tried: what waited for the agent finds them there."""
        await self._begin_safely()
        address = Address(f"hil.{self._settings.bench}.commands", "queue")
        # A full queue of one device must leave credit for the others' commands.
        credit = min(MAX_CREDIT, QUEUE_LIMIT * (len(self.bench.devices) + 1))
        receiver = self.client.receiver(address, self.commands.on_message, credit=credit)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            receiver.close()

    def _on_trouble(self) -> None:
        if self.store.trouble:
            self._log.error("the store is in trouble", reason=self.store.trouble)
        else:
            self._log.info("the store works again")
        self.availability.changed()

    def _on_link(self, state: LinkState, reason: str) -> None:
        self._log.info("broker link", state=state, reason=reason)
        if state is not LinkState.CONNECTING or reason:  # else it has only begun
            self._broker_tried.set()
        if state is LinkState.CONNECTED:
            self.availability.changed()


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancels tasks and gives them a moment to close what they hold."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=CLOSE_GRACE_S)
