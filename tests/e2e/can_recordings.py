"""A recording of every kind of frame, and a database that knows some of them."""

import gzip
import io
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

from protocols.can.frame import BRS, ERROR, EXTENDED, FDF, OWN, REMOTE, Frame
from protocols.can.recordings.writers import WRITERS

START_NS = 1_790_000_000_000_000_000
DATABASE = """VERSION ""
NS_ :
BS_:
BU_: ECU
BO_ 256 Drive: 4 ECU
 SG_ Speed : 0|16@1- (0.5,0) [-5000|5000] "rpm" Vector__XXX
 SG_ State : 16|3@1+ (1,0) [0|7] "" Vector__XXX
BO_ 2566834709 Multi: 2 ECU
 SG_ Selector M : 0|8@1+ (1,0) [0|255] "" Vector__XXX
 SG_ Alpha m0 : 8|8@1+ (1,0) [0|255] "V" Vector__XXX
 SG_ Beta m1 : 8|8@1- (1,0) [-128|127] "A" Vector__XXX
BO_ 257 Other: 1 ECU
 SG_ Speed : 0|8@1+ (1,0) [0|0] "" Vector__XXX
BA_DEF_ BO_ "GenMsgCycleTime" INT 0 10000;
BA_DEF_DEF_ "GenMsgCycleTime" 0;
BA_ "GenMsgCycleTime" BO_ 256 10;
VAL_ 256 State 0 "off" 1 "ready" 2 "running, hot" ;
"""
MULTI = 2566834709 - 2**31
FRAMES = [
    Frame(START_NS + 123, 0x100, (3001).to_bytes(2, "little", signed=True) + b"\x02\x00"),
    Frame(START_NS + 1_000_000, 0x100, (-2).to_bytes(2, "little", signed=True) + b"\x07\x00", OWN),
    Frame(START_NS + 2_000_000, MULTI | EXTENDED, b"\x00\x11"),
    Frame(START_NS + 3_000_000, MULTI | EXTENDED, b"\x01\xfd"),
    Frame(START_NS + 4_000_000, 0x7FF, bytes(range(64)), FDF | BRS),
    Frame(START_NS + 5_000_000, 0x100 | REMOTE, bytes(4)),
    Frame(START_NS + 6_000_000, 0x40 | ERROR, bytes(8)),
    Frame(START_NS + 7_000_000, 0x222, b""),
]


def recording(folder: Path, name: str, frames: Sequence[Frame] = FRAMES) -> Path:
    """Writes a recording in the format of its name."""
    file = io.BytesIO()
    writer = WRITERS[name.split(".")[1]](cast(BinaryIO, file), "can0")
    writer.write(frames)
    writer.finish()
    path, content = folder / name, file.getvalue()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def database(folder: Path) -> Path:
    """Writes the database."""
    path = folder / "drive.dbc"
    path.write_text(DATABASE)
    return path
