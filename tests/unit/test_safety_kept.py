"""What an agent leaves of its profile: the same devices come out, or an error in words."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.profile import load_profile
from agent.profile.shipped import shipped
from agent.safety.driving import safe_values
from agent.safety.kept import forget, keep, kept
from agent.store import SqliteStore


@pytest.fixture
def store() -> SqliteStore:
    return SqliteStore(None, 1024**2, 60.0)


@pytest.mark.parametrize("name", shipped())
def test_what_makes_a_bench_safe_comes_out_as_it_went_in(name: str, store: SqliteStore) -> None:
    profile = load_profile(name, {})
    keep(store, profile, sil=False)
    left = kept(store)
    assert left is not None
    assert (left.digest, left.sil) == (profile.digest, False)
    said = {device: config for device, config in profile.devices.items() if safe_values(config)}
    assert list(left.devices) == list(said)
    for device, config in left.devices.items():
        assert (config.name, config.folder) == (device, said[device].folder.absolute())
        assert config.model_dump(exclude={"sim"}) == said[device].model_dump(exclude={"sim"})


def test_nothing_is_left_where_nobody_was_or_all_was_made_safe(store: SqliteStore) -> None:
    assert kept(store) is None
    keep(store, load_profile("test-cell", {}), sil=True)
    left = kept(store)
    assert left is not None
    assert left.sil
    forget(store)
    assert kept(store) is None


def test_a_file_that_a_device_needs_may_be_gone(store: SqliteStore, tmp_path: Path) -> None:
    database = tmp_path / "rig.dbc"
    database.write_text(
        'VERSION ""\nNS_ :\nBS_:\nBU_: A\nBO_ 256 Set: 8 A\n SG_ Speed : 0|16@1+ (1,0) [0|100] "rpm" A\n'
    )
    file = tmp_path / "rig.yaml"
    file.write_text(
        "profile: rig\ndevices:\n  drive:\n    protocol: can\n    database: rig.dbc\n"
        "    connection: {channel: can0}\n"
        "    points:\n      speed: {signal: Speed, access: rw, safe: 0}\n"
    )
    keep(store, load_profile(file, {}), sil=False)
    assert kept(store) is not None
    database.unlink()
    with pytest.raises(ValueError, match=r"rig\.dbc"):
        kept(store)


@given(
    st.binary()
    | st.sampled_from(
        [
            b'{"digest":"","sil":false,"folder":"/","devices":{"a":{}}}',
            b'{"digest":"","sil":false,"folder":"/","devices":{"a":{"protocol":"morse"}}}',
            b'{"digest":"","sil":false,"folder":"/","devices":{"a":{"protocol":"modbus"}}}',
            b'{"digest":"","sil":false,"folder":"/","devices":{"a":{"protocol":["modbus"]}}}',
        ]
    )
)
def test_what_was_damaged_is_an_error_of_one_kind(data: bytes) -> None:
    store = SqliteStore(None, 1024**2, 60.0)
    store.remember("profile", data)
    with pytest.raises(ValueError, match=r"."):
        kept(store)
    store.close()
