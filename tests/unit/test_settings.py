import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agent.problems import ConfigErrors
from agent.settings import Settings, load_settings

NEEDED = {"bench": "rig-07", "broker": "amqp://broker.example"}


def wrong(file: Path | None = None, environ: Mapping[str, str] | None = None, **options: Any) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        load_settings(file, environ or {}, options)
    return str(caught.value).splitlines()


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, "utf-8")
    return path


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "bench: a\nbroker: amqp://file.example\nheartbeat: 1s\nhttp: 127.0.0.1:1\n")
    environ = {"HILGATE_BENCH": "b", "HILGATE_HEARTBEAT": "2s", "HILGATE_HTTP": "", "HOME": "/"}
    found = load_settings(file, environ, {"bench": "c", "heartbeat": None})
    assert (found.bench, found.heartbeat, found.http) == ("c", 2.0, "127.0.0.1:1")
    assert found.broker == "amqp://file.example"


def test_defaults() -> None:
    found = load_settings(None, {}, NEEDED)
    assert found == Settings(bench="rig-07", broker="amqp://broker.example")
    assert (found.heartbeat, found.max_command_age, found.flavour, found.store) == (5.0, 60.0, "auto", None)


def test_values_of_every_kind_from_the_environment() -> None:
    environ = {
        "HILGATE_BENCH": "rig-07",
        "HILGATE_BROKER": "amqps://broker.example:5671",
        "HILGATE_SIL": "true",
        "HILGATE_LABELS": "site=muc, rack=7",
        "HILGATE_OUTBOX_SIZE": "2MiB",
        "HILGATE_STORE": "/var/lib/hilgate",
    }
    found = load_settings(None, environ, {})
    assert found.sil is True
    assert found.labels == {"site": "muc", "rack": "7"}
    assert found.outbox_size == 2 * 1024 * 1024
    assert found.store == Path("/var/lib/hilgate")


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\r\nanother line\n")
    (tmp_path / "name").write_text("agent")
    file = write(tmp_path, "username_file: name\npassword_file: password\nstore: state\n")
    found = load_settings(file, {}, NEEDED)
    assert found.credentials() == ("agent", "s3cret")
    assert found.store == tmp_path / "state"


def test_a_changed_password_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("old")
    found = load_settings(None, {}, {**NEEDED, "username": "agent", "password_file": path})
    path.write_text("new")
    assert found.credentials() == ("agent", "new")


def test_each_mistake_says_where_it_came_from(tmp_path: Path) -> None:
    file = write(tmp_path, "bench: Rig\nbroker: http://x\nflavor: artemis\nheartbeat: 5\nlabels: {rack: 7}\n")
    environ = {"HILGATE_LOG_LEVEL": "warn", "HILGATE_HTTP": "8080"}
    said = wrong(file, environ, sil="perhaps")
    assert sorted(said) == sorted(
        [
            f"{file}:1: bench: should be up to 63 of a-z, 0-9 and -, not beginning or ending with -",
            f"{file}:2: broker: should be a URL such as amqp://host:5672 or amqps://host:5671",
            f"{file}:3: flavor: unknown field; did you mean 'flavour'?",
            f"{file}:4: heartbeat: write a number with a unit, such as 100ms or 2s "
            "(units: us, ms, s, min, h, d)",
            f"{file}:5: labels.rack: should be a text; put it in quotes",
            "environment variable HILGATE_LOG_LEVEL: log_level: should be debug, info, warning or error; "
            "did you mean 'warning'?",
            "environment variable HILGATE_HTTP: http: should be host:port, such as 127.0.0.1:8080",
            "option --sil: sil: should be true or false",
        ]
    )


def test_what_is_missing_can_be_given_in_three_ways() -> None:
    assert wrong() == [
        "settings: bench: is missing; give --bench, HILGATE_BENCH or `bench:` in the settings file",
        "settings: broker: is missing; give --broker, HILGATE_BROKER or `broker:` in the settings file",
    ]


