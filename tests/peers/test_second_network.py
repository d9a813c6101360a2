"""A pod with a second network, as Multus leaves it, in network namespaces and with the base's profile.

The installed hilgate runs in the pod's namespace under the rules that a NetworkPolicy makes, with a PLC of
pymodbus on the field bus alone and the broker on the cluster's network alone.
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from brokers.process import ROOT
from manifests import KUBERNETES

pytestmark = pytest.mark.peer("namespaces")
COMMAND = str(Path(sys.executable).with_name("hilgate"))
PATIENCE_S = 60.0
BROKER = "amqp://10.244.0.10:5671"
PLC = """\
import asyncio
from pymodbus.server import StartAsyncTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
registers = SimData(0, values=list(range(100)), datatype=DataType.REGISTERS)
bits = SimData(0, values=[True] * 16, datatype=DataType.BITS)
unit = SimDevice(1, simdata=([bits], [bits], [registers], [registers]))
asyncio.run(StartAsyncTcpServer(unit, address=("192.168.50.20", 502)))
"""
TOKEN = "a-token-of-the-bench-rig"
# All namespaces that the policy names are at the one address of the cluster that there is here.
RULES = """
table inet pod_rules {{
  chain leaving {{ type filter hook output priority 0; policy accept;
    oifname "eth0" ct state established,related accept
    {leaving}
    oifname "eth0" drop
  }}
  chain coming {{ type filter hook input priority 0; policy accept;
    iifname "eth0" ct state established,related accept
    {coming}
    iifname "eth0" drop
  }}
}}
"""


def policy() -> str:
    """What a plug-in makes of base/networkpolicy.yaml on the pod's first interface, and there alone."""
    spec = yaml.safe_load((KUBERNETES / "base" / "networkpolicy.yaml").read_text("utf-8"))["spec"]
    named = {"http": 8080}

    def lines(rules: list[Any], match: str) -> str:
        ports = [port for rule in rules for port in rule["ports"]]
        return "\n    ".join(
            f"{match} {port['protocol'].lower()} dport {named.get(port['port'], port['port'])} accept"
            for port in ports
        )

    return RULES.format(
        leaving=lines(spec["egress"], 'oifname "eth0" ip daddr 10.244.0.10'),
        coming=lines(spec["ingress"], 'iifname "eth0" ip saddr 10.244.0.10'),
    )


def why_missing() -> str | None:
    """None where namespaces with macvlan and nftables can be had."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    absent = [program for program in ("ip", "nft") if shutil.which(program) is None]
    return f"no {' and no '.join(absent)}" if absent else None


@pytest.fixture
def name(need: Callable[[str, str | None, str], None]) -> Iterator[str]:
    """The namespaces' common name; they are gone after the test."""
    need("namespaces", why_missing(), "as root: apt-get install iproute2 nftables")
    chosen, tool = f"hg{os.getpid()}", str(ROOT / "tests" / "tools" / "second-network")
    try:
        subprocess.run([tool, "up", chosen, "macvlan"], check=True, timeout=60)
        yield chosen
    finally:
        subprocess.run([tool, "down", chosen], check=True, timeout=60)


def inside(namespace: str, *words: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, *words]


