"""Rules by user-id rest on the broker: RabbitMQ lets nobody send under another's name, Artemis does."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import agents
import pytest
from brokers import Artemis, Broker
from test_send_user import PATIENCE_S, hilgate

from agent.cli.ask import ask
from agent.cli.exits import Failure
from protocols.amqp.client import Client, Options
from protocols.amqp.endpoints import ConnectionLost


@contextlib.asynccontextmanager
async def guarded(broker: Broker, folder: Path) -> AsyncIterator[str]:
    """An agent whose bench only the broker's client account may enable; it answers already."""
    bench, settings = f"rule-{uuid.uuid4().hex[:8]}", folder / "settings.yaml"
    rules = [{"ops": ["ping"], "anybody": True}, {"ops": ["enable"], "users": [broker.users.client.name]}]
    settings.write_text(json.dumps({"authorization": {"rules": rules}}))
    async with agents.agent(bench, broker.url, folder / "store", "--settings", str(settings)):
        async with asyncio.timeout(PATIENCE_S):
            while (await hilgate("send", bench, "ping", *login(broker, folder, "client")))[0] == 4:
                pass  # the agent is not there yet
        yield bench


def login(broker: Broker, folder: Path, who: str) -> list[str]:
    user = getattr(broker.users, who)
    password = folder / f"password-{who}"
    password.write_text(user.password)
    name = ["--username", user.name, "--password-file", str(password), "--allow-plain"]
    return ["--broker", broker.url, *name]


async def enable_as(broker: Broker, bench: str, said: str) -> str:
    """What becomes of op enable by the administrator's account under another's user-id."""
    admin = broker.users.admin
    options = Options(
        url=broker.url,
        container_id=f"liar-{uuid.uuid4()}",
        username=admin.name,
        password=admin.password,
        allow_plain=True,
    )
    client = Client(options, lambda _state, _reason: None)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(client.run())
        try:
            result = await ask(client, bench, {"op": "enable"}, 5.0, user=said)
        except (Failure, ConnectionLost):  # RabbitMQ ends the session, or the connection
            return "not delivered"
        finally:
            running.cancel()
    return str(result["code"] or result["status"])


@pytest.mark.peer("brokers")
async def test_a_rule_by_user_id_is_worth_what_the_broker_is(broker: Broker, tmp_path: Path) -> None:
    async with guarded(broker, tmp_path) as bench:
        code, text = await hilgate("send", bench, "enable", *login(broker, tmp_path, "client"))
        assert code == 0, text
        code, text = await hilgate("send", bench, "enable", *login(broker, tmp_path, "admin"))
        assert code == 1, text
        assert "unauthorized" in text
        lie = await enable_as(broker, bench, broker.users.client.name)
        assert lie == ("ok" if isinstance(broker, Artemis) else "not delivered")
