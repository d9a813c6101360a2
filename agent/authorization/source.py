"""Where an issuer's keys come from: a file, or an HTTP server that is not trusted to answer well."""

import asyncio
import http.client
import io
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from agent.authorization.config import Jwt
from agent.authorization.keys import MAX_BYTES, BadKeys, KeySet, read_keys
from protocols.tls import Files, aside, client_context

FETCH_S = 10.0
"""How long one look at the source may take, from the name look-up to the last byte."""
FETCH_FLOOR_S = 30.0
"""The least time from one fetch to the next, whoever wants it."""
FILE_S = 2.0
"""How often a file is looked at."""
_MAX_ANSWER = MAX_BYTES + 64 * 1024
"""Bytes of an answer with its head."""


class NoKeys(Exception):
    """The source could not be read, with the reason in words."""


class Keys:
    """Keeps an issuer's keys fresh, beside everything else."""

    def __init__(self, settings: Jwt, changed: Callable[[KeySet], None]) -> None:
        """`changed` is called with keys that are to be used in place of those before."""
        self._settings = settings
        self._changed = changed
        self._floor = FETCH_FLOOR_S if settings.is_url else FILE_S
        self._period = settings.cache if settings.is_url else FILE_S
        self._document: bytes | None = None
        self._good_at: float | None = None
        self._tried_at = 0.0
        self._reading: asyncio.Task[bytes] | None = None
        self._looking = True
        self._wanted = asyncio.Event()
        self._looked = asyncio.Event()
        self.trouble = ""
        """Why the keys are not fresh, in words; empty when all is well."""
        self._log = structlog.get_logger("authorization")

    async def run(self) -> None:
        """Looks at the source now and then, until cancelled."""
        while True:
            self._looking = True
            await self._look()
            self._looking, self._tried_at = False, asyncio.get_running_loop().time()
            self._looked.set()
            self._looked = asyncio.Event()
            try:
                async with asyncio.timeout(self._floor if self.trouble else self._period):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()

    async def look_again(self) -> bool:
        """Waits for the look that is under way, or for a new one; False where it is too early for one."""
        if not self._looking:
            if asyncio.get_running_loop().time() < self._tried_at + self._floor:
                return False
            self._looking = True
            self._wanted.set()
        await self._looked.wait()
        return True

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time
        try:
            document = await self.read()
            if document != self._document or self.trouble:
                self._take(document)
        except (NoKeys, BadKeys) as error:
            self._fail(str(error), now())
        else:
            if self.trouble:
                self._log.info("the issuer's keys are fresh again", source=self._settings.jwks)
            self.trouble, self._good_at = "", now()

    def _take(self, document: bytes) -> None:
        """Puts a document's keys in force.

        Raises:
            BadKeys: it has none.
        """
        keys = read_keys(document, self._settings.algorithms)
        if document != self._document:
            self._log.info(
                "keys of the issuer",
                source=self._settings.jwks,
                names=sorted({kid for kid, _ in keys.keys}),
                skipped=keys.skipped,
            )
            self._document = document
            self._changed(keys)

    def _fail(self, why: str, now: float) -> None:
        over = self._good_at is not None and now >= self._good_at + self._settings.keep
        if over:
            self._good_at, self._document = None, None
            self._changed(KeySet())
        if over or why != self.trouble:
            kept = (
                "none are in force: tokens are refused"
                if self._good_at is None
                else f"those at hand stay in force for {self._good_at + self._settings.keep - now:.0f} s more"
            )
            self._log.error(
                "the issuer's keys are not to be had", source=self._settings.jwks, reason=why, keys=kept
            )
        self.trouble = why

    async def read(self) -> bytes:
        """The document, which may be no JWK Set.

        Raises:
            NoKeys: it is not to be had.
        """
        try:
            async with asyncio.timeout(FETCH_S):
                if self._settings.is_url:
                    return await fetch(self._settings.jwks, self._settings.ca)
                return await self._from_file()
        except TimeoutError:
            raise NoKeys(f"no whole answer within {FETCH_S:g} s") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise NoKeys(f"{type(error).__name__}: {error}"[:300]) from None

    async def _from_file(self) -> bytes:
        """The file's content. A file system that hangs holds one thread, however often it is looked at."""
        if self._reading is None:
            self._reading = asyncio.create_task(
                asyncio.to_thread(_file, Path(self._settings.jwks)), name="read keys"
            )
        await asyncio.wait([self._reading])  # which leaves it alone when time runs out
        done, self._reading = self._reading, None
        return done.result()


def _file(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise NoKeys("is not a regular file")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


async def fetch(url: str, ca: Path | None) -> bytes:
    """The body at a URL, in one request; redirects are not followed.

    Raises:
        NoKeys: the server answered something else, or too much.
        OSError: it cannot be reached, its certificate is not in order, or `ca` cannot be read.
        http.client.HTTPException: what it answered is not HTTP.
        ValueError: neither.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None  # the settings take no other
    context: ssl.SSLContext | None = None
    if parts.scheme == "https":
        context = await aside(lambda: client_context(Files(ca=ca)))
    port = parts.port or (80 if context is None else 443)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: application/json\r\n"
        writer.write(f"{head}User-Agent: hilgate\r\nConnection: close\r\n\r\n".encode())
        answer = bytearray()
        while chunk := await reader.read(65536):
            answer += chunk
            if len(answer) > _MAX_ANSWER:
                raise NoKeys(f"the answer is larger than {_MAX_ANSWER // 1024} KiB")
    finally:
        writer.transport.abort()
    return body_of(bytes(answer))


class _Answer:
    """A whole answer in the place of the socket that http.client reads from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object) -> io.BytesIO:
        """What the answer is read from."""
        return io.BytesIO(self._data)


def body_of(answer: bytes) -> bytes:
    """The body of a whole HTTP answer. Pure.

    Raises:
        NoKeys: its status is not 200.
        http.client.HTTPException: it is no HTTP, or cut off.
        ValueError: it is no HTTP.
    """
    response = http.client.HTTPResponse(_Answer(answer))  # type: ignore[arg-type]  # it asks only for makefile
    response.begin()
    if response.status != http.client.OK:
        redirected = "; redirects are not followed" if 300 <= response.status < 400 else ""
        raise NoKeys(f"the server answered {response.status}{redirected}")
    try:
        return response.read()  # all of it is here already; that it is whole is checked
    except OverflowError:  # it promised more than there is memory in the world
        raise NoKeys("the answer is cut off") from None
