"""Which leases there are and what each may do. Pure: the time is told, in seconds of the store's timeline.

A lease is `waiting` while those that it pre-empted are cleaned up, `preparing` while the hooks before it run,
then `held`; it is `lapsed` when its holder kept silent for longer than it promised, until a renew; it is
`ending` while its devices are made safe and cleaned up, and then `gone`.
"""

import enum
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from protocols.base import Refused

ENDED_KEPT_S = 24 * 3600.0
ENDED_MOST = 1000
"""Ended leases whose tokens are still told from tokens that never were."""

End = Literal["released", "expired", "preempted", "failed"]
"""How a lease ends; `failed`: it never began, for it could not be prepared."""


def digest(token: str) -> str:
    """What is kept of a token: its SHA-256 in hex."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def public_id(token_hash: str) -> str:
    """The name by which a lease is known to everybody."""
    return token_hash[:12]


class State(enum.StrEnum):
    """Where in its life a lease is."""

    WAITING = "waiting"
    PREPARING = "preparing"
    HELD = "held"
    LAPSED = "lapsed"
    ENDING = "ending"
    GONE = "gone"


class Wish(msgspec.Struct, kw_only=True, eq=False):
    """What a holder asked for; times in seconds."""

    holder: str
    ttl: float
    devices: tuple[str, ...] | None = None
    """None: the whole bench."""
    dte: str = ""
    priority: int = 0
    deadman: float | None = None
    """How long the holder may keep silent."""


class Lease(Wish, kw_only=True, eq=False):
    """One lease. Times are seconds of the timeline."""

    id: str
    """Its public name: the first digits of its token's digest."""
    hash: str
    """Its token's digest; the token itself is the holder's alone."""
    state: State
    expires: float | None = None
    """When it ends, or ended; None until it is held."""
    renewed: float = 0.0
    """When its holder was last heard."""
    end: End | None = None
    reason: str = ""
    """Why it lapsed or ended, in words."""

    @property
    def active(self) -> bool:
        """Whether it has begun and not ended."""
        return self.state in (State.HELD, State.LAPSED)

    @property
    def lapses(self) -> float | None:
        """When it lapses if its holder keeps silent; None if that does not matter."""
        return None if self.deadman is None else self.renewed + self.deadman

    def covers(self, device: str) -> bool:
        """Whether a device belongs to it."""
        return self.devices is None or device in self.devices

    def overlaps(self, other: "Lease") -> bool:
        """Whether some device belongs to both."""
        mine, others = self.devices, other.devices
        return mine is None or others is None or not set(mine).isdisjoint(others)


class Ended(msgspec.Struct, frozen=True):
    """A lease that is over, and when it was gone."""

    hash: str
    holder: str
    at: float
    end: End


