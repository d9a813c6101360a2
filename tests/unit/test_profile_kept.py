"""A profile that is kept is the same when it is read again, without the files that it came from."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.profile import Profile, load_profile, shipped
from agent.profile.kept import keep, restore
from agent.safety.left import Left

RIG = """\
profile: rig
labels: {site: "${SITE}", price: "$${NOT}"}
include: [cells.yaml]
devices:
  plc:
    protocol: modbus
    connection:
      {transport: tls, host: "${HOST:-plc.example}", unit: 1, ca: ca.pem, cert: own.pem, key: own-key.pem}
    address_base: 0
    timeout: 1500ms
    poll: 50ms
    points:
      door: {table: discrete, address: 1}
      speed: {table: holding, address: 10, scale: 0.1, access: rw, min: 0, max: 3000, safe: 0, max_rate: 500}
      run: {table: coil, address: 3, access: rw, safe: false, requires: {door: true, pack.cell-2: {min: 1}}}
    sim: {speed: 1200, door: true}
"""
CELLS = """\
templates:
  cell: {table: input, type: uint16, scale: 0.001, unit: V}
devices:
  pack:
    protocol: modbus
    connection: {transport: tcp, host: 127.0.0.1, unit: 2}
    address_base: 0
    points:
      cell-{n}: {template: cell, address: 100, repeat: {count: 2000, step: {address: 1}}}
    sim:
      cell-{n}: {sine: {min: 3.2, max: 3.9, period: 60s}}
"""
DRIVE = Path(shipped()["can-drive"])


@pytest.fixture
def rig(tmp_path: Path) -> Profile:
    (tmp_path / "cells.yaml").write_text(CELLS)
    (tmp_path / "rig.yaml").write_text(RIG)
    for name in ("ca.pem", "own.pem", "own-key.pem"):
        (tmp_path / name).write_text("hunter2")
    return load_profile(tmp_path / "rig.yaml", {"SITE": "muc"})


def again(profile: Profile) -> Profile:
    """What another process makes of it."""
    return restore(json.loads(json.dumps(keep(profile))))


def same(one: Profile, other: Profile) -> bool:
    """Whether all is the same; models compare private attributes by identity, so they cannot be asked."""
    whole, whole_other = ([p.model_dump(), p.model_dump(exclude_unset=True)] for p in (one, other))
    devices = list(zip(one.devices.items(), other.devices.items(), strict=True))
    return whole == whole_other and all(
        (name, type(a), a.name, a.folder, a.model_dump(), a.attachments())
        == (name_other, type(b), b.name, b.folder, b.model_dump(), b.attachments())
        for (name, a), (name_other, b) in devices
    )


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_profile_is_the_same_again(name: str) -> None:
    profile = load_profile(name, {})
    assert same(again(profile), profile)


def test_includes_templates_and_variables_are_filled_in_and_needed_no_more(
    rig: Profile, tmp_path: Path
) -> None:
    kept = keep(rig)
    for file in tmp_path.iterdir():
        file.unlink()
    found = restore(json.loads(json.dumps(kept)))
    assert same(found, rig)
    assert found.labels == {"site": "muc", "price": "${NOT}"}
    assert len(found.devices["pack"].points) == 2000


def test_what_a_signal_database_says_is_kept_with_it(tmp_path: Path) -> None:
    path, database = tmp_path / "can-drive.yaml", tmp_path / "can-drive.dbc"
    path.write_bytes(DRIVE.read_bytes())
    database.write_bytes(DRIVE.with_suffix(".dbc").read_bytes())
    profile = load_profile(path, {})
    database.write_text("broken")
    found = again(profile)
    assert found.digest == profile.digest
    assert [dict(device.attachments()) for device in found.devices.values()] == [
        dict(device.attachments()) for device in profile.devices.values()
    ]


def test_secrets_stay_in_their_files_beside_the_profile(
    rig: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "hunter2" not in json.dumps(keep(rig))
    assert "own-key.pem" in json.dumps(keep(rig))
    monkeypatch.chdir(tmp_path)
    by_hand = keep(load_profile("rig.yaml", {"SITE": "muc"}))
    monkeypatch.chdir("/")
    assert restore(by_hand).devices["plc"].folder == tmp_path


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a tree."""
    inside = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    return [path, *(place for key, item in inside for place in places(item, (*path, key)))]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
WHOLE = json.dumps({"settings": {"bench": "rig-07"}, "profile": keep(load_profile("hydraulic-rig", {}))})


@settings(max_examples=300)
@given(st.data(), ANYTHING)
def test_what_is_damaged_is_refused_or_means_the_same(data: st.DataObject, put: Any) -> None:
    content = {"whole": json.loads(WHOLE)}
    digest = content["whole"]["profile"]["digest"]
    *way, last = data.draw(st.sampled_from([place for place in places(content) if place]))
    at: Any = content
    for key in way:
        at = at[key]
    at[last] = put
    try:
        assert Left(content["whole"]).profile().digest == digest
    except ValueError:
        pass
