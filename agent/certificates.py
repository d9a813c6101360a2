"""The files that links are made of: taken up when they are replaced, and said when they end or are no use."""

import asyncio
import datetime
import os
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from agent.bench import Bench
from agent.connection import broker_credentials, client_options, http_credentials
from agent.settings import Settings
from protocols.amqp.client import Client
from protocols.tls import Credentials, FileWatch, UnusableFile, aside

LOOK_S = 2.0
"""How often files are looked at; a change that stays counts at the next look."""
WARN_DAYS = (30, 7, 1, 0)
"""A certificate that ends within so many days is said to, once each."""
_DAY_S = 86400.0
_LENT = (
    "systemd lends credentials to the service alone: what makes the bench safe after a crash (ExecStopPost) "
    "cannot read them; keep files of devices in /etc/hilgate, readable by the service's group"
)
_SETTINGS = {"http_ca": "http_client_ca"}


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
        watches = await asyncio.to_thread(self._begin)
        self._warn()
        while True:
            await asyncio.sleep(LOOK_S)
            looked = await asyncio.to_thread(lambda: [watch.changed() for watch in watches])
            changed = {link for link, is_new in zip(self._links, looked, strict=True) if is_new}
            await self._take_up(changed)
            self._warn()

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

    def _begin(self) -> Sequence[FileWatch]:
        watches = []
        for link in self._links:
            watches.append(FileWatch(link.credentials.paths()))
            try:
                link.ends = link.credentials.check()
            except UnusableFile:
                continue  # nothing is linked yet: the attempt to link says it
        return watches

    async def _take_up(self, changed: Collection[Link]) -> None:
        """Makes the links anew whose new files can be used, or can be used by now: valid from a while ago."""
        devices, before = [], self.reason
        for link in [link for link in self._links if link in changed or link.wrong]:
            name = link.device or link.prefix.rstrip("_")
            try:
                link.ends = await asyncio.to_thread(link.credentials.check)
                if link.renew is not None:
                    await link.renew()
            except (OSError, ValueError) as error:
                self.failures += link in changed
                if link.wrong != str(error):
                    self._log.error("new files cannot be used, the link stays", link=name, reason=str(error))
                link.wrong = str(error)
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


def _is_lent(path: Path) -> bool:
    """Whether a file is a credential of the service (systemd.exec(5))."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return folder is not None and path.absolute().is_relative_to(folder)
