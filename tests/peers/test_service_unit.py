"""The systemd unit, read by systemd itself."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from agent.cli.app import app

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "hilgate@.service"
INSTALLED = "/opt/hilgate/bin/hilgate"


@pytest.mark.peer("systemd")
def test_systemd_has_nothing_to_say_about_the_unit(
    need: Callable[[str, str | None, str], None], tmp_path: Path
) -> None:
    missing = None if shutil.which("systemd-analyze") else "systemd-analyze is not installed"
    need("systemd", missing, "apt-get install systemd")
    text = UNIT.read_text("utf-8")
    assert INSTALLED in text
    # verify wants the program to be there; which options it takes is not its business.
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace(INSTALLED, sys.executable), "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    # It exits with 0 also over keys that it does not know.
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("key", ["ExecStart", "ExecStopPost"])
def test_the_unit_calls_hilgate_with_options_that_it_has(key: str) -> None:
    (line,) = [line for line in UNIT.read_text("utf-8").splitlines() if line.startswith(f"{key}=")]
    program, command, *arguments = line.removeprefix(f"{key}=").split()
    assert program == INSTALLED
    assert command == {"ExecStart": "run", "ExecStopPost": "safe-state"}[key]
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    context = group.commands[command].make_context(
        f"hilgate {command}", [word.replace("%i", "rig-07") for word in arguments]
    )
    assert context.params["profile"] == "/etc/hilgate/rig-07.profile.yaml"
    assert context.params["settings"] == Path("/etc/hilgate/rig-07.settings.yaml")
    assert context.params["bench"] == "rig-07"
    assert context.params["store"] == Path("%S/hilgate/rig-07")


def test_both_ends_fit_into_the_time_that_systemd_gives() -> None:
    lines = UNIT.read_text("utf-8").splitlines()
    (limit,) = [line for line in lines if line.startswith("TimeoutStopSec=")]
    (post,) = [line for line in lines if line.startswith("ExecStopPost=")]
    within = post.split("--within ")[1].removesuffix("s")
    assert float(limit.removeprefix("TimeoutStopSec=")) >= max(10.0, float(within)) + 5
