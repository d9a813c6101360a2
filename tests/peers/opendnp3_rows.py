"""The interop table: what is tried with opendnp3 at either end, by what people call it."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import opendnp3_our_controls as controls
import opendnp3_our_master as master
import opendnp3_our_outstation as outstation
from opendnp3_rig import Rig, SimulatedRig

OurMaster = Callable[[Rig], Awaitable[None]]
OurOutstation = Callable[[SimulatedRig], Awaitable[None]]


class Row(NamedTuple):
    """One row: a case for each side."""

    master: OurMaster
    """Our master, opendnp3's outstation."""
    outstation: OurOutstation
    """opendnp3's master, our simulated outstation."""


ROWS = {
    "integrity poll, all kinds of points": Row(master.integrity, outstation.integrity),
    "double-bit inputs": Row(master.double_bits, outstation.double_bits),
    "octet strings": Row(master.octet_strings, outstation.octet_strings),
    "counters, freeze, freeze and clear": Row(master.counters, outstation.counters),
    "quality flags": Row(master.flags, outstation.flags),
    "event classes, assign class": Row(master.classes, outstation.classes),
    "class polls at a rate": Row(master.polled, outstation.polled),
    "unsolicited responses": Row(master.unsolicited, outstation.unsolicited),
    "event order and times": Row(master.ordered, outstation.ordered),
    "event buffer overflow": Row(master.overflow, outstation.overflow),
    "select before operate": Row(controls.select_before_operate, outstation.select_before_operate),
    "select that expires": Row(controls.select_expires, outstation.select_expires),
    "direct operate": Row(controls.direct, outstation.direct),
    "direct operate, no acknowledgement": Row(controls.direct_no_ack, outstation.direct_no_ack),
    "analog outputs: int16, int32, float, double": Row(controls.analog_outputs, outstation.analog_outputs),
    "controls refused": Row(controls.refused, outstation.refused),
    "feedback by another point": Row(controls.feedback, outstation.feedback),
    "time synchronisation, LAN": Row(master.time_lan, outstation.time_lan),
    "time synchronisation, non-LAN": Row(master.time_non_lan, outstation.time_non_lan),
    "cold and warm restart": Row(master.restarts, outstation.restarts),
    "device restart indication": Row(master.restarted, outstation.restarted),
    "loss of the line, reconnect": Row(master.lost_and_back, outstation.lost_and_back),
    "link status": Row(master.keep_alive, outstation.keep_alive),
    "wrong address": Row(master.wrong_address, outstation.wrong_address),
}

ON_EVERY_LINE = (
    "integrity poll, all kinds of points",
    "unsolicited responses",
    "event order and times",
    "select before operate",
)
"""Rows that are tried on every kind of line; the rest on TCP."""

NOTES = {
    "octet strings": "opendnp3's bindings for Python set none: our master reads only what they begin with.",
    "event order and times": "opendnp3's bindings leave the default event variations, which have no time: "
    "our master asks for group 2 variation 2.",
    "event classes, assign class": "opendnp3's bindings leave all points in class 1; ours assigns another.",
    "feedback by another point": "of our master: a point verifies a control; of our outstation: a double-bit "
    "position follows a trip or close.",
}
"""What is to be known of a row, on top of yes and no."""
