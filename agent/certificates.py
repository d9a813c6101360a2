"""The files that links are made of: taken up when they are replaced, and said when they end or are no use."""

import asyncio
import datetime
import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from agent.bench import Bench
from agent.connection import broker_credentials, client_options, http_credentials
from agent.settings import Settings
from protocols.amqp.client import Client
from protocols.tls import Credentials, FileWatch, aside

LOOK_S = 2.0
"""How often files are looked at; a change that stays counts at the next look."""
WAIT_S = 2.0
"""How long the news of other links wait for a look; one that hangs is heard of when it ends."""
WARN_DAYS = (30, 7, 1, 0)
"""A certificate that ends within so many days is said to, once each."""
_DAY_S = 86400.0
_LENT = (
    "systemd lends credentials to the service alone: what makes the bench safe after a crash (ExecStopPost) "
    "cannot read them; keep files of devices in /etc/hilgate, readable by the service's group"
)
_SETTINGS = {"http_ca": "http_client_ca"}


@dataclass(frozen=True)
class Look:
    """What a look at a link's files found."""

    is_new: bool
    ends: Mapping[str, float] = field(default_factory=dict)
    """When the certificates end, where the files were tried and can be used."""
    wrong: str = ""
    """Why they cannot."""


@dataclass(eq=False)
class Link:
    """What files belong to: the broker (`tls_`), the HTTP server (`http_`) or a device (`pump.`)."""

    prefix: str
    credentials: Credentials
    renew: Callable[[], Awaitable[None]] | None = None
    """None: devices are made anew together; the HTTP server looks after itself."""
    device: str = ""
    ends: Mapping[str, float] = field(default_factory=dict)
    wrong: str = ""
    looking: asyncio.Future[Look] | None = None
    """The look that is under way."""
    _watch: FileWatch | None = None

    def begin_look(self) -> asyncio.Future[Look]:
        """Looks at the files in a thread of its own: a file system that hangs holds up no other link."""
        found: Future[Look] = Future()
        found.set_running_or_notify_cancel()  # it cannot be cancelled any more: who waits may go
        # A daemon: the process ends without it, which an executor's thread that hangs keeps from ending.
        threading.Thread(target=self._find, args=(found,), name="certificates", daemon=True).start()
        self.looking = asyncio.wrap_future(found)
        return self.looking

    def _find(self, found: Future[Look]) -> None:
        try:
            found.set_result(self._look())
        except Exception as error:  # noqa: BLE001  # whoever awaits the look gets it
            found.set_exception(error)

    def _look(self) -> Look:
        """Tries them at the first look, when they are new, and while they cannot be used."""
        is_new = False
        if self._watch is None:
            self._watch = FileWatch(self.credentials.paths())
        else:
            is_new = self._watch.changed()
            if not is_new and not self.wrong:
                return Look(is_new)
        try:
            return Look(is_new, self.credentials.check())
        except (OSError, ValueError) as error:
            return Look(is_new, wrong=str(error))


class Certificates:
    """Watches the files of settings and of devices. New ones that can be used are taken up without a restart:
    exactly the links that use them are made anew. Of others it is said why they cannot, and the links stay.
    """

    def __init__(self, settings: Settings, bench: Bench, client: Client, changed: Callable[[], None]) -> None:
        self._settings = settings
        self._bench = bench
        self._client = client
        self._changed = changed
        self.renewals = 0
        """How often new files were taken up."""
        self.failures = 0
        """How often new files could not be used."""
        self._said: set[tuple[str, float, int]] = set()
        self._log = structlog.get_logger("certificates")
        self._links: Sequence[Link] = [
            Link("tls_", broker_credentials(settings), self._renew_broker),
            Link("http_", http_credentials(settings)),
        ]

    @property
    def not_after(self) -> Mapping[str, float]:
        """When each certificate ends (UTC, seconds since 1970), by setting or device (`pump.ca`)."""
        named = {link.prefix + name: end for link in self._links for name, end in link.ends.items()}
        return {_SETTINGS.get(name, name): end for name, end in named.items()}

    @property
    def reason(self) -> str:
        """What people should know of the broker's link and of new files, in words; else empty."""
        caveat = self._links[0].credentials.caveat
        broker = f"broker: tls_{caveat}" if caveat else ""
        wrong = (f"new files are not taken up: {link.wrong}" for link in self._links if link.wrong)
        return "; ".join(filter(None, (broker, *wrong)))

    async def run(self) -> None:
        """Watches until cancelled."""
        if caveat := self._links[0].credentials.caveat:
            self._log.warning("a certificate is not checked", link="broker", reason=f"tls_{caveat}")
        await self._bench.made.wait()
        self._links = [*self._links, *self._of_devices()]
        while True:
            await self._take_up(await self._look())
            self._warn()
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> Mapping[Link, Look]:
        """What the looks found that have ended by now; links whose look hangs get no second one."""
        begun = [link.begin_look() for link in self._links if link.looking is None]
        if begun:  # none: all of them hang
            await asyncio.wait(begun, timeout=WAIT_S)
        found = {}
        for link in self._links:
            if link.looking is not None and link.looking.done():
                found[link], link.looking = link.looking.result(), None
        return found

    def _of_devices(self) -> Sequence[Link]:
        links = []
        for name, device in self._bench.devices.items():
            if device.config.enabled and (credentials := device.config.credentials()) is not None:
                links.append(Link(f"{name}.", credentials, device=name))
                if any(map(_is_lent, credentials.paths())):
                    self._log.warning(
                        "the safe state needs files that are credentials", link=name, reason=_LENT
                    )
                if device.caveat:
                    self._log.warning("a certificate is not checked", link=name, reason=device.caveat)
        return links

    async def _take_up(self, looks: Mapping[Link, Look]) -> None:
        """Makes the links anew whose new files can be used, or can be used by now: valid from a while ago."""
        devices, before = [], self.reason
        for link, look in looks.items():
            if not look.wrong:
                link.ends = look.ends or link.ends
            if not look.is_new and not link.wrong:
                continue  # at the first look nothing is linked yet: the attempt to link says what is wrong
            name = link.device or link.prefix.rstrip("_")
            if wrong := look.wrong or await _renewed(link):
                self.failures += look.is_new
                if link.wrong != wrong:
                    self._log.error("new files cannot be used, the link stays", link=name, reason=wrong)
                link.wrong = wrong
                continue
            link.wrong = ""
            self.renewals += 1
            self._log.info("new files are taken up", link=name)
            if link.device:
                devices.append(link.device)
        if self.reason != before:
            self._changed()
        if devices:
            await self._bench.renew(devices)

    async def _renew_broker(self) -> None:
        self._client.renew(await aside(lambda: client_options(self._settings, role="agent")))

    def _warn(self) -> None:
        now = time.time()
        for name, end in self.not_after.items():
            within = min((days for days in WARN_DAYS if end - now <= days * _DAY_S), default=None)
            if within is None or any((name, end, days) in self._said for days in WARN_DAYS if days <= within):
                continue
            self._said.add((name, end, within))
            self._log.warning(
                "a certificate ends soon" if end > now else "a certificate has ended",
                certificate=name,
                until=f"{datetime.datetime.fromtimestamp(end, datetime.UTC):%Y-%m-%dT%H:%MZ}",
                days=int((end - now) / _DAY_S),
            )


async def _renewed(link: Link) -> str:
    """Makes a link anew; why it could not be, in words."""
    try:
        if link.renew is not None:
            await link.renew()
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def _is_lent(path: Path) -> bool:
    """Whether a file is a credential of the service (systemd.exec(5))."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return folder is not None and path.absolute().is_relative_to(folder)
