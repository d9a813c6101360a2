"""No octets make the driver fail but as it says it does, and none keep it from what is right afterwards."""

import asyncio
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import msgspec
import pytest
from dnp3_rig import (
    MASTER,
    NOON,
    OUTSTATION,
    PRESENT,
    READ,
    RIGHT,
    Asked,
    FarEnd,
    Line,
    alive,
    analog_event,
    binary_event,
    device,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from py1815 import link
from scripted import Heard, running

from protocols.base import DriverError
from protocols.dnp3.driver import Dnp3Driver
from tests.patience import PatientLoop

FLUSH = bytes(link.MAX_FRAME)
"""Ends whatever frame was begun."""


class MemoryTransport(asyncio.Transport):
    """The driver's end of a connection to an outstation in the same process."""

    def __init__(self, far: FarEnd) -> None:
        super().__init__()
        self._frames = link.FrameReader()
        self._far = far
        self._closing = False
        self.protocol: asyncio.Protocol

    def write(self, data: Any) -> None:
        for frame in self._frames.feed(bytes(data)):
            if frame.destination == self._far.address:
                self._far.hear(frame)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close


class MemoryLine(Line):
    """The outstation's end."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport

    def write(self, octets: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.protocol.data_received(octets)

    def hang_up(self) -> None:
        self._transport.close()


class MemoryLoop(PatientLoop):
    """An event loop whose connections all lead to one outstation in memory."""

    far: FarEnd

    async def create_connection(self, protocol_factory: Any, *_: Any, **__: Any) -> Any:
        transport = MemoryTransport(self.far)
        self.far.line = MemoryLine(transport)
        transport.protocol = protocol = cast(asyncio.Protocol, protocol_factory())
        protocol.connection_made(transport)
        return transport, protocol


class Attack(msgspec.Struct, frozen=True):
    """Octets that come unasked; or a fragment before a right answer, with its number plus `later`."""

    octets: bytes
    later: int | None = None


@contextmanager
def runner() -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    with asyncio.Runner(loop_factory=MemoryLoop) as one:
        yield one.run


def framed(control: int, destination: int, source: int, payload: bytes) -> bytes:
    return link.build(control, destination, source, payload[: link.MAX_USER_DATA])


def mutated(octets: bytes, changes: Sequence[tuple[int, int]], cut: int, twice: bool) -> bytes:
    """Some octets replaced, and maybe an end cut off or all of it twice."""
    spoilt = bytearray(octets)
    for place, octet in changes:
        spoilt[place % len(spoilt)] = octet
    return bytes(spoilt[: len(spoilt) - cut]) * (2 if twice else 1)


OCTET = st.integers(0, 255)
GOOD = (
    PRESENT,
    analog_event(0, 7, NOON) + binary_event(1, True, NOON),
    b"\x33\x01\x07\x01" + bytes(6) + b"\x02\x03\x17\x02\x00\x81\x05\x00\x01\x01\x09\x00",  # relative times
    b"\x0c\x01\x17\x01\x03\x41\x01" + bytes(9),
    b"\x6e\x05\x00\x00\x01relay12345",
    b"\x34\x02\x07\x01\x0a\x00",
    b"\x01\x01\x01\x00\x00\x09\x00\xff\x02",
    b"",
)
BODIES = st.builds(
    mutated,
    st.sampled_from(GOOD).map(lambda body: body + b"\x3c"),
    st.lists(st.tuples(st.integers(0, 60), OCTET), max_size=4),
    st.integers(0, 8),
    st.booleans(),
) | st.binary(max_size=80)
FRAGMENTS = st.builds(
    lambda control, function, iin, body: bytes((control, function)) + iin + body,
    st.sampled_from((0xC0, 0xE0, 0x80, 0xA0, 0x40, 0x00, 0xF0, 0xD0)) | OCTET,
    st.sampled_from((0x81, 0x82, 0x83, 0x00, 0x01)) | OCTET,
    st.just(b"\x00\x00") | st.binary(min_size=2, max_size=2),
    BODIES,
)
SEGMENTS = st.builds(
    lambda head, rest: bytes((head,)) + rest, st.sampled_from((0xC0, 0x40, 0x80)) | OCTET, FRAGMENTS
)
FRAMES = st.builds(
    framed,
    st.sampled_from((0x44, 0x44, 0x44, 0x73, 0x53, 0x40, 0x49, 0x0B, 0x00)) | OCTET,
    st.sampled_from((MASTER, MASTER, MASTER, MASTER + 1, 0xFFFF)),
    st.sampled_from((OUTSTATION, OUTSTATION, OUTSTATION, OUTSTATION + 1)),
    SEGMENTS | st.binary(max_size=20),
)
SPOILT_FRAMES = st.builds(
    mutated,
    FRAMES,
    st.lists(st.tuples(st.integers(0, 290), OCTET), max_size=3),
    st.integers(0, 3),
    st.booleans(),
)
ATTACKS = st.builds(Attack, st.binary(max_size=300) | FRAMES | SPOILT_FRAMES | SEGMENTS) | st.builds(
    Attack, FRAGMENTS, st.sampled_from((0, 0, 0, 1, 15))
)


def numbered(fragment: bytes, sequence: int) -> bytes:
    return bytes((fragment[0] & 0xF0 | sequence % 16,)) + fragment[1:]


async def read_right(driver: Dnp3Driver) -> None:
    """What a fuzzed answer left unfinished may take a time-out to end; then all is as it was."""
    for patience in range(20, -1, -1):
        try:
            sample = await driver.read(list(RIGHT))
        except DriverError as error:
            assert patience, error
            if error.code == "disconnected":
                await driver.connect()
        else:
            if sample.values == RIGHT:
                return
    raise AssertionError(sample)


async def withstand(attacks: Sequence[Attack], chunk: int) -> None:
    loop = cast(MemoryLoop, asyncio.get_running_loop())
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    far = loop.far = FarEnd()
    fuzzed: list[Attack] = []

    async def before_the_right_one(asked: Asked) -> bool:
        if fuzzed and asked.function == READ:
            one = fuzzed.pop()
            far.send(numbered(one.octets, asked.sequence + (one.later or 0)))
        return False

    far.twist = before_the_right_one
    driver = Dnp3Driver(device({"transport": "tcp", "host": "rtu.example"}, timeout="60ms"), {})
    async with asyncio.timeout(60), alive([far]):
        await driver.connect()
        async with running(driver, Heard()) as heard:
            for attack in attacks:
                if attack.later is None:
                    octets = attack.octets
                    for start in range(0, len(octets), chunk):
                        far.write(octets[start : start + chunk])
                else:
                    fuzzed.append(attack)
                    try:
                        await driver.read(["breaker"])
                    except DriverError as error:
                        assert str(error)
                await asyncio.sleep(0)
            fuzzed.clear()
            far.write(FLUSH)
            await read_right(driver)
            if heard.run.done():
                with pytest.raises(DriverError):
                    await heard.run
        await driver.close()
    assert not failures


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ATTACKS, min_size=1, max_size=8), st.sampled_from((1, 7, 100, 4096)))
def test_no_octets_raise_past_the_driver_or_keep_it_from_the_right_ones(
    attacks: list[Attack], chunk: int
) -> None:
    with runner() as run:
        run(withstand(attacks, chunk))


ENDLESS = {
    "headers without their frames": framed(0x44, MASTER, OUTSTATION, bytes(250))[:10],
    "first segments": framed(0x44, MASTER, OUTSTATION, b"\x40" + bytes(249)),
    "segments of unknown ones": framed(0x44, MASTER, 77, b"\x40" + bytes(249)),
    "noise": bytes(range(256)),
    "start octets": b"\x05\x64" * 100,
    "responses to nothing": framed(0x44, MASTER, OUTSTATION, b"\xc0\xe5\x81\x00\x00" + PRESENT),
}


@pytest.mark.parametrize("octets", ENDLESS.values(), ids=ENDLESS.keys())
def test_what_never_ends_is_not_kept(octets: bytes) -> None:
    async def flood() -> None:
        loop = cast(MemoryLoop, asyncio.get_running_loop())
        far = loop.far = FarEnd()
        driver = Dnp3Driver(device({"transport": "tcp", "host": "rtu.example"}, timeout="60ms"), {})
        async with asyncio.timeout(60), alive([far]):
            await driver.connect()
            tracemalloc.start()
            try:
                for _ in range(200_000 // len(octets)):
                    far.write(octets)
                await asyncio.sleep(0)
                kept, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert kept < 50_000
            far.write(FLUSH)
            await read_right(driver)
            await driver.close()

    with runner() as run:
        run(flood())
