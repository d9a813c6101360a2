"""CAN under a storm: frames for decoders and ISO-TP, packets of a multicast group, lines of an adapter."""

import asyncio
import random
import socket
from pathlib import Path

import msgpack  # type: ignore[import-untyped]  # it has no types
from can_listener import Kept
from can_rig import device, write_database
from lawicel import Lawicel, line_of
from storm import Storm, damaged, storming
from waiting import until

from protocols.base import DriverError, Sample
from protocols.can.bus import make_bus
from protocols.can.config import Connection
from protocols.can.diagnostics.isotp import Conversation, Link
from protocols.can.frame import EXTENDED, FD_LENGTHS, FDF, REMOTE, Frame
from protocols.can.router import Router

IDS = (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x10 | EXTENDED, 0x7FF, 0x10 | REMOTE)
GOOD = Frame(0, 0x55, b"good")


def some_frame(chance: random.Random, ids: tuple[int, ...] = IDS) -> Frame:
    """Mostly of an id that somebody listens to; of any length and content."""
    fd = chance.random() < 0.2
    length = chance.choice(FD_LENGTHS) if fd else chance.randrange(9)
    return Frame(0, chance.choice(ids), chance.randbytes(length), FDF if fd else 0)


async def test_hostile_frames(tmp_path: Path) -> None:
    router, samples = Router(device(write_database(tmp_path))), list[Sample]()
    async with storming("CAN decoder", 50_000) as storm:
        router.restart(0.0)
        while not storm.over:
            batch = [some_frame(storm.chance) for _ in range(100)]
            storm.sent += len(batch)
            router.take(batch, storm.sent / 1000, samples.append)
            storm.refused += sum(len(sample.bad) for sample in samples)
            samples.clear()
        assert storm.refused


class Wire:
    """The bus of one ISO-TP conversation: what is sent is lost."""

    def subscribe(self, can_id: int, take: object) -> object:
        self.take = take
        return lambda: None

    async def send(self, frame: Frame) -> None:
        return


async def test_hostile_isotp() -> None:
    kinds = (
        b"\x02\x50\x03",
        b"\x10\x14\x49\x02\x01",
        b"\x21abcdefg",
        b"\x30\x00\x00",
        b"\x31\xff\xff",
        b"\x00",
    )
    async with storming("ISO-TP", 1000) as storm:
        while not storm.over:  # a conversation lasts no longer than a call
            wire = Wire()
            async with Conversation(Link(tx=0x7E0, rx=0x7E8), wire) as conversation:  # type: ignore[arg-type]  # all that is used
                for _ in range(10):
                    await exchanged(storm, wire, conversation, kinds)
        assert storm.refused


async def exchanged(storm: Storm, wire: Wire, conversation: Conversation, kinds: tuple[bytes, ...]) -> None:
    """Frames of a node that never stops, and one look for a message."""
    for _ in range(20):
        data = damaged(storm.chance, storm.chance.choice(kinds), kinds)[:8]
        wire.take(Frame(0, 0x7E8, data))  # type: ignore[operator]  # set by subscribe
        storm.sent += 1
    try:
        async with asyncio.timeout(0.01):
            await conversation.receive()
    except DriverError as error:
        assert str(error)
        storm.refused += 1
    except TimeoutError:
        pass
    await asyncio.sleep(0)  # a loop that never turns keeps the handles of ended timeouts


async def test_hostile_multicast_packets() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    group, kept = "239.74.163.78", Kept()
    options = {"port": port, "hop_limit": 0}
    bus = make_bus(
        Connection.model_validate(
            {"interface": "udp_multicast", "channel": group, "options": options, "fd": True}
        )
    )

    def packet(frame: Frame) -> bytes:
        told = {
            "timestamp": 1.5,
            "arbitration_id": frame.identifier,
            "is_extended_id": bool(frame.can_id & EXTENDED),
            "is_remote_frame": False,
            "is_error_frame": False,
            "dlc": len(frame.data),
            "data": frame.data,
            "is_fd": bool(frame.flags & FDF),
            "bitrate_switch": False,
            "error_state_indicator": False,
        }
        packed: bytes = msgpack.packb(told)
        return packed

    async with storming("UDP multicast", 3000) as storm:
        await bus.open(kept, None)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
            while not storm.over:
                packets = [packet(some_frame(storm.chance)) for _ in range(20)]
                kept.all.clear()
                kept.calls.clear()
                for one in packets:
                    sender.sendto(damaged(storm.chance, one, packets)[:1400], (group, port))
                storm.sent += len(packets)
                sender.sendto(packet(GOOD), (group, port))
                await until(lambda: any(frame.data == GOOD.data for frame in kept.all))
        storm.refused = kept.lost
        assert storm.refused
    bus.close()


async def test_hostile_adapter() -> None:
    adapter, kept = Lawicel(), Kept()
    told = {"interface": "slcan", "channel": adapter.path, "options": {"sleep_after_open": 0.0}}
    rates = {"fd": True, "bitrate": 500_000, "data_bitrate": 2_000_000}
    bus = make_bus(Connection.model_validate(told | rates))

    def heard() -> bool:
        if gone.done() or any(frame.data == GOOD.data for frame in kept.all):
            return True
        # Again and again: what waits behind a line that is no text goes with it.
        adapter.write(b"\r" + line_of(GOOD))
        return False

    async with storming("slcan", 2000) as storm:
        while not storm.over:
            await bus.open(kept, None)
            gone = asyncio.create_task(bus.lost())
            while not storm.over and not gone.done():
                lines = [line_of(some_frame(storm.chance)) for _ in range(20)]
                kept.all.clear()
                kept.calls.clear()
                adapter.write(b"".join(damaged(storm.chance, line, lines)[:200] for line in lines))
                storm.sent += len(lines)
                await until(heard)
            bus.close()
            await gone
        storm.refused = kept.lost
        assert storm.refused
    adapter.unplug()