class Book:
    """All leases of a bench. Every method returns at once.

    What is due by time happens in `tick`. Rights end by themselves: `check` and `renew` take a lease whose
    time is over for over, ticked or not.
    """

    def __init__(self, leases: Iterable[Lease] = (), ended: Iterable[Ended] = ()) -> None:
        self.leases = list(leases)
        """In the order in which they were asked for."""
        self.ended = list(ended)

    def reserve(self, wish: Wish, token_hash: str, now: float) -> tuple[Lease, Sequence[Lease]]:
        """Takes a new lease, `waiting` or `preparing`, and ends those that it pre-empts.

        Returns:
            The lease, and those that it pre-empted: `ending`, or `gone` where they were still waiting.

        Raises:
            Refused: `lease-held`: it overlaps a lease whose priority is not lower.
        """
        lease = Lease(
            **msgspec.structs.asdict(wish), id=public_id(token_hash), hash=token_hash, state=State.PREPARING
        )
        overlapped = self.ahead_of(lease)
        if overlapped:
            strongest = max(overlapped, key=lambda other: other.priority)
            if strongest.priority >= wish.priority:
                raise Refused("lease-held", _claimed(strongest, now))
            lease.state = State.WAITING
        preempted = [other for other in overlapped if other.state is not State.ENDING]
        for other in preempted:
            self.end(other, "preempted", f"{wish.holder} asked with priority {wish.priority}", now)
        self.leases.append(lease)
        return lease, preempted

    def ahead_of(self, lease: Lease) -> Sequence[Lease]:
        """The other leases that have some of a lease's devices."""
        return [other for other in self.leases if other is not lease and other.overlaps(lease)]

    def prepare(self, lease: Lease) -> None:
        """Nothing is ahead of a waiting lease any more: its hooks may run."""
        assert not self.ahead_of(lease)
        lease.state = State.PREPARING

    def hold(self, lease: Lease, now: float) -> None:
        """A lease is prepared: its time begins."""
        assert lease.state is State.PREPARING
        _extend(lease, now)

    def renew(self, token_hash: str, now: float) -> tuple[Lease, bool]:
        """Gives a lease its whole time again.

        Returns:
            The lease, and whether it was lapsed.

        Raises:
            Refused: `not-leased` (no such token) or `lease-expired`.
        """
        lease = self.running(token_hash, now)
        revived = lease.state is State.LAPSED
        _extend(lease, now)
        return lease, revived

    def running(self, token_hash: str, now: float) -> Lease:
        """The lease of a token, held or lapsed.

        Raises:
            Refused: `not-leased` (no such token) or `lease-expired`.
        """
        lease = self.find(token_hash)
        if isinstance(lease, Lease) and lease.active and not _over(lease, now):
            return lease
        if lease is None or (isinstance(lease, Lease) and lease.expires is None):
            raise Refused("not-leased", "the token is that of no lease here; op reserve asks for one")
        how = lease.end or "expired"
        text = f"lease {public_id(token_hash)} is over ({how}); op reserve asks for a new one"
        raise Refused("lease-expired", text)

    def find(self, token_hash: str) -> Lease | Ended | None:
        """What is known of a token."""
        every: tuple[Lease | Ended, ...] = (*self.leases, *self.ended)
        return next((lease for lease in every if hmac.compare_digest(lease.hash, token_hash)), None)

    def end(self, lease: Lease, end: End, reason: str, now: float) -> None:
        """Ends a lease: `ending` from now on, or `gone` if nothing was begun for it."""
        lease.end, lease.reason = end, reason
        if lease.expires is not None:
            lease.expires = min(lease.expires, now)
        if lease.state is State.WAITING:
            self.gone(lease, now)
        else:
            lease.state = State.ENDING

    def gone(self, lease: Lease, now: float) -> None:
        """A lease is cleaned up: its devices are free."""
        assert lease.end is not None
        lease.state = State.GONE
        self.leases.remove(lease)
        if lease.expires is not None:  # else nobody ever had its token
            self.ended.append(Ended(lease.hash, lease.holder, now, lease.end))
            self.ended = [one for one in self.ended[-ENDED_MOST:] if one.at > now - ENDED_KEPT_S]

    def tick(self, now: float) -> Sequence[Lease]:
        """Does what is due: the leases that are now `ending`, for they expired, or `lapsed`."""
        changed = []
        for lease in self.leases:
            if lease.active and _over(lease, now):
                self.end(lease, "expired", "its time is over", now)
                changed.append(lease)
            elif lease.state is State.HELD and _silent(lease, now):
                lease.state = State.LAPSED
                lease.reason = f"not renewed within {lease.deadman:g} s"
                changed.append(lease)
        return changed

    def due(self) -> float | None:
        """When `tick` next has something to do."""
        times = [lease.expires for lease in self.leases if lease.active]
        times += [lease.lapses for lease in self.leases if lease.state is State.HELD]
        return min((time for time in times if time is not None), default=None)

    def check(self, device: str, token_hash: str | None, now: float, *, required: bool) -> None:
        """Whether whoever shows this token, or none, may write to a device.

        Args:
            device: The device's name.
            token_hash: The token's digest, or None.
            now: The time.
            required: Whether a device without a lease may not be written to either.

        Raises:
            Refused: `lease-held` by another, `lease-expired`, or `not-leased`.
        """
        mine = None if token_hash is None else self.running(token_hash, now)
        # While one lease ends another may wait for the device already: the first one has it.
        owner = next((lease for lease in self.leases if lease.covers(device)), None)
        if owner is None:
            if required:
                raise Refused(
                    "not-leased", f"device {device} is written to by lease only; op reserve asks for one"
                )
        elif owner is not mine:
            raise Refused("lease-held", f"device {device}: {_claimed(owner, now)}")
        elif owner.state is State.LAPSED or _silent(owner, now):
            text = f"lease {owner.id} lapsed for want of a renew; op renew opens it again"
            raise Refused("lease-expired", text)


def _extend(lease: Lease, now: float) -> None:
    lease.state, lease.reason = State.HELD, ""
    lease.renewed, lease.expires = now, now + lease.ttl


def _over(lease: Lease, now: float) -> bool:
    return lease.expires is not None and now >= lease.expires


def _silent(lease: Lease, now: float) -> bool:
    return lease.lapses is not None and now >= lease.lapses


def _claimed(lease: Lease, now: float) -> str:
    """Who has what somebody else wants, until when, and how to get it."""
    whose = f"{lease.holder} (lease {lease.id})"
    above = f"or reserve with a priority above {lease.priority}"
    if lease.active and lease.expires is not None and not _over(lease, now):
        return f"leased to {whose} for another {lease.expires - now:.0f} s; wait for its end, {above}"
    doing = "cleaned up after" if lease.state is State.ENDING or lease.active else "prepared for"
    return f"being {doing} {whose}; ask again in a moment, {above}"
