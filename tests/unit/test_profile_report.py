import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from toy_protocol import INSTALLED, Toy

from agent.profile import Profile, load_profile
from agent.profile.report import DevicePlan, as_data, as_text, survey
from protocols.base import PlannedRequest

TEXT = """
profile: rig
devices:
  pump:
    protocol: toy
    poll: 100ms
    connection: {kind: wire, path: x}
    points:
      speed: {address: 1}
      setpoint: {address: 2, access: rw, poll: 2s}
      limit: {address: 3, access: rw, safe: 0, poll: 2s}
  spare:
    protocol: toy
    enabled: false
    connection: {kind: wire, path: x}
    points: {speed: {address: 1}}
"""


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    path = tmp_path / "rig.yaml"
    path.write_text(TEXT)
    return load_profile(path, {}, INSTALLED)


def test_rates_are_summed_over_requests(profile: Profile) -> None:
    pump, spare = survey(profile, INSTALLED)
    assert (pump.device, pump.points, pump.writable, pump.without_safe) == ("pump", 3, 2, ("setpoint",))
    assert pump.requests_per_s == pytest.approx(10 + 0.5 + 0.5)
    assert pump.sizes_per_s == {"bytes": pytest.approx(22)}
    assert (spare.enabled, spare.requests, spare.requests_per_s) == (False, (), 0)


def test_the_report_for_scripts(profile: Profile) -> None:
    data = as_data(profile, survey(profile, INSTALLED))
    assert (data["profile"], data["valid"], data["digest"]) == ("rig", True, profile.digest)
    first = data["devices"][0]["requests"][0]
    assert first == {"what": "read 1", "points": ("speed",), "size": 2, "size_unit": "bytes", "period": 0.1}


def printed(profile: Profile, plans: Sequence[DevicePlan]) -> str:
    text = io.StringIO()
    Console(width=100, file=text).print(as_text(profile, plans))
    return text.getvalue()


def test_the_report_for_people(profile: Profile) -> None:
    text = printed(profile, survey(profile, INSTALLED))
    for part in (
        "pump (toy): 3 points, 11 requests/s, 22 bytes/s",
        "100ms   read 1",
        "no safe value: setpoint",
        "disabled: left alone",
    ):
        assert part in text


def test_what_is_sent_once_has_no_rate(profile: Profile) -> None:
    once = PlannedRequest("SUBSCRIBE plant/#", ("speed",), 7, "octets", None)

    class Subscribing(Toy):
        def plan(self, device: Any) -> Sequence[PlannedRequest]:
            return [once]

    plans = survey(profile, {"toy": Subscribing()})
    assert (plans[0].requests_per_s, plans[0].sizes_per_s) == (0, {})
    text = printed(profile, plans)
    assert "pump (toy): 3 points, nothing is polled" in text
    assert "once   SUBSCRIBE plant/#" in text


def test_many_points_are_told_by_the_first_and_the_last() -> None:
    profile = load_profile("battery-pack", {})
    assert "cell-1, cell-2, cell-3 ... cell-40 (40)" in printed(profile, survey(profile))
