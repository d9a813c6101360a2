"""What is answered at each path. Pure, but for looking at the agent's parts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector

from agent.metrics.collector import AgentCollector
from protocols.timestamps import rfc3339

if TYPE_CHECKING:
    from agent.app import Agent
    from agent.web.server import Server

PROBES = ("/livez", "/readyz", "/startupz")
"""Answered to anybody, by one word."""
PATHS = ("/availability", "/metrics", "/values/{device}")
"""Answered to whom `Access` allows it."""
_SECURITY = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Server": "hilgate",  # which version of what answers is nobody's business
}


def answer(body: Any, status: int = 200, **headers: str) -> web.Response:
    """A JSON answer."""
    return web.Response(
        body=msgspec.json.encode(body),
        status=status,
        content_type="application/json",
        headers=_SECURITY | {name.replace("_", "-"): value for name, value in headers.items()},
    )


class Status:
    """Looks at an agent for those who ask."""

    def __init__(self, agent: "Agent", bench_id: str, server: "Server") -> None:
        self._agent = agent
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(AgentCollector(agent, bench_id))
        self._registry.register(server)
        ProcessCollector(registry=self._registry)

    def probe(self, path: str) -> web.Response:
        """`/livez`: do all parts go on? `/startupz`: was all tried once? `/readyz`: and is it not stopping?

        None of them asks how the devices or the broker are.
        """
        agent = self._agent
        if path == "/livez":
            word = "stalled" if agent.progress.stalled() else ""
        else:
            word = "" if agent.ready.is_set() else "starting"
            if path == "/readyz" and agent.availability.state in ("stopping", "offline"):
                word = "stopping"
        return answer({"status": word or "ok"}, 503 if word else 200)

    def page(self, path: str, headers: Mapping[str, str]) -> web.Response:
        """Everything else; 404 and the list of paths where there is nothing."""
        if path == "/metrics":
            return self._metrics(headers.get("Accept", ""))
        if path == "/availability":
            return answer(self._agent.availability.body())
        if path.startswith("/values/"):
            return self._values(path.removeprefix("/values/"))
        return answer({"error": "there is no such page", "paths": sorted((*PROBES, *PATHS))}, 404)

    def _metrics(self, accept: str) -> web.Response:
        try:
            encode, content_type = choose_encoder(accept)
        except (ValueError, TypeError):  # a version that is none: prometheus_client compares it all the same
            encode, content_type = choose_encoder("")
        response = web.Response(body=encode(self._registry), headers=_SECURITY)
        response.headers["Content-Type"] = content_type
        return response

    def _values(self, device: str) -> web.Response:
        bench = self._agent.bench
        if device not in bench.devices:
            return answer({"error": "there is no such device", "devices": list(bench.devices)}, 404)
        return answer(
            {
                point: {"value": last.value, "bad": last.bad, "time": rfc3339(last.time_ns)}
                for point, last in bench.latest.get(device).items()
            }
        )
