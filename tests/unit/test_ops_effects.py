"""Which commands may not be carried out twice, not even after the agent was killed amid one."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agent.commands.ops import Ops
from agent.commands.parse import parse
from protocols.amqp.codec import Message

BENCH: Any = SimpleNamespace(devices={"drive": SimpleNamespace(config=SimpleNamespace(protocol="can"))})
NOBODY: Any = None


@pytest.mark.parametrize(
    ("fields", "effect"),
    [
        ({"op": "read", "device": "drive"}, False),
        ({"op": "write", "device": "drive"}, True),
        ({"op": "record", "device": "drive", "start": True}, True),
        ({"op": "call", "device": "drive", "method": "record"}, True),
        ({"op": "call", "device": "drive", "method": "send"}, True),
        ({"op": "call", "device": "drive", "method": "status"}, False),
    ],
)
def test_what_has_effect(fields: dict[str, Any], effect: bool) -> None:
    ops = Ops("rig", 1, BENCH, NOBODY, NOBODY, NOBODY)
    message = Message(msgspec.json.encode(fields), message_id="1", content_type="application/json")
    assert ops.has_effect(parse(message, 1)) is effect
