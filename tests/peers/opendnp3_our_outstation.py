"""What opendnp3's master does with our simulated outstation: coroutines for rows of the interop table.

A case that returns has been seen to work; one that raises has not.
"""

import time
from typing import Any

from opendnp3_rig import NOISELESS, SimulatedRig, Watched

BINARY = {f"b{n}": {"type": "binary_input", "index": n} for n in range(4)}
ANALOG = {f"a{n}": {"type": "analog_input", "index": n} for n in range(4)}
LAMP = {"type": "binary_output", "index": 2, "access": "rw"}
SETPOINT = {"type": "analog_output", "access": "rw"}
STAMP_MS = 1_700_000_000_123
LATCH_ON = "0c0117" + "0102" + "0301" + "64000000" + "64000000" + "00"
"""A CROB to binary output 2 with its object header (qualifier 17), count 1."""
EVERY_CLASS = ["3c0206", "3c0306", "3c0406"]
RESTART, OVERFLOW = 0x0080, 0x0800


async def integrity(rig: SimulatedRig) -> None:
    """All kinds of points at the master's start."""
    points: dict[str, Any] = {
        "binary": {"type": "binary_input", "index": 1},
        "double": {"type": "double_bit_input", "index": 1},
        "output": {"type": "binary_output", "index": 1},
        "counter": {"type": "counter", "index": 1},
        "analog": {"type": "analog_input", "index": 300, "scale": 0.5, "offset": 10},
        "setpoint": {"type": "analog_output", "index": 1},
        "label": {"type": "octet_string", "index": 1},
    }
    begin = {
        "binary": True,
        "double": "on",
        "output": True,
        "counter": 4_000_000_000,
        "analog": 12.75,
        "setpoint": -1e20,
        "label": "REL-670",
    }
    async with rig.pair(points, sim=begin, **NOISELESS) as pair:
        wanted = {
            1: [1, True, 0x81],
            3: [1, 2, 0x81],
            10: [1, True, 0x81],
            20: [1, 4_000_000_000, 0x01],
            30: [300, 5.5, 0x01],
            40: [1, -1e20, 0x01],
            110: [1, b"REL-670".hex(), None],
        }
        for group, value in wanted.items():
            assert [one[:3] for one in pair.master.values(group)] == [value], group


async def double_bits(rig: SimulatedRig) -> None:
    """Double-bit inputs in their four states, as events."""
    points = {f"d{n}": {"type": "double_bit_input", "index": n} for n in range(4)}
    async with rig.pair(points) as pair:
        for n, state in enumerate(("intermediate", "off", "on", "indeterminate")):
            pair.outstation.set(f"d{n}", state, time_ms=STAMP_MS + n)
        events = await _events(pair, 4, 4)
        assert [one[:4] for one in events] == [[n, n, n << 6 | 1, STAMP_MS + n] for n in range(4)]


async def octet_strings(rig: SimulatedRig) -> None:
    """Octet strings as events, of several lengths."""
    points = {f"s{n}": {"type": "octet_string", "index": n} for n in range(3)}
    async with rig.pair(points) as pair:
        texts = ["x", "TRIP L1-N", "\u00e9" * 100]
        for n, text in enumerate(texts):
            pair.outstation.set(f"s{n}", text)
        events = await _events(pair, 111, 3)
        assert [one[:2] for one in events] == [[n, text.encode().hex()] for n, text in enumerate(texts)]


async def counters(rig: SimulatedRig) -> None:
    """Counters and frozen ones as events; FREEZE and FREEZE_CLEAR."""
    points = {
        **{f"c{n}": {"type": "counter", "index": n} for n in range(2)},
        **{f"f{n}": {"type": "frozen_counter", "index": n} for n in range(2)},
    }
    async with rig.pair(points) as pair:
        pair.outstation.set("c0", 41)
        pair.outstation.set("c1", 42)
        await _events(pair, 22, 2)
        assert await pair.master.do("freeze", start=0, stop=0, clear=False) == "SUCCESS"
        assert await pair.master.do("freeze", start=1, stop=1, clear=True) == "SUCCESS"
        frozen = await _events(pair, 23, 2)
        assert [one[:2] for one in frozen] == [[0, 41], [1, 42]]
        since = len(pair.master.said)
        await pair.master.do("classes", classes=[0])
        assert [one[:2] for one in pair.master.values(20, since)] == [[0, 41], [1, 0]]
        assert [one[:2] for one in pair.master.values(21, since)] == [[0, 41], [1, 42]]


