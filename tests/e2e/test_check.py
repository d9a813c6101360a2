"""`hilgate check` and `hilgate schema`."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from shell import hilgate

from agent.profile import shipped

TEN_MISTAKES = """\
profil: rig
devices:
  pump-plc:
    protocol: modbus
    connection: {transport: tcp, host: plc-1.bench.example, port: 70000, unit: 1}
    adress_base: 0
    poll: 100
    points:
      speed: {table: inptu, address: 0, type: float32}
      flow: {table: input, address: -1, type: float32}
      level: {table: input, address: 4, typ: float32}
      Temp: {table: input, address: 6, type: float32}
      setpoint: {table: holding, address: 10, type: uint16, access: rw, min: 10, max: 1}
    sim:
      sped: 5
"""


@pytest.mark.parametrize("name", sorted(shipped()))
async def test_shipped_profiles_are_valid_and_show_their_plan(name: str) -> None:
    shown = await hilgate("check", name)
    assert (shown.code, shown.err) == (0, "")
    assert name in shown.out
    (plan,) = (await hilgate("check", name, "--json")).lines
    assert plan["valid"] is True


async def test_ten_mistakes_are_ten_messages_with_lines(tmp_path: Path) -> None:
    profile = tmp_path / "rig.yaml"
    profile.write_text(TEN_MISTAKES)
    shown = await hilgate("check", str(profile))
    assert shown.code == 1
    lines = shown.out.splitlines()
    assert len(lines) >= 10
    assert all(line.startswith(f"{profile}:") for line in lines)
    assert any(line.startswith(f"{profile}:9: ") and "did you mean 'input'?" in line for line in lines)
    assert "Traceback" not in shown.err
    (found,) = (await hilgate("check", str(profile), "--json")).lines
    assert found["valid"] is False
    assert len(found["problems"]) == len(lines)


async def test_one_bad_profile_among_good_ones_is_exit_1(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    finished = await hilgate("check", "hydraulic-rig", str(missing), "--json")
    assert finished.code == 1
    assert [line["valid"] for line in finished.lines] == [True, False]


async def test_run_refuses_a_bad_profile_with_the_same_messages(tmp_path: Path) -> None:
    profile = tmp_path / "rig.yaml"
    profile.write_text(TEN_MISTAKES)
    checked = await hilgate("check", str(profile))
    run = await hilgate("run", str(profile), "--bench", "rig-07", "--broker", "amqp://127.0.0.1:1")
    assert run.code == 1
    for line in checked.out.splitlines():
        assert line in run.err


async def test_the_schema_is_a_schema() -> None:
    shown = await hilgate("schema")
    assert shown.code == 0
    Draft202012Validator.check_schema(json.loads(shown.out))
