"""npm rhea as a second AMQP client: its codec, and a desk that knows only wire.md (tests/tools/js)."""

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from brokers.process import ROOT

JS = ROOT / "tests" / "tools" / "js"
GET = "make peers (or tests/tools/get-peers js)"
PATIENCE_S = 60.0
T = TypeVar("T")


def why_missing() -> str | None:
    """Why rhea cannot run here, or None."""
    if shutil.which("node") is None:
        return "node is not installed; Debian has it in nodejs"
    return None if (JS / "node_modules" / "rhea").exists() else "not downloaded"


class Codec:
    """rhea's `message.encode` and `message.decode`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def decode(self, data: bytes) -> dict[str, Any]:
        return self._ask({"decode": data.hex()})

    def encode(self, message: dict[str, Any]) -> bytes:
        return bytes.fromhex(self._ask({"encode": message})["data"])


@contextlib.contextmanager
def codec() -> Iterator[Codec]:
    """rhea's codec for as long as it is needed."""
    with subprocess.Popen(
        ["node", JS / "codec.js"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Codec(process)
        process.stdin.close()  # type: ignore[union-attr]


class RheaDesk:
    """A client in another language: what it heard, and commands through it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._news = asyncio.Event()
        self._leaving = False
        self.said: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []

    async def listen(self) -> None:
        """Reads what the client says until it is told to end."""
        assert self._process.stdout is not None
        async for text in self._process.stdout:
            line = json.loads(text)
            self.said.append(line)
            if line["event"] == "message":
                self.events.append(_event(line))
            self._news.set()
        assert self._leaving, f"rhea ended by itself with status {await self._process.wait()}"

    def leave(self) -> None:
        """Tells it to end."""
        assert self._process.stdin is not None
        self._leaving = True
        self._process.stdin.close()

    def send(self, body: Any, message_id: Any, **fields: Any) -> None:
        """Has a command sent as soon as there is a connection."""
        assert self._process.stdin is not None
        line = json.dumps({"body": body, "message_id": message_id, **fields})
        self._process.stdin.write(line.encode() + b"\n")

    async def until(self, found: Callable[[], T], what: str) -> T:
        """Waits until something is true of what was said, and returns it."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not (result := found()):
                    await self.news()
                return result
        except TimeoutError:
            raise AssertionError(
                f"waited for {what}; rhea said last: {[str(line)[:400] for line in self.said[-4:]]}"
            ) from None

    async def news(self) -> None:
        """Returns when more was said."""
        self._news.clear()
        await self._news.wait()

    async def until_ready(self, times: int = 1) -> None:
        """Waits until all its subscriptions stand, for the `times`th time."""
        await self.until(lambda: len(self.of("ready")) >= times, "rhea's subscriptions")

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.said if line["event"] == event]

    def messages(self, kind: str) -> list[dict[str, Any]]:
        """Events of a type: their attributes without the prefix, their body as `data`."""
        return [event for event in self.events if event["type"] == kind]

    async def answers(self, correlation_id: Any, count: int = 1) -> list[dict[str, Any]]:
        """The first `count` results that answer a command."""

        def found() -> list[dict[str, Any]]:
            results = self.messages("io.hilgate.result.v1")
            mine = [line["data"] for line in results if line["correlation_id"] == correlation_id]
            return mine if len(mine) >= count else []

        return await self.until(found, f"{count} result(s) of {correlation_id}")


def _event(line: dict[str, Any]) -> dict[str, Any]:
    attributes = {name.partition(":")[2]: value for name, value in line["properties"].items()}
    return line | attributes | {"data": json.loads(line["body"])}


@contextlib.asynccontextmanager
async def desk(config: dict[str, Any]) -> AsyncIterator[RheaDesk]:
    """Runs desk.js with a configuration."""
    process = await asyncio.create_subprocess_exec(
        "node", str(JS / "desk.js"), json.dumps(config),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=16 * 1024 * 1024,
    )  # fmt: skip
    one = RheaDesk(process)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(one.listen(), name="rhea")
            yield one
            one.leave()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
