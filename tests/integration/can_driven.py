"""A CAN driver on python-can's virtual bus, and another node there."""

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import can
from scripted import Heard, running

from protocols.can.config import CanDevice
from protocols.can.driver import CanDriver

DATABASE = """\
VERSION ""
NS_ :
BS_:
BU_: Drive Gateway
BO_ 256 Status: 8 Drive
 SG_ Speed : 0|16@1+ (0.1,0) [0|6000] "rpm" Gateway
 SG_ Torque : 23|16@0- (0.5,0) [-500|500] "Nm" Gateway
 SG_ State : 32|2@1+ (1,0) [0|3] "" Gateway
 SG_ Temperature : 40|8@1+ (1,-40) [-40|200] "degC" Gateway
BO_ 257 Event: 1 Drive
 SG_ Door : 0|1@1+ (1,0) [0|1] "" Gateway
BO_ 512 Command: 8 Gateway
 SG_ Setpoint : 0|16@1+ (1,0) [0|3000] "rpm" Drive
 SG_ Enable : 16|1@1+ (1,0) [0|1] "" Drive
 SG_ Ramp : 24|8@1+ (1,0) [0|255] "" Drive
 SG_ Counter : 32|4@1+ (1,0) [0|15] "" Drive
 SG_ Checksum : 40|8@1+ (1,0) [0|255] "" Drive
VAL_ 256 State 0 "off" 1 "on" 2 "fault" ;
VAL_ 256 Temperature 255 "not available" ;
BA_DEF_ BO_ "GenMsgCycleTime" INT 0 65535;
BA_DEF_DEF_ "GenMsgCycleTime" 0;
BA_ "GenMsgCycleTime" BO_ 256 50;
BA_ "GenMsgCycleTime" BO_ 512 20;
"""
POINTS: dict[str, Any] = {
    "speed": {"signal": "Speed"},
    "torque": {"signal": "Torque"},
    "state": {"signal": "State"},
    "temperature": {"signal": "Temperature"},
    "door": {"signal": "Door"},
    "setpoint": {"signal": "Setpoint", "access": "rw", "min": 0, "max": 3000, "safe": 0},
    "enable": {"signal": "Enable", "access": "rw", "safe": False},
    "ramp": {"signal": "Ramp", "access": "wo", "initial": 7},
}
CHANNELS = (f"driver-{os.getpid()}-{n}" for n in itertools.count())


class Rig:
    """A driver on a bus of its own, and another node there."""

    def __init__(self, folder: Path, channel: str, *, stale_after: str = "60s", **more: Any) -> None:
        """`stale_after`: of the message Status; what is not about stale points is to bear a slow machine."""
        if "database" not in more:
            status = {"timeout": stale_after, **more.get("messages", {}).get("Status", {})}
            more["messages"] = {**more.get("messages", {}), "Status": status}
        (folder / "drive.dbc").write_text(DATABASE)
        connection = {"interface": "virtual", "channel": channel, **more.pop("connection", {})}
        content = {"protocol": "can", "connection": connection, "database": "drive.dbc", "points": POINTS}
        device = CanDevice.model_validate({**content, **more}, context={"folder": folder})
        self.device = device.named("drive", folder)
        self.driver = CanDriver(self.device)
        self.node = can.Bus(interface="virtual", channel=channel)
        self.heard = Heard()

    def sends(self, can_id: int, data: bytes) -> None:
        """The other node sends a frame."""
        self.node.send(can.Message(arbitration_id=can_id, data=data, is_extended_id=can_id > 0x7FF))

    async def gets(self) -> can.Message:
        """The next frame that the other node gets."""
        async with asyncio.timeout(5):
            message = await asyncio.to_thread(self.node.recv, 5)
        assert message is not None
        return message


@contextlib.asynccontextmanager
async def rig(folder: Path, channel: str, **more: Any) -> AsyncIterator[Rig]:
    made = Rig(folder, channel, **more)
    try:
        await made.driver.connect()
        async with running(made.driver, made.heard):
            await made.heard.until(lambda: made.heard.states)
            yield made
    finally:
        await made.driver.close()
        made.node.shutdown()


def status(speed: float = 0, torque: float = 0, state: int = 0, temperature: int = 20) -> bytes:
    raw = round(speed * 10).to_bytes(2, "little") + round(torque * 2).to_bytes(2, "big", signed=True)
    return raw + bytes([state, temperature + 40]) + bytes(2)
