"""What end-to-end tests share: a broker in a process of its own."""

import json
from collections.abc import AsyncIterator

import pytest
from shell import running


@pytest.fixture
async def broker() -> AsyncIterator[str]:
    """The URL of an embedded broker in a process of its own."""
    async with running("broker", "--listen", "127.0.0.1:0", "--json") as process:
        yield json.loads(await process.line())["url"]
