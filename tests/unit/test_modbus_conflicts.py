"""Devices that cannot share a line are a mistake of the profile, said before anything is opened."""

from pathlib import Path

import pytest

from agent.profile import ConfigErrors, load_profile

DEVICE = """
  {name}:
    protocol: modbus
    connection: {connection}
    address_base: 0
    points: {{speed: {{table: input, address: 0}}}}
"""
TCP = "{transport: tcp, host: gateway.bench.example, port: 502, unit: %d}"
RTU_TCP = "{transport: rtu-tcp, host: gateway.bench.example, port: 502, unit: %d}"
SERIAL = "{transport: rtu, port: /dev/ttyUSB0, unit: %d, baudrate: %d}"


def problems(tmp_path: Path, *connections: str) -> list[str]:
    path = tmp_path / "rig.yaml"
    devices = [DEVICE.format(name=f"d{number}", connection=text) for number, text in enumerate(connections)]
    path.write_text("profile: rig\ndevices:" + "".join(devices))
    try:
        load_profile(path, {})
    except ConfigErrors as errors:
        return [f"{problem.line} {problem.field}: {problem.message}" for problem in errors.problems]
    return []


def test_units_of_one_line_and_other_lines_are_fine(tmp_path: Path) -> None:
    assert problems(tmp_path, TCP % 1, TCP % 2, SERIAL % (1, 9600), SERIAL % (2, 9600)) == []


@pytest.mark.parametrize(
    ("first", "second", "line"),
    [
        (TCP % 1, RTU_TCP % 2, "gateway.bench.example:502"),
        (SERIAL % (1, 9600), SERIAL % (2, 19200), "/dev/ttyUSB0"),
    ],
)
def test_other_settings_on_one_line_are_named_where_they_stand(
    tmp_path: Path, first: str, second: str, line: str
) -> None:
    why = f"device 'd0' uses {line} with other settings; on one line all but unit are equal"
    assert problems(tmp_path, first, second) == [f"11 devices.d1.connection: {why}"]