def test_a_misspelt_variable_is_an_error_and_a_stranger_with_our_prefix_is_not() -> None:
    strangers = {"HILGATE_SERVICE_HOST": "10.0.0.1", "HILGATE_PORT": "tcp://x", "HILGATE_REQUIRE_PEERS": "1"}
    strangers |= {"HILGATE_LEASE": "a token", "HILGATE_LEASE_ID": "2d711642b726", "HILGATE_MODE": "sil"}
    load_settings(None, strangers, NEEDED)
    assert wrong(None, {"HILGATE_BROKR": "x"}, **NEEDED) == [
        "environment variable HILGATE_BROKR: unknown setting; did you mean 'HILGATE_BROKER'?"
    ]


@pytest.mark.parametrize(
    "broker",
    [
        "broker.example",
        "amqp://",
        "amqp://agent:s3cret@broker.example",
        "amqp://broker.example/queue",
        "amqp://broker.example:99999",
        "amqp://[::1",
        "mqtt://broker.example",
    ],
)
def test_broker_urls_that_are_none(broker: str) -> None:
    said = wrong(None, {}, bench="a", broker=broker)
    assert len(said) == 1
    assert said[0].startswith("option --broker: broker: ")
    assert "s3cret" not in said[0]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert wrong(None, {"HILGATE_HTTP": "127.0.0.1:80"}, **NEEDED) == [
        "environment variable HILGATE_HTTP: http: needs the package aiohttp; install hilgate[web]"
    ]
    assert load_settings(None, {}, NEEDED).http is None


@pytest.mark.parametrize("address", ["8080", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:70000", ":80"])
def test_http_addresses_that_are_none(address: str) -> None:
    assert wrong(None, {}, **NEEDED, http=address) == [
        "option --http: http: should be host:port, such as 127.0.0.1:8080"
    ]


def test_what_goes_together(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    there, missing = tmp_path / "there", tmp_path / "missing"
    plain = {**NEEDED, "username": "a", "username_file": there, "tls_cert": there, "topic_prefix": "t."}
    assert wrong(None, {}, **plain) == [
        "option --username-file: username_file: goes against username; give one of them",
        "option --tls-cert: tls_cert: needs tls_key too",
        "option --tls-cert: tls_cert: needs a broker URL that begins with amqps://",
        "option --topic-prefix: topic_prefix: needs flavour generic",
    ]
    assert wrong(None, {}, **NEEDED, password_file=missing) == [
        "option --password-file: password_file: needs a username or username_file",
        f"option --password-file: password_file: {missing} cannot be read: No such file or directory",
    ]


def test_a_file_that_is_missing_or_no_mapping(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    assert wrong(missing, {}, **NEEDED) == [f"{missing}: cannot be read: No such file or directory"]
    listed = write(tmp_path, "- bench")
    assert wrong(listed, {}, **NEEDED) == [f"{listed}:1: should be a mapping of settings"]


def test_a_duplicate_key_in_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "bench: a\nbench: b\n")
    assert wrong(file, {}, **NEEDED) == [f"{file}:2: bench: stands twice; first on line 1"]


FIELDS = st.sampled_from(sorted(Settings.model_fields))
ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
OPTIONS = ANYTHING | st.dictionaries(st.text(max_size=5), ANYTHING, max_size=3)
VARIABLES = FIELDS.map(lambda name: f"HILGATE_{name.upper()}")


@given(
    st.dictionaries(VARIABLES, st.text(max_size=20), max_size=5),
    st.dictionaries(FIELDS, OPTIONS, max_size=5),
)
@hypothesis_settings(deadline=None)
def test_nothing_but_config_errors(environ: Mapping[str, str], options: Mapping[str, Any]) -> None:
    said = ["ok"]
    try:
        load_settings(None, environ, NEEDED | dict(options))
    except ConfigErrors as errors:
        said = [str(problem) for problem in errors.problems]
    assert said
