"""Health and status over HTTP, for probes and for people. Read only."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from agent.availability import Availability
from agent.bench import Bench
from protocols.timestamps import rfc3339

Handler = Callable[[web.Request], Awaitable[web.Response]]


async def serve(availability: Availability, bench: Bench, listen: str) -> None:
    """Serves `/livez`, `/readyz`, `/availability` and `/values/{device}` until cancelled.

    `/livez` answers while the loop turns, `/readyz` with 200 once every device was tried.

    Raises:
        OSError: the port cannot be had.
    """
    app = web.Application()
    app.add_routes(
        [
            web.get("/livez", _livez),
            web.get("/readyz", _readyz(availability)),
            web.get("/availability", _availability(availability)),
            web.get("/values/{device}", _values(bench)),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        host, _, port = listen.rpartition(":")
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        except OSError as error:
            raise OSError(f"http cannot listen on {listen}: {error.strerror or error}") from error
        await asyncio.get_running_loop().create_future()
    finally:
        await runner.cleanup()


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json", status=status)


async def _livez(_: web.Request) -> web.Response:
    return _json({"status": "ok"})


def _readyz(availability: Availability) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        ready = availability.state not in ("starting", "stopping", "offline")
        return _json({"state": availability.state, "reason": availability.reason}, 200 if ready else 503)

    return handle


def _availability(availability: Availability) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        return _json(availability.body())

    return handle


def _values(bench: Bench) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        device = request.match_info["device"]
        if device not in bench.devices:
            return _json({"error": f"no device {device!r}", "devices": list(bench.devices)}, 404)
        return _json(
            {
                point: {"value": last.value, "bad": last.bad, "time": rfc3339(last.time_ns)}
                for point, last in bench.latest.get(device).items()
            }
        )

    return handle
