"""What tshark sees in the body of a frames event."""

import shutil
import subprocess
from typing import NamedTuple

from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, FDF, REMOTE, Frame

_ID_BITS = {"can.flags.xtd": EXTENDED, "can.flags.rtr": REMOTE, "can.flags.err": ERROR}
_FD_BITS = {"canfd.flags.brs": BRS, "canfd.flags.esi": ESI}
# Error classes of linux/can/error.h, lowest bit first: what the identifier of an error frame is made of.
_CLASSES = ("tx_timeout", "lostarb", "ctrl", "prot", "trx", "ack", "busoff", "buserror", "restarted")
_ERROR_BITS = {f"can.err.{name}": 1 << bit for bit, name in enumerate(_CLASSES)}
_FIELDS = ("frame.time_epoch", "can.id", "can.len", "data.data", *_ID_BITS, *_FD_BITS, *_ERROR_BITS)


class Seen(NamedTuple):
    """A frame as tshark takes it apart, and the further fields that were asked for."""

    frame: Frame
    more: dict[str, str]


def why_missing() -> str | None:
    return None if shutil.which("tshark") else "no command tshark"


def opened(body: bytes, *more: str) -> list[Seen]:
    """The frames in a pcap file; `more` names further fields. Error frames have no data as such."""
    fields = (*_FIELDS, *more)
    # AUTOSAR's network management takes id 0 for its own, and then there is no field with the data.
    command = ["tshark", "-n", "--disable-protocol", "autosar-nm", "-r", "-", "-T", "fields"]
    done = subprocess.run(
        [*command, *(part for field in fields for part in ("-e", field))],
        input=body,
        capture_output=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.decode().splitlines()
    return [_seen(dict(zip(fields, line.split("\t"), strict=True)), more) for line in lines]


def _seen(values: dict[str, str], more: tuple[str, ...]) -> Seen:
    def chosen(bits: dict[str, int]) -> int:
        return sum(bit for field, bit in bits.items() if values[field] == "1")

    seconds, _, nanoseconds = values["frame.time_epoch"].partition(".")
    assert len(nanoseconds) == 9
    can_id = int(values["can.id"] or "0") | chosen(_ID_BITS)
    data = bytes.fromhex(values["data.data"])
    if can_id & ERROR:
        can_id |= chosen(_ERROR_BITS)
    else:
        assert len(data) == int(values["can.len"])
    flags = FDF | chosen(_FD_BITS) if values["canfd.flags.brs"] else 0
    time_ns = int(seconds) * 1_000_000_000 + int(nanoseconds)
    return Seen(Frame(time_ns, can_id, data, flags), {field: values[field] for field in more})
