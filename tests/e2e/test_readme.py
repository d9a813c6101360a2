"""What the README and the examples promise."""

import asyncio
import json
import re
import sys
from pathlib import Path

import pytest
from shell import hilgate, running

TOP = Path(__file__).parents[2]
README = (TOP / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


POWERTRAIN = """VERSION ""
NS_ :
BS_:
BU_: Drive Gateway
BO_ 256 Status: 2 Drive
 SG_ MotorSpeed : 0|16@1+ (0.25,0) [0|16000] "rpm" Gateway
BO_ 512 Command: 2 Gateway
 SG_ SpeedSetpoint : 0|16@1+ (1,0) [0|3000] "rpm" Drive
"""


@pytest.mark.parametrize("text", blocks("yaml"), ids=["modbus", "can", "dnp3", "opcua", "mqtt", "text"])
async def test_the_profile_is_valid_and_runs_without_hardware(text: str, tmp_path: Path) -> None:
    profile = tmp_path / "rig.yaml"
    profile.write_text(text)
    (tmp_path / "powertrain.dbc").write_text(POWERTRAIN)
    checked = await hilgate("check", str(profile))
    assert checked.code == 0, checked.out
    async with running("demo", str(profile), "--port", "0", "--json") as demo:
        await demo.until(lambda event: event["data"].get("state") == "available")
        await demo.until(lambda event: event["type"] == "io.hilgate.samples.v1")
        ended = await demo.end()
        assert (ended.code, ended.err) == (0, "")


COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for block in blocks("sh")
        for line in block.splitlines()
        if line.split(maxsplit=1)[:1] and Path(line.split()[0]).name == "hilgate"
    }
)


@pytest.mark.parametrize("command", COMMANDS)
async def test_the_commands_exist_with_their_options(command: str) -> None:
    words = command.split()
    shown = await hilgate(words[1], "--help")
    assert shown.code == 0
    for option in (word for word in words if word.startswith("--")):
        assert option in shown.out


async def test_the_python_example_commands_the_demo() -> None:
    async with running("demo", "--port", "0") as demo:
        lines = ""
        while (found := re.search(r"amqp://127\.0\.0\.1:\d+", lines)) is None:
            lines += await demo.line()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            TOP / "docs/examples/command.py",
            found[0],
            "demo",
            json.dumps({"op": "write", "device": "pump-plc", "values": {"setpoint": 2000}}),
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(20):
            out, _ = await process.communicate()
        assert process.returncode == 0
        assert json.loads(out)["data"]["values"] == {"setpoint": 2000.0}
        assert (await demo.end()).code == 0
