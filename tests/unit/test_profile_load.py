import os
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_protocol import INSTALLED, Line, ToyDevice

from agent.document import MAX_BYTES
from agent.profile import ConfigErrors, Profile, load_profile

Load = Callable[..., Profile]

RIG = """
profile: rig
labels: {site: "${SITE:-muc}"}
devices:
  pump:
    protocol: toy
    poll: 100ms
    connection: {kind: line, host: "${HOST}", port: "${PORT:-1502}"}
    points:
      speed: {address: 1, unit: rpm}
      setpoint: {address: 2, access: rw, min: 0, max: 3000, safe: 0}
    sim:
      speed: {follow: setpoint, tau: 2s}
  valve:
    protocol: toy
    connection: {kind: wire, path: /dev/ttyUSB0}
    points: {open: {address: 1}}
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a profile from text; further files by their names."""

    def _load(text: str, variables: Mapping[str, str] | None = None, **files: str) -> Profile:
        for name, content in files.items():
            (tmp_path / f"{name}.yaml").write_text(content, "utf-8")
        (tmp_path / "profile.yaml").write_text(text, "utf-8")
        return load_profile(
            tmp_path / "profile.yaml", {"HOST": "a.example"} | dict(variables or {}), INSTALLED
        )

    return _load


def device(profile: Profile, name: str) -> ToyDevice:
    found = profile.devices[name]
    assert isinstance(found, ToyDevice)
    return found


def test_reads_a_profile(load: Load, tmp_path: Path) -> None:
    profile = load(RIG)
    pump = device(profile, "pump")
    assert profile.profile == "rig"
    assert profile.labels == {"site": "muc"}
    assert profile.path == tmp_path / "profile.yaml"
    assert list(profile.devices) == ["pump", "valve"]
    assert (pump.name, pump.folder, pump.poll) == ("pump", tmp_path, 0.1)
    assert pump.connection == Line(kind="line", host="a.example", port=1502)
    assert list(pump.points) == ["speed", "setpoint"]
    assert pump.points["speed"].name == "speed"


def test_variables_make_numbers_of_numbers_and_leave_quoted_texts(load: Load) -> None:
    text = """
profile: rig
labels: {rack: "${RACK}", price: "$${RACK}", path: "${A}/${B:-b}/${C:-}"}
devices:
  pump:
    protocol: toy
    connection:
      kind: line
      host: ${HOST}
      port: ${PORT}
    points: {speed: {address: 1}}
"""
    profile = load(text, {"RACK": "007", "PORT": "1502", "A": "a"})
    assert profile.labels == {"rack": "007", "price": "${RACK}", "path": "a/b/"}
    assert device(profile, "pump").connection == Line(kind="line", host="a.example", port=1502)


def test_an_empty_variable_counts_as_unset(load: Load) -> None:
    assert load(RIG, {"SITE": ""}).labels == {"site": "muc"}
    with pytest.raises(ConfigErrors, match="the variable HOST is not set"):
        load(RIG, {"HOST": ""})


def test_the_value_of_a_variable_is_not_in_the_message(load: Load) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load(RIG, {"PORT": "s3cret"})
    assert "connection.port: should be a whole number" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_templates_and_repeats(load: Load) -> None:
    profile = load(
        """
profile: rig
templates: {cell: {unit: V, access: rw, safe: 1}}
devices:
  pack:
    protocol: toy
    connection: {kind: wire, path: x}
    points:
      before: {address: 0}
      cell-{n}:
        template: cell
        address: 100
        safe: 2
        description: Cell {n}
        repeat: {count: 3, from: 0, step: {address: 2}}
      after: {template: cell, address: 9}
    sim:
      cell-{n}: 4
      after: 5
"""
    )
    pack = device(profile, "pack")
    assert list(pack.points) == ["before", "cell-0", "cell-1", "cell-2", "after"]
    assert [point.address for point in pack.points.values()] == [0, 100, 102, 104, 9]
    assert pack.points["cell-2"].description == "Cell 2"
    assert [pack.points[name].safe for name in ("cell-1", "after")] == [2, 1]
    assert pack.sim == {"cell-0": 4, "cell-1": 4, "cell-2": 4, "after": 5}


def test_includes_come_first_and_are_relative(load: Load, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "valve.yaml").write_text(
        "templates: {open: {unit: mm}}\n"
        "devices:\n"
        "  valve: {protocol: toy, connection: {kind: wire, path: x}, points: {a: {address: 1}}}\n"
    )
    (tmp_path / "more.yaml").write_text("include: [shared/valve.yaml]\n")
    profile = load(
        """
profile: rig
include: [more.yaml]
devices:
  pump: {protocol: toy, connection: {kind: wire, path: y}, points: {speed: {template: open, address: 1}}}
"""
    )
    assert list(profile.devices) == ["valve", "pump"]
    assert device(profile, "pump").points["speed"].unit == "mm"


