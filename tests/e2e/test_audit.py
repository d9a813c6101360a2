"""`hilgate audit`: what was commanded, beside the agent that was commanded."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from desk import desk
from shell import Finished, hilgate, running

PROFILE = """\
profile: small-rig
devices:
  pump-plc:
    protocol: modbus
    connection: {transport: tcp, host: 127.0.0.1, port: 1, unit: 1}
    timeout: 30s
    address_base: 0
    poll: 100ms
    points:
      setpoint: {table: holding, address: 10, access: rw, min: 0, max: 3000}
"""


@pytest.fixture
async def store(tmp_path: Path, broker: str) -> AsyncIterator[str]:
    """The store directory of an agent that runs, and was commanded."""
    profile, directory = tmp_path / "small-rig.yaml", str(tmp_path / "store")
    profile.write_text(PROFILE)
    words = ("run", str(profile), "--sil", "--bench", "rig-07", "--broker", broker, "--store", directory)
    async with running(*words) as agent, desk(broker, "rig-07") as one:
        await one.until_state("available")
        await one.ask("ping")
        fields = {"message_id": "too-high", "user_id": b"joe\x1b[2J"}
        await one.ask("write", device="pump-plc", values={"setpoint": 5000}, message_fields=fields)
        await one.ask("write", device="pump-plc", values={"setpoint": 5})
        yield directory
        assert (await agent.end()).code == 0


async def audit(directory: str, *words: str) -> Finished:
    finished = await hilgate("audit", "--store", directory, *words)
    assert (finished.code, finished.err) == (0, "")
    return finished


async def entries(directory: str, *words: str) -> list[dict[str, Any]]:
    return (await audit(directory, "--json", *words)).lines


async def test_commands_are_told_and_filtered(store: str) -> None:
    shown = (await audit(store)).out
    for word in ("ping", "pump-plc", '{"values":{"setpoint":5000}}', "rejected out-of-range"):
        assert word in shown
    assert "joe\N{REPLACEMENT CHARACTER}[2J" in shown
    assert "\x1b" not in shown

    commands = [(one["op"], one["status"]) for one in await entries(store) if one["who"] != "agent"]
    assert commands == [("ping", "ok"), ("write", "rejected"), ("write", "ok")]
    (refused,) = await entries(store, "--op", "write", "--status", "rejected")
    assert (refused["device"], refused["code"], refused["key"]) == ("pump-plc", "out-of-range", "s:too-high")
    assert await entries(store, "--id", "too-high") == [refused]
    assert await entries(store, "--user", "joe\x1b[2J") == [refused]
    assert await entries(store, "--since", refused["time"], "--until", refused["finished"]) == [refused]
    assert (await entries(store, "--limit", "1", "--op", "write"))[0]["status"] == "ok"
    assert await entries(store, "--until", "1h") == []


async def test_the_settings_file_says_where(store: str, tmp_path: Path) -> None:
    file = tmp_path / "rig-07.yaml"
    file.write_text("bench: rig-07\nbroker: amqp://127.0.0.1:5672\nstore: store\n")
    shown = await hilgate("audit", "--settings", str(file), "--json", "--op", "ping")
    assert (shown.code, len(shown.lines)) == (0, 1)


async def test_a_wrong_time_or_no_store_is_exit_2(tmp_path: Path) -> None:
    wrong = await hilgate("audit", "--store", str(tmp_path), "--since", "soon")
    assert wrong.code == 2
    assert "should be how long ago" in wrong.err
    none = await hilgate("audit", "--store", str(tmp_path))
    assert none.code == 2
    assert f"There is no store in {tmp_path}" in none.err
