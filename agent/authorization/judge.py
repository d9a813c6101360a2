"""The judge of commands: who it is, whether often enough already, and whether a rule allows it."""

import math
from collections import Counter
from collections.abc import Callable

import structlog

from agent import clock
from agent.authorization.config import Authorization, RateLimit
from agent.authorization.limit import Limiter
from agent.authorization.rules import Holds, Sender, allowed
from agent.authorization.source import Keys
from agent.authorization.token import BadToken, UnknownKey, Verifier
from agent.commands.parse import Command
from agent.metrics.counts import OPS, UNKNOWN
from protocols.base import Refused


class KeyAwaited(Exception):
    """A command's token names a key that is not at hand: `Authorizer.judge_later` looks for it."""


class Denied(Refused):
    """A command may not pass: `unauthorized` or `rate-limited`, with what its sender can do about it."""

    def __init__(self, code: str, message: str, subject: str = "") -> None:
        super().__init__(code, message)
        self.subject = subject
        """Who its token says it is, as far as it was verified: for the audit."""


class Authorizer:
    """Judges every command before anything else is said or looked up for it. Op `safe` is always allowed."""

    def __init__(
        self,
        authorization: Authorization | None,
        limit: RateLimit | None,
        holds: Holds,
        *,
        steady: Callable[[], float] = clock.steady,
    ) -> None:
        """Without `authorization` everything is allowed, without `limit` as often as one likes."""
        self._rules = None if authorization is None else authorization.rules
        self._limit = limit
        self._limiter = None if limit is None else Limiter(limit)
        self._holds = holds
        self._steady = steady
        self._verifier: Verifier | None = None
        self._keys: Keys | None = None
        if authorization is not None and authorization.jwt is not None:
            self._verifier = Verifier(authorization.jwt)
            self._keys = Keys(authorization.jwt, self._verifier.use)
        self.authorized: Counter[str] = Counter()
        """Commands by op; ops that are none under one label."""
        self.unauthorized: Counter[str] = Counter()
        self.rate_limited: Counter[str] = Counter()
        self._log = structlog.get_logger("authorization")

    @property
    def on(self) -> bool:
        """Whether there are rules."""
        return self._rules is not None

    @property
    def trouble(self) -> str:
        """Why the keys of tokens are not fresh, in words; empty when all is well."""
        return "" if self._keys is None else self._keys.trouble

    async def run(self) -> None:
        """Says what counts, and keeps the keys fresh until cancelled."""
        if self._rules is None:
            self._log.info("no authorization is set: whoever can send to the bench may do everything")
        else:
            self._log.info("commands are authorized", rules=len(self._rules), tokens=self._keys is not None)
        if self._keys is not None:
            await self._keys.run()

    def judge(self, command: Command, *, looked: bool = False) -> Sender:
        """Who sent the command, where it is allowed; `looked`: new keys were looked for just now.

        Raises:
            Denied: it is not, or not now.
            KeyAwaited: `judge_later` can say.
        """
        if command.op == "safe":
            self.authorized["safe"] += 1
            return Sender(command.user, self._subject(command))
        if wait := self._too_soon(command):
            self.rate_limited[_label(command.op)] += 1
            raise _too_often(self._limit, wait, self._known_subject(command))
        try:
            return self._permitted(command)
        except BadToken as error:
            if isinstance(error, UnknownKey) and not looked:
                raise KeyAwaited from None
            raise self._bad(command, error) from None

    async def judge_later(self, command: Command) -> Sender:
        """As `judge`, after a look for new keys; the issuer is asked now and then only.

        Raises:
            Denied: it is not.
        """
        assert self._keys is not None  # else no key was awaited
        await self._keys.look_again()
        try:
            return self._permitted(command)
        except BadToken as error:
            raise self._bad(command, error) from None

    def spare(self, user: str) -> bool:
        """Whether a sender of what is no command has allowance left; takes from it."""
        return self._limiter is None or not self._limiter.take(_by_user(user), self._steady())

    def _too_soon(self, command: Command) -> float:
        """Seconds that the sender has to wait, or 0; a token that was not seen before counts by user-id."""
        if self._limiter is None:
            return 0.0
        subject = self._known_subject(command)
        name = f"sub {subject}" if subject else _by_user(command.user)
        return self._limiter.take(name, self._steady(), proven=bool(subject))

    def _subject(self, command: Command) -> str:
        """Who a token says it is, for the audit: a false one keeps nobody from `safe`."""
        try:
            return self._sender(command).subject
        except BadToken:
            return ""

    def _known_subject(self, command: Command) -> str:
        if self._verifier is None or command.bearer is None:
            return ""
        claims = self._verifier.cached(command.bearer)
        return "" if claims is None else claims.subject

    def _permitted(self, command: Command) -> Sender:
        """The sender, if some rule allows the command.

        Raises:
            BadToken: it shows a token that is none, whatever rule would allow it without.
            Denied: no rule allows it.
        """
        sender = self._sender(command)
        if self._rules is not None and not allowed(self._rules, sender, command, self._holds):
            why = _advice(command, sender, tokens=self._verifier is not None)
            raise self._no(command, why, sender.subject)
        self.authorized[_label(command.op)] += 1
        return sender

    def _sender(self, command: Command) -> Sender:
        """Who it is by user-id, and by token if it shows one.

        Raises:
            BadToken: that token is none.
        """
        if self._verifier is None or command.bearer is None:
            return Sender(command.user)
        claims = self._verifier.cached(command.bearer) or self._verifier.verify(command.bearer)
        return Sender(command.user, claims.subject, claims.roles)

    def _bad(self, command: Command, error: BadToken) -> Denied:
        away = isinstance(error, UnknownKey) and self.trouble
        why = "; the keys of its issuer are not at hand; the bench's log says why" if away else ""
        return self._no(command, f"{error}{why}")

    def _no(self, command: Command, why: str, subject: str = "") -> Denied:
        self.unauthorized[_label(command.op)] += 1
        return Denied("unauthorized", why, subject)


def _advice(command: Command, sender: Sender, *, tokens: bool) -> str:
    """What a sender that no rule allows can do. It says nothing of what others may."""
    who = f"user {sender.user!r}" if sender.user else "a sender without a user-id"
    if sender.subject:
        who = f"{sender.subject!r} ({who})"
    device = command.fields.get("device")
    where = f" on device {device!r:.80}" if isinstance(device, str) else ""
    missing = " and no token was shown" if tokens and command.bearer is None else ""
    what = f"op {command.op}{where}{missing}"
    return f"no rule of this bench allows {who} {what}; ask those who run the bench for it"


def _too_often(limit: RateLimit | None, wait: float, subject: str) -> Denied:
    assert limit is not None  # else nobody has to wait
    most = f"more than {limit.per_second:g} commands a second"
    if not subject:
        most += f", or {limit.per_second * limit.together:g} of all who show no token that is known"
    return Denied("rate-limited", f"{most}; come again in {math.ceil(wait * 10) / 10:g} s", subject)


def _by_user(user: str) -> str:
    return f"user {user}" if user else ""


def _label(op: str) -> str:
    return op if op in OPS else UNKNOWN
