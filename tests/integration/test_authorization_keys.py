"""An issuer's keys from a real https server: rotated, away, slow, huge, redirecting."""

import asyncio
import contextlib
import http.server
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import issuer
import pytest
import trustme
from waiting import until

from agent.authorization import source
from agent.authorization.config import Authorization, Jwt, Rule
from agent.authorization.judge import Authorizer, KeyAwaited
from agent.authorization.keys import KeySet
from agent.authorization.source import Keys
from protocols.base import Refused


class Served(http.server.BaseHTTPRequestHandler):
    """Answers by what the server was told."""

    def do_GET(self) -> None:  # the name that http.server calls
        server = self.server
        assert isinstance(server, Server)
        server.asked += 1
        if server.slow is not None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not server.slow.wait(0.02):
                try:
                    self.wfile.write(b"X: y\r\n")
                except OSError:
                    return
            return
        self.send_response(server.status)
        if server.status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(server.document)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    status, document, asked = 200, b"", 0
    slow: threading.Event | None = None

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is nothing to print."""

    @property
    def url(self) -> str:
        return f"https://localhost:{self.server_address[1]}/certs?x=1"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA, tmp_path: Path) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    one = Server(("127.0.0.1", 0), Served)
    one.socket = context.wrap_socket(one.socket, server_side=True, do_handshake_on_connect=False)
    one.document = issuer.key_set(issuer.key())
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield one
    one.shutdown()
    thread.join()
    one.server_close()


@contextlib.asynccontextmanager
async def keys(settings: Jwt, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Keys, list[KeySet]]]:
    """Keys that are looked at often, with what they gave."""
    monkeypatch.setattr(source, "FETCH_FLOOR_S", 0.05)
    given: list[KeySet] = []
    one = Keys(settings, given.append)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(one.run())
        yield one, given
        task.cancel()


def trusting(server: Server, tmp_path: Path) -> Jwt:
    return issuer.settings(server.url, ca=tmp_path / "ca.pem")


async def test_keys_are_fetched_and_fetched_again_when_asked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keys(trusting(server, tmp_path), monkeypatch) as (one, given):
        assert await one.look_again()
        assert [set(taken.keys) for taken in given] == [{("one", "ES256")}]
        server.document = issuer.key_set(issuer.key("EdDSA", "two"))
        await until(lambda: len(given) == 2 or (not one._looking and one._wanted.set()))
        assert set(given[1].keys) == {("two", "EdDSA")}


async def test_it_is_too_early_for_a_second_fetch(server: Server, tmp_path: Path) -> None:
    one = Keys(trusting(server, tmp_path), lambda _keys: None)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(one.run())
        assert await one.look_again()
        assert [await one.look_again() for _ in range(100)] == [False] * 100
        assert server.asked == 1
        task.cancel()


@pytest.mark.parametrize("how", ["away", "error", "redirect", "huge", "nonsense", "slow", "empty"])
async def test_a_source_that_fails_leaves_the_keys_in_force(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async with keys(trusting(server, tmp_path), monkeypatch) as (one, given):
        await one.look_again()
        match how:
            case "away":
                server.socket.close()
            case "error":
                server.status = 500
            case "redirect":
                server.status = 302
            case "huge":
                server.document = b" " * (1 << 20)
            case "nonsense":
                server.document = b"<html>"
            case "slow":
                monkeypatch.setattr(source, "FETCH_S", 0.3)
                server.slow = threading.Event()
            case "empty":
                server.document = b'{"keys": []}'
        await until(lambda: one.trouble or (not one._looking and one._wanted.set()))
        if server.slow is not None:
            server.slow.set()
        words = {"error": "500", "redirect": "redirects are not followed", "huge": "larger", "slow": "within"}
        assert words.get(how, "") in one.trouble
        assert len(given) == 1, "nothing took the place of the keys at hand"


async def test_keys_end_when_their_source_is_away_for_too_long(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = trusting(server, tmp_path).model_copy(update={"keep": 0.2})
    async with keys(settings, monkeypatch) as (one, given):
        await one.look_again()
        server.status = 500
        await until(lambda: len(given) == 2 or (not one._looking and one._wanted.set()))
        assert given[1].keys == {}
        server.status = 200
        await until(lambda: len(given) == 3)
        assert not one.trouble
        assert set(given[2].keys) == {("one", "ES256")}


async def test_a_server_of_another_authority_or_name_is_not_believed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    named = issuer.settings(server.url.replace("localhost", "127.0.0.1"), ca=tmp_path / "ca.pem")
    for settings in (
        issuer.settings(server.url, ca=tmp_path / "other.pem"),
        issuer.settings(server.url),
        named,
    ):
        async with keys(settings, monkeypatch) as (one, given):
            await one.look_again()
            assert "certificate verify failed" in one.trouble
            assert given == []


async def test_an_unknown_key_waits_for_the_fetch_and_holds_up_nobody(server: Server, tmp_path: Path) -> None:
    rules = (Rule(ops=("enable",), roles=("operator",)), Rule(ops=("ping",), anybody=True))
    block = Authorization(rules=rules, jwt=trusting(server, tmp_path))
    one = Authorizer(block, None, lambda _token, _device: False)
    server.slow = threading.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(one.run())
        asking = issuer.command("enable", bearer=issuer.token())
        with pytest.raises(KeyAwaited):
            one.judge(asking)
        later = asyncio.create_task(one.judge_later(asking))
        await until(lambda: server.asked)
        for _ in range(1000):  # others go on meanwhile
            one.judge(issuer.command("ping"))
        assert not later.done()
        server.slow.set()  # the answer ends, and was none
        with pytest.raises(Refused, match="keys of its issuer are not at hand"):
            await later
        task.cancel()


async def test_a_file_that_hangs_holds_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    going_on, begun = threading.Event(), []

    def hang(path: Path) -> bytes:
        begun.append(path)
        going_on.wait()
        return issuer.key_set(issuer.key())

    monkeypatch.setattr(source, "FETCH_S", 0.05)
    monkeypatch.setattr(source, "FILE_S", 0.01)
    monkeypatch.setattr(source, "_file", hang)
    try:
        async with keys(issuer.settings(str(tmp_path / "keys.json")), monkeypatch) as (one, given):
            looked = 0
            async with asyncio.timeout(30):
                while looked < 3:
                    looked += await one.look_again()
                    await asyncio.sleep(0.005)
            assert one.trouble
            assert len(begun) == 1
            going_on.set()
            await until(lambda: bool(given))
    finally:
        going_on.set()