async def flags(rig: SimulatedRig) -> None:
    """Every quality flag, in events and present values."""
    async with rig.pair(ANALOG) as pair:
        octets = [1 << bit for bit in range(7)]
        for octet in octets:
            pair.outstation.set("a0", 7, flags=octet)
        events = await _events(pair, 32, len(octets))
        assert [one[2] for one in events] == octets
        since = len(pair.master.said)
        await pair.master.do("span", group=30, variation=0, start=0, stop=1)
        assert [one[:3] for one in pair.master.values(30, since)] == [[0, 7, octets[-1]], [1, 0, 1]]


async def classes(rig: SimulatedRig) -> None:
    """Events by class polls, as the profile has their classes and as ASSIGN_CLASS changes them."""
    assigned = {"classes": {"b0": 1, "a0": 2, "a1": 3}}
    async with rig.pair({**BINARY, **ANALOG}, **NOISELESS, simulation=assigned) as pair:
        for name in ("b0", "a0", "a1"):
            pair.outstation.set(name, 1)
        assert await _polled(pair, [3]) == [(32, 1)]
        assert await _polled(pair, [2]) == [(32, 0)]
        assert await _polled(pair, [1]) == [(2, 0)]
        done = await pair.master.do("perform", function="ASSIGN_CLASS", headers=["3c0406", "0100000303"])
        assert done == "SUCCESS"
        pair.outstation.set("b3", True)
        assert await _polled(pair, [1, 2]) == []
        assert await _polled(pair, [3]) == [(2, 3)]


async def _polled(pair: Watched, wanted: list[int]) -> list[tuple[int, int]]:
    """Group and index of the events that a class poll gives."""
    since = len(pair.master.said)
    assert await pair.master.do("classes", classes=wanted) == "SUCCESS"
    return [(group, one[0]) for group in (2, 32) for one in pair.master.values(group, since)]


async def polled(rig: SimulatedRig) -> None:
    """A class scan that the master repeats."""
    async with rig.pair(BINARY, **NOISELESS) as pair:
        await pair.master.do("scan", classes=[1], period_ms=100)
        for n in range(3):
            pair.outstation.set(f"b{n}", True)
            await _events(pair, 2, n + 1)
        assert [one[0] for one in pair.master.values(2)] == [0, 1, 2]


async def unsolicited(rig: SimulatedRig) -> None:
    """Unsolicited responses, and their end and beginning by function."""
    async with rig.pair(BINARY) as pair:
        pair.outstation.set("b0", True)
        await _events(pair, 2, 1)
        assert (
            await pair.master.do("perform", function="DISABLE_UNSOLICITED", headers=EVERY_CLASS) == "SUCCESS"
        )
        pair.outstation.set("b1", True)
        await pair.master.do("every", group=1, variation=0)
        assert len(pair.master.values(2)) == 1
        assert (
            await pair.master.do("perform", function="ENABLE_UNSOLICITED", headers=EVERY_CLASS) == "SUCCESS"
        )
        assert [one[0] for one in await _events(pair, 2, 2)] == [0, 1]
        assert all(line["unsolicited"] for line in pair.master.of("values") if line["group"] == 2)


async def _events(pair: Watched, group: int, count: int) -> list[list[Any]]:
    """The first events of a group that the master heard."""
    return await pair.master.until(
        lambda: pair.master.values(group)[:count] if len(pair.master.values(group)) >= count else [],
        f"{count} events of group {group}",
    )


