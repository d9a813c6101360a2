"""HTTP: who is let in, what probes say when, and what hostile clients can do to it."""

import asyncio
import contextlib
import json
import ssl
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
import trustme
from desk import RunAgent
from exposed import PROFILE, Certified, free_port, get, number, serving
from waiting import until

from agent.web import limits, server
from protocols.base import DeviceState
from protocols.tls import FileWatch
from sim.broker import Broker

TOKEN = "a-token-of-the-bench-rig"
HIDDEN = ("/metrics", "/availability", "/values/psu", "/", "/nothing")
PROBES = ("/livez", "/readyz", "/startupz")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_a_port_that_is_taken_is_named(broker: Broker, run_agent: RunAgent) -> None:
    taken = f"127.0.0.1:{broker.port}"
    with pytest.raises(ExceptionGroup) as failed:
        async with run_agent(PROFILE, broker.url, http=taken):
            await asyncio.get_running_loop().create_future()
    assert failed.group_contains(OSError, match=f"http cannot listen on {taken}: ")


async def test_on_loopback_everything_is_shown(broker: Broker, tmp_path: Path) -> None:
    async with serving(tmp_path, broker.url) as (_, listen):
        for path in PROBES:
            assert await get(listen, path) == (200, '{"status":"ok"}')
        assert json.loads((await get(listen, "/availability"))[1])["bench"] == "rig"
        assert json.loads((await get(listen, "/values/psu"))[1])["voltage"]["value"] == 0.0
        assert (await get(listen, "/values/nobody"))[0] == 404
        status, text = await get(listen, "/metricz")
        assert status == 404
        assert "/metrics" in json.loads(text)["paths"]
        # A page of the web whose name resolves to this machine is not let in.
        assert (await get(listen, "/availability", headers={"Host": "evil.example"}))[0] == 421
        for host in ("localhost", "localhost:8080", "127.0.0.1", "[::1]:8080"):
            assert (await get(listen, "/availability", headers={"Host": host}))[0] == 200


async def test_answers_say_nothing_of_the_server_and_are_kept_nowhere(broker: Broker, tmp_path: Path) -> None:
    async with (
        serving(tmp_path, broker.url) as (_, listen),
        aiohttp.ClientSession(f"http://{listen}") as session,
    ):
        for path in ("/livez", "/metrics", "/nothing"):
            async with session.get(path) as said:
                assert said.headers["Server"] == "hilgate"
                assert said.headers["Cache-Control"] == "no-store"
                assert said.headers["X-Content-Type-Options"] == "nosniff"
        async with session.head("/metrics") as said:
            assert (said.status, await said.read()) == (200, b"")
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            async with session.request(method, "/metrics") as said:
                assert (said.status, said.headers["Allow"]) == (405, "GET, HEAD")
        async with session.get("/metrics", data=b"x" * 100) as said:
            assert said.status == 413


