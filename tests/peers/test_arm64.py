"""The processor of bench hosts: the wheel and all that it needs, run by an emulator.

A small part of what `tests/tools/in-arm64 python3 -m pytest tests/unit tests/integration` runs in hours.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

IN_ARM64 = Path(__file__).parents[1] / "tools" / "in-arm64"
PARTS = ("amqp_codec", "can_packer", "dnp3_decoder", "modbus_codec", "text_blocks")
"""Byte orders, alignment, compiled parts: what another processor could show to be wrong."""


@pytest.fixture(scope="module", autouse=True)
def _prepared(need: Callable[[str, str | None, str], None]) -> None:
    checked = subprocess.run(
        [sys.executable, IN_ARM64, "--check"], capture_output=True, text=True, check=False
    )
    need("arm64", checked.stderr.strip() or None, "tests/tools/get-peers")
    made = subprocess.run(
        [sys.executable, IN_ARM64, "--prepare"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr


@pytest.fixture
def demo() -> Iterator[subprocess.Popen[str]]:
    """`hilgate demo` of the installed wheel, its events as lines."""
    command = [sys.executable, str(IN_ARM64), "hilgate", "demo", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()  # with it go all processes that it began


def test_a_bench_with_a_device_of_each_protocol_comes_up(demo: subprocess.Popen[str]) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        event = json.loads(line)
        if event["type"] == "io.hilgate.availability.v1" and event["data"]["state"] == "available":
            break
    else:
        pytest.fail("the demo ended before its bench was available")
    assert event["data"]["agent"]["arch"] == "aarch64"
    states = {device["protocol"]: device["state"] for device in event["data"]["devices"].values()}
    assert states == dict.fromkeys(("can", "dnp3", "modbus", "mqtt", "opcua", "text"), "online")


def test_what_is_compiled_and_packed_agrees_with_other_processors() -> None:
    files = [f"tests/unit/test_{part}.py" for part in PARTS]
    command = ["python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not hypothesis", *files]
    done = subprocess.run(
        [sys.executable, IN_ARM64, *command], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