async def ordered(rig: SimulatedRig) -> None:
    """Buffered events of several kinds with their times, in the order they happened, each once."""
    points = {**BINARY, **ANALOG}
    async with rig.pair(points, **NOISELESS) as pair:
        for n in range(200):
            name = f"b{n // 2 % 4}" if n % 2 else f"a{n // 2 % 4}"
            pair.outstation.set(name, n // 8 % 2 == 0 if n % 2 else n, time_ms=STAMP_MS + n * 1000)
        since = len(pair.master.said)
        assert await pair.master.do("classes", classes=[1, 2, 3]) == "SUCCESS"
        came = [
            (one[3], one[4])
            for line in pair.master.said[since:]
            if line["event"] == "values"
            for one in line["values"]
        ]
        assert came == [(STAMP_MS + n * 1000, "SYNCHRONIZED") for n in range(200)]
        assert await _polled(pair, [1, 2, 3]) == []


async def overflow(rig: SimulatedRig) -> None:
    """More events than fit: the newest stay, the indication is set, the master reads all, and it goes."""
    async with rig.pair(ANALOG, **NOISELESS, simulation={"event_buffer": 5}) as pair:
        for value in range(20):
            pair.outstation.set("a0", value)
        since = len(pair.master.said)
        await pair.master.do("classes", classes=[1, 2, 3])
        assert [one[1] for one in pair.master.values(32, since)] == [15, 16, 17, 18, 19]
        await pair.master.until(
            lambda: any(one["bits"] & OVERFLOW for one in pair.master.of("iin")), "the indication"
        )
        await pair.master.until(lambda: len(pair.master.values(30, since)) == 4, "an integrity poll")
        await pair.master.until(lambda: not pair.master.of("iin")[-1]["bits"] & OVERFLOW, "its end")


async def select_before_operate(rig: SimulatedRig) -> None:
    """SELECT and OPERATE: operated once, with all its fields."""
    async with rig.pair({"breaker": {**LAMP, "operation": "trip-close"}}, **NOISELESS) as pair:
        for tcc in ("CLOSE", "TRIP"):
            fields = {"code": "PULSE_ON", "tcc": tcc, "count": 2, "on_ms": 250, "off_ms": 50}
            done = await pair.master.do("crob", index=2, select=True, **fields)
            assert done == {"summary": "SUCCESS", "points": [[2, "SUCCESS", "SUCCESS"]]}
        assert [one.point for one in pair.outstation.operations] == ["breaker"] * 2


async def select_expires(rig: SimulatedRig) -> None:
    """OPERATE in time operates, and OPERATE too late does not."""
    async with rig.pair({"lamp": LAMP}, **NOISELESS, simulation={"select_timeout": 5.0}) as pair:
        await pair.master.do("perform", function="SELECT", headers=[LATCH_ON])
        await pair.master.do("perform", function="OPERATE", headers=[LATCH_ON])
        assert len(pair.outstation.operations) == 1
        await pair.master.do("perform", function="SELECT", headers=[LATCH_ON])
        pair.clock.ahead_ms += 5_001
        await pair.master.do("perform", function="OPERATE", headers=[LATCH_ON])
        assert len(pair.outstation.operations) == 1


async def direct(rig: SimulatedRig) -> None:
    """DIRECT_OPERATE."""
    async with rig.pair({"lamp": LAMP}, **NOISELESS) as pair:
        for code in ("LATCH_ON", "LATCH_OFF"):
            done = await pair.master.do("crob", index=2, select=False, code=code)
            assert done == {"summary": "SUCCESS", "points": [[2, "SUCCESS", "SUCCESS"]]}
            since = len(pair.master.said)
            await pair.master.do("every", group=10, variation=2)
            assert [one[:2] for one in pair.master.values(10, since)] == [[2, code == "LATCH_ON"]]
        assert len(pair.outstation.operations) == 2


async def direct_no_ack(rig: SimulatedRig) -> None:
    """DIRECT_OPERATE_NR: operated, and nothing is answered."""
    async with rig.pair({"lamp": LAMP}, {"timeout_ms": 1000}, **NOISELESS) as pair:
        done = await pair.master.do("perform", function="DIRECT_OPERATE_NR", headers=[LATCH_ON])
        assert done == "FAILURE_RESPONSE_TIMEOUT"
        assert len(pair.outstation.operations) == 1


async def analog_outputs(rig: SimulatedRig) -> None:
    """Analog outputs in all four representations."""
    outputs = {"int16": -32768, "int32": 2**31 - 1, "float32": 0.25, "float64": 1e100}
    points = {name: {**SETPOINT, "index": n, "output": name} for n, name in enumerate(outputs)}
    async with rig.pair(points, **NOISELESS) as pair:
        for index, (name, value) in enumerate(outputs.items()):
            done = await pair.master.do(
                "analog", index=index, select=index % 2 == 0, output=name, value=value
            )
            assert done == {"summary": "SUCCESS", "points": [[index, "SUCCESS", "SUCCESS"]]}
        since = len(pair.master.said)
        await pair.master.do("every", group=40, variation=0)
        assert [one[1] for one in pair.master.values(40, since)] == list(outputs.values())
        assert len(pair.outstation.operations) == 4


async def refused(rig: SimulatedRig) -> None:
    """Controls while the switch stands on local, and of a point that there is not."""
    points = {"lamp": LAMP, "local": {"type": "binary_input", "index": 0}}
    async with rig.pair(points, **NOISELESS, simulation={"local": "local"}) as pair:
        done = await pair.master.do("crob", index=99, select=False)
        assert done["points"][0][2] == "NOT_SUPPORTED"
        pair.outstation.set("local", True)
        for select in (True, False):
            done = await pair.master.do("crob", index=2, select=select)
            assert done["points"][0][2] == "LOCAL"
        assert not pair.outstation.operations


async def feedback(rig: SimulatedRig) -> None:
    """A double-bit position that follows its control after a while, by way of intermediate."""
    shown = {"feedback": {"point": "position", "within": 5.0}}
    points = {
        "breaker": {**LAMP, "operation": "trip-close", **shown},
        "position": {"type": "double_bit_input", "index": 0},
    }
    begin = {"sim": {}, "simulation": {"operate_delay": 0.2}}
    async with rig.pair(points, **begin) as pair:
        await pair.master.do("crob", index=2, select=True, code="PULSE_ON", tcc="CLOSE")
        moving, closed = (await _events(pair, 4, 2))[-2:]
        assert (moving[1], closed[1]) == (0, 2)
        assert closed[3] - moving[3] >= 200


async def time_lan(rig: SimulatedRig) -> None:
    """The clock set by RECORD_CURRENT_TIME, because the outstation asks for it."""
    await _time(rig, "lan", "LAN_TIME_SYNC")


async def time_non_lan(rig: SimulatedRig) -> None:
    """The clock set by DELAY_MEASURE, because the outstation asks for it."""
    await _time(rig, "non-lan", "NON_LAN_TIME_SYNC")


async def _time(rig: SimulatedRig, procedure: str, task: str) -> None:
    async with rig.pair(BINARY, {"time_sync": procedure}) as pair:
        pair.outstation.clock_offset_ms = -3_600_000
        pair.outstation.need_time = True
        await pair.master.do("classes", classes=[1])
        await pair.master.until_said("task", type=task, result="SUCCESS")
        assert not pair.outstation.need_time
        assert abs(pair.outstation.clock_ms - time.time() * 1000) < 60_000


async def restarts(rig: SimulatedRig) -> None:
    """COLD_RESTART and WARM_RESTART: the delay is said, the line drops, and the master starts anew."""
    async with rig.pair(BINARY) as pair:
        for starts, kind, delay_ms in ((2, "cold", 500), (3, "warm", 100)):
            done = await pair.master.do("restart", kind=kind)
            assert done == {"summary": "SUCCESS", "ms": delay_ms}
            await pair.master.until_said("task", starts, type="CLEAR_RESTART", result="SUCCESS")
            assert pair.outstation.starts == starts
            assert not pair.outstation.restarted
            await pair.master.until_said("task", starts, type="ENABLE_UNSOLICITED", result="SUCCESS")


async def restarted(rig: SimulatedRig) -> None:
    """A restart that the master sees by the indication alone."""
    async with rig.pair(BINARY) as pair:
        pair.outstation.restarted = True
        since = len(pair.master.said)
        await pair.master.do("classes", classes=[1])
        await pair.master.until_said("task", 2, type="CLEAR_RESTART", result="SUCCESS")
        await pair.master.until(lambda: len(pair.master.values(1, since)) == 4, "an integrity poll")
        assert not pair.outstation.restarted


async def lost_and_back(rig: SimulatedRig) -> None:
    """The line is lost; events of the meantime come afterwards, with their times, each once."""
    async with rig.pair({**BINARY, **ANALOG}) as pair:
        pair.outstation.set("a0", 1)
        await _events(pair, 32, 1)
        pair.line.cut()
        await pair.master.until_said("close")
        stamps = [STAMP_MS + n * 1000 for n in range(50)]
        for n, stamp in enumerate(stamps):
            pair.outstation.set("a1", n, time_ms=stamp)
        pair.line.restore()
        await _events(pair, 32, 51)
        pair.outstation.set("b0", True)
        await _events(pair, 2, 1)
        assert [one[3] for one in pair.master.values(32) if one[0] == 1] == stamps


async def keep_alive(rig: SimulatedRig) -> None:
    """The link's status, asked for."""
    async with rig.pair(BINARY) as pair:
        assert await pair.master.do("link_status") == "True"
        pair.outstation.silent = True
        assert await pair.master.do("link_status") == "False"


async def wrong_address(rig: SimulatedRig) -> None:
    """Requests to another address are not answered."""
    asked = {"outstation": 99, "timeout_ms": 500, "waits": False}
    async with rig.pair(BINARY, asked) as pair:
        await pair.master.until_said("task", result="FAILURE_RESPONSE_TIMEOUT")
        assert not pair.master.of("values")
        assert pair.outstation.restarted
