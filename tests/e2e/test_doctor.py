"""`hilgate doctor`: a healthy bench is said to be so, and each breakage has its row and its way out."""

import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from shell import Finished, hilgate, running, watching

from agent.profile import load_profile
from agent.store import SqliteStore
from sim.modbus import SIMULATOR

PROFILE = """\
profile: small-rig
devices:
  pump-plc:
    protocol: modbus
    connection: {transport: tcp, host: 127.0.0.1, port: PORT, unit: 1}
    timeout: 30s
    address_base: 0
    points:
      setpoint: {table: holding, address: 10, access: rw, safe: 0}
"""


class Host:
    """The files of a bench host, and a device."""

    def __init__(self, folder: Path, port: int, broker: str) -> None:
        self.profile = folder / "small-rig.yaml"
        self.profile.write_text(PROFILE.replace("PORT", str(port)))
        self.store = folder / "store"
        self.broker = broker
        self.settings = folder / "rig-07.yaml"
        self.write()

    def write(self, **changes: str) -> None:
        """The settings, with changes."""
        fields = {"bench": "rig-07", "broker": self.broker, "store": str(self.store), "heartbeat": "500ms"}
        lines = [f"{field}: {value}\n" for field, value in (fields | changes).items()]
        self.settings.write_text("".join(lines))

    async def doctor(self, *words: str) -> Finished:
        """The command."""
        return await hilgate(
            "doctor", str(self.profile), "--settings", str(self.settings), "--timeout", "30s", *words
        )

    async def rows(self, *only: str) -> dict[tuple[str, str], dict[str, str]]:
        """Its rows, by check and subject; the exit code fits them."""
        done = await self.doctor("--json", *(word for check in only for word in ("--only", check)))
        failed = any(row["verdict"] == "failed" for row in done.lines)
        assert done.code == (1 if failed else 0), done
        assert all(set(row) == {"check", "subject", "verdict", "found", "todo"} for row in done.lines)
        assert all(row["todo"] for row in done.lines if row["verdict"] in ("failed", "warning"))
        return {(row["check"], row["subject"]): row for row in done.lines}


@pytest.fixture
async def host(tmp_path: Path, broker: str) -> AsyncIterator[Host]:
    described = tmp_path / "described.yaml"
    described.write_text(PROFILE.replace("PORT", "502"))
    async with SIMULATOR.start(load_profile(described, {}).devices) as devices:
        yield Host(tmp_path, devices["pump-plc"].connection.port, broker)


async def test_a_bench_that_is_well(host: Host) -> None:
    done = await host.doctor()
    assert done.code == 0, done
    assert "0 failed" in done.out.splitlines()[-1]
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in done.out
    rows = await host.rows()
    for row in (
        ("profile", str(host.profile)),
        ("settings", ""),
        ("broker", "tcp"),
        ("broker", "login"),
        ("broker", "hil.rig-07.commands"),
        ("device", "pump-plc"),
        ("store", str(host.store)),
    ):
        assert rows[row]["verdict"] == "ok", rows[row]
    assert not host.store.exists(), "it makes nothing"


async def test_what_is_broken_has_its_row_and_a_way_out(host: Host, tmp_path: Path) -> None:
    host.profile.write_text(
        host.profile.read_text()
        + """\
  drive:
    protocol: can
    connection: {channel: can9, bitrate: 500000}
    frames: {}
  meter:
    protocol: text
    connection: {transport: serial, port: /dev/ttyUSB99}
    points: {volts: {query: "VOLT?"}}
  gone:
    protocol: modbus
    connection: {transport: tcp, host: 127.0.0.1, port: 1, unit: 1}
    address_base: 0
    points: {level: {table: input, address: 0}}
"""
    )
    secret = tmp_path / "password"
    secret.write_text("not it\n")
    secret.chmod(0o644)
    host.write(username="hil-agent", password_file=str(secret), allow_plain="true")
    rows = await host.rows()
    assert rows["secrets", f"password_file ({secret})"]["todo"] == f"chmod o= {secret}"
    assert rows["settings", ""]["verdict"] == "ok"
    assert "no such interface" in rows["can", "can9"]["found"]
    assert rows["serial", "/dev/ttyUSB99"]["verdict"] == "failed"
    assert "refused the connection" in rows["device", "gone"]["found"]
    assert "nc -vz 127.0.0.1 1" in rows["device", "gone"]["todo"]
    assert rows["device", "pump-plc"]["verdict"] == "ok", "the others are as they were"