async def test_the_token_opens_all_but_probes_which_are_open(broker: Broker, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    async with serving(tmp_path, broker.url, http_token_file=file) as (_, listen):
        wrong: list[dict[str, str]] = [
            {},
            bearer("wrong"),
            bearer(""),
            bearer(TOKEN + "x"),
            bearer(TOKEN[:-1]),
        ]
        wrong += [{"Authorization": TOKEN}, {"Authorization": f"Basic {TOKEN}"}, bearer("t\xf6ken")]
        for path in HIDDEN:
            for headers in wrong:
                status, text = await get(listen, path, headers=headers)
                assert (status, json.loads(text).keys()) == (401, {"error"}), (path, headers)
        assert (await get(listen, "/metrics", headers=bearer(TOKEN)))[0] == 200
        assert (await get(listen, "/metrics", headers={"authorization": f"bearer {TOKEN}"}))[0] == 200
        assert (await get(listen, "/nothing", headers=bearer(TOKEN)))[0] == 404
        for path in PROBES:
            assert (await get(listen, path))[0] == 200


async def test_a_new_token_counts_at_once_and_an_unusable_one_lets_nobody_in(
    broker: Broker, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    async with serving(tmp_path, broker.url, http_token_file=file) as (_, listen):
        file.write_text("another-token-of-this-bench")
        assert (await get(listen, "/metrics", headers=bearer(TOKEN)))[0] == 401
        assert (await get(listen, "/metrics", headers=bearer("another-token-of-this-bench")))[0] == 200
        for content in ("", "\n", "short"):
            file.write_text(content)
            for token in (content.strip(), TOKEN, ""):
                assert (await get(listen, "/metrics", headers=bearer(token)))[0] == 401
        file.unlink()
        assert (await get(listen, "/metrics", headers=bearer(TOKEN)))[0] == 401
        assert (await get(listen, "/livez"))[0] == 200


@pytest.fixture
def certified(tmp_path: Path) -> Certified:
    """Certificates for a server on 127.0.0.1."""
    return Certified(tmp_path)


async def test_a_client_certificate_opens_all_and_a_strangers_none(
    broker: Broker, tmp_path: Path, certified: Certified
) -> None:
    async with serving(tmp_path, broker.url, **certified.settings) as (_, listen):

        async def status(path: str, by: trustme.CA | None, **options: Any) -> int:
            return (await get(listen, path, scheme="https", ssl=certified.client(by), **options))[0]

        assert await status("/metrics", certified.authority) == 200
        assert await status("/metrics", None) == 401
        assert await status("/metrics", None, headers=bearer("")) == 401
        assert await status("/livez", None) == 200  # as a kubelet asks
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await status("/livez", certified.stranger)
        with pytest.raises(aiohttp.ClientError):  # no TLS at all
            await get(listen, "/livez")
        assert await status("/metrics", certified.authority) == 200


async def test_files_that_hang_do_not_hold_up_the_loop(
    broker: Broker, tmp_path: Path, certified: Certified, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_in: set[threading.Thread] = set()

    def look(_: FileWatch) -> bool:
        looked_in.add(threading.current_thread())
        return False

    monkeypatch.setattr(server, "LOOK_S", 0.05)
    monkeypatch.setattr(FileWatch, "changed", look)
    async with serving(tmp_path, broker.url, **certified.settings):
        await until(lambda: bool(looked_in))
    assert threading.main_thread() not in looked_in


async def test_probes_ask_neither_for_devices_nor_for_the_broker(tmp_path: Path) -> None:
    nobody = f"amqp://127.0.0.1:{free_port()}"
    unreachable = PROFILE.replace("host: 127.0.0.1", f"host: 127.0.0.1, port: {free_port()}")
    async with serving(tmp_path, nobody, profile=unreachable, sil=False) as (agent, listen):
        await until(lambda: agent.bench.devices["psu"].status is DeviceState.OFFLINE)
        assert agent.availability.state == "fault"
        for path in PROBES:
            assert await get(listen, path) == (200, '{"status":"ok"}')


async def test_probes_before_all_was_tried(tmp_path: Path, broker: Broker) -> None:
    async with serving(tmp_path, broker.url) as (agent, listen):
        agent.ready.clear()
        assert await get(listen, "/livez") == (200, '{"status":"ok"}')
        assert await get(listen, "/startupz") == (503, '{"status":"starting"}')
        assert await get(listen, "/readyz") == (503, '{"status":"starting"}')
        agent.ready.set()
        assert await get(listen, "/readyz") == (200, '{"status":"ok"}')


async def test_probes_of_an_agent_that_stands_still_and_of_one_that_stops(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path, broker.url) as (agent, listen):
        monkeypatch.setattr(agent.progress, "stalled", lambda: "the store's thread does not answer")
        assert await get(listen, "/livez") == (503, '{"status":"stalled"}')
        assert (await get(listen, "/readyz"))[0] == 200
        assert await number(listen, "hilgate_stalled") == 1
        monkeypatch.undo()
        assert (await get(listen, "/livez"))[0] == 200
        agent.availability.leave("stopping")
        assert await get(listen, "/readyz") == (503, '{"status":"stopping"}')
        assert (await get(listen, "/livez"))[0] == 200


async def test_a_fault_of_the_agent_shows_no_traceback(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path, broker.url) as (_, listen):
        monkeypatch.setattr("agent.web.status.rfc3339", lambda _: 1 / 0)
        assert await get(listen, "/values/psu") == (500, '{"error":"internal error"}')
        monkeypatch.undo()
        assert (await get(listen, "/values/psu"))[0] == 200
        assert await number(listen, "hilgate_http_requests_total", path="/values/{device}", code="500") == 1


async def raw(listen: str, data: bytes) -> bytes:
    """All that is answered to these bytes until the connection ends."""
    host, port = listen.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
            async with asyncio.timeout(30):
                return await reader.read()
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\xa5 this is TLS\r\n\r\n",
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(1000)) + b"\r\n",
        b"GET /<script> HTTP/9.9\r\n\r\n",
        b"\x00" * 5000,
        b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\n" + b"x" * 65536,
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nmore",
    ],
)
async def test_what_is_no_request_ends_the_connection(data: bytes, tmp_path: Path, broker: Broker) -> None:
    async with serving(tmp_path, broker.url) as (_, listen):
        said = await raw(listen, data)
        assert b"Traceback" not in said
        assert b"<script>" not in said
        if not data.startswith(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nUpgrade"):
            assert b" 200 " not in said.partition(b"\r\n")[0]
        assert (await get(listen, "/livez"))[0] == 200


async def test_clients_that_dawdle_are_seen_off(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REQUEST_S", 0.2)
    async with serving(tmp_path, broker.url) as (_, listen):
        # One that says nothing, and one that never ends its headers.
        assert await raw(listen, b"") == b""
        assert await raw(listen, b"GET /livez HTTP/1.1\r\nHost: local") == b""


@pytest.mark.parametrize("secure", [True, False])
async def test_who_holds_all_connections_keeps_nobody_out(
    tmp_path: Path, broker: Broker, certified: Certified, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REQUEST_S", 120.0)
    async with serving(tmp_path, broker.url, **(certified.settings if secure else {})) as (_, listen):
        host, port = listen.split(":")
        # Handshakes that never go on count, too; some are put out before they begin.
        many = 3 * limits.MOST_CONNECTIONS
        crowd = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(many)))
        shown: dict[str, Any] = (
            {"scheme": "https", "ssl": certified.client(certified.authority)} if secure else {}
        )
        status, text = await get(listen, "/metrics", **shown)
        assert status == 200
        put_out = many + 1 - limits.MOST_CONNECTIONS
        assert f'hilgate_http_connections_refused_total{{reason="too-many"}} {put_out}.0' in text
        broken = int(secure)  # by whoever tried whether somebody listens
        assert f'hilgate_http_connections_refused_total{{reason="tls"}} {broken}.0' in text, "counted once"
        assert f"hilgate_http_connections {limits.MOST_CONNECTIONS}.0" in text
        await until(lambda: sum(reader.at_eof() for reader, _ in crowd) == put_out)
        for _, writer in crowd:
            writer.close()


async def test_a_client_that_is_gone_as_its_handshake_ends_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = Mock()

    async def start_tls(_: object, handler: asyncio.Protocol, *__: object, **___: object) -> Mock:
        handler.connection_lost(None)
        return gone

    monkeypatch.setattr(asyncio.get_running_loop(), "start_tls", start_tls)
    door = limits.Door(limits.BoundedServer(Mock(), Mock()))
    door.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    door.enter(Mock(), limits.Gate(door))
    (handshake,) = door._handshakes
    await handshake
    assert door.connections == 0
    gone.abort.assert_called_once_with()
