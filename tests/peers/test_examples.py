"""The JavaScript example that the README names, against the demo."""

import asyncio
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import rhea
from brokers.process import ROOT

pytestmark = pytest.mark.peer("rhea")
COMMAND = Path(sys.executable).with_name("hilgate")
PIPE = asyncio.subprocess.PIPE


async def test_the_javascript_example_prints_values(need: Callable[[str, str | None, str], None]) -> None:
    need("rhea", rhea.why_missing(), rhea.GET)
    environment = os.environ | {"NODE_PATH": str(rhea.JS / "node_modules")}
    demo = await asyncio.create_subprocess_exec(COMMAND, "demo", "--port", "0", stdout=PIPE)
    try:
        port = await first(demo, rb"HILGATE_BROKER=amqp://127.0.0.1:(\d+)")
        words = ["node", str(ROOT / "docs/examples/events.js"), "127.0.0.1", port, "demo"]
        example = await asyncio.create_subprocess_exec(*words, stdout=PIPE, env=environment)
        try:
            assert float(await first(example, rb"^\S+Z pump-plc speed (\S+)$")) >= 0
            assert await first(example, rb"^\S+Z pump-plc running (\S+)$") == "true"
        finally:
            example.kill()
            await example.communicate()
    finally:
        demo.kill()
        await demo.communicate()


async def first(process: asyncio.subprocess.Process, pattern: bytes) -> str:
    """What the pattern's group is in the first line that has it."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        async for line in process.stdout:
            if found := re.search(pattern, line):
                return found[1].decode()
    raise AssertionError(f"it ended without {pattern!r}")
