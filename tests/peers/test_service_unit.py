"""The systemd unit, read by systemd itself."""

import os
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
    exposed = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
    assert subprocess.run(exposed, stdout=subprocess.DEVNULL, timeout=60, check=False).returncode == 0


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


@pytest.mark.peer("systemd")
def test_networkd_knows_every_key_of_the_can_files(need: Callable[[str, str | None, str], None]) -> None:
    networkd = Path("/lib/systemd/systemd-networkd")
    missing = None if networkd.exists() else "systemd-networkd is not installed"
    need(
        "systemd",
        missing or (None if os.geteuid() == 0 else "only root can try it"),
        "apt-get install systemd",
    )
    # In namespaces of its own it finds these files alone, and no interface to touch. It says nothing of files
    # that it likes, so one key more shows that it read them; then it is ended.
    script = """
        mount -t tmpfs none /run
        mkdir -p /run/systemd/network
        cp "$1"/80-* /run/systemd/network/
        echo Bogus=1 >>/run/systemd/network/80-can.network
        ("$2" 2>&1 & echo $! >/run/pid; wait) | while read -r line; do
            echo "$line"
            case $line in *"Enumeration completed"*) kill "$(cat /run/pid)" ;; esac
        done
    """
    command = [
        "unshare",
        "--net",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
        str(UNIT.parent / "network"),
        str(networkd),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in done.stdout.splitlines() if "/run/systemd/network/" in line]
    assert len(said) == 1, done
    assert "80-can.network" in said[0]
    assert "Bogus" in said[0]


@pytest.mark.peer("systemd")
def test_an_image_gets_the_group_that_the_unit_names(
    need: Callable[[str, str | None, str], None], tmp_path: Path
) -> None:
    missing = None if shutil.which("systemd-sysusers") else "systemd-sysusers is not installed"
    need(
        "systemd",
        missing or (None if os.geteuid() == 0 else "only root can give files to users"),
        "apt-get install systemd",
    )
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (etc / "group").write_text("root:x:0:\ndialout:x:20:\n")
    command = [str(Path(sys.executable).with_name("hilgate")), "install", "battery-pack", "--bench=rig-07"]
    command += ["--broker=amqps://broker.example", f"--root={tmp_path}", f"--program={INSTALLED}"]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert "systemd-sysusers" not in done.stderr  # nothing is left to do
    groups = dict(line.split(":", 1) for line in (etc / "group").read_text().splitlines())
    (named,) = [line for line in UNIT.read_text().splitlines() if line.startswith("SupplementaryGroups=")]
    assert named.removeprefix("SupplementaryGroups=") in groups
    assert groups["dialout"].endswith(":hilgate")
