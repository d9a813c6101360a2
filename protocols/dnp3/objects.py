"""The object library (IEEE 1815-2012, annex A): kinds of points, their groups, layouts of objects. Pure."""

import enum
from typing import Final, Literal, NamedTuple

PointType = Literal[
    "binary_input",
    "double_bit_input",
    "binary_output",
    "counter",
    "frozen_counter",
    "analog_input",
    "analog_output",
    "octet_string",
]
"""Kinds of points. The values of outputs are their status; commands have groups of their own."""

INDICES: Final = 65536
"""Points of each kind in an outstation: indices are 16 bits at most here."""

STATIC_GROUP: Final[dict[PointType, int]] = {
    "binary_input": 1,
    "double_bit_input": 3,
    "binary_output": 10,
    "counter": 20,
    "frozen_counter": 21,
    "analog_input": 30,
    "analog_output": 40,
    "octet_string": 110,
}
"""The group of a kind's present values."""

EVENT_GROUP: Final[dict[PointType, int]] = {
    "binary_input": 2,
    "double_bit_input": 4,
    "binary_output": 11,
    "counter": 22,
    "frozen_counter": 23,
    "analog_input": 32,
    "analog_output": 42,
    "octet_string": 111,
}
"""The group of a kind's events."""

CROB: Final = (12, 1)
"""Control relay output block: group and variation."""

AnalogOutput = Literal["int32", "int16", "float32", "float64"]

ANALOG_COMMAND: Final[dict[AnalogOutput, int]] = {"int32": 1, "int16": 2, "float32": 3, "float64": 4}
"""Variation of group 41 by what it carries."""

DOUBLE_BIT: Final = ("intermediate", "off", "on", "indeterminate")
"""States of a double-bit input by value (IEEE 1815-2012, 11.9.4.3)."""


ONLINE: Final = 0x01
"""The bit of a flag octet that every kind has in a good value (IEEE 1815-2012, 11.6)."""

OVER_RANGE: Final = 0x20
"""The bit of an analog's flag octet that says that its number is not the value."""

FlagName = Literal[
    "online",
    "restart",
    "comm-lost",
    "remote-forced",
    "local-forced",
    "chatter",
    "rollover",
    "over-range",
    "discontinuity",
    "reference-error",
]

_COMMON: Final[dict[int, FlagName]] = {
    0x01: "online",
    0x02: "restart",
    0x04: "comm-lost",
    0x08: "remote-forced",
    0x10: "local-forced",
}

FLAG_NAMES: Final[dict[PointType, dict[int, FlagName]]] = {
    "binary_input": {**_COMMON, 0x20: "chatter"},
    "double_bit_input": {**_COMMON, 0x20: "chatter"},
    "binary_output": _COMMON,
    "counter": {**_COMMON, 0x20: "rollover", 0x40: "discontinuity"},
    "frozen_counter": {**_COMMON, 0x20: "rollover", 0x40: "discontinuity"},
    "analog_input": {**_COMMON, 0x20: "over-range", 0x40: "reference-error"},
    "analog_output": {**_COMMON, 0x20: "over-range", 0x40: "reference-error"},
    "octet_string": {},
}
"""What each bit of a kind's flag octet is called; the rest is state or reserved."""


class Layout(NamedTuple):
    """How one object of a group and variation is laid out: flags, value, time, in this order.

    Octet strings (groups 110 and 111) are as many octets as their variation says and stand in no table.
    """

    kind: PointType | None
    """The kind of point the value belongs to; None for times and for commands."""
    event: bool
    number: str
    """`struct` code of the number; empty where the value lies in the flag octet (or is `bits`)."""
    flags: bool = True
    time: Literal["", "absolute", "relative"] = ""
    bits: int = 0
    """Bits of one object where several share an octet, the lowest index in the lowest bits; else 0."""
    opaque: int = 0
    """Octets of an object that is no point's value: a command and its status, or one that is walked past."""


