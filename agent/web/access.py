"""Who may see what: probes are for anybody, all else for the token's or a certificate's bearer."""

import asyncio
import hmac
from collections.abc import Mapping
from pathlib import Path

import structlog

from agent.web.token import is_loopback, read_token
from protocols.tls import READ_S, UnusableFile

_BEARER = "bearer "


class Access:
    """Judges requests by the `Authorization` header and the certificate of the connection."""

    def __init__(self, token_file: Path | None, *, certificates: bool) -> None:
        """Neither a token file nor certificates: whoever reaches the port may see everything."""
        self._token_file = token_file
        self._certificates = certificates
        self._reading: asyncio.Task[str] | None = None
        self._log = structlog.get_logger("web")

    @property
    def open(self) -> bool:
        """Whether nothing is asked of anybody."""
        return self._token_file is None and not self._certificates

    async def allows(self, headers: Mapping[str, str], certified: bool) -> bool:
        """Whether the bearer of these headers may see everything.

        Args:
            headers: The request's, whose names may be asked for in any case.
            certified: Whether the connection is that of a client whose certificate was verified.
        """
        if self.open:
            return _is_ours(headers.get("Host", ""))
        if self._certificates and certified:
            return True
        given = headers.get("Authorization", "")
        if self._token_file is None or given[: len(_BEARER)].lower() != _BEARER:
            return False
        try:
            token = await self._token(self._token_file)
        except (OSError, ValueError) as error:
            self._log.error("the HTTP token cannot be read: nobody is let in by it", reason=str(error))
            return False
        # Bytes: compare_digest takes no text beyond ASCII, and a header may have any.
        return hmac.compare_digest(given[len(_BEARER) :].strip().encode(errors="replace"), token.encode())

    async def _token(self, path: Path) -> str:
        """The token, read each time: a new one counts at once. However many ask, one thread reads at a time.

        Raises:
            OSError: it cannot be read.
            ValueError: it is none.
        """
        if self._reading is None:
            self._reading = asyncio.create_task(asyncio.to_thread(read_token, path), name="read token")
            self._reading.add_done_callback(self._was_read)
        try:
            async with asyncio.timeout(READ_S):
                return await asyncio.shield(self._reading)
        except TimeoutError:
            raise UnusableFile(f"{path} could not be read within {READ_S:g} s") from None

    def _was_read(self, reading: asyncio.Task[str]) -> None:
        self._reading = None
        if not reading.cancelled():
            reading.exception()  # whoever waited has heard it; perhaps nobody did


def _is_ours(host: str) -> bool:
    """Whether a Host header names this machine: a web page that had its own name resolve to it does not."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return not name or is_loopback(name)