def test_anchors_share_values(load: Load) -> None:
    text = RIG.replace("points: {open: {address: 1}}", "points: {open: &p {address: 1}, close: *p}")
    assert list(device(load(text), "valve").points) == ["open", "close"]


def test_the_digest_is_of_the_content_not_of_its_writing(load: Load) -> None:
    first = load(RIG).digest
    rewritten = yaml.safe_dump(yaml.safe_load(RIG), sort_keys=False)
    assert first.startswith("sha256:")
    assert load("# another comment\n" + rewritten).digest == first
    assert load(RIG.replace("max: 3000", "max: 3001")).digest != first
    assert load(RIG, {"HOST": "b.example"}).digest != first


def test_a_number_over_64_bits_has_a_digest_too(load: Load) -> None:
    text = RIG.replace("{follow: setpoint, tau: 2s}", "123456789012345678901234567890")
    assert load(text).digest.startswith("sha256:")


def test_the_order_of_devices_is_content(load: Load) -> None:
    content = yaml.safe_load(RIG)
    swapped = content | {"devices": dict(reversed(content["devices"].items()))}
    assert load(yaml.safe_dump(swapped, sort_keys=False)).digest != load(RIG).digest


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match=r"rig\.yaml: cannot be read: No such file"):
        load_profile(tmp_path / "rig.yaml", {}, INSTALLED)


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rig.yaml")
    with pytest.raises(ConfigErrors, match="is not a regular file"):
        load_profile(tmp_path / "rig.yaml", {}, INSTALLED)


def test_a_huge_file(load: Load) -> None:
    with pytest.raises(ConfigErrors, match="is larger than 1024 KiB"):
        load("#" * (MAX_BYTES + 1))


def test_too_many_files(load: Load) -> None:
    files = {f"f{i}": "templates: {}\n" for i in range(80)}
    with pytest.raises(ConfigErrors, match=r"include\.63: is one file too many; at most 64"):
        load(f"profile: rig\ninclude: [{', '.join(f'{name}.yaml' for name in files)}]\n", None, **files)


def test_a_protocol_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("toy", "no_such_module:PROTOCOL", "hilgate.protocols")
    monkeypatch.setattr("agent.plugins.entry_points", lambda group: [broken])
    (tmp_path / "profile.yaml").write_text(RIG)
    with pytest.raises(ConfigErrors, match=r"pump\.protocol: toy is installed but cannot be used: No module"):
        load_profile(tmp_path / "profile.yaml", {"HOST": "x"})


def test_an_unknown_shipped_profile_names_the_known_ones() -> None:
    with pytest.raises(
        ConfigErrors, match="is neither a file nor a shipped profile; did you mean 'hydraulic-rig'"
    ):
        load_profile("hydraulic-rigg")


# fmt: off
WORDS = st.sampled_from([
    "profile", "labels", "include", "templates", "devices", "pump", "toy", "protocol", "connection",
    "kind", "line", "host", "points", "speed", "address", "access", "sim", "follow", "repeat",
    "template", "count", "step", "from", "{n}", "${HOST}", "${X:-1}", ":", "-", "[", "]", "{", "}", ",",
    "&", "*", "a", "&a", "*a", "<<:", "|", ">", "'", '"', "#", "!", "!!str", "%", "@", "yes", "null",
    "~", "010", "1.5", "0x1", ".nan", "100ms",
    "\n", "\t", "\0", "é",
])
# fmt: on


def load_bytes(folder: Path, data: bytes) -> None:
    path = folder / "profile.yaml"
    path.write_bytes(data)
    said = ["ok"]
    try:
        load_profile(path, {}, INSTALLED)
    except ConfigErrors as errors:
        said = [str(problem) for problem in errors.problems]
    assert said
    assert all(text.isprintable() for text in said)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_bytes_raise_nothing_but_config_errors(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    load_bytes(tmp_path_factory.getbasetemp(), data)


@given(st.lists(WORDS, max_size=60).map(" ".join))
@settings(deadline=None)
def test_words_raise_nothing_but_config_errors(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    load_bytes(tmp_path_factory.getbasetemp(), text.encode())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | WORDS, inner, max_size=4)
    ),
    max_leaves=6,
)


@given(st.data())
@settings(deadline=None)
def test_a_good_profile_with_one_value_changed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = yaml.safe_load(RIG)
    node = content
    while True:
        key = data.draw(st.sampled_from(sorted(node)))
        if not isinstance(node[key], dict) or data.draw(st.booleans()):
            break
        node = node[key]
    node[data.draw(st.just(key) | WORDS)] = data.draw(VALUES)
    load_bytes(
        tmp_path_factory.getbasetemp(), yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()
    )
