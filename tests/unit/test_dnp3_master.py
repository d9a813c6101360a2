"""The master's own work: startup, polls, and what an outstation's indications make it do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from protocols.base import DeviceState, DriverError, Quality, Sample
from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.fragment import Block, Decoded, Fragment, Reply
from protocols.dnp3.master import Master
from protocols.dnp3.objects import Iin

READ, WRITE, ENABLE, DISABLE = 0x01, 0x02, 0x14, 0x15
RECORD_TIME = 0x18
INTEGRITY = b"\x3c\x02\x06\x3c\x03\x06\x3c\x04\x06\x3c\x01\x06"
CLASSES = b"\x3c\x02\x06\x3c\x03\x06\x3c\x04\x06"
LINE = {"transport": "tcp", "host": "rtu.example"}
CLEAR_RESTART = b"\x50\x01\x00\x07\x07\x00"
POINTS: dict[str, Any] = {
    "breaker": {"type": "binary_input", "index": 0},
    "current": {"type": "analog_input", "index": 7},
}
VALUES = (Block(1, 2, range(1), [True], [1]), Block(30, 5, [7], [1.5], [1]))
NEVER: dict[str, Any] = {"class_1": "never", "class_2": "never", "class_3": "never", "integrity": "never"}

Answer = Callable[[int, bytes], Iin]


class Heard:
    """A sink that keeps what it hears."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.states: list[tuple[DeviceState, str]] = []
        self.losses: list[tuple[int, str]] = []
        self.misses: list[tuple[int, float]] = []

    def sample(self, sample: Sample) -> None:
        self.samples.append(sample)

    def state(self, state: DeviceState, reason: str = "") -> None:
        self.states.append((state, reason))

    def frames(self, body: bytes, time_ns: int) -> None:
        raise AssertionError("DNP3 has no frames view")

    async def kept(self) -> None: ...

    def missed(self, cycles: int, period: float) -> None:
        self.misses.append((cycles, period))

    def lost(self, count: int, reason: str) -> None:
        self.losses.append((count, reason))


class Outstation:
    """Answers each request with the indications that `iin` holds; a request in `silent` is not answered."""

    name = "outstation 10 at rtu.example:20000"

    def __init__(self, device: Dnp3Device) -> None:
        self.doubts = 0
        self.master = Master(device, self, self._doubt)
        self.asked: list[tuple[int, bytes]] = []
        self.iin: Answer = lambda function, body: Iin(0)
        self.blocks: Sequence[Block] = VALUES
        self.problem, self.unreadable = "", set[int]()
        """What cannot be taken of the next fragments: unsolicited ones, and responses to these requests."""
        self.silent: set[int] = set()
        self.heard = Heard()
        self._news = asyncio.Event()

    def _doubt(self) -> None:
        self.doubts += 1

    async def ask(
        self, function: int, body: bytes = b"", *, responds: bool = True, report: bool = False
    ) -> Reply:
        self.asked.append((function, body))
        self._news.set()
        await asyncio.sleep(0)
        if function in self.silent:
            raise DriverError("timeout", f"{self.name} did not answer in 5s")
        iin = self.iin(function, body)
        blocks = self.blocks if function == READ else ()
        self.says(iin, blocks, readable=function not in self.unreadable)
        return Reply(iin, blocks, 1)

    def says(
        self, iin: Iin, blocks: Sequence[Block] = (), *, unsolicited: bool = False, readable: bool = False
    ) -> None:
        problem = "" if readable else self.problem
        self.master.saw(Fragment(1, iin, Decoded(blocks), unsolicited=unsolicited), problem)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_asked(self, *requests: tuple[int, bytes]) -> None:
        await self.until(lambda: self.asked[-len(requests) :] == list(requests))


def device(**more: Any) -> Dnp3Device:
    fields = {"protocol": "dnp3", "connection": LINE, "outstation": 10, "points": POINTS, **more}
    return Dnp3Device.model_validate(fields).named("rtu")


@contextlib.asynccontextmanager
async def running(outstation: Outstation) -> AsyncIterator[Outstation]:
    await outstation.master.begin()
    task = asyncio.create_task(outstation.master.run(outstation.heard))
    try:
        yield outstation
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_it_starts_by_silencing_reading_all_and_enabling() -> None:
    async with running(Outstation(device(polls=NEVER))) as one:
        await one.until_asked((DISABLE, CLASSES), (READ, INTEGRITY), (ENABLE, CLASSES))
    assert one.heard.states == [(DeviceState.ONLINE, "")]


