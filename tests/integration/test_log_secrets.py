"""No secret in any log line: tokens, passwords and leases go through real commands, at debug level."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from desk import desk
from exposed import get, serving

from agent import logs
from sim.broker import Broker

HTTP_TOKEN = "http-token-that-nobody-may-see"
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJqb2UiLCJyb2xlcyI6WyJhZG1pbiJdfQ.c2lnbmF0dXJlLW9mLWpvZQ"


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("log_format", ["json", "text"])
async def test_no_secret_in_any_line(
    log_format: logs.LogFormat, tmp_path: Path, broker: Broker, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_text(HTTP_TOKEN)
    logs.setup(log_format, "debug", "rig")
    async with (
        desk(broker.url, "rig") as one,
        serving(tmp_path, broker.url, http_token_file=file, store=tmp_path / "store") as (_, listen),
    ):
        await one.until_state("available")
        lease = (await one.ask("reserve", holder="ci", ttl_s=60))["data"]["lease"]
        foreign = "a-lease-token-of-somebody-else"
        for token in (lease, foreign):
            fields = {"properties": {"lease": token, "authorization": f"Bearer {JWT}"}}
            await one.ask("write", device="psu", values={"voltage": 1}, message_fields=fields)
            await one.ask("write", device="psu", values={"nothing": 1}, lease=token, message_fields=fields)
            await one.ask("read", device="nobody", message_fields=fields)
            await one.ask("renew", lease=token, message_fields=fields)
            old = {**fields, "creation_ms": time.time_ns() // 1_000_000 - 3_600_000}
            await one.ask("write", device="psu", values={"voltage": 1}, message_fields=old)
        await one.post(b'{"op": 1, "lease": "' + lease.encode() + b'"}')
        await get(listen, "/metrics", headers={"Authorization": f"Bearer {HTTP_TOKEN}"})
        await get(listen, "/metrics", headers={"Authorization": f"Bearer {JWT}"})
        await get(listen, f"/{HTTP_TOKEN}?token={HTTP_TOKEN}")
        await one.ask("release", lease=lease)
    out, err = capfd.readouterr()
    said = out + err
    assert "command" in said
    for secret in (lease, foreign, HTTP_TOKEN, JWT, JWT.split(".")[2]):
        assert secret not in said
    if log_format == "json":
        # Commands are found by their message-id, and by the public id of the lease they came with.
        assert '"lease_id":"' in said
        assert '"bench":"rig"' in said
