"""TLS for everything that speaks it: contexts, the files they are made of, and whether those have changed.

All contexts are made here: TLS 1.2 at least, host names checked.
"""

import asyncio
import base64
import binascii
import datetime
import hashlib
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeVar

_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----", re.ASCII
)
_ENCRYPTED: Final = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")
_MOST_BYTES: Final = 16 * 1024 * 1024
"""A larger file holds no certificates, key or password."""
READ_S = 10.0
"""How long reading the files of one link may take."""
_READERS: Final = ThreadPoolExecutor(4, "credentials")
"""Not the loop's own threads: these may all hang, and names must still be looked up."""
UNVERIFIED: Final = "verify: false: the other end's certificate is not checked"
UNASKED: Final = "no ca: callers are asked for no certificate"
_T = TypeVar("_T")


class UnusableFile(OSError):
    """A file with certificates, a key or a password cannot be used; the text names it and says why."""


class TlsFiles(Protocol):
    """What is said of TLS anywhere: files in PEM, and whether the other end is checked."""

    @property
    def ca(self) -> str | Path | None:
        """File with the authorities to trust; None: a client trusts the system's, a server asks nobody."""

    @property
    def cert(self) -> str | Path | None:
        """File with our certificate, and those between it and its authority."""

    @property
    def key(self) -> str | Path | None:
        """File with our key; None: it stands in `cert`."""

    @property
    def verify(self) -> bool:
        """False: talk to whoever answers or calls."""


@dataclass(frozen=True)
class Files:
    """TLS files where no model holds them."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    verify: bool = True


class Credentials(Protocol):
    """The files that say who we are on a link and whom we trust there."""

    @property
    def caveat(self) -> str:
        """Why the other end's certificate is not checked, in words; empty where it is, or can have none."""

    def paths(self) -> Sequence[Path]:
        """The files, and folders of files."""

    def check(self) -> Mapping[str, float]:
        """Tries them as a new link would; when each certificate ends (UTC, seconds since 1970), by field.

        Of several authorities the last one to end counts, of a chain of ours the first.

        Raises:
            UnusableFile: a new link could not be made of them.
        """


# Contexts.


def client_context(tls: TlsFiles, folder: Path = Path()) -> ssl.SSLContext:
    """TLS 1.2 or later, with mutual authentication where `cert` is given.

    File names are relative to `folder`.

    Raises:
        UnusableFile: a file cannot be read, or is not what it should be; or our certificate is not valid now.
    """
    context = _context(ssl.Purpose.SERVER_AUTH, tls, folder)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def server_context(tls: TlsFiles, folder: Path = Path(), *, optional: bool = False) -> ssl.SSLContext:
    """TLS 1.2 or later; where `ca` is given, callers need a certificate of it (`optional`: if they show one).

    Raises:
        UnusableFile: as `client_context`.
    """
    context = _context(ssl.Purpose.CLIENT_AUTH, tls, folder)
    if tls.ca is not None and tls.verify:
        context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    return context


