"""Who sends a command: brokers that vouch for a user-id check it, and the audit has it."""

import asyncio
import json
import sys
import uuid
from pathlib import Path

import agents
import pytest
from brokers import Broker

_COMMAND = str(Path(sys.executable).with_name("hilgate"))
PATIENCE_S = 30.0


async def hilgate(*words: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        _COMMAND, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    return process.returncode, out.decode()


@pytest.mark.peer("brokers")
async def test_the_audit_knows_who_sent_a_command(broker: Broker, tmp_path: Path) -> None:
    bench, store, password = f"who-{uuid.uuid4().hex[:8]}", tmp_path / "store", tmp_path / "password"
    password.write_text(broker.users.client.password)
    login = ["--username", broker.users.client.name, "--password-file", str(password), "--allow-plain"]
    async with agents.agent(bench, broker.url, store):
        async with asyncio.timeout(PATIENCE_S):
            while (said := await hilgate("send", bench, "ping", "--broker", broker.url, *login))[0] == 4:
                pass  # the agent is not there yet
        assert said[0] == 0, said[1]
        code, lines = await hilgate("audit", "--store", str(store), "--op", "ping", "--json")
    assert code == 0, lines
    assert {json.loads(line)["who"] for line in lines.splitlines()} == {broker.users.client.name}