async def test_configuration_that_is_wrong(host: Host) -> None:
    host.profile.write_text(host.profile.read_text().replace("holding", "holdin"))
    host.write(flavor="auto")
    rows = await host.rows()
    places = [subject for check, subject in rows if check == "profile"]
    assert places == [f"{host.profile}:9"]
    assert rows["settings", f"{host.settings}:5"]["found"] == "flavor: unknown field"
    assert rows["settings", f"{host.settings}:5"]["todo"] == "did you mean 'flavour'?"
    assert rows["broker", ""]["found"] == "the settings are not valid"
    assert rows["device", ""]["found"] == "the profile is not valid"


async def test_certificates_of_settings(host: Host, tmp_path: Path) -> None:
    authority = trustme.CA()
    names = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "other")}
    authority.cert_pem.write_to_path(str(names["ca"]))
    ours, another = authority.issue_cert("agent.example"), authority.issue_cert("other.example")
    ours.cert_chain_pems[0].write_to_path(str(names["cert"]))
    another.private_key_pem.write_to_path(str(names["other"]))
    files = {"tls_ca": str(names["ca"]), "tls_cert": str(names["cert"])}
    host.write(broker="amqps://127.0.0.1:1", **files, tls_key=str(names["other"]))
    rows = await host.rows("certificates")
    assert rows["certificates", f"tls_ca ({names['ca']})"]["verdict"] == "ok"
    one = rows["certificates", f"tls_cert ({names['cert']})"]
    assert one["verdict"] == "failed"
    assert "does not belong to the certificate" in one["found"]
    gone = "${CREDENTIALS_DIRECTORY}/hilgate.rig-07.tls-ca"  # of a service, seen from a shell
    host.write(broker="amqps://127.0.0.1:1", tls_ca=gone)
    rows = await host.rows("certificates", "settings")
    assert rows["settings", ""]["verdict"] == "ok", "one file that is missing hides nothing else"
    (found,) = [row["found"] for (check, _), row in rows.items() if check == "certificates"]
    assert "/etc/credstore/hilgate.rig-07.tls-ca cannot be read" in found


@contextlib.asynccontextmanager
async def agent(host: Host) -> AsyncIterator[int]:
    """An agent that runs on this host; gives its pid."""
    words = ("run", str(host.profile), "--settings", str(host.settings))
    async with running(*words) as process:
        async with watching(host.broker, "rig-07") as watch:
            await watch.until(lambda event: event["data"].get("state") == "available")
        yield process.process.pid


async def test_beside_a_running_agent_it_takes_its_word(host: Host) -> None:
    async with agent(host) as pid:
        rows = await host.rows("device", "store", "broker")
        said = rows["device", "pump-plc"]
        assert said["verdict"] == "ok"
        assert f"(pid {pid}) says it is online" in said["found"]
        assert f"(pid {pid})" in rows["store", str(host.store)]["found"]
        assert rows["broker", "hil.rig-07.commands"]["verdict"] == "ok"
        done = await hilgate("send", "rig-07", "ping", "--broker", host.broker, "--timeout", "30s")
        assert done.code == 0, "its commands still come to it"
    rows = await host.rows("store")
    assert rows["store", "integrity"]["verdict"] == "ok"


async def test_a_store_that_is_damaged(host: Host) -> None:
    SqliteStore(host.store, 2**20, 60.0).close()
    file = host.store / "store.db"
    file.write_bytes(b"this is no database" * 400)
    rows = await host.rows("store")
    assert rows["store", "integrity"]["verdict"] == "failed"
    assert "start the agent" in rows["store", "integrity"]["todo"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--only", "brokr"), "did you mean 'broker'?"),
        (("--timeout", "0s"), "--timeout should be more than nothing"),
        (("--timeout", "5"), "write a number with a unit"),
    ],
)
async def test_mistakes_in_its_use(words: tuple[str, ...], says: str) -> None:
    done = await hilgate("doctor", *words)
    assert done.code == 2
    assert says in done.err


async def test_without_a_profile_it_looks_at_the_host() -> None:
    done = await hilgate("doctor", "--json")
    rows: dict[str, Any] = {row["check"]: row for row in map(json.loads, done.out.splitlines())}
    assert done.code in (0, 1)
    assert rows["system"]["verdict"] == "ok"
    assert rows["broker"]["verdict"] == "not-checked"
