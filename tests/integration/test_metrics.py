"""The metrics of a real agent: they rise when they should, and no sender makes labels."""

import re
from pathlib import Path

from desk import desk
from exposed import PROFILE, exposed, get, number, numbers, serving
from waiting import until

from agent.commands.ops import Ops
from agent.metrics.counts import BUCKETS_S, CODES, OPS, STATUSES, UNKNOWN, CommandCounts, Durations
from sim.broker import Broker

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "monitoring.md"


async def test_every_metric_is_documented_and_every_documented_one_is_there(tmp_path: Path) -> None:
    text = await exposed(tmp_path)
    there = set(re.findall(r"^# TYPE (hilgate_\w+)", text, re.MULTILINE))
    documented = re.findall(r"^\| `(hilgate_\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert sorted(there) == sorted(documented)
    helps = dict(re.findall(r"^# HELP (hilgate_\w+) (.*)$", text, re.MULTILINE))
    assert all(sentence.endswith(".") and len(sentence) > 20 for sentence in helps.values())
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"):
        assert f"# TYPE {name} " in text


async def test_openmetrics_is_spoken_where_it_is_asked_for(tmp_path: Path, broker: Broker) -> None:
    async with serving(tmp_path, broker.url) as (_, listen):
        modern = {"Accept": "application/openmetrics-text; version=1.0.0"}
        assert (await get(listen, "/metrics", headers=modern))[1].endswith("# EOF\n")
        for accept in ("text/plain", "*/*", "application/openmetrics-text; version=rubbish", "x" * 5000):
            status, text = await get(listen, "/metrics", headers={"Accept": accept})
            assert (status, text[:6]) == (200, "# HELP"), accept


async def test_numbers_rise_with_what_happens(tmp_path: Path, broker: Broker) -> None:
    async with (
        desk(broker.url, "rig") as one,
        serving(tmp_path, broker.url, store=tmp_path / "store") as (agent, listen),
    ):
        await one.until_state("available")
        await one.ask("write", device="psu", values={"voltage": 5})
        await one.ask("write", device="psu", values={"voltage": 500})
        lease = (await one.ask("reserve", holder="ci", ttl_s=60))["data"]["lease"]
        await one.post(b"no command")
        await until(lambda: agent.commands.malformed)

        assert await number(listen, "hilgate_commands_total", op="write", status="ok") == 1
        assert await number(listen, "hilgate_commands_total", op="write", status="rejected") == 1
        assert await number(listen, "hilgate_command_errors_total", code="out-of-range") == 1
        assert await number(listen, "hilgate_command_duration_seconds_count", op="write") == 2
        assert await number(listen, "hilgate_command_duration_seconds_sum", op="write") > 0
        assert await number(listen, "hilgate_malformed_messages_total") == 1
        assert await number(listen, "hilgate_lease_active") == 1
        assert await number(listen, "hilgate_leases", state="held") == 1
        assert await number(listen, "hilgate_bench_state", state="leased") == 1
        assert await number(listen, "hilgate_bench_state", state="available") == 0
        assert await number(listen, "hilgate_device_up", device="psu") == 1
        assert await number(listen, "hilgate_device_connects_total", device="psu") == 1
        assert await number(listen, "hilgate_broker_up") == 1
        assert await number(listen, "hilgate_broker_connects_total") == 1
        assert await number(listen, "hilgate_messages_sent_total", outcome="accepted") > 0
        samples = await number(listen, "hilgate_samples_total", device="psu")
        await until(lambda: agent.bench.devices["psu"].taken > samples)
        assert await number(listen, "hilgate_samples_total", device="psu") > samples
        assert await number(listen, "hilgate_device_last_sample_timestamp_seconds", device="psu") > 1.7e9

        await one.ask("release", lease=lease)
        assert await number(listen, "hilgate_lease_active") == 0
        assert await number(listen, "hilgate_safe_drives_total", cause="lease-end", reached="true") == 1

        agent.bench.devices["psu"].missed(3, 0.05)
        agent.bench.devices["psu"].lost(7, "receive-overflow")
        agent.bench.devices["psu"].lost(2, "some reason of a driver of tomorrow")
        assert (
            await number(listen, "hilgate_missed_polls_total", device="psu") >= 3
        )  # a busy machine misses some
        assert await number(listen, "hilgate_lost_total", reason="receive-overflow") == 7
        assert await number(listen, "hilgate_lost_total", reason="other") == 2

        await broker.close()
        await until(lambda: not agent.client.connected)
        assert await number(listen, "hilgate_broker_up") == 0
        await until(lambda: agent.store.outbox.stats().messages > 2)
        assert await number(listen, "hilgate_outbox_messages") > 2
        assert await number(listen, "hilgate_outbox_bytes") > 100
        assert await number(listen, "hilgate_outbox_oldest_seconds") > 0


async def test_senders_make_no_labels(tmp_path: Path, broker: Broker) -> None:
    async with desk(broker.url, "rig") as one, serving(tmp_path, broker.url) as (_, listen):
        await one.until_state("available")
        before = numbers((await get(listen, "/metrics"))[1]).keys()
        evil = ["", "x" * 64, 'a"} 1\nhilgate_evil 1', "op\u2028", "READ", "write "]
        evil += [f"op-{one_more}" for one_more in range(40)]
        for op in evil:
            await one.ask(op, device=f"device-{op}")
        for op in ("read", "write"):
            await one.ask(op, device="not-there", values={"point-of-mine": 1}, points=["point-of-mine"])
            await one.ask(op, device="psu", values={"point-of-mine": 1}, points=["point-of-mine"])
        for path in ("/one", "/two", "/values/device-of-mine", "/%0a"):
            await get(listen, path)
        status, text = await get(listen, "/metrics")
        assert status == 200
        new = numbers(text).keys() - before
        for name, labels in new:
            known = dict(labels)
            assert known.get("op", UNKNOWN) in (*OPS, UNKNOWN)
            assert known.get("path", "other") in ("other", "/metrics", "/values/{device}"), (name, known)
        for word in ("evil", "of-mine", "op-3", "not-there"):
            assert word not in text
        assert await number(listen, "hilgate_commands_total", op=UNKNOWN, status="rejected") == len(evil)


async def test_disabled_devices_are_not_down(tmp_path: Path, broker: Broker) -> None:
    profile = PROFILE + PROFILE.partition("devices:\n")[2].replace("psu:", "spare:\n    enabled: false")
    async with serving(tmp_path, broker.url, profile=profile) as (_, listen):
        text = (await get(listen, "/metrics"))[1]
        assert 'hilgate_device_up{device="psu"} 1.0' in text
        assert "spare" not in text


def test_every_op_and_code_of_the_agent_has_a_label() -> None:
    ops = Ops("rig", 1, *4 * [None])  # type: ignore[arg-type]  # its table alone is looked at
    assert set(ops._table) <= set(OPS)
    counts = CommandCounts()
    for status in STATUSES:
        counts.finished("read", status, "", 0.001)
    for code in (*CODES, "a-code-of-tomorrow"):
        counts.finished("read", "rejected", code, -5.0)
    assert counts.codes == dict.fromkeys((*CODES, "other"), 1)


def test_durations_fall_into_the_right_buckets() -> None:
    durations = Durations()
    for bound in BUCKETS_S:
        durations.add(bound)  # a bound belongs to its own bucket: `le` is "at most"
    durations.add(1e9)
    assert durations.buckets == [1] * (len(BUCKETS_S) + 1)
