"""Parquet, MF4 and tables of signals: everything arrives, as others read it."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import can  # noqa: F401  # before asammdf: see protocols/can/recordings/mf4.py
import cantools.database
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from can_frames import RECORDINGS, START_NS, seen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.can.frame import BRS, ERROR, ESI, EXTENDED, FDF, OWN, REMOTE, Frame
from protocols.can.recordings import logs
from protocols.can.recordings.decoded import Decoder
from protocols.can.recordings.mf4 import Mf4SignalWriter, Mf4Writer
from protocols.can.recordings.parquet import ParquetSignalWriter, ParquetWriter
from protocols.can.recordings.writers import Writer
from protocols.can.signals.database import load

bounded = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))

DATABASE = """VERSION ""
BU_: ECU
BO_ 256 Drive: 8 ECU
 SG_ Speed : 0|16@1- (0.5,-3) [0|0] "rpm" Vector__XXX
 SG_ State : 16|3@1+ (1,0) [0|7] "" Vector__XXX
 SG_ Big : 24|40@1+ (1,0) [0|0] "" Vector__XXX
BO_ 257 Multi: 3 ECU
 SG_ Selector M : 0|8@1+ (1,0) [0|255] "" Vector__XXX
 SG_ Alpha m0 : 8|16@1+ (0.1,0) [0|0] "V" Vector__XXX
 SG_ Beta m1 : 15|12@0- (1,0) [0|0] "A" Vector__XXX
VAL_ 256 State 0 "off" 1 "on" ;
"""


def apart(frames: Sequence[Frame]) -> list[Frame]:
    """The frames one after the other: MF4 does not keep the order of those of one time."""
    return [frame._replace(time_ns=START_NS + n * 1_000_001) for n, frame in enumerate(frames)]


def written(path: Path, make: "type[ParquetWriter] | type[Mf4Writer]", frames: Sequence[Frame]) -> Path:
    with path.open("w+b") as file:
        writer: Writer = make(file)
        for begin in range(0, len(frames), 7):
            writer.write(frames[begin : begin + 7])
            if begin % 3 == 0:
                writer.flush()
        writer.finish()
    return path


@given(frames=RECORDINGS)
@bounded
def test_mf4_keeps_every_frame(frames: list[Frame], tmp_path: Path) -> None:
    frames = apart(frames)
    found = list(logs.read(written(tmp_path / "x.mf4", Mf4Writer, frames)))
    assert len(found) == len(frames)
    for ours, back in zip(frames, found, strict=True):
        assert abs(ours.time_ns - back.time_ns) <= 1000
        assert back[1:] == seen(ours)[1:]


@given(frames=RECORDINGS)
@bounded
def test_parquet_keeps_every_frame(frames: list[Frame], tmp_path: Path) -> None:
    frames = apart(frames)
    table = pq.read_table(written(tmp_path / "x.parquet", ParquetWriter, frames))
    rows = table.to_pylist()
    stamps = table.column("time").cast("int64").to_pylist()
    kinds = {"data": 0, "remote": REMOTE, "error": ERROR}
    found = [
        Frame(
            stamp,
            row["id"] | row["extended"] * EXTENDED | kinds[row["type"]],
            bytes(row["length"]) if row["type"] == "remote" else row["data"],
            row["fd"] * FDF | row["brs"] * BRS | row["esi"] * ESI | (row["direction"] == "tx") * OWN,
        )
        for stamp, row in zip(stamps, rows, strict=True)
    ]
    assert found == [seen(frame) for frame in frames]


@given(
    contents=st.lists(
        st.tuples(st.just(256), st.binary(min_size=8, max_size=8))
        | st.tuples(
            st.just(257),
            st.builds(
                lambda s, rest: bytes([s]) + rest, st.integers(0, 1), st.binary(min_size=2, max_size=2)
            ),
        )
        | st.tuples(st.sampled_from([258, 256 | REMOTE, 256 | EXTENDED]), st.just(bytes(3))),
        max_size=40,
    )
)
@bounded
def test_signals_are_those_of_cantools(contents: list[tuple[int, bytes]], tmp_path: Path) -> None:
    dbc = tmp_path / "drive.dbc"
    dbc.write_text(DATABASE)
    theirs = cantools.database.load_file(dbc)
    frames = apart([Frame(0, can_id, data) for can_id, data in contents])
    expected = [
        (frame.time_ns, theirs.get_message_by_frame_id(frame.can_id).name, name, value)  # type: ignore[union-attr]
        for frame in frames
        if frame.can_id in (256, 257)
        for name, value in theirs.decode_message(frame.can_id, frame.data, decode_choices=False).items()  # type: ignore[union-attr]
    ]
    decoder = Decoder(load([dbc]))
    found = [
        (time_ns, known.message.name, name, value)
        for time_ns, known, values in decoder(frames)
        for name, value in values.items()
    ]
    assert sorted(found) == sorted(expected)
    assert decoder.unknown == sum(frame.can_id in (258, 256 | EXTENDED) for frame in frames)


def test_labels_stand_beside_numbers_and_mdf_groups_follow_the_multiplexer(tmp_path: Path) -> None:
    from asammdf import MDF

    dbc = tmp_path / "drive.dbc"
    dbc.write_text(DATABASE)
    multi = [Frame(0, 257, bytes([n % 2, n, n])) for n in range(100)]
    frames = apart([*multi, Frame(0, 256, bytes([0, 0, 1]) + bytes(5))])
    file = io.BytesIO()
    parquet = ParquetSignalWriter(cast(BinaryIO, file), load([dbc]))
    parquet.write(frames)
    parquet.finish()
    rows = pq.read_table(io.BytesIO(file.getvalue())).to_pylist()
    assert [(row["value"], row["label"]) for row in rows if row["signal"] == "State"] == [(1.0, "on")]
    with (tmp_path / "x.mf4").open("w+b") as target:
        mf4 = Mf4SignalWriter(target, load([dbc]))
        for begin in range(0, len(frames), 10):
            mf4.write(frames[begin : begin + 10])
            mf4.flush()
        mf4.finish()
    with MDF(tmp_path / "x.mf4") as mdf:
        assert len(mdf.groups) == 3
        assert len(mdf.get("Alpha").samples) == len(mdf.get("Beta").samples) == 50
        assert mdf.get("Big").samples.tolist() == [0]
        stamps = mdf.get("Beta").timestamps.tolist()
        assert stamps == sorted(stamps)
