"""The JSON Schema, the shipped profiles and the loader agree with each other."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agent.document import parse_document, plain, read_document
from agent.plugins import protocols
from agent.profile import ConfigErrors, json_schema, load_profile, schema_text, shipped
from agent.profile.schema import Schema
from bench_profiles import __file__ as profiles_file

FOLDER = Path(profiles_file).parent
NAMES = sorted(shipped())


@pytest.fixture(scope="module")
def schema() -> Schema:
    return json_schema()


def read(text: str) -> Any:
    document = parse_document(text.encode(), "f")
    assert document.root is not None
    return plain(document.root)


def errors(schema: Schema, content: Any) -> list[str]:
    found = jsonschema.Draft202012Validator(schema).iter_errors(content)
    return [".".join(map(str, error.absolute_path)) for error in found]


def test_the_shipped_schema_is_the_one_that_is_printed() -> None:
    how = "hilgate schema > bench_profiles/profile.schema.json"
    assert (FOLDER / "profile.schema.json").read_text("utf-8") == schema_text() + "\n", f"to mend it: {how}"


def test_it_is_a_schema(schema: Schema) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_profiles_load_and_match_the_schema(name: str, schema: Schema) -> None:
    profile = load_profile(name, {})
    assert profile.profile == name
    document = read_document(FOLDER / f"{name}.yaml", name)
    assert document.root is not None
    assert errors(schema, plain(document.root)) == []


@pytest.mark.parametrize("name", NAMES)
def test_shipped_profiles_point_editors_to_the_schema(name: str) -> None:
    first = (FOLDER / f"{name}.yaml").read_text("utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=profile.schema.json"


@pytest.mark.parametrize("name", NAMES)
def test_everything_writable_in_a_shipped_profile_has_a_safe_value(name: str) -> None:
    for device in load_profile(name, {}).devices.values():
        for point in device.points.values():
            assert point.safe is not None or not point.writable


GOOD = """
profile: rig
hooks:
  before_lease:
    - run: [/usr/local/bin/power, "on"]
      timeout: 20s
    - write: {device: plc, values: {setpoint: 0}}
    - call: {device: plc, method: identify}
templates: {cell: {table: input, unit: V}}
devices:
  plc:
    protocol: modbus
    connection: {transport: tcp, host: "${HOST}", port: "${PORT:-502}", unit: 1}
    address_base: 0
    points:
      cell-{n}: {template: cell, address: 1, repeat: {count: 4, step: {address: 1}}}
      setpoint: {table: holding, address: 10, access: rw, min: 0, max: 3000, safe: 0, unit: rpm}
    sim:
      cell-{n}: {sine: {min: 1, max: 2, period: 10s}}
      setpoint: 5
"""


def test_what_is_filled_in_may_stand_there(schema: Schema) -> None:
    assert errors(schema, read(GOOD)) == []


@pytest.mark.parametrize(
    ("good", "bad", "where"),
    [
        ("profile: rig", "profile: Rig", "profile"),
        ("profile: rig", "profil: rig", ""),
        ("protocol: modbus", "protocol: modbuss", "devices.plc.protocol"),
        ("  plc:", "  bench:", "devices"),
        ("before_lease", "before_laese", "hooks"),
        ("timeout: 20s", "timeout: 20", "hooks.before_lease.0.timeout"),
        ("timeout: 20s", "call: {device: plc, method: identify}", "hooks.before_lease.0"),
        ("{setpoint: 0}", "{}", "hooks.before_lease.1.write"),
        ("address_base: 0", "address_base: 2", "devices.plc.address_base"),
        ("address_base: 0", "address_base: 0\n    poll: 100", "devices.plc.poll"),
        ("port: \"${PORT:-502}\"", "port: ${}", "devices.plc.connection"),
        ("transport: tcp", "transport: tpc", "devices.plc.connection"),
        ("min: 0", "min: \"${MIN}\"", "devices.plc.points.setpoint.min"),
        ("table: holding, ", "", "devices.plc.points.setpoint"),
        ("access: rw", "acces: rw", "devices.plc.points.setpoint"),
        ("count: 4", "count: 0", "devices.plc.points.cell-{n}.repeat.count"),
        ("      setpoint: 5", "      setpoint: {sin: 5}", "devices.plc.sim.setpoint"),
        ("{cell: {table: input, ", "{cell: {tabel: input, ", "templates.cell"),
    ],
)  # fmt: skip
def test_editor_and_loader_refuse_the_same(
    schema: Schema, tmp_path: Path, good: str, bad: str, where: str
) -> None:
    text = GOOD.replace(good, bad).replace("port: ${}", 'port: "${}"')
    assert text != GOOD
    assert where in errors(schema, read(text))
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(ConfigErrors):
        load_profile(path, {"HOST": "plc.bench.example"})


def test_every_installed_protocol_is_offered(schema: Schema) -> None:
    device = schema["properties"]["devices"]["additionalProperties"]
    assert device["properties"]["protocol"]["enum"] == list(protocols())
