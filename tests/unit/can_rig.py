"""A small database and profile that simulated CAN nodes are tested with."""

from pathlib import Path
from typing import Any

from protocols.can.config import CanDevice
from protocols.can.frame import Frame
from protocols.can.signals.database import Message, load
from protocols.can.signals.decoder import compile_decoder

_DATABASE = """
VERSION ""
BU_: A
BO_ 16 Motion: 8 A
 SG_ Speed : 0|16@1- (0.5,0) [-1000|1000] "rpm" A
 SG_ Level : 16|8@1+ (1,0) [20|200] "" A
 SG_ Mode : 24|4@1+ (1,0) [0|15] "" A
 SG_ Counter : 28|4@1+ (1,0) [0|15] "" A
 SG_ Checksum : 32|8@1+ (1,0) [0|255] "" A
BO_ 32 Pages: 3 A
 SG_ Page M : 0|8@1+ (1,0) [0|255] "" A
 SG_ One m3 : 8|8@1+ (1,0) [0|255] "" A
 SG_ Two m5 : 8|16@1+ (1,0) [0|65535] "" A
BO_ 48 Command: 8 A
 SG_ Setpoint : 0|16@1- (0.5,0) [-1000|1000] "rpm" A
 SG_ Limit : 16|16@1+ (1,0) [0|1000] "" A
BO_ 64 Event: 2 A
 SG_ Alarm : 0|1@1+ (1,0) [0|1] "" A
 SG_ Reserve : 8|8@1+ (1,0) [0|1] "" A
BO_ 80 Forgotten: 2 A
 SG_ Nothing : 0|1@1+ (1,0) [0|1] "" A
BO_ 96 Wide: 12 A
 SG_ Far : 80|16@1+ (1,0) [0|65535] "" A
BO_ 112 Wish: 4 A
 SG_ Wish : 0|32@1- (1,0) [0|0] "" A
SIG_VALTYPE_ 112 Wish : 1;
BA_DEF_ BO_ "GenMsgCycleTime" INT 0 65535;
BA_DEF_ BO_ "VFrameFormat" ENUM "StandardCAN","ExtendedCAN","StandardCAN_FD";
BA_DEF_ SG_ "GenSigStartValue" INT 0 65535;
BA_DEF_DEF_ "GenMsgCycleTime" 0;
BA_DEF_DEF_ "VFrameFormat" "StandardCAN";
BA_DEF_DEF_ "GenSigStartValue" 0;
BA_ "GenMsgCycleTime" BO_ 16 10;
BA_ "GenMsgCycleTime" BO_ 32 20;
BA_ "GenMsgCycleTime" BO_ 48 10;
BA_ "GenMsgCycleTime" BO_ 96 100;
BA_ "VFrameFormat" BO_ 96 2;
BA_ "GenSigStartValue" SG_ 16 Level 77;
VAL_ 16 Mode 0 "off" 1 "on" ;
"""

POINTS: dict[str, Any] = {
    "speed": {"signal": "Speed"},
    "level": {"signal": "Level"},
    "mode": {"signal": "Mode"},
    "one": {"signal": "One"},
    "setpoint": {"signal": "Setpoint", "access": "rw", "min": -500, "safe": 0},
    "alarm": {"signal": "Alarm"},
    "load": {"bus": "load"},
}


def write_database(folder: Path) -> Path:
    """Puts the database into a folder, and gives the folder."""
    (folder / "rig.dbc").write_text(_DATABASE)
    return folder


def device(folder: Path, name: str = "rig", **changes: Any) -> CanDevice:
    raw = {
        "protocol": "can",
        "connection": {"channel": "can0"},
        "database": "rig.dbc",
        "points": POINTS,
        **changes,
    }
    return CanDevice.model_validate(raw, context={"folder": folder}).named(name, folder)


def message(folder: Path, name: str) -> Message:
    return load([folder / "rig.dbc"]).messages[name]


def decoded(one: Message, payload: bytes) -> dict[str, Any]:
    return dict(compile_decoder(one, {name: name for name in one.signals})(payload))


def frame(can_id: int, data: bytes = b"") -> Frame:
    return Frame(0, can_id, data)
