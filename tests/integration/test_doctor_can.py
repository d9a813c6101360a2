"""`hilgate doctor` and real interfaces of the kernel."""

from pathlib import Path

import pytest
from doctor_rig import findings, verdicts

from agent.profile import Profile, load_profile
from protocols.can.buses import netlink

pytestmark = pytest.mark.socketcan


def profile(folder: Path, *channels: str) -> Profile:
    devices = "".join(
        f"  bus{number}: {{protocol: can, connection: {{channel: {channel}}}, frames: {{}}}}\n"
        for number, channel in enumerate(channels)
    )
    path = folder / "profile.yaml"
    path.write_text(f"profile: bench\ndevices:\n{devices}")
    return load_profile(path, {})


async def test_interfaces_as_they_are(vcan: str, tmp_path: Path) -> None:
    loaded = profile(tmp_path, vcan, "vcan99", "lo")
    found = await findings("can", profile=loaded)
    assert verdicts(found) == {vcan: "ok", "vcan99": "failed", "lo": "failed"}
    assert found[vcan].found == "up (vcan), queue 4096"
    assert "ip link add vcan99 type vcan" in found["vcan99"].todo
    assert vcan in found["vcan99"].found, "it says which are here"
    assert found["lo"].found.startswith("it is no CAN interface")
    assert (await findings("device", profile=loaded))["bus0"].verdict == "ok"


async def test_one_that_is_down(vcan: str, tmp_path: Path) -> None:
    netlink.set_up(vcan, False)
    found = await findings("can", profile=profile(tmp_path, vcan))
    assert (found[vcan].verdict, found[vcan].found) == ("failed", "it is down")
    assert found[vcan].todo.startswith(f"ip link set {vcan} up")


async def test_modules_that_are_here(vcan: str, tmp_path: Path) -> None:
    found = await findings("kernel", profile=profile(tmp_path, vcan))
    assert verdicts(found) == {"can, can_raw, vcan": "ok"}
