"""`hilgate signals`: a profile made of a database is valid as it is."""

from pathlib import Path

import yaml
from can_recordings import database
from shell import hilgate


async def test_what_is_printed_is_a_valid_profile(tmp_path: Path) -> None:
    printed = await hilgate("signals", str(database(tmp_path)))
    assert printed.code == 0, printed.err
    profile = tmp_path / "rig.yaml"
    profile.write_text(printed.out)
    checked = await hilgate("check", str(profile))
    assert checked.code == 0, checked.out
    points = yaml.safe_load(printed.out)["devices"]["bus"]["points"]
    assert points == {
        "speed": {"message": "Drive", "signal": "Speed"},
        "state": {"message": "Drive", "signal": "State"},
        "selector": {"message": "Multi", "signal": "Selector"},
        "alpha": {"message": "Multi", "signal": "Alpha"},
        "beta": {"message": "Multi", "signal": "Beta"},
        "other-speed": {"message": "Other", "signal": "Speed"},
    }
    assert "# Drive 0x100, 4 bytes, every 10ms, from ECU" in printed.out
    assert "signal: Speed} # -5000 to 5000 rpm" in printed.out
    assert "# 0 to 255 V; only with Selector" in printed.out


async def test_one_message_and_a_table(tmp_path: Path) -> None:
    contents = str(database(tmp_path))
    one = await hilgate("signals", contents, "--message", "Multi")
    assert list(yaml.safe_load(one.out)["devices"]["bus"]["points"]) == ["selector", "alpha", "beta"]
    table = await hilgate("signals", contents, "--message", "Drive", "--table")
    assert "16+3 Intel unsigned" in table.out
    assert "2=running, hot" in table.out
    assert "Alpha" not in table.out


async def test_mistakes_are_sentences(tmp_path: Path) -> None:
    unknown = await hilgate("signals", str(database(tmp_path)), "--message", "Drvie")
    assert unknown.code == 2
    assert "did you mean 'Drive'?" in unknown.err
    (tmp_path / "bad.dbc").write_text("BO_ nonsense")
    for name in ("bad.dbc", "none.dbc", "x.txt"):
        failed = await hilgate("signals", str(tmp_path / name))
        assert failed.code == 3
        assert name in failed.err
        assert "Traceback" not in failed.err


async def test_names_that_would_break_a_profile(tmp_path: Path) -> None:
    """KCD allows any name: YAML words, quotes, line ends."""
    (tmp_path / "odd.kcd").write_text(
        """<?xml version="1.0" encoding="UTF-8"?>
<NetworkDefinition xmlns="http://kayak.2codeornot2code.org/1.0"><Document name="x"/>
<Bus name="b"><Message id="0x1" length="2" name="on">
<Signal name="Off" offset="0" length="4"><Value unit="a&#10;b: {"/></Signal>
<Signal name="it's # &quot;odd&quot;: [x" offset="4" length="4"/>
<Signal name="\u00fc" offset="8" length="8"/>
</Message></Bus></NetworkDefinition>"""
    )
    printed = await hilgate("signals", str(tmp_path / "odd.kcd"))
    profile = tmp_path / "odd.yaml"
    profile.write_text(printed.out)
    checked = await hilgate("check", str(profile))
    assert checked.code == 0, printed.out + checked.out
    points = yaml.safe_load(printed.out)["devices"]["bus"]["points"]
    assert {point["signal"] for point in points.values()} == {"Off", 'it\'s # "odd": [x', "\u00fc"}