LAYOUTS: Final[dict[tuple[int, int], Layout]] = {
    (1, 1): Layout("binary_input", False, "", flags=False, bits=1),
    (1, 2): Layout("binary_input", False, ""),
    (2, 1): Layout("binary_input", True, ""),
    (2, 2): Layout("binary_input", True, "", time="absolute"),
    (2, 3): Layout("binary_input", True, "", time="relative"),
    (3, 1): Layout("double_bit_input", False, "", flags=False, bits=2),
    (3, 2): Layout("double_bit_input", False, ""),
    (4, 1): Layout("double_bit_input", True, ""),
    (4, 2): Layout("double_bit_input", True, "", time="absolute"),
    (4, 3): Layout("double_bit_input", True, "", time="relative"),
    (10, 1): Layout("binary_output", False, "", flags=False, bits=1),
    (10, 2): Layout("binary_output", False, ""),
    (11, 1): Layout("binary_output", True, ""),
    (11, 2): Layout("binary_output", True, "", time="absolute"),
    (12, 1): Layout(None, False, "", flags=False, opaque=11),
    (13, 1): Layout(None, True, "", flags=False, opaque=1),
    (13, 2): Layout(None, True, "", flags=False, opaque=7),
    (20, 1): Layout("counter", False, "I"),
    (20, 2): Layout("counter", False, "H"),
    (20, 5): Layout("counter", False, "I", flags=False),
    (20, 6): Layout("counter", False, "H", flags=False),
    (21, 1): Layout("frozen_counter", False, "I"),
    (21, 2): Layout("frozen_counter", False, "H"),
    (21, 5): Layout("frozen_counter", False, "I", time="absolute"),
    (21, 6): Layout("frozen_counter", False, "H", time="absolute"),
    (21, 9): Layout("frozen_counter", False, "I", flags=False),
    (21, 10): Layout("frozen_counter", False, "H", flags=False),
    (22, 1): Layout("counter", True, "I"),
    (22, 2): Layout("counter", True, "H"),
    (22, 5): Layout("counter", True, "I", time="absolute"),
    (22, 6): Layout("counter", True, "H", time="absolute"),
    (23, 1): Layout("frozen_counter", True, "I"),
    (23, 2): Layout("frozen_counter", True, "H"),
    (23, 5): Layout("frozen_counter", True, "I", time="absolute"),
    (23, 6): Layout("frozen_counter", True, "H", time="absolute"),
    (30, 1): Layout("analog_input", False, "i"),
    (30, 2): Layout("analog_input", False, "h"),
    (30, 3): Layout("analog_input", False, "i", flags=False),
    (30, 4): Layout("analog_input", False, "h", flags=False),
    (30, 5): Layout("analog_input", False, "f"),
    (30, 6): Layout("analog_input", False, "d"),
    (32, 1): Layout("analog_input", True, "i"),
    (32, 2): Layout("analog_input", True, "h"),
    (32, 3): Layout("analog_input", True, "i", time="absolute"),
    (32, 4): Layout("analog_input", True, "h", time="absolute"),
    (32, 5): Layout("analog_input", True, "f"),
    (32, 6): Layout("analog_input", True, "d"),
    (32, 7): Layout("analog_input", True, "f", time="absolute"),
    (32, 8): Layout("analog_input", True, "d", time="absolute"),
    (31, 1): Layout(None, False, "", flags=False, opaque=5),  # frozen analog inputs, and their events
    (31, 2): Layout(None, False, "", flags=False, opaque=3),
    (31, 3): Layout(None, False, "", flags=False, opaque=11),
    (31, 4): Layout(None, False, "", flags=False, opaque=9),
    (31, 5): Layout(None, False, "", flags=False, opaque=4),
    (31, 6): Layout(None, False, "", flags=False, opaque=2),
    (31, 7): Layout(None, False, "", flags=False, opaque=5),
    (31, 8): Layout(None, False, "", flags=False, opaque=9),
    (33, 1): Layout(None, True, "", flags=False, opaque=5),
    (33, 2): Layout(None, True, "", flags=False, opaque=3),
    (33, 3): Layout(None, True, "", flags=False, opaque=11),
    (33, 4): Layout(None, True, "", flags=False, opaque=9),
    (33, 5): Layout(None, True, "", flags=False, opaque=5),
    (33, 6): Layout(None, True, "", flags=False, opaque=9),
    (33, 7): Layout(None, True, "", flags=False, opaque=11),
    (33, 8): Layout(None, True, "", flags=False, opaque=15),
    (34, 1): Layout(None, False, "", flags=False, opaque=2),  # deadbands of analog inputs
    (34, 2): Layout(None, False, "", flags=False, opaque=4),
    (34, 3): Layout(None, False, "", flags=False, opaque=4),
    (40, 1): Layout("analog_output", False, "i"),
    (40, 2): Layout("analog_output", False, "h"),
    (40, 3): Layout("analog_output", False, "f"),
    (40, 4): Layout("analog_output", False, "d"),
    (41, 1): Layout(None, False, "", flags=False, opaque=5),
    (41, 2): Layout(None, False, "", flags=False, opaque=3),
    (41, 3): Layout(None, False, "", flags=False, opaque=5),
    (41, 4): Layout(None, False, "", flags=False, opaque=9),
    (42, 1): Layout("analog_output", True, "i"),
    (42, 2): Layout("analog_output", True, "h"),
    (42, 3): Layout("analog_output", True, "i", time="absolute"),
    (42, 4): Layout("analog_output", True, "h", time="absolute"),
    (42, 5): Layout("analog_output", True, "f"),
    (42, 6): Layout("analog_output", True, "d"),
    (42, 7): Layout("analog_output", True, "f", time="absolute"),
    (42, 8): Layout("analog_output", True, "d", time="absolute"),
    (43, 1): Layout(None, True, "", flags=False, opaque=5),
    (43, 2): Layout(None, True, "", flags=False, opaque=3),
    (43, 3): Layout(None, True, "", flags=False, opaque=11),
    (43, 4): Layout(None, True, "", flags=False, opaque=9),
    (43, 5): Layout(None, True, "", flags=False, opaque=5),
    (43, 6): Layout(None, True, "", flags=False, opaque=9),
    (43, 7): Layout(None, True, "", flags=False, opaque=11),
    (43, 8): Layout(None, True, "", flags=False, opaque=15),
    (50, 1): Layout(None, False, "", flags=False, time="absolute"),
    (51, 1): Layout(None, False, "", flags=False, time="absolute"),
    (51, 2): Layout(None, False, "", flags=False, time="absolute"),
    (52, 1): Layout(None, False, "H", flags=False),
    (52, 2): Layout(None, False, "H", flags=False),
}
"""Every object that is read, written or walked past here: the octets after one that is not known are lost.

51 variation 1 and 2: the common time, synchronised or not.
"""