async def test_only_the_classes_of_the_profile_are_enabled_and_none_if_it_names_none() -> None:
    async with running(Outstation(device(polls=NEVER, unsolicited=[2]))) as one:
        await one.until_asked((READ, INTEGRITY), (ENABLE, b"\x3c\x03\x06"))
    async with running(Outstation(device(polls={**NEVER, "class_1": 0.01}, unsolicited=[]))) as one:
        await one.until_asked((DISABLE, CLASSES), (READ, INTEGRITY), (READ, b"\x3c\x02\x06"))


async def test_what_a_call_switches_off_meanwhile_the_start_does_not_switch_on() -> None:
    async with running(Outstation(device(polls={**NEVER, "class_1": 0.01}))) as one:
        one.master.disabling([1, 3])
        await one.until_asked((READ, INTEGRITY), (ENABLE, b"\x3c\x03\x06"))
        one.says(Iin.DEVICE_RESTART)
        one.master.disabling([1, 2, 3])
        await one.until_asked((READ, INTEGRITY), (READ, b"\x3c\x02\x06"))


async def test_a_restarted_outstation_is_cleared_read_and_enabled_again() -> None:
    async with running(Outstation(device(polls=NEVER))) as one:
        await one.until_asked((ENABLE, CLASSES))
        restarted = True

        def iin(function: int, body: bytes) -> Iin:
            nonlocal restarted
            restarted = restarted and function != WRITE
            return Iin.DEVICE_RESTART if restarted else Iin(0)

        one.iin = iin
        one.says(Iin.DEVICE_RESTART, unsolicited=True)
        one.says(Iin.DEVICE_RESTART, unsolicited=True)
        await one.until_asked((WRITE, CLEAR_RESTART), (READ, INTEGRITY), (ENABLE, CLASSES))
        assert len(one.asked) == 6


async def test_a_restart_that_cannot_be_cleared_is_said_and_not_tried_for_ever() -> None:
    one = Outstation(device(polls={**NEVER, "class_1": 0.01}))
    one.iin = lambda function, body: Iin.DEVICE_RESTART
    async with running(one):
        await one.until(lambda: one.asked.count((READ, b"\x3c\x02\x06")) == 3)
    assert [function for function, _ in one.asked].count(WRITE) == 1
    state, reason = one.heard.states[-1]
    assert state is DeviceState.DEGRADED
    assert "restart indication" in reason


async def test_an_outstation_that_never_answers_the_clearing_of_its_restart_is_polled_all_the_same() -> None:
    one = Outstation(device(polls={**NEVER, "class_1": 0.01}))
    one.iin = lambda function, body: Iin.DEVICE_RESTART
    one.silent.add(WRITE)
    async with running(one):
        await one.until(lambda: one.asked.count((READ, b"\x3c\x02\x06")) == 3)
    functions = [function for function, _ in one.asked]
    assert functions[:4] == [DISABLE, WRITE, READ, WRITE]
    assert functions.count(WRITE) == 4
    assert "restart indication" in one.heard.states[-1][1]


async def test_an_outstation_that_needs_the_time_gets_it_but_not_at_every_answer() -> None:
    one = Outstation(device(polls={**NEVER, "class_1": 0.01}))
    one.iin = lambda function, body: Iin.NEED_TIME
    async with running(one):
        await one.until(lambda: one.asked.count((READ, b"\x3c\x02\x06")) == 5)
    functions = [function for function, _ in one.asked]
    assert functions[:4] == [DISABLE, RECORD_TIME, WRITE, READ]
    assert functions.count(RECORD_TIME) == 1


async def test_the_time_is_left_alone_where_the_profile_says_so() -> None:
    one = Outstation(device(polls={**NEVER, "class_1": 0.01}, time_sync="never"))
    one.iin = lambda function, body: Iin.NEED_TIME
    async with running(one):
        await one.until(lambda: one.asked.count((READ, b"\x3c\x02\x06")) == 3)
    assert {function for function, _ in one.asked} == {READ, ENABLE, DISABLE}


async def test_a_clock_that_cannot_be_set_is_said() -> None:
    one = Outstation(device(polls=NEVER))
    one.iin = lambda function, body: (
        Iin.NEED_TIME | (Iin.FUNCTION_NOT_SUPPORTED if function == RECORD_TIME else Iin(0))
    )
    async with running(one):
        await one.until_asked((ENABLE, CLASSES))
        state, reason = one.heard.states[-1]
    assert state is DeviceState.DEGRADED
    assert "clock could not be set" in reason


