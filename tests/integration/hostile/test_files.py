"""Files under a storm: profiles, settings, databases, recordings and imports are read or refused."""

import io
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from storm import Storm, damaged, storming

from agent.kubeedge.documents import devices_in
from agent.kubeedge.profile import profile_lines
from agent.plugins import protocols
from agent.problems import ConfigErrors
from agent.profile import load_profile
from agent.settings import load_settings
from protocols.can.frame import EXTENDED, FD_LENGTHS, FDF, Frame
from protocols.can.recordings import logs
from protocols.can.recordings.writers import WRITERS
from protocols.can.signals import database

ROOT = Path(__file__).parents[3]
UNIT = ROOT / "tests/unit"
SETTINGS = b"""
bench: rig-07
broker: amqps://broker.bench.example:5671
username: rig-07
heartbeat: 5s
outbox_size: 64MiB
labels: {site: muc, rack: "7"}
"""
BOMB = b"[&a [x, x, x, x, x, x], &b [*a, *a, *a, *a, *a], &c [*b, *b, *b, *b], &d [*c, *c, *c], *d, *d]"
SPLICES = (
    BOMB,
    b"9" * 5000,
    b"{" * 500,
    b"0x" + b"f" * 500,
    b"1:" * 300,
    b"!!python/object:os.system x\n",
    b"\xff\xfe",
)


def withstood(
    storm: Storm,
    file: Path,
    originals: Sequence[bytes],
    read: Callable[[Path], object],
    wrong: type[Exception],
) -> None:
    """Has damaged files read: nothing but `wrong` is raised, and it says something."""
    while not storm.over:
        original = storm.chance.choice(originals)
        file.write_bytes(damaged(storm.chance, original, [*SPLICES, *originals]))
        storm.sent += 1
        try:
            read(file)
        except wrong as error:
            assert str(error)
            storm.refused += 1
    assert storm.refused


async def test_hostile_profiles(tmp_path: Path) -> None:
    originals = [file.read_bytes() for file in sorted((ROOT / "bench_profiles").glob("*.yaml"))]
    async with storming("profiles", 100) as storm:
        withstood(storm, tmp_path / "p.yaml", originals, lambda file: load_profile(file, {}), ConfigErrors)


async def test_hostile_settings(tmp_path: Path) -> None:
    async with storming("settings", 300) as storm:
        withstood(
            storm, tmp_path / "s.yaml", [SETTINGS], lambda file: load_settings(file, {}, {}), ConfigErrors
        )


@pytest.mark.parametrize("name", ["engine.dbc", "panel.kcd", "pump.sym"])
async def test_hostile_databases(tmp_path: Path, name: str) -> None:
    original = (UNIT / "databases" / name).read_bytes()
    async with storming(f"database {name}", 60) as storm:
        withstood(storm, tmp_path / name, [original], lambda file: database.load([file]), ValueError)


def frames(chance: random.Random) -> Iterator[Frame]:
    """Frames of every kind."""
    for place in range(40):
        fd = place % 3 == 0
        data = chance.randbytes(chance.choice(FD_LENGTHS) if fd else chance.randrange(9))
        wide = chance.randrange(1 << 29) | EXTENDED if place % 2 else chance.randrange(1 << 11)
        yield Frame(1_700_000_000_000_000_000 + place * 1_000_000, wide, data, FDF if fd else 0)


@pytest.mark.parametrize("kind", sorted(WRITERS))
async def test_hostile_recordings(tmp_path: Path, kind: str) -> None:
    chance, written = random.Random(kind), io.BytesIO()
    writer = WRITERS[kind](cast(BinaryIO, written), "can0")
    writer.write(list(frames(chance)))
    writer.finish()
    async with storming(f"recording {kind}", 300) as storm:
        withstood(
            storm, tmp_path / f"r.{kind}", [written.getvalue()], lambda file: all(logs.read(file)), ValueError
        )


def test_an_import_follows_no_aliases() -> None:
    bomb = "kind: [&a [x, x], &b [*a, *a], *b]\napiVersion: v1\n"
    with pytest.raises(ValueError, match="aliases"):
        devices_in({"bomb.yaml": bomb})


async def test_hostile_imports(tmp_path: Path) -> None:
    known = protocols()

    def read(file: Path) -> None:
        devices, left = devices_in({"d.yaml": file.read_text("utf-8")})
        list(profile_lines("d", devices, left, lambda name: known[name].config(), lambda text: None))

    originals = [file.read_bytes() for file in sorted((UNIT / "kubeedge").glob("*.yaml"))]
    async with storming("KubeEdge documents", 150) as storm:
        withstood(storm, tmp_path / "d.yaml", originals, read, ValueError)
