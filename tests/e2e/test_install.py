"""`hilgate install` into the file tree of an image: nothing of this machine is touched."""

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