def _context(purpose: ssl.Purpose, tls: TlsFiles, folder: Path) -> ssl.SSLContext:
    ca = None if tls.ca is None else folder / tls.ca
    if ca is not None:
        certificates_in(ca, "ca")
    try:
        context = ssl.create_default_context(purpose, cafile=ca)
    except OSError as error:
        raise UnusableFile(f"ca: {ca or 'the system'} cannot be used: {_words(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.cert is not None:
        _load_own(context, folder / tls.cert, folder / (tls.key or tls.cert))
    return context


def _load_own(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    for number, certificate in enumerate(certificates_in(cert, "cert")):
        _require_valid(certificate, cert, first=number == 0)
    data = read_file(key, "key")
    if any(sign in data for sign in _ENCRYPTED):
        raise UnusableFile(f"key: {key} is encrypted; give it without a passphrase")
    if b"PRIVATE KEY-----" not in data:
        raise UnusableFile(f"key: {key} holds no key in PEM")
    try:
        # Without a password OpenSSL would ask for one on the terminal, and wait.
        context.load_cert_chain(cert, key, password="")
    except OSError as error:
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            raise UnusableFile(f"key: {key} does not belong to the certificate in {cert}") from error
        raise UnusableFile(f"cert and key: {cert} and {key} cannot be used: {_words(error)}") from error


def _require_valid(certificate: "Validity", path: Path, *, first: bool) -> None:
    now = time.time()
    what = "" if first else "a certificate of the chain in it "
    if now < certificate.not_before:
        when = _day(certificate.not_before)
        raise UnusableFile(f"cert: {path}: {what}is valid only from {when}; is the clock right?")
    if now > certificate.not_after:
        raise UnusableFile(f"cert: {path}: {what}was valid until {_day(certificate.not_after)}")


def _day(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M} UTC"


def _words(error: OSError) -> str:
    return str((isinstance(error, ssl.SSLError) and error.reason) or error.strerror or error)


# Files.


async def aside(read: Callable[[], _T]) -> _T:
    """What `read` returns, which reads files; in a thread: a file system that hangs holds up no loop.

    Raises:
        UnusableFile: it took too long; and whatever `read` raises.
    """
    try:
        async with asyncio.timeout(READ_S):
            return await asyncio.get_running_loop().run_in_executor(_READERS, read)
    except TimeoutError:
        text = f"certificates, keys or passwords could not be read within {READ_S:g} s: the file system hangs"
        raise UnusableFile(text) from None


def read_file(path: Path, name: str) -> bytes:
    """The content of the file that the field `name` names.

    Raises:
        UnusableFile: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UnusableFile(f"{name}: {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in its name
        raise UnusableFile(f"{name}: {error}") from error
    if len(data) > _MOST_BYTES:
        raise UnusableFile(f"{name}: {path} is too large")
    return data


def read_secret(path: Path, name: str) -> str:
    """The first line of a file with a password or a user name.

    Raises:
        UnusableFile: it cannot be read, is not UTF-8, or there is nothing in its first line.
    """
    try:
        line = read_file(path, name).decode().partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        raise UnusableFile(f"{name}: {path} cannot be read: it is not UTF-8") from None
    if not line:
        raise UnusableFile(f"{name}: {path} has nothing in its first line")
    return line


@dataclass(frozen=True)
class Validity:
    """From when to when a certificate is valid: UTC, seconds since 1970."""

    not_before: float
    not_after: float


def certificates_in(path: Path, name: str) -> Sequence[Validity]:
    """The validity of each certificate in a PEM file, in its order; at least one.

    Raises:
        UnusableFile: there is none, or one cannot be read.
    """
    found = []
    for match in _CERTIFICATE.finditer(read_file(path, name)):
        try:
            found.append(validity(base64.b64decode(match[1])))
        except (ValueError, binascii.Error) as error:
            raise UnusableFile(f"{name}: {path} holds a certificate that cannot be read: {error}") from error
    if not found:
        raise UnusableFile(f"{name}: {path} holds no certificate in PEM")
    return found


def validity(certificate: bytes) -> Validity:
    """The validity of a certificate in DER (RFC 5280, 4.1); no extra that reads certificates is needed.

    Raises:
        ValueError: it is none.
    """
    _, whole, _ = _element(certificate, 0x30)
    _, signed, _ = _element(whole, 0x30)
    kind, _, rest = _element(signed)
    if kind == 0xA0:  # the version, which is 1 where it is left out
        _, _, rest = _element(rest, 0x02)
    for wanted in (0x30, 0x30):  # the algorithm and the issuer
        _, _, rest = _element(rest, wanted)
    _, times, _ = _element(rest, 0x30)
    kind, begin, rest = _element(times)
    other, end, _ = _element(rest)
    return Validity(_time(kind, begin), _time(other, end))


def _element(data: bytes, wanted: int | None = None) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element, and what follows it (X.690, 8.1)."""
    if len(data) < 2 or (wanted is not None and data[0] != wanted):
        raise ValueError("is no certificate")
    size, start = data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if start + size > len(data):
        raise ValueError("the certificate is cut off")
    return data[0], data[start : start + size], data[start + size :]


def _time(kind: int, text: bytes) -> float:
    """UTCTime or GeneralizedTime (RFC 5280, 4.1.2.5)."""
    form = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}.get(kind)
    if form is None:
        raise ValueError("its validity is no time")
    when = datetime.datetime.strptime(text.decode("ascii"), form).replace(tzinfo=datetime.UTC)
    if kind == 0x17 and when.year >= 2050:
        when = when.replace(year=when.year - 100)  # strptime turns the century at 69, RFC 5280 at 50
    return when.timestamp()


@dataclass(frozen=True)
class TlsCredentials:
    """The files of one TLS link, with those of a user name or password. Implements `Credentials`."""

    tls: TlsFiles | None
    folder: Path = Path()
    secrets: Mapping[str, Path] = field(default_factory=dict)
    """Files with user name and password, by field."""
    listens: bool = False

    @property
    def caveat(self) -> str:
        """See `Credentials.caveat`."""
        if self.tls is None:
            return ""
        if not self.tls.verify:
            return UNVERIFIED
        return UNASKED if self.listens and self.tls.ca is None else ""

    def paths(self) -> Sequence[Path]:
        """See `Credentials.paths`."""
        tls = self.tls
        named = [] if tls is None else [self.folder / name for name in (tls.ca, tls.cert, tls.key) if name]
        return [*named, *self.secrets.values()]

    def check(self) -> Mapping[str, float]:
        """See `Credentials.check`."""
        for name, path in self.secrets.items():
            read_secret(path, name)
        if self.tls is None:
            return {}
        (server_context if self.listens else client_context)(self.tls, self.folder)
        ends = {}
        if self.tls.ca is not None:
            ends["ca"] = max(one.not_after for one in certificates_in(self.folder / self.tls.ca, "ca"))
        if self.tls.cert is not None:
            ends["cert"] = min(one.not_after for one in certificates_in(self.folder / self.tls.cert, "cert"))
        return ends


# Watching.


class FileWatch:
    """Tells when the content of files has changed, however they were replaced. To be polled; reads them all.

    A change counts only when two looks in a row found the same: a file that is being written, or certificate
    and key of which only one is new, are let be. New times or a new place of the same content are no change.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = [*paths]
        self._known = self._seen = self._look()

    def changed(self) -> bool:
        """Whether the content is another one than at the last time that this said so, or at the beginning."""
        before, self._seen = self._seen, self._look()
        if self._seen != before or self._seen == self._known:
            return False
        self._known = self._seen
        return True

    def _look(self) -> Mapping[Path, bytes]:
        """A digest of what each file holds; those that cannot be read now are left out."""
        found = {}
        for path in _all_files(self._paths):
            try:
                found[path] = hashlib.sha256(read_file(path, "")).digest()
            except UnusableFile:
                continue  # whoever makes a link of it says why
        return found


def _all_files(paths: Iterable[Path]) -> Iterable[Path]:
    """The files, and those in the folders."""
    for path in paths:
        try:
            yield from sorted(path.iterdir()) if path.is_dir() else (path,)
        except OSError:
            yield path