async def test_a_clock_that_was_set_by_somebody_else_is_no_trouble_any_more() -> None:
    one = Outstation(device(polls={**NEVER, "class_1": 0.01}))
    refused = Iin.NEED_TIME | Iin.FUNCTION_NOT_SUPPORTED
    one.iin = lambda function, body: refused if function == RECORD_TIME else Iin.NEED_TIME
    async with running(one):
        await one.until(lambda: one.asked.count((READ, b"\x3c\x02\x06")) == 2)
        assert "clock could not be set" in one.heard.states[-1][1]
        one.iin = lambda function, body: Iin(0)
        await one.until(lambda: one.asked.count((READ, b"\x3c\x02\x06")) == 5)
    assert one.heard.states[-1][0] is DeviceState.ONLINE


async def test_an_overflow_is_said_once_and_makes_an_integrity_poll() -> None:
    async with running(Outstation(device(polls=NEVER))) as one:
        await one.until_asked((ENABLE, CLASSES))
        full = True

        def iin(function: int, body: bytes) -> Iin:
            nonlocal full
            told, full = full, False
            return Iin.EVENT_BUFFER_OVERFLOW if told else Iin(0)

        one.iin = iin
        one.says(Iin.EVENT_BUFFER_OVERFLOW, unsolicited=True)
        await one.until_asked((ENABLE, CLASSES), (READ, INTEGRITY))
        one.says(Iin(0))
        assert one.heard.losses == [(1, "event-buffer-overflow")]
        one.says(Iin.EVENT_BUFFER_OVERFLOW)
        await one.until_asked((READ, INTEGRITY), (READ, INTEGRITY))
    assert one.heard.losses == [(1, "event-buffer-overflow")] * 2


async def test_an_overflow_before_the_start_is_said_when_there_is_somebody_to_say_it_to() -> None:
    one = Outstation(device(polls=NEVER))
    one.iin = lambda function, body: Iin.EVENT_BUFFER_OVERFLOW if function == DISABLE else Iin(0)
    async with running(one):
        await one.until_asked((ENABLE, CLASSES))
    assert one.heard.losses == [(1, "event-buffer-overflow")]


@pytest.mark.parametrize(
    ("iin", "words"),
    [(Iin.DEVICE_TROUBLE, "device trouble"), (Iin.CONFIGURATION_CORRUPT, "configuration is corrupt")],
)
async def test_what_the_outstation_says_is_wrong_with_it_is_said_until_it_is_over(
    iin: Iin, words: str
) -> None:
    async with running(Outstation(device(polls=NEVER))) as one:
        await one.until_asked((ENABLE, CLASSES))
        one.says(iin)
        state, reason = one.heard.states[-1]
        assert state is DeviceState.DEGRADED
        assert words in reason
        one.says(Iin(0))
        assert one.heard.states[-1] == (DeviceState.ONLINE, "")


async def test_silence_makes_all_values_unknown_and_the_next_answer_reads_them_again() -> None:
    polls = {**NEVER, "class_1": 0.01}
    async with running(Outstation(device(polls=polls))) as one:
        await one.until_asked((READ, b"\x3c\x02\x06"))
        one.silent.add(READ)
        await one.until(lambda: bool(one.heard.samples))
        assert one.heard.samples[0].bad == dict.fromkeys(POINTS, Quality.TIMEOUT)
        assert one.doubts >= 2
        assert one.heard.states[-1] == (DeviceState.DEGRADED, f"{one.name} did not answer in 5s")
        asked = len(one.asked)
        await one.until(lambda: len(one.asked) > asked + 3)
        assert len(one.heard.samples) == 1  # said once
        one.silent.clear()
        await one.until(lambda: (READ, INTEGRITY) in one.asked[asked:])
        await one.until(lambda: one.asked[-1] == (READ, b"\x3c\x02\x06"))
    assert one.heard.states[-1] == (DeviceState.ONLINE, "")


async def test_a_startup_that_is_not_answered_goes_on_until_it_is() -> None:
    one = Outstation(device(polls=NEVER))
    async with running(one):
        one.silent.update((READ, ENABLE))
        await one.until(lambda: one.asked.count((READ, INTEGRITY)) == 4)
        one.silent.discard(READ)
        await one.until(lambda: one.asked.count((ENABLE, CLASSES)) == 2)
        # Between two attempts it is seen whether anything is answered at all.
        last = len(one.asked) - 1 - one.asked[::-1].index((ENABLE, CLASSES))
        assert (READ, INTEGRITY) in one.asked[one.asked.index((ENABLE, CLASSES)) : last]
        one.silent.clear()
        await one.until_asked((ENABLE, CLASSES))
    assert one.heard.states[-1] == (DeviceState.ONLINE, "")


