"""`hilgate install` into the file tree of an image: nothing of this machine is touched."""

import re
import subprocess
from pathlib import Path

import pytest
from shell import hilgate

PROFILE = "battery-pack"
PROGRAM = "/opt/hilgate/bin/hilgate"
BENCH = ("--bench", "rig-07", "--broker", "amqps://broker.example:5671")
WORDS = ("install", PROFILE, *BENCH, "--program", PROGRAM)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image"


def files(image: Path) -> dict[str, str]:
    return {str(path.relative_to(image)): path.read_text() for path in image.rglob("*") if path.is_file()}


async def test_it_is_installed_once_and_what_was_changed_is_kept(image: Path) -> None:
    root = ("--root", str(image))
    dry = await hilgate(*WORDS, *root, "--dry-run")
    assert (dry.code, files(image)) == (0, {})
    first = await hilgate(*WORDS, *root, "--with", "low-ports")
    assert first.code == 0, first.err
    assert "systemctl enable --now hilgate@rig-07" in first.err
    assert "systemd-sysusers hilgate.conf" in first.err  # this tree has no users yet
    made = files(image)
    assert sorted(made) == [
        "etc/hilgate/rig-07.profile.yaml",
        "etc/hilgate/rig-07.settings.yaml",
        "etc/systemd/system/hilgate@.service",
        "etc/systemd/system/hilgate@rig-07.service.d/low-ports.conf",
        "etc/sysusers.d/hilgate.conf",
    ]
    assert f"\nExecStart={PROGRAM} run " in made["etc/systemd/system/hilgate@.service"]
    assert (await hilgate(*WORDS, *root)).code == 0
    assert files(image) == made

    unit = image / "etc/systemd/system/hilgate@.service"
    unit.write_text(unit.read_text() + "# mine\n")
    kept = await hilgate(*WORDS, *root)
    assert kept.code == 1
    assert "hilgate@.service differs and is kept" in kept.out
    assert unit.read_text().endswith("# mine\n")
    assert (await hilgate(*WORDS, *root, "--force")).code == 0
    assert files(image) == made


async def test_what_cannot_be_installed_is_said_and_nothing_is_written(image: Path) -> None:
    for words, why in (
        (("install", PROFILE, "--bench", "Rig 7", "--broker", "amqp://broker.example"), "bench"),
        ((*WORDS, "--with", "warp-drive"), "--with takes can-interfaces, can-network"),
        ((*WORDS, "--program", "/home/joe/hilgate"), "services do not see it there"),
        ((*WORDS, "--program", "hilgate"), "does not begin with /"),
    ):
        done = await hilgate(*words, "--root", str(image))
        assert done.code == 2
        assert why in done.err
    assert not files(image)


async def test_variables_of_the_service_and_files_that_stayed_behind(image: Path, tmp_path: Path) -> None:
    profile = tmp_path / "rig.yaml"
    profile.write_text(
        "profile: rig\ndevices:\n  drive:\n    protocol: can\n"
        "    connection: {channel: '${CHANNEL}', bitrate: 250000}\n"
        "    database: drive.dbc\n    points: {speed: {signal: Speed}}\n"
    )
    (tmp_path / "drive.dbc").write_text(
        'VERSION ""\nBU_: A\nBO_ 1 M: 8 A\n SG_ Speed : 0|16@1+ (1,0) [0|0] "" A\n'
    )
    words = ("install", str(profile), *BENCH, "--program", PROGRAM, "--root", str(image))
    assert "CHANNEL is not set" in (await hilgate(*words)).err
    etc = image / "etc/hilgate"
    etc.mkdir(parents=True)
    (etc / "rig-07.env").write_text("CHANNEL=can0\n")
    lacking = await hilgate(*words)
    assert lacking.code == 1
    assert "drive.dbc" in lacking.err
    assert "put the files that it names beside it" in lacking.err
    assert "systemctl enable --now hilgate@rig-07" in lacking.err, "what is next is said all the same"
    (etc / "drive.dbc").write_text((tmp_path / "drive.dbc").read_text())
    whole = await hilgate(*words, "--with", "can-network")
    assert whole.code == 0
    assert "80-can.network sets 500000 bit/s, and the profile has 250000 for can0" in whole.err
    network = (etc.parent / "systemd/network/80-can.network").read_text()
    assert "\nBitRate=500K\n" in network


async def test_to_remove_a_bench_as_documented_leaves_the_others_theirs(image: Path) -> None:
    for bench in ("rig-07", "rig-08"):
        words = ("install", PROFILE, "--bench", bench, *BENCH[2:], "--program", PROGRAM, "--root", str(image))
        assert (await hilgate(*words, "--with", "low-ports")).code == 0
    alone = {path: text for path, text in files(image).items() if "rig-07" not in path}
    for path in ("etc/credstore/hilgate.rig-07.password", "etc/hilgate/rig-07/plc-key.pem"):
        (image / path).parent.mkdir(parents=True, exist_ok=True)
        (image / path).write_text("secret\n")
    documented = (Path(__file__).parents[2] / "docs/systemd.md").read_text("utf-8")
    removal = documented[documented.index("to remove this bench") :]
    blocks = [block.partition("```")[0] for block in ("```sh" + removal).split("```sh")[1:]]
    one, last = [re.findall(r"^sudo (.*\brm .*)$", block, re.MULTILINE) for block in blocks]
    _remove(one, image)
    assert files(image) == alone
    _remove([line.replace("rig-07", "rig-08") for line in one] + last, image)
    assert files(image) == {}


def _remove(lines: list[str], image: Path) -> None:
    """Runs commands on the file tree: each absolute path in them is one below it."""
    assert lines
    for line in lines:
        subprocess.run(["sh", "-c", line.replace(" /", f" {image}/")], check=True)
