"""The database and the profiles that the CAN benchmarks share."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

DATABASE = """VERSION ""
NS_ :
BS_:
BU_: ECU
BO_ 256 Wheels: 8 ECU
 SG_ FrontLeft : 0|13@1+ (0.03125,0) [0|255] "km/h" Vector__XXX
 SG_ FrontRight : 13|13@1+ (0.03125,0) [0|255] "km/h" Vector__XXX
 SG_ RearLeft : 26|13@1+ (0.03125,0) [0|255] "km/h" Vector__XXX
 SG_ RearRight : 39|12@1- (0.0625,0) [-128|127] "km/h" Vector__XXX
 SG_ Torque : 63|8@0- (1,-10) [-138|117] "Nm" Vector__XXX
 SG_ Gear : 51|2@1+ (1,0) [0|3] "" Vector__XXX
 SG_ Counter : 53|3@1+ (1,0) [0|7] "" Vector__XXX
VAL_ 256 Gear 0 "park" 1 "reverse" 2 "neutral" 3 "drive" ;
"""

SIGNALS = ("FrontLeft", "FrontRight", "RearLeft", "RearRight", "Torque", "Gear", "Counter")


@contextlib.contextmanager
def database_file() -> Iterator[Path]:
    """The database in a file."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "wheels.dbc"
        path.write_text(DATABASE)
        yield path
