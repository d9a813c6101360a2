"""`hilgate convert`: frames and signals in every format, opened by others."""

import csv
import os
from pathlib import Path
from typing import Any

import can  # first: python-can does without MF4 when asammdf was imported before
import pytest
from can_recordings import FRAMES, START_NS, database, recording
from shell import hilgate

from protocols.can.frame import ERROR, EXTENDED_MASK, REMOTE, Frame
from protocols.can.recordings import logs


@pytest.mark.parametrize("suffix", ["blf", "asc", "log", "pcapng", "csv", "log.gz"])
async def test_frames_from_every_format_into_blf(suffix: str, tmp_path: Path) -> None:
    source, target = recording(tmp_path, f"in.{suffix}"), tmp_path / "out.blf"
    done = await hilgate("convert", str(source), str(target), "--json")
    assert done.code == 0, done.err
    assert done.lines == [
        {"file": str(target), "frames": len(FRAMES), "unknown": 0, "bytes": target.stat().st_size}
    ]
    assert list(logs.read(target)) == list(logs.read(source))
    assert sorted(os.listdir(tmp_path)) == [source.name, "out.blf"]


async def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    source, target = recording(tmp_path, "in.blf"), tmp_path / "out.asc"
    target.write_text("mine")
    refused = await hilgate("convert", str(source), str(target))
    assert (refused.code, target.read_text()) == (2, "mine")
    assert "--force overwrites it" in refused.err
    done = await hilgate("convert", str(source), str(target), "--force")
    assert done.code == 0
    assert f"{len(FRAMES)} frames written to" in done.err
    assert len(list(logs.read(target))) == len(FRAMES)


@pytest.mark.parametrize(
    ("name", "content", "code", "says"),
    [
        ("in.log", b"(1.0) nonsense\n", 3, "in.log, line 1: it is no line of candump"),
        ("in.blf", b"LOGG", 3, "before byte 4: it does not begin as a BLF file"),
        ("in.txt", b"", 2, "a recording ends in one of"),
    ],
)
async def test_a_damaged_file_is_a_sentence_and_leaves_nothing(
    name: str, content: bytes, code: int, says: str, tmp_path: Path
) -> None:
    source = tmp_path / name
    source.write_bytes(content)
    failed = await hilgate("convert", str(source), str(tmp_path / "out.csv"))
    assert failed.code == code
    assert says in failed.err
    assert "Traceback" not in failed.err
    assert os.listdir(tmp_path) == [name]


async def test_targets_that_cannot_be(tmp_path: Path) -> None:
    source = recording(tmp_path, "in.blf")
    for target, more, says in (
        ("out.txt", (), "OUT should end in one of .blf, .asc, .log, .pcapng, .csv, .parquet, .mf4"),
        ("out.blf", ("--database", str(database(tmp_path))), "Signals go into one of .csv, .parquet, .mf4"),
        ("none/out.blf", (), "No such file"),
    ):
        failed = await hilgate("convert", str(source), str(tmp_path / target), *more)
        assert failed.code in (2, 3)
        assert says in failed.err
    assert not [name for name in os.listdir(tmp_path) if name.startswith("out")]


async def test_a_missing_extra_says_what_to_install(tmp_path: Path) -> None:
    """As where only the agent is installed: importing pyarrow and asammdf fails."""
    for package in ("pyarrow", "asammdf"):
        (tmp_path / package).mkdir()
        text = f"raise ModuleNotFoundError('No module named {package}', name={package!r})"
        (tmp_path / package / "__init__.py").write_text(text)
    source = recording(tmp_path, "in.blf")
    for suffix, package in (("parquet", "pyarrow"), ("mf4", "asammdf")):
        failed = await hilgate(
            "convert", str(source), str(tmp_path / f"out.{suffix}"), PYTHONPATH=str(tmp_path)
        )
        assert failed.code == 3
        assert f"this needs the package {package}: install hilgate[convert]" in failed.err


async def test_frames_as_parquet(tmp_path: Path) -> None:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    target = tmp_path / "out.parquet"
    done = await hilgate("convert", str(recording(tmp_path, "in.blf")), str(target))
    assert done.code == 0, done.err
    table = pq.read_table(target)
    assert table.column("time").cast("int64").to_pylist() == [frame.time_ns for frame in FRAMES]
    assert table.column("id").to_pylist() == [frame.can_id & EXTENDED_MASK for frame in FRAMES]
    assert table.column("type").to_pylist() == [
        "error" if frame.can_id & ERROR else "remote" if frame.can_id & REMOTE else "data" for frame in FRAMES
    ]
    assert table.column("length").to_pylist() == [len(frame.data) for frame in FRAMES]
    assert table.column("data").to_pylist() == [
        b"" if frame.can_id & REMOTE else frame.data for frame in FRAMES
    ]


