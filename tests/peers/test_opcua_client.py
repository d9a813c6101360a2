"""node-opcua's client against our simulated server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from node_opcua import GET, POLICIES, Need, Program, program, why_missing

from protocols.opcua.config import Connection, OpcuaDevice
from sim.opcua.devices import Served, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
URI = "urn:plant.example:tanks"
POINTS = {
    "level": {"node": f"nsu={URI};s=Tank.Level", "access": "rw", "unit": "m", "min": 0, "max": 4},
    "pressure": {"node": f"nsu={URI};s=Tank.Pressure", "access": "rw"},
    "speed": {"node": f"nsu={URI};s=Tank.Speed", "access": "rw"},
    "mode": {
        "node": f"nsu={URI};s=Tank.Mode",
        "type": "enumeration",
        "labels": {0: "stopped", 1: "manual"},
        "access": "rw",
    },
    "count": {"node": f"nsu={URI};s=Tank.Count", "type": "integer", "data_type": "UInt64"},
    "name": {"node": f"nsu={URI};s=Tank.Name", "type": "string"},
    "profile": {"node": f"nsu={URI};s=Tank.Profile", "type": "array", "data_type": "Double"},
    "recipe": {
        "node": f"nsu={URI};s=Tank.Recipe",
        "type": "object",
        "fields": {"name": "String", "steps": "UInt16"},
    },
    "path": {"node": "/Objects/2:Hall/2:Temperature", "data_type": "Float"},
    "alarms": {"node": "i=2253", "type": "object", "events": "alarms"},
}
METHODS = {
    "mix": {
        "object": f"nsu={URI};s=Tank",
        "method": f"nsu={URI};s=Tank.Mix",
        "inputs": {"speed": "Double", "who": "String"},
        "outputs": {"who": "String"},
    }
}
SIM = {
    "level": 1.5,
    "pressure": 2.0,
    "speed": 0.0,
    "mode": "manual",
    "count": 7,
    "name": "tank 7",
    "profile": [20.5, 21.5],
    "recipe": {"constant": {"name": "rinse", "steps": 3}},
    "path": 22.5,
}
VALUES = {
    "Level": ("Double", 1.5),
    "Mode": ("Int32", 1),
    "Count": ("UInt64", [0, 7]),
    "Name": ("String", "tank 7"),
    "Profile": ("Double", [20.5, 21.5]),
    "Recipe": ("ExtensionObject", {"name": "rinse", "steps": 3}),
}
"""Integers of 64 bits are two of 32 there."""


def device(policy: str, *, user: bool) -> OpcuaDevice:
    """A server as its profile says it."""
    security: dict[str, Any] = {"policy": policy}
    if policy != "None":
        security |= {"cert": "agent.pem", "key": "agent.key", "trust": ["server.der"]}
    connection: dict[str, Any] = {"url": "opc.tcp://plc.example:4840", "security": security}
    if user:
        connection["user"] = {
            "name": "operator",
            "password_file": "password",
            "allow_insecure": policy == "None",
        }
    written = {
        "protocol": "opcua",
        "connection": connection,
        "points": POINTS,
        "methods": METHODS,
        "sim": SIM,
    }
    return OpcuaDevice.model_validate(written).named("tank")


def _config(connection: Connection, pki: Path) -> dict[str, Any]:
    security, user = connection.security, connection.user
    trusted = pki / "trusted" / "certs"
    trusted.mkdir(parents=True)
    config: dict[str, Any] = {"url": connection.url, "pki": str(pki), "policy": security.policy}
    if security.policy != "None":
        (trusted / "server.der").write_bytes(Path(security.trust[0]).read_bytes())
        config |= {"cert": security.cert, "key": security.key, "uri": "urn:127.0.0.1:hilgate:agent"}
    if user is not None and user.password_file is not None:
        config |= {"user": user.name, "password": Path(user.password_file).read_text()}
    return config


@contextlib.asynccontextmanager
async def visited(served: Served, pki: Path, **more: Any) -> AsyncIterator[Program]:
    """A client that is connected; it trusts the server's certificate and no other."""
    config = await asyncio.to_thread(_config, served.device.connection, pki)
    async with program("client", **{**config, **more}) as client:
        yield client