@contextlib.asynccontextmanager
async def running(namespace: str, *words: str, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs a command in a namespace during the body."""
    process = await asyncio.create_subprocess_exec(
        *inside(namespace, *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=os.environ | variables,
        limit=2**20,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()


async def until(process: asyncio.subprocess.Process, wanted: Callable[[Any], bool]) -> Any:
    """The first of the next JSON lines that is wanted."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        while True:
            line = await process.stdout.readline()
            assert line, "it ended"
            if wanted(found := json.loads(line)):
                return found


async def done(namespace: str, *words: str) -> tuple[int, str]:
    """Exit status and output of a command in a namespace."""
    process = await asyncio.create_subprocess_exec(
        *inside(namespace, *words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def reached(namespace: str, host: str, port: int) -> str:
    """What comes of a connection from a namespace: `yes`, or the error's name."""
    script = (
        "import socket, sys\n"
        "try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close(); print('yes')\n"
        "except OSError as error: print(type(error).__name__)"
    )
    return (await done(namespace, sys.executable, "-c", script, host, str(port)))[1].strip()


async def metrics(namespace: str, host: str, token: str) -> str:
    """The status that the agent's metrics are answered with."""
    script = (
        "import http.client, sys\n"
        "connection = http.client.HTTPConnection(sys.argv[1], 8080, timeout=10)\n"
        "connection.request('GET', '/metrics', headers={'Authorization': f'Bearer {sys.argv[2]}'})\n"
        "print(connection.getresponse().status)"
    )
    return (await done(namespace, sys.executable, "-c", script, host, token))[1].strip()


def device(state: str) -> Callable[[Any], bool]:
    """Whether an event is an availability that says that the PLC is in that state."""

    def says(event: Any) -> bool:
        devices = event["data"].get("devices") if event["type"] == "io.hilgate.availability.v1" else None
        return devices is not None and devices.get("pump-plc", {}).get("state") == state

    return says


async def test_the_devices_are_reached_by_the_second_network_alone(name: str, tmp_path: Path) -> None:
    pod, plc, cluster = f"{name}-pod", f"{name}-plc", f"{name}-ctl"

    async def send(*words: str) -> tuple[int, Any]:
        way = ("--json", "--timeout", "20s", "--broker", BROKER)
        code, out = await done(cluster, COMMAND, "send", "rig-07", *words, *way)
        return code, json.loads(out)

    profile = str(KUBERNETES / "base" / "profile.yaml")
    rules = tmp_path / "rules.nft"
    rules.write_text(policy())
    token = tmp_path / "token"
    token.write_text(TOKEN)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(running(plc, sys.executable, "-c", PLC))
        listening = ("broker", "--listen", "10.244.0.10:5671", "--json")
        broker = await stack.enter_async_context(running(cluster, COMMAND, *listening))
        await until(broker, lambda line: "url" in line)
        assert await reached(pod, "10.244.0.10", 1) == "ConnectionRefusedError"
        assert (await done(pod, "nft", "-f", str(rules)))[0] == 0
        assert await reached(pod, "10.244.0.10", 1) == "TimeoutError"
        # DNS is let through, to where nobody serves it here.
        assert await reached(pod, "10.244.0.10", 53) == "ConnectionRefusedError"

        watching = ("watch", "rig-07", "--json", "--broker", BROKER)
        watch = await stack.enter_async_context(running(cluster, COMMAND, *watching))
        web = ("--http", "0.0.0.0:8080", "--http-token-file", str(token))
        agent = ("run", profile, "--bench", "rig-07", "--broker", BROKER, "--heartbeat", "1s", *web)
        await stack.enter_async_context(running(pod, COMMAND, *agent))
        await until(watch, device("online"))

        # Prometheus gets in, by that port alone. No policy holds on the field bus: there the token is all.
        assert await metrics(cluster, "10.244.0.5", TOKEN) == "200"
        assert await reached(cluster, "10.244.0.5", 8081) == "TimeoutError"
        assert await metrics(plc, "192.168.50.10", "a guess") == "401"
        # From the cluster nothing leads to the field bus, and from the field bus nothing to the cluster.
        assert await reached(cluster, "192.168.50.20", 502) != "yes"
        assert await reached(plc, "10.244.0.10", 5672) != "yes"
        code, result = await send("write", "pump-plc", "setpoint=1200", "--verify")
        assert (code, result["data"]["read_back"]) == (0, {"setpoint": 1200})

        # Without the second network the device is gone, though the pod has a default route; AMQP goes on.
        assert (await done(pod, "ip", "link", "set", "net1", "down"))[0] == 0
        await until(watch, device("offline"))
        assert await reached(pod, "192.168.50.20", 502) != "yes"
        code, result = await send("ping")
        assert (code, result["status"]) == (0, "ok")
        code, result = await send("read", "pump-plc")
        assert (code, result["status"]) == (3, "failed")

        assert (await done(pod, "ip", "link", "set", "net1", "up"))[0] == 0
        await until(watch, device("online"))
        code, result = await send("read", "pump-plc", "setpoint")
        assert (code, result["data"]["values"]) == (0, {"setpoint": 1200})
