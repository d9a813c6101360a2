"""A CAN device of a profile: what the database makes of its points, and that it counts for the digest."""

import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from pydantic import ValidationError

from agent.profile import load_profile
from protocols.base import Refused
from protocols.can import PROTOCOL
from protocols.can.bus import BusState
from protocols.can.config import CanDevice, Message
from protocols.can.point import CanPoint
from protocols.units import WRITTEN

DATABASES = Path(__file__).parent / "databases"
INSTALLED = {"can": PROTOCOL}


def device(points: Mapping[str, Any], **fields: Any) -> CanDevice:
    content = {
        "protocol": "can",
        "connection": {"channel": "can0", "fd": True},
        "database": "engine.dbc",
        "points": points,
    }
    context = {**WRITTEN, "folder": DATABASES}
    return CanDevice.model_validate(content | fields, context=context).named("engine", DATABASES)


def point(**fields: Any) -> CanPoint:
    return device({"p": fields}).points["p"]


def test_points_are_bound_to_their_signals() -> None:
    made = device({"speed": {"signal": "Speed"}, "mode": {"signal": "Mode", "access": "rw"}})
    message, signal = made.points["speed"].bound
    assert message is made.contents.messages["EngineData"]
    assert signal is message.signals["Speed"]
    assert made.points["mode"].bound[0].name == "Command"
    assert device({"state": {"bus": "state"}}).points["state"].is_bound is False


def test_unit_and_description_are_the_databases() -> None:
    found = point(signal="Speed")
    assert (found.unit, found.description) == ("rpm", "Speed of the crankshaft.")
    assert found.model_fields_set == {"signal"}
    assert found.model_dump(exclude_unset=True) == {"signal": "Speed"}
    own = point(signal="Speed", unit="1/min", description="How fast it turns.")
    assert (own.unit, own.description) == ("1/min", "How fast it turns.")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"signal": "Speed"}, "number"),
        ({"signal": "Gain"}, "number"),
        ({"signal": "CoolantTemp"}, "integer"),
        ({"signal": "Count"}, "integer"),
        ({"signal": "Running"}, "boolean"),
        ({"signal": "Gear"}, "enumeration"),
        ({"signal": "Gear", "labels": "no"}, "integer"),
        ({"signal": "Gear", "unit": "step"}, "integer"),
        ({"signal": "CoolantTemp", "labels": "yes"}, "enumeration"),
        ({"bus": "state"}, "enumeration"),
        ({"bus": "load"}, "number"),
        ({"bus": "tx-errors"}, "integer"),
        ({"bus": "dropped"}, "integer"),
    ],
)
def test_kinds(fields: dict[str, Any], kind: str) -> None:
    assert point(**fields).kind == kind


def test_choices() -> None:
    assert point(signal="Gear").choices == ("Neutral", "First", "Second", "Reverse")
    assert point(signal="Gear", labels="no").choices == ()
    assert point(bus="state").choices == tuple(state.value for state in BusState)
    assert point(bus="load").choices == ()


def test_a_point_without_a_database_is_lenient() -> None:
    """Of a device that is wrong elsewhere, the rest is checked without knowing its signals."""
    unbound = CanPoint(signal="Mode", access="rw", max=5)
    assert unbound.kind == "number"
    assert unbound.accept("On") == "On"
    with pytest.raises(Refused, match="above its max"):
        unbound.accept(6)
    with pytest.raises(Refused, match="takes a value"):
        unbound.accept([1])


def test_settings_of_messages() -> None:
    made = device({"speed": {"signal": "Speed"}}, messages={"EngineData": {"cycle": "20ms"}})
    assert made.settings_of("EngineData").cycle == 0.02
    assert made.settings_of("Command") == Message()


def test_database_files() -> None:
    assert device({"speed": {"signal": "Speed"}}).database_files == ("engine.dbc",)
    several = device({"s": {"signal": "State"}}, database=["engine.dbc", "pump.sym", "panel.kcd"])
    assert several.attachments() == {
        name: (DATABASES / name).read_bytes() for name in ("engine.dbc", "pump.sym", "panel.kcd")
    }
    without = device({}, database=[], frames={})
    assert without.attachments() == {}
    assert without.contents.messages == {}


def test_without_a_folder_files_are_where_the_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    content = {
        "protocol": "can",
        "connection": {"channel": "can0"},
        "database": "engine.dbc",
        "points": {"speed": {"signal": "Speed"}},
    }
    with pytest.raises(ValidationError, match=r"there is no file engine\.dbc"):
        CanDevice.model_validate(content)
    monkeypatch.chdir(DATABASES)
    assert CanDevice.model_validate(content).points["speed"].unit == "rpm"


PROFILE = """\
profile: rig
devices:
  engine:
    protocol: can
    connection: {channel: can0}
    database: engine.dbc
    points:
      speed: {signal: Speed}
"""