async def test_points_that_the_outstation_does_not_give_are_bad_and_named() -> None:
    one = Outstation(device(polls=NEVER))
    one.blocks = VALUES[:1]
    async with running(one):
        await one.until_asked((ENABLE, CLASSES))
    assert [sample.bad for sample in one.heard.samples] == [{"current": Quality.BAD_CONFIG}]
    state, reason = one.heard.states[-1]
    assert state is DeviceState.DEGRADED
    assert "did not give current" in reason


async def test_an_event_of_a_point_does_not_count_as_its_present_value() -> None:
    one = Outstation(device(polls=NEVER))
    one.blocks = (VALUES[0], Block(32, 7, [7], [1.5], [1], [1000]))
    async with running(one):
        await one.until_asked((ENABLE, CLASSES))
    assert [sample.bad for sample in one.heard.samples] == [{"current": Quality.BAD_CONFIG}]


async def test_a_refused_poll_is_said_in_words() -> None:
    one = Outstation(device(polls={**NEVER, "class_2": 0.01}))
    one.iin = lambda function, body: Iin.OBJECT_UNKNOWN if body == b"\x3c\x03\x06" else Iin(0)
    async with running(one):
        await one.until(lambda: one.asked.count((READ, b"\x3c\x03\x06")) == 2)
        state, reason = one.heard.states[-1]
    assert state is DeviceState.DEGRADED
    assert "refused the read events of class 2" in reason
    assert "it has no such objects" in reason


async def test_what_could_not_be_read_of_a_response_is_said() -> None:
    one = Outstation(device(polls=NEVER))
    async with running(one):
        await one.until_asked((ENABLE, CLASSES))
        one.problem = "group 87 variation 1 is not known"
        one.says(Iin(0), unsolicited=True)
        state, reason = one.heard.states[-1]
        assert state is DeviceState.DEGRADED
        assert "group 87" in reason
        one.problem = ""
        one.says(Iin(0), unsolicited=True)
        assert len(one.heard.states) == 2  # said until everything was read again
        assert one.heard.losses == [(1, "unreadable-response")]
        await one.until_asked((ENABLE, CLASSES), (READ, INTEGRITY))
        async with asyncio.timeout(20):
            while one.heard.states[-1] != (DeviceState.ONLINE, ""):
                await asyncio.sleep(0)


async def test_what_an_integrity_poll_cannot_read_either_is_said_and_not_read_for_ever() -> None:
    one = Outstation(device(polls=NEVER))
    one.problem = "group 87 variation 1 is not known"
    one.unreadable = {READ}
    async with running(one):
        await one.until_asked((DISABLE, CLASSES), (READ, INTEGRITY), (ENABLE, CLASSES))
    assert one.heard.states[-1][0] is DeviceState.DEGRADED
    assert one.heard.losses == [(1, "unreadable-response")]


async def test_points_with_a_rate_of_their_own_are_read_at_once_and_then_at_it() -> None:
    points = {**POINTS, "fast": {"type": "counter", "index": 3, "poll": 0.01}}
    one = Outstation(device(polls=NEVER, points=points, unsolicited=[]))
    one.blocks = (*VALUES, Block(20, 1, [3], [5], [1]))
    wanted = (READ, b"\x14\x00\x00\x03\x03")
    async with running(one):
        await one.until(lambda: one.asked.count(wanted) == 3)
    assert one.asked[:3] == [(DISABLE, CLASSES), (READ, INTEGRITY), wanted]


async def test_an_outstation_that_does_not_answer_is_not_connected() -> None:
    one = Outstation(device())
    one.silent.add(DISABLE)
    with pytest.raises(DriverError, match="did not answer"):
        await one.master.begin()
    assert one.asked == [(DISABLE, CLASSES)] * 2


async def test_a_lost_connection_ends_it() -> None:
    one = Outstation(device(polls=NEVER))

    async def gone(*_: Any, **__: Any) -> Reply:
        raise DriverError("disconnected", "the connection was lost")

    await one.master.begin()
    one.ask = gone  # type: ignore[method-assign]
    with pytest.raises(DriverError, match="connection was lost"):
        await one.master.run(one.heard)


async def test_a_poll_by_command_reads_the_same_and_passes_it_on() -> None:
    one = Outstation(device())
    await one.master.integrity()
    await one.master.classes([3, 1])
    assert one.asked == [(READ, INTEGRITY), (READ, b"\x3c\x04\x06\x3c\x02\x06")]