async def test_frames_as_mf4_by_asams_convention(tmp_path: Path) -> None:
    target = tmp_path / "out.mf4"
    done = await hilgate("convert", str(recording(tmp_path, "in.blf")), str(target))
    assert done.code == 0, done.err
    with can.MF4Reader(target) as reader:
        theirs = list(reader)
    expected = sorted(FRAMES, key=lambda frame: frame.time_ns)
    assert [message.arbitration_id for message in theirs] == [f.can_id & EXTENDED_MASK for f in expected]
    assert [message.is_fd for message in theirs] == [bool(frame.flags & 4) for frame in expected]
    ours = list(logs.read(target))
    for frame, back in zip(expected, ours, strict=True):
        assert abs(frame.time_ns - back.time_ns) <= 1000
        assert (frame.data, frame.can_id) == (back.data, back.can_id)


EXPECTED = [
    ("Drive", "Speed", 1500.5, "", "rpm"),
    ("Drive", "State", 2, "running, hot", ""),
    ("Drive", "Speed", -1.0, "", "rpm"),
    ("Drive", "State", 7, "", ""),
    ("Multi", "Selector", 0, "", ""),
    ("Multi", "Alpha", 17, "", "V"),
    ("Multi", "Selector", 1, "", ""),
    ("Multi", "Beta", -3, "", "A"),
]


async def test_signals_as_csv(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    source, contents = recording(tmp_path, "in.blf"), database(tmp_path)
    done = await hilgate("convert", str(source), str(target), "--database", str(contents), "--json")
    assert done.code == 0, done.err
    (summary,) = done.lines
    assert summary["unknown"] > 0
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = [(r["message"], r["signal"], float(r["value"]), r["label"], r["unit"]) for r in rows]
    assert found == EXPECTED
    assert rows[0]["time"] == "2026-09-21T14:13:20.000000123Z"


async def test_signals_as_parquet(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    target = tmp_path / "out.parquet"
    source, contents = recording(tmp_path, "in.blf"), database(tmp_path)
    done = await hilgate("convert", str(source), str(target), "--database", str(contents))
    assert done.code == 0, done.err
    assert "of them are of no message that the database can decode" in done.err
    table = pq.read_table(target)
    rows = table.to_pylist()
    found = [(r["message"], r["signal"], r["value"], r["label"] or "", r["unit"]) for r in rows]
    assert found == EXPECTED
    assert table.column("time").cast("int64")[0].as_py() == START_NS + 123


async def test_signals_as_mf4(tmp_path: Path) -> None:
    from asammdf import MDF

    target = tmp_path / "out.mf4"
    source, contents = recording(tmp_path, "in.blf"), database(tmp_path)
    done = await hilgate("convert", str(source), str(target), "--database", str(contents))
    assert done.code == 0, done.err
    with MDF(target) as mdf:
        assert mdf.header.start_time.timestamp() == pytest.approx(START_NS / 1e9, abs=1e-6)
        speed = mdf.get("Speed")
        assert speed.unit == "rpm"
        assert speed.samples.tolist() == [1500.5, -1.0]
        assert speed.timestamps.tolist() == pytest.approx([0.000000123, 0.001], abs=1e-9)
        assert mdf.get("State", raw=True).samples.tolist() == [2, 7]
        labels: list[Any] = mdf.get("State").samples.tolist()
        assert labels[0] in (b"running, hot", "running, hot")
        assert mdf.get("Alpha").samples.tolist() == [17]
        assert mdf.get("Beta").samples.tolist() == [-3]


async def test_a_large_file_takes_flat_memory_and_the_right_frames(tmp_path: Path) -> None:
    """More than one piece, row group and container."""
    frames = [Frame(START_NS + n * 1000, 0x123, n.to_bytes(8)) for n in range(150_000)]
    source = recording(tmp_path, "in.blf", frames)
    for suffix in ("pcapng", "parquet", "mf4"):
        done = await hilgate("convert", str(source), str(tmp_path / f"out.{suffix}"), "--json")
        assert done.lines[0]["frames"] == len(frames), done.err
    assert [int.from_bytes(frame.data) for frame in logs.read(tmp_path / "out.pcapng")] == list(
        range(150_000)
    )
    import pyarrow.parquet as pq

    data = pq.read_table(tmp_path / "out.parquet").column("data").to_pylist()
    assert [int.from_bytes(payload) for payload in data] == list(range(150_000))
    from asammdf import MDF

    with MDF(tmp_path / "out.mf4") as mdf:
        samples = mdf.get("CAN_DataFrame.DataBytes").samples
        assert len(samples) == 150_000
        assert bytes(samples[-1][:8]) == (149_999).to_bytes(8)
