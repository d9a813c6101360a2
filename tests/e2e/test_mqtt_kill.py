"""An agent that is killed with messages in hand: a broker that keeps its session still has them."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mqtt_rig import far_end
from shell import Running, running, watching
from waiting import until

from sim.mqtt.broker import Broker
from sim.mqtt.broker.router import Router
from sim.mqtt.broker.session import Session

MOMENTS = ("sent", "acknowledged")
AGENT = "rig-07-oven"


@contextlib.asynccontextmanager
async def agent(profile: Path, broker: str) -> AsyncIterator[Running]:
    words = ("--bench", "rig-07", "--broker", broker, "--store", str(profile.parent / "store"))
    async with running("run", str(profile), *words) as process:
        yield process


async def test_a_killed_agent_loses_no_message_of_a_kept_session(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill: dict[str, Any] = {}
    give, acknowledged = Session.give, Session.acknowledged

    def killing(happens: str) -> None:
        kill.pop(happens, lambda: None)()

    def sent(session: Session, message: Any, now: float) -> None:
        give(session, message, now)
        killing("sent")

    def known(session: Session, number: int, now: float) -> None:
        acknowledged(session, number, now)
        killing("acknowledged")

    subscribed: list[Session] = []
    subscribe = Router.subscribe

    def asked(router: Router, session: Session, wanted: Any, now: float) -> Any:
        subscribed.append(session)
        return subscribe(router, session, wanted, now)

    monkeypatch.setattr(Router, "subscribe", asked)
    monkeypatch.setattr(Session, "give", sent)
    monkeypatch.setattr(Session, "acknowledged", known)
    devices = Broker()
    await devices.start()
    where = {"transport": "tcp", "host": "127.0.0.1", "port": devices.port}
    where |= {"client_id": AGENT, "session_expiry": "1h"}
    points = {"number": {"topic": "oven/number", "encoding": "plain", "type": "integer"}}
    device = {"protocol": "mqtt", "connection": where, "points": points}
    profile = tmp_path / "rig.yaml"
    profile.write_text(json.dumps({"profile": "rig", "devices": {"oven": device}}))

    try:
        async with far_end(devices.port) as far, watching(broker, "rig-07") as watch:
            for number, moment in enumerate(MOMENTS):
                async with agent(profile, broker) as process:
                    await until(lambda: len(subscribed) > number)  # noqa: B023  # it is awaited at once
                    kill[moment] = process.process.kill
                    await far.says("oven/number", str(number))
                    await process.process.wait()
                await far.says("oven/number", str(number + 100))  # while it is away
            seen: list[int] = []
            wanted = [one for number in range(len(MOMENTS)) for one in (number, number + 100)]

            def complete(event: Any) -> bool:
                samples = event["data"].get("samples", [])
                seen.extend(one["values"]["number"] for one in samples if "number" in one["values"])
                return set(seen) >= set(wanted)

            async with agent(profile, broker):
                await watch.until(complete)
        assert list(dict.fromkeys(seen)) == wanted
    finally:
        await devices.close()
