"""The installed service under a real systemd: ready, watched, restarted, safe, and silent about its secrets.

The guest is booted once; each test leaves the service running as it found it. What the devices were told
is asked of a Modbus server outside of the guest, and never of the agent. That server stands behind TLS and
wants a client certificate: whoever makes the device safe needs the secret key.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import systemd_guest
import trustme
from brokers.process import free_ports
from systemd_guest import Guest

from tests.tools import modbus_peer
from tests.tools.modbus_peer import ModbusServer

pytestmark = pytest.mark.peer("systemd")

UNIT = "hilgate@rig-07"
SETPOINT, SAFE, DRIVEN = 10, 7, 1500
STARTS = 3
MADE_SAFE = rf"plc +setpoint +{SAFE} +yes +yes"
"""What `hilgate safe-state` says when it was."""
PASSWORD = "correct-horse-battery-staple"
PROFILE = """
profile: service
devices:
  plc:
    protocol: modbus
    connection:
      {{transport: tls, host: 127.0.0.1, port: {port}, unit: 1, ca: rig-07/ca.pem, cert: rig-07/plc.pem,
       key: {key}}}
    address_base: 0
    timeout: 1s
    points:
      setpoint: {{table: holding, address: 10, access: rw, safe: 7}}
  freezer:
    protocol: freezing
    points: {{zero: {{}}}}
"""
HOPELESS = """
profile: hopeless
devices:
  broken:
    protocol: freezing
    connection: {crashes: true}
    points: {zero: {}}
