"""A bench leased from the command line."""

from pathlib import Path
from typing import Any

from shell import Finished, hilgate, running, watching

PROFILE = """\
profile: small-rig
hooks:
  after_lease:
    - run: [/bin/sh, -c, "echo $HILGATE_LEASE_HOLDER >> ended"]
devices:
  pump-plc:
    protocol: modbus
    connection: {transport: tcp, host: 127.0.0.1, port: 1, unit: 1}
    timeout: 30s
    address_base: 0
    poll: 50ms
    points:
      setpoint: {table: holding, address: 10, unit: rpm, access: rw, safe: 0}
    sim: {setpoint: 100}
"""


async def test_a_bench_is_reserved_written_to_and_released(tmp_path: Path, broker: str) -> None:
    profile, token = tmp_path / "small-rig.yaml", tmp_path / "token"
    profile.write_text(PROFILE)

    async def send(*words: str, **variables: str) -> Finished:
        return await hilgate(
            "send", "rig-07", *words, "--json", "--timeout", "30s", "--broker", broker, **variables
        )

    def result(finished: Finished) -> Any:
        (one,) = finished.lines
        return one

    async with (
        watching(broker) as watch,
        running("run", str(profile), "--sil", "--bench", "rig-07", "--broker", broker) as agent,
    ):
        await watch.until(lambda event: event["data"]["state"] == "available")
        reserved = await send("reserve", "ci-7", "10min", "--devices", "pump-plc", "--deadman", "1min")
        assert reserved.code == 0
        data = result(reserved)["data"]
        token.write_text(f"{data['lease']}\n")
        shown = (await watch.until(lambda event: event["data"]["state"] == "leased"))["data"]["lease"]
        assert (shown["id"], shown["holder"], shown["devices"]) == (data["id"], "ci-7", ["pump-plc"])

        refused = await send("write", "pump-plc", "setpoint=7")
        assert (refused.code, result(refused)["code"]) == (1, "lease-held")
        assert (await send("write", "pump-plc", "setpoint=7", "--lease", f"@{token}")).code == 0
        assert (await send("write", "pump-plc", "setpoint=8", HILGATE_LEASE=data["lease"])).code == 0
        assert (await send("renew", "--lease", f"@{token}")).code == 0
        assert (await send("release", HILGATE_LEASE=data["lease"])).code == 0
        assert result(await send("read", "pump-plc"))["data"]["values"] == {"setpoint": 0}
        assert (tmp_path / "ended").read_text() == "ci-7\n"
        late = await send("renew", "--lease", f"@{token}")
        assert (late.code, result(late)["code"]) == (1, "lease-expired")
        ended = await agent.end()
        assert ended.code == 0
        assert data["lease"] not in ended.out + ended.err
        await watch.end()


async def test_what_is_about_a_lease_needs_its_token(tmp_path: Path) -> None:
    finished = await hilgate("send", "rig-07", "release", "--broker", "amqp://127.0.0.1:1")
    assert (finished.code, finished.out) == (2, "")
    assert "release needs a lease: set HILGATE_LEASE, or give --lease @FILE" in finished.err
    missing = tmp_path / "token"
    finished = await hilgate("send", "rig-07", "renew", "--lease", f"@{missing}", "--broker", "amqp://h")
    assert finished.code == 2
    assert "The lease's token cannot be read" in finished.err
    assert str(missing) in finished.err
