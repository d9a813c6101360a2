"""The leases of a bench as they live: timers, hooks, events, and what is kept on disk, around the book."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from agent import clock
from agent.bench import Bench
from agent.events import LEASE, Events
from agent.lease.book import Book, Ended, Lease, State, digest, public_id
from agent.lease.hooks import Hooks
from agent.lease.parse import token_of, wish
from agent.safety import Cause, Safety
from agent.store import AuditEntry, Store
from protocols.base import DriverError, Refused
from protocols.timestamps import rfc3339

LEASES = "leases"
"""The names under which the store remembers what lives, and what is over."""
ENDED = "leases-ended"
TRIED_GRACE_S = 5.0
"""How long what an earlier run left waits at the start for devices that do not answer."""
MOST_SLEEP_S = 1.0
"""The loop's clock stands still while the machine is suspended; that of leases goes on."""


class Leases:
    """Grants leases, and ends them."""

    def __init__(
        self,
        bench: Bench,
        store: Store,
        events: Events,
        safety: Safety,
        hooks: Hooks,
        *,
        changed: Callable[[], None],
        required: bool,
        longest: float,
    ) -> None:
        """Takes up what an earlier run left.

        Args:
            bench: The bench.
            store: Where leases are kept, and whose timeline they live by.
            events: Where `lease` events go.
            safety: Makes devices safe.
            hooks: What is done before and after.
            changed: Called when `shown` changed.
            required: Whether a device without a lease may not be written to.
            longest: Most seconds that a lease may be asked for.
        """
        self._bench = bench
        self._store = store
        self._events = events
        self._safety = safety
        self._hooks = hooks
        self._changed = changed
        self._required = required
        self._longest = longest
        self._log = structlog.get_logger("lease")
        self._book = self._recalled()
        self._kept_ended = self._book.ended
        self._news = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[Lease, asyncio.Task[DriverError | None]] = {}
        """What is being done for a lease: it is prepared, made safe as it lapsed, or ended."""

    # -- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ends leases when their time is over, and what an earlier run left unfinished; until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._group:
                self._take_up()
                while True:
                    self._tick()
                    await self._until_due()
        finally:
            self._group = None

    def _recalled(self) -> Book:
        try:
            leases = msgspec.json.decode(self._store.recall(LEASES) or b"[]", type=list[Lease])
            ended = msgspec.json.decode(self._store.recall(ENDED) or b"[]", type=list[Ended])
        except msgspec.DecodeError as error:
            self._safety.fault("leases", f"what was kept of leases cannot be read, so all are over: {error}")
            return Book()
        return Book(leases, ended)

    def _take_up(self) -> None:
        """Ends what an earlier run prepared when it stopped, and finishes what it was at."""
        now = self._store.timeline.now()
        for lease in list(self._book.leases):
            if lease.state in (State.WAITING, State.PREPARING):
                self._book.end(lease, "failed", "the agent stopped while it was being prepared", now)
                self._record(lease)
            if lease.state is State.ENDING:
                self._do(lease, self._end)
            elif lease.state is State.LAPSED:
                self._do(lease, self._lapse)

    def _tick(self) -> None:
        for lease in self._book.tick(self._store.timeline.now()):
            self._record(lease)
            self._do(lease, self._lapse if lease.state is State.LAPSED else self._end)

    async def _until_due(self) -> None:
        self._news.clear()
        due = self._book.due()
        delay = None if due is None else min(due - self._store.timeline.now(), MOST_SLEEP_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._news.wait()

    # -- commands -------------------------------------------------------------------------------

    async def reserve(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Op reserve: `{"lease": token, "id": public id, "expires": time}`, once the bench is prepared.

        Raises:
            Refused: wrong fields, or devices are leased to others.
            DriverError: a hook before the lease failed; nothing was leased.
        """
        devices = {name: device.config for name, device in self._bench.devices.items()}
        wanted, secret = wish(fields, devices, self._longest), secrets.token_urlsafe(32)
        self._tick()
        lease, preempted = self._book.reserve(wanted, digest(secret), self._store.timeline.now())
        self._record(*preempted)
        for other in preempted:
            if other.expires is None:  # it did not get as far: nothing is prepared for it any more
                self._tasks[other].cancel()
            if other.state is State.ENDING:
                self._do(other, self._end)
        task = self._do(lease, self._begin)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()  # the agent stops; the next run cleans up
            raise
        if task.cancelled():
            raise _not_prepared(lease)
        if error := task.result():
            raise error
        return {"lease": secret, "id": lease.id, "expires": self._expires(lease)}

    async def renew(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Op renew: `{"expires": time}`.

        Raises:
            Refused: no such lease, or it is over.
        """
        token_hash = digest(token_of(fields))
        self._tick()
        lease = self._book.running(token_hash, self._store.timeline.now())
        if lapsing := self._tasks.get(lease):
            # The devices are being made safe: that shall not undo what is written after the answer.
            await asyncio.wait([lapsing])
            self._tick()
        lease, revived = self._book.renew(token_hash, self._store.timeline.now())
        if revived:
            self._record(lease, state="renewed")
        else:
            self._record()
        await self._store.stored()
        return {"expires": self._expires(lease)}

    async def release(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Op release: `{"expires": time}`, when it ended; returns once the devices are safe and cleaned up.

        Raises:
            Refused: no such lease, or it is over.
            DriverError: the agent stops; the next run cleans up.
        """
        token_hash = digest(token_of(fields))
        self._tick()
        now = self._store.timeline.now()
        lease = self._book.running(token_hash, now)
        self._book.end(lease, "released", "its holder released it", now)
        self._record(lease)
        task = self._do(lease, self._end)
        await asyncio.wait([task])
        if task.cancelled():
            raise DriverError(
                "device-error", "released, but the agent stopped before the bench was cleaned up"
            )
        await self._store.stored()
        return {"expires": self._expires(lease)}

    # -- what others ask ------------------------------------------------------------------------

    def check(self, device: str, token: str | None) -> None:
        """Whether a command with this token may write to a device now.

        Raises:
            Refused: `not-leased`, `lease-held` or `lease-expired`.
        """
        token_hash = None if token is None else digest(token)
        self._book.check(device, token_hash, self._store.timeline.now(), required=self._required)

    def holds(self, token: str, devices: Sequence[str] | None) -> bool:
        """Whether a token is that of a lease that is under way, and has these devices (None: the bench)."""
        try:
            lease = self._book.running(digest(token), self._store.timeline.now())
        except Refused:
            return False
        return lease.devices is None if devices is None else all(map(lease.covers, devices))

    def shown(self) -> Mapping[str, Any] | None:
        """Availability's `lease`: that of the whole bench, else the oldest; `others` where there are more."""
        leases = sorted(self._book.leases, key=lambda lease: lease.devices is not None)
        if not leases:
            return None
        first, *others = ({"id": lease.id} | self._view(lease, lease.state) for lease in leases)
        return first | {"others": others} if others else first

    def states(self) -> list[State]:
        """Where in its life each lease is."""
        return [lease.state for lease in self._book.leases]

    def covers_all(self) -> bool:
        """Whether every enabled device is leased."""
        names = [name for name, device in self._bench.devices.items() if device.config.enabled]
        leases = self._book.leases
        return bool(leases) and all(any(lease.covers(name) for lease in leases) for name in names)

    def whose(self, token: str | None) -> tuple[str, str]:
        """The public id and the holder of a token's lease, for the audit; empty if it is none."""
        found = None if token is None else self._book.find(digest(token))
        return ("", "") if found is None else (public_id(found.hash), found.holder)

    # -- tasks ----------------------------------------------------------------------------------

    def _do(
        self, lease: Lease, work: Callable[[Lease], Coroutine[Any, Any, DriverError | None]]
    ) -> asyncio.Task[DriverError | None]:
        """Has something done for a lease, after what is being done for it."""
        previous = self._tasks.get(lease)

        async def in_turn() -> DriverError | None:
            if previous is not None:
                await asyncio.wait([previous])
            return await work(lease)

        def forget(task: asyncio.Task[DriverError | None]) -> None:
            if self._tasks.get(lease) is task:
                del self._tasks[lease]

        assert self._group is not None  # commands come only while the keeper runs
        task = self._tasks[lease] = self._group.create_task(in_turn(), name=f"lease {lease.id} {lease.state}")
        task.add_done_callback(forget)
        return task

    async def _begin(self, lease: Lease) -> DriverError | None:
        """Prepares a new lease; where that fails, cleans up and says why."""
        if ahead := [self._tasks[other] for other in self._book.ahead_of(lease)]:
            await asyncio.wait(ahead)
        if lease.state is State.WAITING and self._safety.faults:  # what it waited for left them
            why = f"the bench is in fault ({'; '.join(self._safety.faults.values())}); op enable opens it"
            self._book.end(lease, "failed", why, self._store.timeline.now())
            self._record(lease)
            return DriverError("device-error", why)
        self._book.prepare(lease)
        self._record()
        await self._store.stored()  # should the agent die from here on, the next run must clean up
        try:
            await self._hooks.before(lease)
        except DriverError as error:
            self._book.end(lease, "failed", str(error), self._store.timeline.now())
            self._record(lease)
            await self._end(lease)
            return error
        self._book.hold(lease, self._store.timeline.now())
        self._record(lease)
        await self._store.stored()
        return None

    async def _lapse(self, lease: Lease) -> None:
        await self._make_safe("dead-man", lease, f"lease {lease.id} of {lease.holder} {lease.reason}")

    async def _end(self, lease: Lease) -> None:
        await self._make_safe("lease-end", lease, f"lease {lease.id} of {lease.holder} {lease.end}")
        try:
            await self._hooks.after(lease)
        except DriverError as error:
            self._safety.fault("hook", f"cleaning up after lease {lease.id} of {lease.holder}: {error}")
        self._book.gone(lease, self._store.timeline.now())
        self._record()

    async def _make_safe(self, cause: Cause, lease: Lease, reason: str) -> None:
        await self._bench.made.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TRIED_GRACE_S):
                await self._bench.tried.wait()
        await self._safety.drive(cause, lease.devices, reason)

    # -- records --------------------------------------------------------------------------------

    def _record(self, *changed: Lease, state: str = "") -> None:
        """Keeps the book, and says of leases what they are now (or `state`), all at once."""
        with self._store.together():
            for lease in changed:
                self._say(lease, state or lease.end or lease.state)
            self._store.remember(LEASES, msgspec.json.encode(self._book.leases))
            if self._book.ended is not self._kept_ended:
                self._kept_ended = self._book.ended
                self._store.remember(ENDED, msgspec.json.encode(self._kept_ended))
        self._news.set()
        self._changed()

    def _say(self, lease: Lease, state: str) -> None:
        self._log.info("lease", lease_id=lease.id, state=state, holder=lease.holder, reason=lease.reason)
        body = {"lease": lease.id} | self._view(lease, state) | {"reason": lease.reason}
        self._events.bench(LEASE, body, mode=self._bench.mode)
        if state in ("expired", "lapsed", "preempted"):  # all else came of a command
            now_ns = clock.now_ns()
            self._store.audit(
                AuditEntry(
                    time_ns=now_ns,
                    finished_ns=now_ns,
                    who="agent",
                    op="lease",
                    status="ok",
                    message=f"{state}: {lease.reason}",
                    lease=lease.id,
                    holder=lease.holder,
                )
            )

    def _view(self, lease: Lease, state: str) -> dict[str, Any]:
        return {
            "state": state,
            "holder": lease.holder,
            "dte": lease.dte,
            "devices": lease.devices,
            "priority": lease.priority,
            "expires": self._expires(lease),
        }

    def _expires(self, lease: Lease) -> str | None:
        """When it ends by the wall clock as it goes now, to the millisecond; None while it is prepared."""
        if lease.expires is None:
            return None
        return rfc3339(round(self._store.timeline.wall_ns(lease.expires), -6))


def _not_prepared(lease: Lease) -> Refused | DriverError:
    """Why a lease that was being prepared is none."""
    if lease.end == "preempted":
        return Refused("lease-held", f"pre-empted while the bench was being prepared: {lease.reason}")
    return DriverError("device-error", "the agent stopped while the bench was being prepared")