def test_the_database_counts_for_the_digest(tmp_path: Path) -> None:
    path, database = tmp_path / "profile.yaml", tmp_path / "engine.dbc"
    path.write_text(PROFILE)
    content = (DATABASES / "engine.dbc").read_bytes()
    database.write_bytes(content)
    first = load_profile(path, {}, INSTALLED)
    assert load_profile(path, {}, INSTALLED).digest == first.digest
    database.write_bytes(content.replace(b"(0.25,0)", b"(0.5,0)"))
    assert load_profile(path, {}, INSTALLED).digest != first.digest


def test_importing_the_protocol_is_cheap() -> None:
    """Neither python-can nor cantools is imported before a database is read."""
    code = (
        "import sys, protocols.can.config, protocols.can.plan; print({'can', 'cantools'} & set(sys.modules))"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


WHOLE = """\
VERSION ""

BU_: Tester

BO_ 1 Numbers: 8 Tester
 SG_ {signal} "" Tester

SG_MUL_VAL_ 1 S O 1-1;
"""


@pytest.mark.parametrize(
    ("signal", "kind", "mistake"),
    [
        ("S : 0|64@1+ (1,0) [0|0]", "integer", ""),
        ("S : 0|64@1- (1,0) [0|0]", "integer", ""),
        ("S : 0|64@1+ (2,0) [0|0]", "", "has values of more than 64 bits"),
        ("S : 0|64@1- (1,-1) [0|0]", "", "has values of more than 64 bits"),
        ("S : 0|64@1+ (0.5,0) [0|0]", "number", ""),
        ("S : 0|32@1+ (2,0.5) [0|0]", "number", ""),
        ("S : 0|8@1+ (2,-3) [0|0]", "integer", ""),
        ("S : 0|8@1+ (0,1) [0|0]", "", "its factor in the database is 0"),
        ("S : 60|8@1+ (1,0) [0|0]", "", "does not fit into message Numbers"),
        (
            'P M : 0|8@1+ (1,0) [0|0] "" Tester\n SG_ O : 8|8@1+ (1,0) [0|0] "" Tester\n'
            ' SG_ Q m2M : 24|8@1+ (1,0) [0|0] "" Tester\n SG_ S m1 : 16|8@1+ (1,0) [0|0]',
            "",
            "is in no frame, by what the database says of its multiplexers",
        ),
        ("S : 0|1@1- (1,0) [0|0]", "integer", ""),
        ("S : 0|1@1+ (2,0) [0|0]", "integer", ""),
    ],
)
def test_signals_of_all_kinds(tmp_path: Path, signal: str, kind: str, mistake: str) -> None:
    (tmp_path / "numbers.dbc").write_text(WHOLE.format(signal=signal))
    content = {
        "protocol": "can",
        "connection": {"channel": "can0"},
        "database": "numbers.dbc",
        "points": {"p": {"signal": "S", "access": "rw"}},
    }
    if mistake:
        with pytest.raises(ValidationError, match=mistake):
            CanDevice.model_validate(content, context={"folder": tmp_path})
    else:
        made = CanDevice.model_validate(content, context={"folder": tmp_path})
        assert made.points["p"].kind == kind


def test_multiplexers_and_what_they_select_may_be_written() -> None:
    names = ("Page", "Voltage", "SubPage", "Current")
    points = {name.lower(): {"signal": name, "access": "rw"} for name in names}
    assert device(points).points["current"].accept(1.0) == 1.0
    with pytest.raises(ValidationError, match="in different frames"):
        device(points, messages={"Pages": {"send": "cyclic", "cycle": "1s"}})
    alone = {name: points[name] for name in ("page", "voltage")}
    assert device(alone, messages={"Pages": {"send": "cyclic", "cycle": "1s"}}).points.keys() == alone.keys()


def test_an_initial_value_that_does_not_fit_keeps_a_message_from_being_sent(tmp_path: Path) -> None:
    text = (
        (DATABASES / "engine.dbc").read_bytes().replace(b"SG_ 512 Setpoint 8000", b"SG_ 512 Setpoint 80000")
    )
    (tmp_path / "engine.dbc").write_bytes(text)
    content = {"protocol": "can", "connection": {"channel": "can0"}, "database": "engine.dbc"}
    context = {"folder": tmp_path}
    read_only = {"points": {"mode": {"signal": "Mode"}}}
    assert CanDevice.model_validate(content | read_only, context=context).points
    written = {"points": {"mode": {"signal": "Mode", "access": "rw"}}}
    with pytest.raises(
        ValidationError, match=r"its message begins with Setpoint = 8000, but its 16 bits hold"
    ):
        CanDevice.model_validate(content | written, context=context)
    both = {"setpoint": {"signal": "Setpoint", "access": "rw"}, "mode": {"signal": "Mode", "access": "rw"}}
    with pytest.raises(ValidationError, match="its message begins with"):
        CanDevice.model_validate(content | {"points": both}, context=context)
    own = {"setpoint": {"signal": "Setpoint", "initial": 5}, "mode": {"signal": "Mode", "access": "rw"}}
    assert CanDevice.model_validate(content | {"points": own}, context=context).points
