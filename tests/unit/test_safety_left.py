"""What an agent leaves for the safe state: there before a device is touched, readable by nobody else."""

import json
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.profile import load_profile
from agent.safety import left
from agent.settings import Settings

PROFILE = load_profile("hydraulic-rig", {})
OTHER = load_profile("climate-chamber", {})
HIL = Settings(bench="rig-07", broker="amqps://broker.example", outbox_age=7.0, username="jane")
SIL = HIL.model_copy(update={"sil": True})


def test_it_is_what_the_agent_ran_with_for_its_owner_alone(tmp_path: Path) -> None:
    left.leave(tmp_path, OTHER, HIL)
    left.leave(tmp_path, PROFILE, HIL)
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    there = left.find(tmp_path)
    assert there is not None
    assert there.digest == PROFILE.digest == there.profile().digest
    found = there.settings({"bench": None, "store": tmp_path, "broker": "amqps://unused.invalid"})
    assert (found.bench, found.outbox_age, found.store, found.sil) == ("rig-07", 7.0, tmp_path, False)
    assert set(json.loads(file.read_text())["settings"]).isdisjoint({"username", "broker", "password_file"})


def test_a_simulated_bench_leaves_nothing_and_takes_away_what_there_was(tmp_path: Path) -> None:
    left.leave(tmp_path, PROFILE, HIL)
    left.leave(tmp_path, PROFILE, SIL)
    assert left.find(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_without_a_store_nothing_is_done() -> None:
    left.leave(None, PROFILE, HIL)
    left.forget(None)
    assert left.find(None) is None


def test_a_disk_that_fails_is_logged_and_leaves_no_older_one(tmp_path: Path) -> None:
    left.leave(tmp_path, OTHER, HIL)
    (tmp_path / ".safe-state.json.part").symlink_to("/dev/full")
    with capture_logs() as logs:
        left.leave(tmp_path, PROFILE, HIL)
    assert [line["event"] for line in logs] == ["the profile cannot be kept for the safe state"]
    assert "No space left" in logs[0]["reason"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"profile": 1}', '{"profile": {}}', "[" * 100_000])
def test_what_no_agent_leaves_is_an_error_that_is_expected(tmp_path: Path, text: str) -> None:
    (tmp_path / "safe-state.json").write_text(text)
    with pytest.raises(ValueError):  # noqa: PT011  # what kind does not matter
        left.find(tmp_path)


def test_a_file_in_the_directorys_place_has_nothing(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    assert left.find(tmp_path / "store") is None
