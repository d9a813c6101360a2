"""npm node-opcua as a peer: its server and its client as programs (tests/tools/js), driven from a test."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

from brokers.process import ROOT
from opendnp3_peer import Peer

from protocols.opcua import certificates

JS = ROOT / "tests" / "tools" / "js"
GET = "make peers (or tests/tools/get-peers js)"
URI = "urn:plant.example:tanks"
POLICIES = ("Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss")


Need = Callable[[str, str | None, str], None]
"""The fixture `need`."""


def why_missing() -> str | None:
    """Why node-opcua cannot run here, or None."""
    if shutil.which("node") is None:
        return "node is not installed; Debian has it in nodejs"
    return None if (JS / "node_modules" / "node-opcua-server").exists() else "not downloaded"


class Program(Peer):
    """A running program with its process, to be stopped and killed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__(process)
        self.process = process


class Files:
    """Certificates of both sides in a folder: each trusts the other's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uris = {"ours": "urn:bench.example:hilgate", "theirs": "urn:plant.example:server"}
        for name, uri in self.uris.items():
            made = certificates.self_signed(name, uri, ["127.0.0.1", "localhost"], 30)
            (folder / f"{name}.pem").write_bytes(certificates.pem(made.certificate))
            (folder / f"{name}.der").write_bytes(certificates.der(made.certificate))
            (folder / f"{name}-key.pem").write_bytes(certificates.key_pem(made.key))
        (folder / "password").write_text("open sesame\n")

    def trust(self, certificate: Path) -> Path:
        """The PKI folder of the other side, in which this certificate is trusted."""
        pki = self.folder / "pki"
        (pki / "trusted" / "certs").mkdir(parents=True, exist_ok=True)
        shutil.copy(certificate, pki / "trusted" / "certs" / certificate.name)
        return pki

    def theirs(self, certificate: Path | None = None) -> dict[str, Any]:
        """What the programs take of it: they trust `certificate`, by default ours."""
        return {
            "pki": str(self.trust(certificate or self.folder / "ours.der")),
            "cert": str(self.folder / "theirs.pem"),
            "key": str(self.folder / "theirs-key.pem"),
            "uri": self.uris["theirs"],
        }

    def security(self, policy: str) -> dict[str, Any]:
        """The profile's `security`."""
        if policy == "None":
            return {"policy": "None"}
        files = {
            name: str(self.folder / file) for name, file in (("cert", "ours.pem"), ("key", "ours-key.pem"))
        }
        return {"policy": policy, **files, "trust": [str(self.folder / "theirs.der")]}


@contextlib.asynccontextmanager
async def program(kind: Literal["server", "client"], **config: Any) -> AsyncIterator[Program]:
    """Runs a program, ready.

    Raises:
        AssertionError: it ended instead; with what it said of that.
    """
    process = await asyncio.create_subprocess_exec(
        "node", str(JS / f"opcua_{kind}.js"), json.dumps(config),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        limit=16 * 1024 * 1024,
    )  # fmt: skip
    one = Program(process)
    listening = asyncio.create_task(one.listen(), name=f"node-opcua {kind}")
    ready = asyncio.create_task(one.until_said("ready"))
    try:
        await asyncio.wait([ready, listening], return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            await listening
            raise AssertionError(f"the {kind} ended")
        await ready
        yield one
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        ready.cancel()
        await asyncio.gather(listening, ready, return_exceptions=True)
