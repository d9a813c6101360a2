"""CAN frames in pcapng files, and read from pcap and pcapng. Pure but for the file.

draft-ietf-opsawg-pcapng and draft-ietf-opsawg-pcap; packets have link type 227, LINKTYPE_CAN_SOCKETCAN: the
kernel's `struct can_frame` or `struct canfd_frame` with the identifier in network byte order.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Final, NamedTuple

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

_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER: Final = 0x1A2B3C4D
_LINK_TYPE: Final = 227
_OPTION_END, _OPTION_NAME, _OPTION_FLAGS, _OPTION_RESOLUTION = 0, 2, 2, 9
_INBOUND, _OUTBOUND = 1, 2
_SECTION_ANY_LENGTH: Final = -1
_CAN: Final = struct.Struct(">IBBBB8s")
_CAN_FD: Final = struct.Struct(">IBBBB64s")
_BLOCK_MOST: Final = 1024 * 1024
_ID: Final = EXTENDED | REMOTE | ERROR | EXTENDED_MASK
_PCAP: Final = {0xA1B23C4D: 1, 0xA1B2C3D4: 1000}
"""Magic numbers of pcap files, and what a fraction of a second counts in nanoseconds."""

Wrong = Callable[[str], Exception]


def _block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + length + body + length


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


_END: Final = _option(_OPTION_END, b"")
_FLAGS: Final = {
    direction: _option(_OPTION_FLAGS, struct.pack("<I", direction)) + _END
    for direction in (_INBOUND, _OUTBOUND)
}


class PcapngWriter(StreamWriter):
    """Writes frames with stamps in nanoseconds; nothing is lost but whether OWN or LOCAL."""

    def __init__(self, file: BinaryIO, channel: str) -> None:
        super().__init__(file)
        section = struct.pack("<IHHq", _BYTE_ORDER, 1, 0, _SECTION_ANY_LENGTH)
        options = _option(_OPTION_NAME, channel.encode()) + _option(_OPTION_RESOLUTION, b"\x09") + _END
        interface = struct.pack("<HHI", _LINK_TYPE, 0, 0) + options
        file.write(_block(_SECTION, section) + _block(_INTERFACE, interface))

    def write(self, frames: Sequence[Frame]) -> None:
        """Adds frames.

        Raises:
            OSError: the file does not take them.
        """
        blocks = []
        for time_ns, can_id, data, flags in frames:
            if flags & FDF:
                packet = _CAN_FD.pack(can_id, len(data), flags & (FDF | BRS | ESI), 0, 0, data)
            else:
                packet = _CAN.pack(can_id, len(data), 0, 0, 0, data)
            head = struct.pack("<5I", 0, time_ns >> 32, time_ns & 0xFFFF_FFFF, len(packet), len(packet))
            direction = _OUTBOUND if flags & (OWN | LOCAL) else _INBOUND
            blocks.append(_block(_PACKET, head + packet + _FLAGS[direction]))
        self._file.write(b"".join(blocks))


class _Interface(NamedTuple):
    link_type: int
    ticks: int
    """In a second."""


def read_pcap(file: BinaryIO, wrong: Wrong) -> Iterator[Frame]:
    """The CAN frames of a pcapng or pcap file; packets of other link types are passed over.

    Args:
        file: At its beginning.
        wrong: Makes the exception that is raised where the file is neither, is damaged, or ends too early.
    """
    magic = file.read(4)
    if magic == struct.pack("<I", _SECTION):
        yield from _blocks(file, wrong)
        return
    for order in "<>":
        if len(magic) == 4 and (scale := _PCAP.get(struct.unpack(f"{order}I", magic)[0])):
            yield from _records(file, order, scale, wrong)
            return
    raise wrong("it does not begin as a pcapng or pcap file")


def _records(file: BinaryIO, order: str, scale: int, wrong: Wrong) -> Iterator[Frame]:
    head = _exactly(file, 20, wrong)
    if struct.unpack(f"{order}HHiIII", head)[-1] & 0xFFFF != _LINK_TYPE:
        raise wrong("its packets are no CAN frames (link type 227)")
    while first := file.read(1):
        seconds, fraction, size, _ = struct.unpack(f"{order}4I", first + _exactly(file, 15, wrong))
        if size > _BLOCK_MOST:
            raise wrong(f"a packet says that it has {size} bytes")
        yield _frame(seconds * 1_000_000_000 + fraction * scale, _exactly(file, size, wrong), 0, wrong)


def _blocks(file: BinaryIO, wrong: Wrong) -> Iterator[Frame]:
    order, kind_bytes = "<", struct.pack("<I", _SECTION)
    interfaces: list[_Interface] = []
    while kind_bytes:
        if len(kind_bytes) < 4:
            raise wrong("it ends in the middle of a block")
        length_bytes = _exactly(file, 4, wrong)
        begun = b""
        if kind_bytes == struct.pack("<I", _SECTION):  # a palindrome: the same in both byte orders
            begun = _exactly(file, 4, wrong)
            order = "<" if begun == struct.pack("<I", _BYTE_ORDER) else ">"
            if begun != struct.pack(f"{order}I", _BYTE_ORDER):
                raise wrong("a section has no byte order")
            interfaces.clear()
        (kind,), (length,) = struct.unpack(f"{order}I", kind_bytes), struct.unpack(f"{order}I", length_bytes)
        if not 12 + len(begun) <= length <= _BLOCK_MOST or length % 4:
            raise wrong(f"a block says that it has {length} bytes")
        body = begun + _exactly(file, length - 12 - len(begun), wrong)
        if _exactly(file, 4, wrong) != length_bytes:
            raise wrong("the two lengths of a block differ")
        if kind == _INTERFACE:
            interfaces.append(_interface(body, order, wrong))
        elif kind == _PACKET and (frame := _packet(body, order, interfaces, wrong)):
            yield frame
        kind_bytes = file.read(4)


def _exactly(file: BinaryIO, count: int, wrong: Wrong) -> bytes:
    found = file.read(count)
    if len(found) < count:
        raise wrong("it ends in the middle of a block")
    return found


def _options(body: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    at = 0
    while len(body) - at >= 4:
        code, length = struct.unpack_from(f"{order}HH", body, at)
        if code == _OPTION_END:
            return
        yield code, body[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4


def _interface(body: bytes, order: str, wrong: Wrong) -> _Interface:
    if len(body) < 8:
        raise wrong("the description of an interface is too short")
    (link_type,) = struct.unpack_from(f"{order}H", body)
    ticks = 1_000_000
    for code, value in _options(body[8:], order):
        if code == _OPTION_RESOLUTION and value:
            exponent = value[0] & 0x7F
            if exponent > (63 if value[0] & 0x80 else 18):
                raise wrong("the resolution of an interface's stamps is impossible")
            ticks = 2**exponent if value[0] & 0x80 else 10**exponent
    return _Interface(link_type, ticks)


def _packet(body: bytes, order: str, interfaces: Sequence[_Interface], wrong: Wrong) -> Frame | None:
    if len(body) < 20:
        raise wrong("a packet is too short")
    number, high, low, size, _ = struct.unpack_from(f"{order}5I", body)
    if number >= len(interfaces) or size > len(body) - 20:
        raise wrong("a packet has no interface, or is shorter than it says")
    interface = interfaces[number]
    if interface.link_type != _LINK_TYPE:
        return None
    direction = 0
    for code, value in _options(body[20 + size + -size % 4 :], order):
        if (
            code == _OPTION_FLAGS
            and len(value) == 4
            and struct.unpack(f"{order}I", value)[0] & 3 == _OUTBOUND
        ):
            direction = OWN
    time_ns = (high << 32 | low) * 1_000_000_000 // interface.ticks
    return _frame(time_ns, body[20 : 20 + size], direction, wrong)


def _frame(time_ns: int, packet: bytes, direction: int, wrong: Wrong) -> Frame:
    if len(packet) < 8:
        raise wrong(f"a packet of {len(packet)} bytes is no CAN frame")
    can_id, length, fd = struct.unpack_from(">IBB", packet)
    if can_id & EXTENDED == 0 and can_id & ERROR == 0 and can_id & EXTENDED_MASK > STANDARD_MASK:
        raise wrong(f"0x{can_id & EXTENDED_MASK:X} is no identifier of 11 bits")
    # Captures of before FDF was known tell frames by their size alone (MTU of linux/can.h).
    if fd & FDF or len(packet) == _CAN_FD.size:
        if length not in FD_LENGTHS or len(packet) - 8 < length:
            raise wrong(f"no CAN FD frame has {length} bytes")
        return Frame(time_ns, can_id & _ID, packet[8 : 8 + length], FDF | (fd & (BRS | ESI)) | direction)
    if length > 8 or (len(packet) - 8 < length and not can_id & REMOTE):
        raise wrong(f"no classical CAN frame has {length} bytes in {len(packet)}")
    data = bytes(length) if can_id & REMOTE else packet[8 : 8 + length]
    return Frame(time_ns, can_id & _ID, data, direction)
