"""Database files: what is kept of them, what refuses them, and that each is read once."""

import os
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.can.frame import EXTENDED
from protocols.can.signals import database
from protocols.can.signals.database import Message, Signal, load

FOLDER = Path(__file__).parent / "databases"
WRONG = FOLDER / "wrong"
ENGINE = FOLDER / "engine.dbc"


def _message(file: str, name: str) -> Message:
    return load([FOLDER / file]).messages[name]


def test_messages_of_a_dbc() -> None:
    found = load([ENGINE])
    assert list(found.messages) == ["EngineData", "Command", "Pages", "Wide"]
    assert list(found.by_id) == [0x100, 0x200, 0x18FEC9F1 | EXTENDED, 0x300]
    assert found.files == {ENGINE: ENGINE.read_bytes()}
    message = found.messages["EngineData"]
    assert (message.length, message.fd, message.cycle) == (8, False, 0.01)
    assert (list(message.senders), message.comment) == (["Controller"], "What the engine does.")
    assert found.messages["Command"].cycle is None
    wide = found.messages["Wide"]
    assert (wide.length, wide.fd) == (16, True)


@pytest.mark.parametrize("file", ["engine.dbc", "engine-utf8.dbc"])
def test_signals_of_a_dbc(file: str) -> None:
    signals = _message(file, "EngineData").signals
    assert signals["Speed"] == Signal(
        "Speed",
        0,
        16,
        True,
        scale=0.25,
        minimum=0,
        maximum=16000,
        unit="rpm",
        comment="Speed of the crankshaft.",
    )
    assert signals["CoolantTemp"] == Signal(
        "CoolantTemp",
        16,
        8,
        True,
        offset=-40,
        minimum=-40,
        maximum=210,
        unit="\N{DEGREE SIGN}C",
        choices={255: "Not available"},
        initial=20,
    )
    # A unit of "-" is none, and limits of 0 and 0 are none.
    labels = {0: "Neutral", 1: "First", 2: "Second", 15: "Reverse"}
    assert signals["Gear"] == Signal("Gear", 24, 4, True, choices=labels)
    assert signals["Torque"] == Signal(
        "Torque", 39, 12, False, True, scale=0.5, minimum=-1000, maximum=1000, unit="Nm"
    )


def test_floats_labels_and_initial_values() -> None:
    signals = _message("engine.dbc", "Command").signals
    assert (signals["Gain"].is_float, signals["Gain"].length) == (True, 32)
    assert (signals["Gain"].minimum, signals["Gain"].maximum) == (None, None)
    assert signals["Mode"].initial == "Standby"
    assert signals["Setpoint"].initial == 800
    assert type(_message("engine.dbc", "EngineData").signals["CoolantTemp"].initial) is int


def test_multiplexers_in_multiplexers() -> None:
    signals = _message("engine.dbc", "Pages").signals
    found = {
        name: (signal.is_multiplexer, signal.selector, sorted(signal.selected_by))
        for name, signal in signals.items()
    }
    assert found == {
        "Page": (True, None, []),
        "Voltage": (False, "Page", [0]),
        "SubPage": (True, "Page", [1, 2, 5]),
        "Current": (False, "SubPage", [3]),
    }


def test_kcd() -> None:
    message = _message("panel.kcd", "PanelLight")
    assert (message.can_id, message.length, message.cycle, list(message.senders)) == (
        0x400,
        2,
        0.1,
        ["Panel"],
    )
    assert message.signals["Brightness"] == Signal("Brightness", 0, 8, True, scale=0.5, maximum=100, unit="%")
    assert message.signals["Colour"].choices == {0: "Red", 1: "Green"}


def test_sym() -> None:
    message = _message("pump.sym", "PumpState")
    assert (message.can_id, message.length, message.cycle) == (0x350, 3, 0.05)
    assert message.signals["Flow"] == Signal("Flow", 15, 16, False, scale=0.1, unit="l/min")
    assert message.signals["State"].choices == {0: "Stopped", 1: "Running"}


