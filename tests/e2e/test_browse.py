"""`hilgate browse`: what a simulated server has becomes a profile that `hilgate check` passes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from shell import hilgate

from protocols.opcua.config import OpcuaDevice
from sim.opcua.devices import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
URI = "urn:cell.example:process"
SECURITY = {"policy": "Basic256Sha256", "cert": "agent.pem", "key": "agent.key", "trust": ["server.der"]}
METHODS = {
    "start-batch": {
        "object": f"nsu={URI};s=Cell",
        "method": f"nsu={URI};s=Cell.StartBatch",
        "inputs": {"name": "String", "volume": "Double"},
    }
}
DEVICE = OpcuaDevice.model_validate(
    {
        "protocol": "opcua",
        "connection": {
            "url": "opc.tcp://plc.example:4840",
            "security": SECURITY,
            "user": {"name": "bench", "password_file": "password"},
        },
        "points": {
            "level": {"node": f"nsu={URI};s=Level", "unit": "m", "min": 0, "max": 4, "access": "rw"},
            "mode": {
                "node": f"nsu={URI};s=Mode",
                "type": "enumeration",
                "labels": {0: "stopped", 1: "manual"},
            },
            "batches": {"node": f"nsu={URI};s=Batches", "type": "integer", "data_type": "UInt64"},
            "profile": {"node": f"nsu={URI};s=Profile", "type": "array"},
            "recipe": {"node": f"nsu={URI};s=Recipe", "type": "object", "fields": {"name": "String"}},
            "alarms": {"node": "i=2253", "type": "object", "events": "alarms"},
        },
        "methods": METHODS,
    }
).named("cell")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def words() -> AsyncIterator[list[str]]:
    """What `hilgate browse` is given to reach a simulated server."""
    async with serving(DEVICE) as served:
        connection = served.device.connection
        security, user = connection.security, connection.user
        assert user is not None
        assert security.cert is not None
        assert security.key is not None
        assert user.password_file is not None
        files = ["--cert", security.cert, "--key", security.key, "--trust", security.trust[0]]
        yield ["browse", connection.url, *files, "--user", "bench", "--password-file", user.password_file]


async def test_what_is_printed_is_a_profile_that_passes(words: list[str], tmp_path: Path) -> None:
    browsed = await hilgate(*words)
    assert browsed.code == 0, browsed
    assert "nodes" in browsed.err
    profile = tmp_path / "rig.yaml"
    profile.write_text(browsed.out)
    checked = await hilgate("check", str(profile))
    assert checked.code == 0, checked
    (device,) = yaml.safe_load(browsed.out)["devices"].values()
    assert device["points"] == {
        "level": {"node": f"nsu={URI};s=Level", "unit": "m", "min": 0, "max": 4},
        "mode": {
            "node": f"nsu={URI};s=Mode",
            "type": "enumeration",
            "labels": {0: "stopped", 1: "manual"},
        },
        "batches": {"node": f"nsu={URI};s=Batches", "type": "integer", "data_type": "UInt64"},
        "profile": {"node": f"nsu={URI};s=Profile", "type": "array"},
        "recipe": {"node": f"nsu={URI};s=Recipe", "type": "object"},
        "server-events": {"node": "i=2253", "type": "object", "events": "alarms"},
    }
    assert device["methods"] == METHODS
    (level,) = (line for line in browsed.out.splitlines() if line.lstrip().startswith("level:"))
    assert "# may be written" in level


async def test_a_part_of_it_as_json(words: list[str]) -> None:
    browsed = await hilgate(*words, "--root", f"nsu={URI};s=Cell", "--json")
    assert browsed.code == 0, browsed
    (device,) = browsed.lines[0]["devices"].values()
    assert device["points"] == {}
    assert list(device["methods"]) == ["start-batch"]


async def test_what_the_server_does_not_offer_is_said(words: list[str]) -> None:
    stranger = await hilgate(*words[:-4])
    assert (stranger.code, stranger.out) == (3, "")
    assert "it offers Basic256Sha256 with SignAndEncrypt for users with a password" in stranger.err
    bare = await hilgate(*words[:2])
    assert (bare.code, bare.out) == (2, "")
    assert "needs cert and key" in bare.err
