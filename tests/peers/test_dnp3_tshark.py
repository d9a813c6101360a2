"""tshark takes apart what our DNP3 master and our simulated outstation say, and finds no fault in it."""

import asyncio
import struct
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from opendnp3_proxy import between
from opendnp3_rig import connect, device
from scripted import Heard, running
from tshark import why_missing
from waiting import until

from protocols.base import Value
from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.driver import Dnp3Driver
from sim.dnp3.lines import Served, serving

pytestmark = pytest.mark.peer("tshark")

PORT = 20000
"""By which tshark knows that it is DNP3."""
LINK_STATUS = b"\x05\x64\x05\xc9"
"""The beginning of a master's request for the link's status."""
FAULTS = (
    "_ws.expert.message",
    "dnp3.unknown_object",
    "dnp3.al.unknown_data_chunk",
    "dnp3.hdr.CRC.incorrect",
    "dnp3.data_chunk.CRC.incorrect",
)
FUNCTIONS = {0, 1, 2, 3, 4, 5, 6, 7, 9, 14, 20, 21, 22, 23, 24, 129, 130}
GROUPS = {
    *(1, 2, 3, 4, 10, 11, 12, 20, 21, 22, 23, 30, 32, 40, 41, 42, 110, 111),
    *(50, 52, 60, 80),
}
STAMP_MS = 1_700_000_000_123
POINTS: dict[str, Any] = {
    **{f"b{n}": {"type": "binary_input", "index": n} for n in range(3)},
    "packed": {"type": "binary_input", "index": 300, "variation": 1},
    "breaker": {"type": "double_bit_input", "index": 0},
    **{f"a{n}": {"type": "analog_input", "index": n} for n in range(300)},
    "short": {"type": "analog_input", "index": 400, "variation": 2},
    "energy": {"type": "counter", "index": 0},
    "frozen": {"type": "frozen_counter", "index": 0},
    "label": {"type": "octet_string", "index": 0},
    "lamp": {"type": "binary_output", "index": 0, "access": "rw"},
    "fan": {"type": "binary_output", "index": 1, "access": "rw", "mode": "direct"},
    "horn": {"type": "binary_output", "index": 2, "access": "rw", "mode": "direct-no-ack"},
    **{
        output: {"type": "analog_output", "index": n, "access": "rw", "output": output}
        for n, output in enumerate(("int16", "int32", "float32", "float64"))
    },
}


@pytest.fixture(autouse=True)
def _tshark(need: Callable[[str, str | None, str], None]) -> None:
    need("tshark", why_missing(), "make peers")


class Capture:
    """What went over a connection, as a capture file of TCP segments."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._sent = [1, 1]
        self.said: tuple[list[bytes], list[bytes]] = ([], [])
        """By the master, and by the outstation."""

    def add(self, data: bytes, from_outstation: bool) -> bytes:
        """Octets that one end sent; what a read gave is a segment."""
        self.said[from_outstation].append(data)
        ports = (PORT, 40000) if from_outstation else (40000, PORT)
        mine, other = self._sent[from_outstation], self._sent[not from_outstation]
        self._sent[from_outstation] += len(data)
        tcp = struct.pack(">HHIIBBHHH", *ports, mine, other, 0x50, 0x18, 0xFFFF, 0, 0)
        loopback = bytes((127, 0, 0, 1))
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(data), 0, 0, 64, 6, 0) + loopback * 2
        packet = ip + tcp + data
        seconds, rest = divmod(time.time_ns() // 1000, 1_000_000)
        self._records.append(struct.pack("<IIII", seconds, rest, len(packet), len(packet)) + packet)
        return data

    def file(self) -> bytes:
        """The capture file; its link type is raw IP."""
        return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 0x40000, 101) + b"".join(self._records)


async def everything(driver: Dnp3Driver, served: Served, heard: Heard) -> None:
    """Has all functions and all kinds of objects said."""
    outstation = served.outstations["bay"]
    await heard.until(lambda: any("label" in one.values for one in heard.samples))
    await until(lambda: outstation.unsolicited == {1, 2, 3})
    changes: dict[str, Value] = {
        "b0": True,
        "breaker": "on",
        "a0": 1.5,
        "short": 7,
        "energy": 7,
        "label": "TRIP",
    }
    for n, (name, value) in enumerate(changes.items()):
        outstation.set(name, value, time_ms=STAMP_MS + n)
    await heard.until(lambda: any(one.values.get("label") == "TRIP" for one in heard.samples))
    await driver.call("unsolicited", {"enable": False})
    for n in range(300):
        outstation.set(f"a{n}", n / 4, time_ms=STAMP_MS + n)
    await driver.call("class-poll", {})
    for output in ("lamp", "fan", "horn"):
        await driver.write({output: True})
    await driver.write({"int16": -5, "int32": 70_000, "float32": 0.5, "float64": 1e100})
    await driver.call("freeze", {})
    await driver.call("freeze", {"clear": True})
    await driver.call("assign-class", {"type": "analog_input", "class": 3})
    for procedure in ("lan", "non-lan"):
        await driver.call("time-sync", {"procedure": procedure})
    for group in (1, 2, 3, 4, 10, 11, 20, 21, 22, 23, 30, 32, 40, 42, 110, 111):
        await driver.call("read", {"group": group})
    await driver.read(list(POINTS))


def fields(capture: bytes, *wanted: str) -> list[list[str]]:
    """Fields of each packet with octets, by tshark."""
    command = ["tshark", "-n", "-r", "-", "-Y", "tcp.len > 0", "-T", "fields"]
    done = subprocess.run(
        [*command, *(part for field in wanted for part in ("-e", field))],
        input=capture,
        capture_output=True,
        timeout=120,
        check=True,
    )
    return [line.split("\t") for line in done.stdout.decode().splitlines()]


async def conversation() -> bytes:
    """A capture of everything that they say to each other."""
    capture = Capture()
    connection = {"transport": "tcp", "host": "127.0.0.1", "port": PORT}
    simulated = device(connection, POINTS, simulation={"need_time": True}, sim={"label": "REL-670"})
    async with serving({"bay": simulated}) as served:
        async with between(port_of(served.devices["bay"]), capture.add) as port:
            driver = Dnp3Driver(device({**connection, "port": port}, POINTS, keep_alive=0.3), {})
            await connect(driver)
            try:
                async with running(driver) as heard:
                    await everything(driver, served, heard)
                    await until(lambda: any(LINK_STATUS in one for one in capture.said[0]))
                    await driver.call("warm-restart", {})
            finally:
                await driver.close()
    return capture.file()


def port_of(simulated: Dnp3Device) -> int:
    port = simulated.connection.port
    assert isinstance(port, int)
    return port


async def test_every_function_and_object_is_taken_apart_without_a_fault() -> None:
    capture = await conversation()
    wanted = ("frame.protocols", "dnp3.al.func", "dnp3.al.obj")
    seen = await asyncio.to_thread(fields, capture, *FAULTS, *wanted)
    assert [one for one in seen if any(one[: len(FAULTS)])] == []
    assert {one[-3] for one in seen} == {"raw:ip:tcp:dnp3"}
    functions = {int(code) for one in seen for code in one[-2].split(",") if code}
    assert functions == FUNCTIONS
    groups = {int(code, 16) >> 8 for one in seen for code in one[-1].split(",") if code}
    assert groups == GROUPS


async def test_a_fault_would_be_found() -> None:
    capture = bytearray(await conversation())
    capture[capture.index(b"\x05\x64") + 12] ^= 0x01
    seen = await asyncio.to_thread(fields, bytes(capture), *FAULTS)
    assert [one for one in seen if any(one)]