VARIATIONS: Final[dict[PointType, tuple[int, ...]]] = {
    kind: tuple(v for (g, v), layout in LAYOUTS.items() if g == group and not layout.event)
    for kind, group in STATIC_GROUP.items()
}
"""Static variations that a kind can be read in; none for octet strings, whose variation is their length."""


class Iin(enum.IntFlag):
    """Internal indications of a response; the first octet is the low one (IEEE 1815-2012, 4.2.2.6)."""

    BROADCAST = 0x0001
    CLASS_1_EVENTS = 0x0002
    CLASS_2_EVENTS = 0x0004
    CLASS_3_EVENTS = 0x0008
    NEED_TIME = 0x0010
    LOCAL_CONTROL = 0x0020
    DEVICE_TROUBLE = 0x0040
    DEVICE_RESTART = 0x0080
    FUNCTION_NOT_SUPPORTED = 0x0100
    OBJECT_UNKNOWN = 0x0200
    PARAMETER_ERROR = 0x0400
    EVENT_BUFFER_OVERFLOW = 0x0800
    ALREADY_EXECUTING = 0x1000
    CONFIGURATION_CORRUPT = 0x2000


REFUSALS: Final = (
    Iin.FUNCTION_NOT_SUPPORTED | Iin.OBJECT_UNKNOWN | Iin.PARAMETER_ERROR | Iin.ALREADY_EXECUTING
)
"""Indications that say that the request was not carried out, or not wholly."""