async def change(client: Program, node: str, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first change of a node that is as wanted."""
    found = await client.until(
        lambda: [one for one in client.of("change") if one["node"] == node and true(one)], f"change of {node}"
    )
    return found[0]


async def alarm(client: Program, **fields: Any) -> dict[str, Any]:
    """The first alarm that has these fields."""
    found = await client.until(
        lambda: [one for one in client.of("alarm") if fields.items() <= one.items()], f"alarm {fields}"
    )
    return found[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(need: Need, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Program]:
    """A client with SignAndEncrypt, as a user, for all tests that need no other."""
    need("node-opcua", why_missing(), GET)
    async with (
        serving(device("Basic256Sha256", user=True)) as served,
        visited(served, tmp_path_factory.mktemp("client") / "pki") as one,
    ):
        yield one


def tank(name: str) -> str:
    return f"nsu={URI};s=Tank.{name}"


async def test_the_address_space_is_the_profiles(client: Program) -> None:
    assert {"Server", "Hall", "tank"} <= set(await client.do("browse", node="i=85"))
    assert set(await client.do("browse", node=tank("Level"))) == {"EngineeringUnits", "EURange"}


async def test_values_are_read_in_their_types(client: Program) -> None:
    found = {name: await client.do("read", node=tank(name)) for name in VALUES}
    assert {name: (one["type"], one["value"]) for name, one in found.items()} == VALUES
    assert {one["status"] for one in found.values()} == {"Good"}
    assert all(one["source"] for one in found.values())
    assert (await client.do("read", node=tank("Nowhere")))["status"] == "BadNodeIdUnknown"


async def test_writes_are_taken_or_refused(client: Program) -> None:
    async def write(name: str, kind: str, value: Any) -> str:
        code: str = await client.do("write", node=tank(name), type=kind, value=value)
        return code

    assert await write("Mode", "Int32", 0) == "Good"
    assert (await client.do("read", node=tank("Mode")))["value"] == 0
    assert await write("Mode", "Double", 1.0) == "BadTypeMismatch"
    assert await write("Name", "String", "other") == "BadUserAccessDenied"
    assert await write("Nowhere", "Double", 1.0) == "BadNodeIdUnknown"


async def test_changes_are_reported_beyond_the_deadband_only_with_the_time_of_the_write(
    client: Program,
) -> None:
    node = tank("Pressure")
    await client.do("monitor", node=node, sampling=50, deadband=0.5)
    await change(client, node, lambda one: one["value"] == 2.0)
    for value in (2.25, 2.75):
        assert await client.do("write", node=node, type="Double", value=value) == "Good"
    changed = await change(client, node, lambda one: one["value"] == 2.75)
    assert changed["source"] is not None
    assert [one["value"] for one in client.of("change") if one["node"] == node] == [2.0, 2.75]
    past = await client.do("history", node=node, start="2020-01-01T00:00:00Z", end="2100-01-01T00:00:00Z")
    assert [one["value"] for one in past] == [2.0, 2.25, 2.75]
    assert past[-1]["source"] == changed["source"]


async def test_a_method_is_called(client: Program) -> None:
    async def mix(*args: tuple[str, Any]) -> Any:
        words = {"object": f"nsu={URI};s=Tank", "method": tank("Mix")}
        return await client.do("call", **words, args=args)

    assert await mix(("Double", 40.0), ("String", "me")) == {"status": "Good", "outputs": ["me"]}
    assert (await client.do("read", node=tank("Speed")))["value"] == 40.0
    assert (await mix(("Double", 50.0)))["status"] == "BadArgumentsMissing"
    assert (await mix(("Double", 50.0), ("Int32", 3)))["status"] == "BadInvalidArgument"
    assert (await client.do("read", node=tank("Speed")))["value"] == 40.0


async def test_an_alarm_comes_and_is_acknowledged(client: Program) -> None:
    await client.do("events", node="i=2253", type="ConditionType")
    await client.do("write", node=tank("Level"), type="Double", value=4.5)
    begun = await alarm(client, **{"ActiveState.Id": True, "AckedState.Id": False})
    assert (begun["SourceName"], begun["ConditionName"]) == ("level", "level out of range")
    assert (begun["Message"], begun["Severity"], begun["Retain"]) == ("level is above its range", 700, True)
    assert begun["EventType"] == "ns=0;i=9482"  # ExclusiveLevelAlarmType
    assert await client.do("acknowledge", event_id=begun["EventId"], comment="seen") == "Good"
    await alarm(client, **{"ActiveState.Id": True, "AckedState.Id": True})
    again = await client.do("acknowledge", event_id=begun["EventId"], comment="seen")
    assert again == "BadEventIdUnknown"
    await client.do("write", node=tank("Level"), type="Double", value=1.5)
    over = await alarm(client, **{"ActiveState.Id": False})
    assert over["Message"] == "level is back in its range"


@pytest.mark.parametrize("policy", ["None", *POLICIES[1:]])
async def test_each_policy_and_nothing_else(need: Need, tmp_path: Path, policy: str) -> None:
    need("node-opcua", why_missing(), GET)
    async with serving(device(policy, user=policy == "None")) as served:
        async with visited(served, tmp_path / "pki") as client:
            assert (await client.do("read", node=tank("Name")))["value"] == "tank 7"
            assert await client.do("write", node=tank("Level"), type="Double", value=2.5) == "Good"
        if policy == "None":
            with pytest.raises(AssertionError, match="BadUserAccessDenied"):
                async with visited(served, tmp_path / "stranger", password="open sesame"):
                    pass