"""
SETTINGS = """
bench: rig-07
broker: amqp://127.0.0.1:{port}
username: rig
allow_plain: true
password_file: ${{CREDENTIALS_DIRECTORY:-/etc/credstore}}/hilgate.rig-07.password
"""
KEY = "/etc/hilgate/rig-07/plc-key.pem"
ENTRY_POINT = "[hilgate.protocols]\nfreezing = freezing_protocol:PROTOCOL\n"


@dataclass
class Rig:
    """A guest with the service, a broker that knows one user, and a device outside."""

    guest: Guest
    plc: ModbusServer

    def show(self, key: str, unit: str = UNIT) -> str:
        return self.guest.run("systemctl", "show", "--value", f"--property={key}", unit)

    def until_active(self, *, not_pid: str = "0") -> str:
        """Waits until the service is ready; its main process, another than `not_pid`."""

        def active() -> bool:
            shown = self.show("MainPID,ActiveState").split()
            return "active" in shown and not_pid not in shown

        self.guest.until(active)
        return self.show("MainPID")

    def send(self, *words: str) -> str:
        settings = "--settings=/etc/hilgate/rig-07.settings.yaml"
        return self.guest.run("hilgate", "send", "rig-07", *words, settings, error=True)

    def doctor(self, bench: str) -> dict[str, str]:
        """The first that `hilgate doctor` says of the service of a bench."""
        settings = f"--settings=/etc/hilgate/{bench}.settings.yaml"
        said = self.guest.run("hilgate", "doctor", settings, "--only=service", "--json", check=False)
        found: dict[str, str] = json.loads(said.splitlines()[0])
        return found

    def epochs(self) -> list[int]:
        """Of the agents that ran so far: whoever opens the same store takes the next one."""
        return [int(epoch) for epoch in re.findall(r'"epoch":(\d+).*"agent starts"', self.journal())]

    def drive(self) -> None:
        """Has the device do something that is not safe."""
        self.send("write", "plc", f"setpoint={DRIVEN}")
        assert self.plc.get("h", SETPOINT) == [DRIVEN]

    def journal(self, unit: str = UNIT) -> str:
        return self.guest.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")


@pytest.fixture(scope="module")
def rig(
    need: Callable[[str, str | None, str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    need("systemd", systemd_guest.why_missing(), systemd_guest.HOW)
    need("libmodbus", modbus_peer.why_missing(), modbus_peer.HOW)
    folder = tmp_path_factory.mktemp("guest")
    guest = Guest(folder)
    (port,) = free_ports(1)
    secret = folder / "password"
    secret.write_text(PASSWORD + "\n")
    command = [str(Path(sys.executable).with_name("hilgate")), "broker", f"--listen=127.0.0.1:{port}"]
    login = ["--user=rig", f"--password-file={secret}"]
    try:
        with (
            ModbusServer("tcp", "0") as plc,
            _behind_tls(plc.port, folder) as tls_port,
            subprocess.Popen([*command, *login]) as broker,
        ):
            try:
                guest.prepare()
                _configure(guest, tls_port, port)
                for name in ("ca.pem", "plc.pem", "plc-key.pem"):
                    shutil.copy(folder / name, guest.root / "root")
                guest.boot()
                yield Rig(guest, plc)
            finally:
                guest.stop()
                broker.terminate()
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", str(guest.root)], check=True)


@contextlib.contextmanager
def _behind_tls(port: int, folder: Path) -> Iterator[int]:
    """The port of TLS in front of a server; the files of a client go into the folder."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "front.pem")
    issued = authority.issue_cert("agent.example")
    issued.cert_chain_pems[0].write_to_path(folder / "plc.pem")
    issued.private_key_pem.write_to_path(folder / "plc-key.pem")
    command = [sys.executable, str(Path(__file__).with_name("tls_front.py")), str(port)]
    front = subprocess.Popen(
        [*command, str(folder / "front.pem"), str(folder / "ca.pem")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with front:
        assert front.stdout is not None
        try:
            yield int(front.stdout.readline())
        finally:
            front.kill()


def _configure(guest: Guest, plc_port: int, broker_port: int) -> None:
    (site,) = guest.root.glob("opt/hilgate/lib/python3.*/site-packages")
    (site / "freezing_protocol.py").write_text(Path(__file__).with_name("freezing_protocol.py").read_text())
    made = site / "freezing-1.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: freezing\nVersion: 1\n")
    (made / "entry_points.txt").write_text(ENTRY_POINT)
    (guest.root / "etc/hilgate").mkdir()
    (guest.root / "root/rig.yaml").write_text(PROFILE.format(port=plc_port, key=KEY))
    (guest.root / "root/hopeless.yaml").write_text(HOPELESS)
    (guest.root / "etc/hilgate/rig-07.settings.yaml").write_text(SETTINGS.format(port=broker_port))
    store = guest.root / "etc/credstore"
    store.mkdir(mode=0o700, exist_ok=True)
    (store / "hilgate.rig-07.password").write_text(PASSWORD + "\n")
    (store / "hilgate.rig-07.password").chmod(0o600)


@pytest.fixture(autouse=True)
def _journal(rig: Rig) -> Iterator[None]:
    """What the service said, for whoever reads of a failure: pytest shows what a test printed."""
    yield
    print(rig.journal()[-8000:])


@pytest.fixture(scope="module")
def running(rig: Rig) -> Rig:
    """The service, installed and started as its documentation says."""
    install = ["hilgate", "install", "/root/rig.yaml", "--bench=rig-07", "--broker=amqps://broker.example"]
    said = rig.guest.run(*install)
    assert "/etc/hilgate/rig-07.settings.yaml is there and is kept" in said
    rig.guest.run(*install)
    files = ["/root/ca.pem", "/root/plc.pem", "/root/plc-key.pem"]
    rig.guest.run("install", "-d", "/etc/hilgate/rig-07")
    rig.guest.run("install", "-m", "640", "-g", "hilgate", *files, "/etc/hilgate/rig-07")
    rig.guest.run("systemctl", "enable", "--now", UNIT, error=True)
    return rig


def test_systemd_finds_nothing_wrong_and_little_exposed(running: Rig) -> None:
    unit = f"{UNIT}.service"
    assert running.guest.run("systemd-analyze", "verify", unit, error=True) == ""
    running.guest.run("systemd-analyze", "security", "--threshold=20", "--no-pager", unit)


def test_it_is_ready_when_devices_and_broker_were_tried(running: Rig) -> None:
    running.until_active()
    assert running.show("Type") == "notify"
    running.guest.until(lambda: running.show("StatusText") == "available")
    assert "agent is ready" in running.journal()
    assert json.loads(running.send("ping", "--json"))["status"] == "ok"
    row = running.doctor("rig-07")
    assert (row["check"], row["subject"], row["verdict"]) == ("service", f"{UNIT}.service", "ok")
    assert row["found"] == f"active (running), pid {running.show('MainPID')}, available"


def test_the_status_line_follows_the_bench(running: Rig) -> None:
    running.until_active()
    running.send("disable", "--reason", "hose is being changed")
    running.guest.until(lambda: running.show("StatusText") == "maintenance; disabled: hose is being changed")
    running.send("enable")
    running.guest.until(lambda: running.show("StatusText") == "available")


def test_no_secret_is_to_be_seen(running: Rig) -> None:
    pid = running.until_active()
    running.send("ping")  # the password was used
    guest = running.guest
    seen = [guest.run("systemctl", "show", UNIT), guest.run("systemctl", "status", UNIT, check=False)]
    seen += [guest.run("journalctl", "--no-pager"), guest.run("cat", f"/proc/{pid}/cmdline")]
    seen.append(guest.run("cat", f"/proc/{pid}/environ"))
    assert not [text for text in seen if PASSWORD in text]
    # Another user of the host reads neither the environment nor the credential nor the device's key.
    other = ["setpriv", "--reuid=nobody", "--regid=dialout", "--clear-groups"]
    for path in (f"/proc/{pid}/environ", f"/run/credentials/{UNIT}.service/hilgate.rig-07.password", KEY):
        said = guest.run(*other, "cat", path, check=False, error=True)
        assert "Permission denied" in said
    assert guest.run("cat", f"/run/credentials/{UNIT}.service/hilgate.rig-07.password") == PASSWORD


def test_it_is_what_the_unit_says_that_it_is(running: Rig) -> None:
    pid = running.until_active()
    status = dict(
        line.split(":\t", 1)
        for line in running.guest.run("cat", f"/proc/{pid}/status").splitlines()
        if ":\t" in line
    )
    # DynamicUser takes the unit's name before the @: all benches share it, as docs/systemd.md says.
    assert running.guest.run("stat", "--format=%U", f"/proc/{pid}") == "hilgate"
    assert {int(status[key], 16) for key in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def made_safe_at_the_end(said: str) -> bool:
    """Whether ExecStopPost did it, by the device's secret key, before the next agent did so again."""
    end, started, _ = said.partition('"agent starts"')
    return bool(started) and re.search(MADE_SAFE, end) is not None


def test_a_killed_agent_is_followed_by_the_safe_state_and_another_agent(running: Rig) -> None:
    pid = running.until_active()
    running.drive()
    before = running.journal()
    running.guest.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT)
    running.guest.until(lambda: running.plc.get("h", SETPOINT) == [SAFE])
    running.until_active(not_pid=pid)
    assert int(running.show("NRestarts")) >= 1
    assert made_safe_at_the_end(running.journal().removeprefix(before))


@pytest.fixture(scope="module")
def hopeless(running: Rig) -> str:
    """A second bench, whose agent crashes at each start; here a few times are enough to give it up."""
    unit = "hilgate@rig-08"
    running.guest.run(
        "hilgate", "install", "/root/hopeless.yaml", "--bench=rig-08", "--broker=amqp://broker.example"
    )
    drop_in = running.guest.root / f"etc/systemd/system/{unit}.service.d/few.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(f"[Unit]\nStartLimitBurst={STARTS}\n")
    running.guest.run("systemctl", "daemon-reload")
    running.guest.run("systemctl", "start", "--no-block", unit)
    return unit


# The other bench fails while the watchdog's time passes.
@pytest.mark.usefixtures("hopeless")
def test_a_hung_loop_is_ended_by_the_watchdog_shown_and_restarted(running: Rig) -> None:
    pid = running.until_active()
    running.drive()
    guest, before = running.guest, running.journal()
    guest.run(
        "hilgate",
        "send",
        "rig-07",
        "call",
        "freezer",
        "freeze",
        "--timeout=1s",
        "--settings=/etc/hilgate/rig-07.settings.yaml",
        check=False,
    )
    guest.until(lambda: running.plc.get("h", SETPOINT) == [SAFE])
    running.until_active(not_pid=pid)
    said = running.journal().removeprefix(before)
    assert "Watchdog timeout" in said
    assert "freezing_protocol.py" in said  # faulthandler shows where it hung
    assert made_safe_at_the_end(said)


def test_an_agent_that_crashes_at_each_start_is_given_up(running: Rig, hopeless: str) -> None:
    guest = running.guest
    assert running.show("StartLimitBurst,StartLimitIntervalUSec") == "5min\n10"
    guest.until(lambda: running.show("ActiveState", hopeless) == "failed")
    said = running.journal(hopeless)
    assert said.count('"agent starts"') == STARTS
    assert "Start request repeated too quickly" in said
    row = running.doctor("rig-08")
    assert (row["subject"], row["verdict"]) == (f"{hopeless}.service", "failed")
    assert running.show("ActiveState") == "active"


def test_a_stop_leaves_the_device_safe_and_root_can_look_into_the_store(running: Rig) -> None:
    running.until_active()
    running.drive()
    guest = running.guest
    guest.run("systemctl", "stop", UNIT)
    assert running.plc.get("h", SETPOINT) == [SAFE]
    assert (running.show("Result"), running.show("ActiveState")) == ("success", "inactive")
    look = ["hilgate", "store", "status", "--json", "--store=/var/lib/hilgate/rig-07"]
    assert json.loads(guest.run(*look))["epoch"] == running.epochs()[-1] + 1  # by what runs at the end
    files = ["/etc/hilgate/rig-07.profile.yaml", "--settings=/etc/hilgate/rig-07.settings.yaml"]
    guest.run("hilgate", "safe-state", *files, "--bench=rig-07", "--store=/var/lib/hilgate/rig-07")
    guest.run("systemctl", "start", UNIT)
    running.until_active()
    running.guest.until(lambda: running.show("StatusText") == "available")
    before, after = running.epochs()[-2:]
    assert after == before + 3  # and by root's hand


def test_wrong_settings_are_not_tried_for_ever(running: Rig) -> None:
    unit = "hilgate@rig-09"
    etc = running.guest.root / "etc/hilgate"
    (etc / "rig-09.profile.yaml").write_text(HOPELESS)
    (etc / "rig-09.settings.yaml").write_text("bench: rig-09\nborker: amqp://127.0.0.1\n")
    assert "failed" in running.guest.run("systemctl", "start", unit, check=False, error=True)
    assert running.show("ActiveState,NRestarts", unit).split() == ["0", "failed"]
    assert "rig-09.settings.yaml:2: borker: unknown field" in running.journal(unit)


def test_it_can_run_as_the_user_that_was_installed(running: Rig) -> None:
    running.until_active()
    guest = running.guest
    install = ["hilgate", "install", "/root/rig.yaml", "--bench=rig-07", "--broker=amqps://broker.example"]
    guest.run(*install, "--with=system-user")
    guest.run("systemctl", "restart", UNIT)
    pid = running.until_active()
    assert guest.run("stat", "--format=%U", f"/proc/{pid}") == "hilgate"
    before, after = running.epochs()[-2:]
    assert after == before + 2  # the same store, taken over
    running.drive()
    said = running.journal()
    guest.run("systemctl", "stop", UNIT)
    assert running.plc.get("h", SETPOINT) == [SAFE]
    assert re.search(MADE_SAFE, running.journal().removeprefix(said))
