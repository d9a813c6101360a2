"""The log format of can-utils (`candump -l`), which canplayer and log2asc read. Pure but for the file.

Own code, because python-can's loses the length of remote frames and what error frames say, and reads stamps
as floats.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Final

from protocols.can.frame import (
    BRS,
    ERROR,
    ESI,
    EXTENDED,
    EXTENDED_MASK,
    FD_LENGTHS,
    FDF,
    LOCAL,
    OWN,
    REMOTE,
    STANDARD_MASK,
    Frame,
)
from protocols.can.recordings.stream import StreamWriter

_LINE: Final = re.compile(
    r"\((?P<seconds>\d{1,11})\.(?P<fraction>\d{6}|\d{9})\)\s+(?P<channel>\S{1,64})\s+"
    r"(?P<id>[0-9A-Fa-f]{3}|[0-9A-Fa-f]{8})#"
    r"(?:#(?P<flags>[0-9A-Fa-f])(?P<fd>(?:[0-9A-Fa-f]{2}\.?)*)"
    r"|(?P<remote>[Rr])(?P<length>[0-8]?)|(?P<data>(?:[0-9A-Fa-f]{2}\.?)*))"
    r"(?:_[0-9A-Fa-f])?(?:\s+(?P<direction>[RTrt]))?\s*"
)
_INTERFACE_MOST: Final = 15
"""Characters in the name of a network interface (IFNAMSIZ of linux/if.h, less the end)."""


class CandumpWriter(StreamWriter):
    """Writes frames as lines; lost is what is under a microsecond."""

    def __init__(self, file: BinaryIO, channel: str) -> None:
        """`channel` stands for the interface; canplayer maps it (`canplayer -I FILE can0=CHANNEL`)."""
        super().__init__(file)
        self._channel = channel[:_INTERFACE_MOST]

    def write(self, frames: Sequence[Frame]) -> None:
        """Adds frames.

        Raises:
            OSError: the file does not take them.
        """
        channel = self._channel
        lines = []
        for time_ns, can_id, data, flags in frames:
            seconds, rest = divmod(time_ns // 1000, 1_000_000)
            if can_id & (EXTENDED | ERROR):
                identifier = f"{can_id & (EXTENDED_MASK | ERROR):08X}"
            else:
                identifier = f"{can_id & STANDARD_MASK:03X}"
            if flags & FDF:
                text = f"#{flags & (BRS | ESI):X}{data.hex().upper()}"
            elif can_id & REMOTE:
                text = f"R{len(data) or ''}"
            else:
                text = data.hex().upper()
            direction = "T" if flags & (OWN | LOCAL) else "R"
            lines.append(f"({seconds:010d}.{rest:06d}) {channel} {identifier}#{text} {direction}\n")
        self._file.write("".join(lines).encode())


def read_candump(lines: Iterator[str], wrong: Callable[[str], Exception]) -> Iterator[Frame]:
    """The frames of all interfaces; empty lines are passed over.

    Args:
        lines: The text.
        wrong: Makes the exception that is raised where a line is none.
    """
    for line in lines:
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise wrong("it is no line of candump -l, such as (1790000000.123456) can0 123#1122")
        try:
            yield _frame(match)
        except ValueError as error:
            raise wrong(str(error)) from None


def _frame(match: re.Match[str]) -> Frame:
    time_ns = int(match["seconds"]) * 1_000_000_000 + int(match["fraction"].ljust(9, "0"))
    identifier = int(match["id"], 16)
    direction = OWN if match["direction"] in ("T", "t") else 0
    if len(match["id"]) == 3:
        can_id = identifier & STANDARD_MASK
        if can_id != identifier:
            raise ValueError(f"{match['id']} is no identifier of 11 bits")
    elif identifier & ERROR:
        can_id = identifier & (EXTENDED_MASK | ERROR)
    elif identifier <= EXTENDED_MASK:
        can_id = identifier | EXTENDED
    else:
        raise ValueError(f"{match['id']} is no identifier of 29 bits")
    if match["fd"] is not None:
        data = bytes.fromhex(match["fd"].replace(".", ""))
        if len(data) not in FD_LENGTHS or can_id & ERROR:
            raise ValueError(f"no CAN FD frame has {len(data)} bytes")
        return Frame(time_ns, can_id, data, FDF | (int(match["flags"], 16) & (BRS | ESI)) | direction)
    if match["remote"]:
        return Frame(time_ns, can_id | REMOTE, bytes(int(match["length"] or 0)), direction)
    data = bytes.fromhex(match["data"].replace(".", ""))
    if len(data) > 8:
        raise ValueError(f"a classical CAN frame with {len(data)} bytes")
    return Frame(time_ns, can_id, data, direction)
