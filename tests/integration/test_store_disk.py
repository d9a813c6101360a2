"""Disks that are full, read-only or damaged, and a backlog that is larger than the memory it may take."""

import asyncio
import contextlib
import os
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import until

from agent.store import AuditEntry, JournalEntry, Lane, Outgoing, SqliteStore, keeper
from agent.store.inspect import Inspector
from protocols.amqp.flavours import Address

TOPIC = Address("hil.rig.events.plc", "topic")
SOURCE = "/benches/rig"


@pytest.fixture(autouse=True)
def _tries_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "AGAIN_S", 0.05)
    monkeypatch.setattr(keeper, "IDLE_S", 0.05)


class SmallDisk:
    """A file system of two megabytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)

    def fill(self) -> None:
        with (self.path / "fill").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield SmallDisk(path)
    subprocess.run(["umount", path], check=True)


@contextlib.contextmanager
def opened(directory: Path) -> Iterator[SqliteStore]:
    with contextlib.closing(SqliteStore(directory, 10**9, 3600.0)) as store:
        store.outbox.on_channel = lambda _: None
        yield store


def put(store: SqliteStore, count: int, lane: Lane = Lane.TELEMETRY, size: int = 600) -> None:
    for _ in range(count):
        number = store.next_sequence(SOURCE)
        store.outbox.put(Outgoing(TOPIC, lane, SOURCE, number, number, b"x" * size))


def take(store: SqliteStore, most: int = 10**9) -> list[int]:
    found: list[int] = []
    while len(found) < most and (one := store.outbox.take(TOPIC)) is not None:
        found.append(one.sequence)
        store.outbox.done(one)
    return found


async def drained(store: SqliteStore) -> list[int]:
    await store.stored()
    found: list[int] = []
    while some := take(store):
        found += some
        await store.stored()
    return found


def entry(key: str, result: bytes | None = None) -> JournalEntry:
    return JournalEntry(key, "write", 1, None, b"", result)


# -- full and read-only ---------------------------------------------------------------------------


async def test_a_full_disk_loses_nothing_and_is_used_again(small_disk: SmallDisk) -> None:
    heard: list[str] = []
    with opened(small_disk.path / "store") as store:
        epoch = store.epoch
        store.on_trouble = lambda: heard.append(store.trouble)
        store.journal.begin(entry("before"))
        store.remember("before", b"1")
        for _ in range(60):
            put(store, 100)
            await store.stored()
        assert "is full" in store.trouble
        assert heard == [store.trouble]
        store.journal.begin(entry("during"))
        store.journal.finish(entry("before", b"ok"))
        store.remember("during", b"2")
        store.remember("before", None)
        store.audit(AuditEntry(1, 2, "ann", "write", "ok"))
        assert await store.journal.find("before") == entry("before", b"ok")
        assert await store.journal.find("during") == entry("during")
        got = take(store, 1500)
        await store.stored()
        assert store.outbox.stats().messages == 4500
        small_disk.remount("size=64m")
        await until(lambda: heard[-1] == "")
        put(store, 10)
        await store.stored()
        assert store.outbox.stats().messages == 4510
    with opened(small_disk.path / "store") as store:
        assert (store.epoch, store.trouble) == (epoch + 1, "")
        assert (store.recall("before"), store.recall("during")) == (None, b"2")
        assert await store.journal.find("before") == entry("before", b"ok")
        assert list(await store.journal.unfinished()) == [entry("during")]
        assert store.next_sequence(SOURCE) == 6011
        got += await drained(store)
        assert got == list(range(1, 6011))
        await store.outbox.empty()
        assert store.outbox.losses() == []


async def test_on_a_full_disk_telemetry_goes_first_and_results_never(
    small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "MEMORY_BYTES", 20_000)
    with opened(small_disk.path / "store") as store:
        small_disk.fill()
        while not store.trouble:
            put(store, 1, size=100_000)
            await store.stored()
        await drained(store)
        for _ in range(100):
            put(store, 1)
            await store.stored()
        (loss,) = store.outbox.losses()
        assert (loss.reason, loss.count) == ("disk-full", loss.last - loss.first + 1)
        kept = store.outbox.stats().messages
        for lane in (Lane.EVENT, Lane.RESULT):
            for _ in range(100):
                put(store, 1, lane)
                await store.stored()
        assert kept + 100 < store.outbox.stats().messages < 200
        assert len(await drained(store)) > 100
        put(store, 1)
        await store.stored()
        assert len(take(store)) == 1


async def test_a_start_on_a_full_disk_goes_on_from_memory(small_disk: SmallDisk) -> None:
    small_disk.fill()
    with opened(small_disk.path / "store") as store:
        assert "is full" in store.trouble or "fails" in store.trouble
        epoch = store.epoch
        put(store, 5)
        await store.stored()
        assert take(store, 2) == [1, 2]
        (small_disk.path / "fill").unlink()
        await until(lambda: store.trouble == "")
        put(store, 1)
        await store.stored()
    with opened(small_disk.path / "store") as store:
        assert store.epoch == epoch + 1
        assert await drained(store) == [3, 4, 5, 6]


@pytest.mark.parametrize("killed", [False, True])
async def test_a_start_on_a_read_only_disk_sends_what_waits(small_disk: SmallDisk, killed: bool) -> None:
    directory = small_disk.path / "store"
    with opened(directory) as store:
        epoch = store.epoch
        store.remember("a", b"1")
        store.journal.finish(entry("a", b"ok"))
        put(store, 5)
        await store.stored()
        if killed:
            shutil.copytree(directory, small_disk.path / "copy")
    if killed:
        shutil.rmtree(directory)
        (small_disk.path / "copy").rename(directory)
    small_disk.remount("ro")
    with opened(directory) as store:
        assert "read-only" in store.trouble
        assert store.epoch > epoch
        assert store.recall("a") == b"1"
        await store.stored()
        assert await store.journal.find("a") == entry("a", b"ok")
        assert take(store, 2) == [1, 2]
        put(store, 1)
        await store.stored()
        epoch = store.epoch
        small_disk.remount("rw")
        await until(lambda: store.trouble == "")
    with opened(directory) as store:
        assert store.epoch == epoch + 1
        assert await drained(store) == [3, 4, 5, 6]


async def test_without_a_byte_more_for_any_file_it_goes_on_from_memory(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(tmp_path) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        try:
            for _ in range(10):
                put(store, 100)
                await store.stored()
            assert store.trouble
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await until(lambda: store.trouble == "")
    with opened(tmp_path) as store:
        assert await drained(store) == list(range(1, 1001))


# -- damaged --------------------------------------------------------------------------------------


def aside(directory: Path) -> list[Path]:
    return list(directory.glob("store.db.corrupt-*Z"))


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))


def text(path: Path) -> None:
    path.write_text("this is no database\n" * 100)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def foreign(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE customers (name TEXT)")


@pytest.mark.parametrize("damage", [garbage, text, truncated, foreign])
async def test_a_damaged_or_foreign_file_is_moved_aside_and_said(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    with opened(tmp_path) as store:
        put(store, 100)
    damage(tmp_path / "store.db")
    bad = (tmp_path / "store.db").read_bytes()
    with opened(tmp_path) as store:
        assert store.epoch > 1_700_000_000
        assert [(loss.reason, loss.count) for loss in store.outbox.losses()] == [("store-corrupt", 0)]
        assert [file.read_bytes() for file in aside(tmp_path)] == [bad]
        put(store, 1)
        assert store.trouble == ""
    with opened(tmp_path) as store:
        assert [loss.reason for loss in store.outbox.losses()] == ["store-corrupt"]
        assert await drained(store) == [1]


async def test_an_empty_file_is_a_store_that_was_just_begun(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    with opened(tmp_path) as store:
        assert store.outbox.losses() == []
        assert aside(tmp_path) == []


async def test_damage_while_it_runs_costs_only_what_was_in_the_file_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        put(store, 6000)
        store.remember("a", b"1")
        await store.stored()
    with opened(tmp_path) as store:
        await store.stored()
        path = tmp_path / "store.db"
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(path.stat().st_size - 4096))
        epoch = store.epoch
        got = await drained(store)
        assert got == list(range(1, len(got) + 1))
        assert 1000 < len(got) < 6000
        await store.outbox.empty()
        assert [loss.reason for loss in store.outbox.losses()] == ["store-corrupt"]
        put(store, 3)
        await store.stored()
        assert store.trouble == ""
    with opened(tmp_path) as store:
        assert (store.epoch, store.recall("a")) == (epoch + 1, b"1")
        assert await drained(store) == [6001, 6002, 6003]


# -- a large backlog ------------------------------------------------------------------------------


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def test_memory_is_flat_whatever_waits(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        put(store, 5000)
        await store.stored()
        before = _resident()
        for _ in range(195):
            put(store, 1000)
            await store.stored()
        assert store.outbox.stats().messages == 200_000
        assert _resident() - before < 20 * 1024 * 1024
        assert await drained(store) == list(range(1, 200_001))
        assert _resident() - before < 20 * 1024 * 1024


async def test_a_dead_letter_that_somebody_revives_is_sent_by_the_running_agent(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        put(store, 1)
        await store.stored()
        found = store.outbox.take(TOPIC)
        assert found is not None
        store.outbox.bury(found, "no")
        await store.stored()
        assert store.outbox.stats().messages == 0
        with Inspector(tmp_path, writable=True) as inspector:
            assert inspector.retry(inspector.dead_letter_ids()) == 1
        await until(lambda: store.outbox.stats().messages == 1)
        async with asyncio.timeout(5):
            await store.outbox.wait(TOPIC)
        assert take(store) == [1]
        async with asyncio.timeout(5):
            await store.outbox.empty()
