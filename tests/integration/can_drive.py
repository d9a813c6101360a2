"""The simulated drive of the shipped profile can-drive, and python-can at the other end of its bus."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import can
import cantools
import yaml

import bench_profiles
from protocols.can.config import CanDevice, Connection
from sim.can import SIMULATOR

FOLDER = Path(bench_profiles.__file__).parent
DATABASE: Any = cantools.database.load_file(FOLDER / "can-drive.dbc")
RAW = yaml.safe_load((FOLDER / "can-drive.yaml").read_text())["devices"]["drive"]
MOTION, STATE, TEMPERATURES, DIAGNOSIS, IDENTITY = 0x100, 0x110, 0x120, 0x130, 0x140
COMMAND = 0x080


def drive(name: str = "drive", folder: Path = FOLDER, **changes: Any) -> CanDevice:
    raw = {**RAW, "connection": {"channel": "can0"}, **changes}
    raw["simulation"] = {**RAW["simulation"], "bus": "virtual", **changes.get("simulation", {})}
    return CanDevice.model_validate(raw, context={"folder": folder}).named(name, folder)


class Peer:
    """What a bus of python-can hears: a node that we did not write."""

    def __init__(self, bus: can.BusABC) -> None:
        self.bus = bus
        self.heard: list[can.Message] = []

    def of(self, can_id: int) -> list[can.Message]:
        """The data frames of an identifier."""
        return [one for one in self.heard if one.arbitration_id == can_id and not one.is_remote_frame]

    def decoded(self, can_id: int) -> list[dict[str, Any]]:
        """The same, decoded by cantools."""
        return [dict(DATABASE.decode_message(can_id, one.data)) for one in self.of(can_id)]

    def newest(self, can_id: int) -> dict[str, Any]:
        """The last of them."""
        return dict(DATABASE.decode_message(can_id, self.of(can_id)[-1].data))

    def say(self, can_id: int, data: bytes = b"", **more: Any) -> None:
        self.bus.send(can.Message(arbitration_id=can_id, data=data, is_extended_id=False, **more))


@asynccontextmanager
async def peer_at(connection: Connection) -> AsyncIterator[Peer]:
    options = dict(connection.options)
    with can.Bus(connection.channel, connection.interface, ignore_config=True, **options) as bus:
        peer = Peer(bus)
        ended = threading.Event()

        def listen() -> None:
            while not ended.is_set():
                if (message := bus.recv(0.02)) is not None:
                    peer.heard.append(message)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield peer
        finally:
            ended.set()
            await asyncio.to_thread(thread.join)


@asynccontextmanager
async def simulated(device: CanDevice) -> AsyncIterator[tuple[CanDevice, Peer]]:
    async with SIMULATOR.start({device.name: device}) as moved:
        async with peer_at(moved[device.name].connection) as peer:
            yield moved[device.name], peer
