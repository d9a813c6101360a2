"""What `hilgate install` puts where, and what it leaves alone."""

import os
from pathlib import Path

import pytest

from agent import install
from agent.install import EXECUTABLE, Target, settings_text, targets, variables
from agent.settings import load_settings

BROKER = "amqps://broker.example:5671"


def all_targets(*, plain: bool = False, beside: tuple[str, ...] = ()) -> dict[str, Target]:
    made = targets(
        "profile: rig\n", "bench: rig-07\n", "rig-07", "/srv/hilgate/bin/hilgate", beside, plain=plain
    )
    return {str(target.path): target for target in made}


def test_the_unit_names_the_program_that_installed_it() -> None:
    unit = all_targets()["etc/systemd/system/hilgate@.service"]
    assert EXECUTABLE not in unit.content
    assert "ExecStart=/srv/hilgate/bin/hilgate run /etc/hilgate/%i.profile.yaml" in unit.content


def test_every_extra_is_there() -> None:
    names = all_targets(beside=tuple(install.extras()))
    assert "etc/systemd/network/80-can.network" in names
    drop_ins = sorted((install.shipped() / "drop-ins").glob("*.conf"))
    assert drop_ins
    assert {f"etc/systemd/system/hilgate@rig-07.service.d/{path.name}" for path in drop_ins} <= names.keys()


def test_a_file_of_ours_is_replaced_until_somebody_changes_it(tmp_path: Path) -> None:
    old = Target(Path("unit"), "old\n", ours=True)
    new = Target(Path("unit"), "new\n", ours=True)
    assert new.state(tmp_path) == "new"
    old.write(tmp_path)
    assert (old.state(tmp_path), new.state(tmp_path)) == ("same", "older")
    (tmp_path / "unit").write_text((tmp_path / "unit").read_text() + "MemoryMax=1G\n")
    assert new.state(tmp_path) == "changed"
    (tmp_path / "unit").write_text("written by hand\n")
    assert new.state(tmp_path) == "changed"
    new.write(tmp_path)
    assert new.state(tmp_path) == "same"


def test_the_service_may_pass_the_folders_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        Target(Path("etc/hilgate/rig.yaml"), "text\n").write(tmp_path)
    finally:
        os.umask(before)
    modes = [
        (tmp_path / path).stat().st_mode & 0o777 for path in ("etc", "etc/hilgate", "etc/hilgate/rig.yaml")
    ]
    assert modes == [0o755, 0o755, 0o644]


def test_variables_are_read_as_systemd_reads_them(tmp_path: Path) -> None:
    assert variables(tmp_path, "rig-07") == {}
    file = tmp_path / "etc/hilgate/rig-07.env"
    file.parent.mkdir(parents=True)
    file.write_text(
        '# a comment\n;B=2\nPLC=10.0.0.1\n NAME = "two words"\nBARE=two words\nODD=it\'s\nnothing\n'
    )
    found = {"PLC": "10.0.0.1", "NAME": "two words", "BARE": "two words", "ODD": "it's"}
    assert variables(tmp_path, "rig-07") == found


def test_settings_are_made_once_and_a_profile_is_never_replaced_unsaid(tmp_path: Path) -> None:
    for once, state in ((True, "there"), (False, "changed")):
        (tmp_path / "file").write_text("somebody's\n")
        assert Target(Path("file"), "ours\n", once=once).state(tmp_path) == state


@pytest.mark.parametrize("broker", [BROKER, "amqp://broker.example"])
def test_the_settings_are_valid_as_they_are_and_with_their_secrets(tmp_path: Path, broker: str) -> None:
    text = settings_text("rig-07", "rig-07", broker)
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    plain = load_settings(file, {}, {})
    assert plain.broker == broker
    assert plain.store == Path("/var/lib/hilgate/rig-07"), "where the unit has it: StateDirectory="
    for secret in ("username", "password"):
        (tmp_path / f"hilgate.rig-07.{secret}").write_text("x\n")
    given = "".join(f"{line}\n" for line in text.splitlines() if not line.startswith("#tls"))
    file.write_text(
        given.replace("#username_file", "username_file").replace("#password_file", "password_file")
    )
    found = load_settings(file, {"CREDENTIALS_DIRECTORY": str(tmp_path)}, {})
    assert found.credentials() == ("x", "x")


def test_the_plain_unit_is_an_instance_called_hilgate() -> None:
    folder = install.shipped()

    def lines(name: str) -> list[str]:
        text = (folder / name).read_text("utf-8").replace(" of bench %i", "").replace(" --bench %i", "")
        return text[text.index("[Unit]") :].replace("%i", "hilgate").splitlines()

    assert lines("hilgate@.service") == lines("hilgate.service")