def test_what_no_frame_can_carry_is_unsupported() -> None:
    long = load([WRONG / "long.dbc"]).messages
    assert long["Transported"].unsupported == "has more bytes than a frame"
    assert long["Full"].unsupported == ""
    assert long["Full"].fd


def test_several_files_are_one_database() -> None:
    found = load([ENGINE, FOLDER / "panel.kcd", FOLDER / "pump.sym"])
    assert {"EngineData", "PanelLight", "PumpState"} < found.messages.keys()
    assert len(found.files) == 3
    assert load([]).messages == {}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["missing.dbc"], "there is no file {folder}/missing.dbc"),
        (["."], "there is no file {folder}"),
        (["notes.txt"], "{folder}/notes.txt: a database file ends in one of .dbc, .kcd, .sym, .arxml"),
        (
            ["syntax.dbc"],
            '{folder}/syntax.dbc: Invalid syntax at line 4, column 12: " SG_ Speed >>!<<0|16@1+"',
        ),
        (["syntax.kcd"], "{folder}/syntax.kcd: mismatched tag: line 1, column 26"),
        (
            ["infinite.dbc"],
            "{folder}/infinite.dbc: signal S: its factor and its offset should be finite numbers",
        ),
        (
            ["../engine.dbc", "same-id.dbc"],
            "EngineData (0x100) of engine.dbc and Other (0x100) of same-id.dbc have the same id",
        ),
        (
            ["../engine.dbc", "same-name.dbc"],
            "EngineData (0x100) of engine.dbc and EngineData (0x101) of same-name.dbc have the same name",
        ),
    ],
)
def test_what_is_wrong(files: list[str], message: str) -> None:
    for _ in range(2):  # what is wrong is not kept
        with pytest.raises(ValueError, match=f"^{re.escape(message.format(folder=WRONG))}$"):
            load([WRONG / file for file in files])


def test_what_one_file_says_twice_is_ambiguous() -> None:
    found = load([WRONG / "ambiguous.dbc"])
    assert list(found.messages) == ["C"]
    assert list(found.by_id) == [2]
    why = "A (0x001) of ambiguous.dbc and B (0x001) have the same id"
    assert found.ambiguous == {"A": why, "B": why}


def test_signals_that_overlap_or_do_not_fit_do_not_refuse_a_file() -> None:
    message = load([WRONG / "ambiguous.dbc"]).messages["C"]
    assert {name: message.holds(signal) for name, signal in message.signals.items()} == {
        "U": True,
        "Over": True,
        "Far": False,
    }


def test_a_file_is_read_once_while_it_does_not_change(tmp_path: Path) -> None:
    file = tmp_path / "engine.dbc"
    shutil.copy(ENGINE, file)
    first = load([file]).messages["Command"]
    assert load([file]).messages["Command"] is first
    file.write_bytes(ENGINE.read_bytes().replace(b"Setpoint", b"Setpoind"))
    os.utime(file, ns=(2, 2))
    changed = load([file]).messages["Command"]
    assert "Setpoind" in changed.signals
    shutil.copy(ENGINE, file)
    os.utime(file, ns=(1, 1))
    assert "Setpoint" in load([file]).messages["Command"].signals


def test_few_files_are_kept(tmp_path: Path) -> None:
    for number in range(40):
        file = tmp_path / f"{number}.dbc"
        shutil.copy(ENGINE, file)
        load([file])
    assert len(database._read) <= 32


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "engine.dbc"
    shutil.copy(ENGINE, file)

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ValueError, match=r"engine\.dbc: Permission denied$"):
        load([file])


@settings(max_examples=60)
@given(data=st.data(), file=st.sampled_from(["engine.dbc", "panel.kcd", "pump.sym"]))
def test_a_damaged_file_is_an_error_or_a_database(
    data: st.DataObject, file: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = bytearray((FOLDER / file).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=4))
    damaged = tmp_path_factory.mktemp("damaged") / file
    damaged.write_bytes(text)
    try:
        load([damaged])
    except ValueError as error:
        assert str(error).startswith(str(damaged)) or "the same" in str(error)
