"""Interlocks and rates as a profile says them."""

from pathlib import Path

from toy_protocol import INSTALLED

from agent.profile import load_profile
from protocols.interlock import Band, Interlock

PROFILE = """
profile: rig
templates:
  guarded: {access: rw, safe: 0, requires: {door: 1}}
devices:
  plc:
    protocol: toy
    connection: {kind: line, host: a.example}
    points:
      door: {address: 0}
      door-{n}: {address: 10, repeat: {count: 2, step: {address: 1}}}
      out-{n}:
        template: guarded
        address: 20
        max_rate: 2.5
        repeat: {count: 2, step: {address: 1}}
        requires: {"door-{n}": 1, "other.level-{n}": {min: -1, max: 2.5}}
      single: {template: guarded, address: 5}
      free: {address: 6, access: rw}
  other:
    protocol: toy
    connection: {kind: line, host: b.example}
    points:
      level-{n}: {address: 0, repeat: {count: 2, step: {address: 1}}}
"""


def test_interlocks_name_points_of_their_own_device_or_of_another(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(PROFILE)
    points = load_profile(path, {}, INSTALLED).devices["plc"].points
    assert list(points["out-2"].interlocks("plc")) == [
        Interlock("door-2", "plc", "door-2", 1),
        Interlock("other.level-2", "other", "level-2", Band(min=-1, max=2.5)),
    ]
    assert list(points["single"].interlocks("plc")) == [Interlock("door", "plc", "door", 1)]
    assert list(points["free"].interlocks("plc")) == []
    assert (points["out-1"].max_rate, points["free"].max_rate) == (2.5, None)


def test_a_band_is_said_in_words() -> None:
    assert str(Band(min=10)) == "at least 10"
    assert str(Band(max=2.5)) == "at most 2.5"
    assert str(Band(min=-1, max=1)) == "from -1 to 1"
