"""What `hilgate doctor` makes of facts about the host: tables of facts, and the verdict on each."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import ClockStatus
from agent.doctor import host, kernel, limits, secrets, serialport, service, storage, system, timekeeping
from agent.doctor.finding import Finding, mib
from agent.doctor.kernel import Modules
from agent.doctor.limits import Limits
from agent.doctor.locks import Holder, lock_owners, unit_of
from agent.doctor.serialport import Port
from agent.doctor.storage import Facts
from agent.doctor.system import System

MIB = 1024**2


def shown(findings: Any) -> dict[str, tuple[str, str, str]]:
    """By subject: the verdict, what was found, what to do."""
    return {one.subject: (one.verdict.value, one.found, one.todo) for one in findings}


@pytest.mark.parametrize(
    ("status", "verdict", "says"),
    [
        (ClockStatus(True, 0.00012), "ok", "0.120 ms off"),
        (ClockStatus(True, -0.2), "warning", "-200.000 ms off"),
        (ClockStatus(False, 0.0), "warning", "no time service"),
    ],
)
def test_the_clock(status: ClockStatus, verdict: str, says: str) -> None:
    found = timekeeping.judge(status, "")
    assert (found.verdict, says in found.found) == (verdict, True)
    assert bool(found.todo) == (verdict != "ok")
    assert timekeeping.judge(ClockStatus(False, 0.0), "podman").todo.startswith("on the host: ")


def test_python_and_packages() -> None:
    good = System((3, 11, 7), "0.1.0", "aarch64", "6.1.0", {})
    assert shown(system.judge(good))[""][:2] == ("ok", "hilgate 0.1.0, Python 3.11.7, aarch64, Linux 6.1.0")
    old = System((3, 9, 2), "0.1.0", "aarch64", "6.1.0", {"opcua": ["asyncua"]})
    found = shown(system.judge(old))
    assert found[""][0] == "failed"
    assert found["opcua"][:2] == ("warning", "not installed: asyncua")
    assert found["opcua"][2].endswith("-m pip install 'hilgate[opcua]'")


def test_the_packages_of_an_extra() -> None:
    asked = [
        "msgspec>=0.19",
        "asyncua==2.1.0; extra == 'opcua'",
        'cryptography>=44; extra == "opcua"',
        "hilgate[modbus,can]; extra == 'all'",
        "paho-mqtt<2.3,>=2.2; extra == 'mqtt'",
        "yadnp3==3.2.1.4; (platform_machine == 'x86_64') and extra == 'opendnp3'",
    ]
    assert system.packages_of("opcua", asked) == ["asyncua", "cryptography"]
    assert system.packages_of("mqtt", asked) == ["paho-mqtt"]
    assert system.packages_of("acme", asked) == []
    assert system.lacking("mqtt") == [], "they are installed here"


def test_modules() -> None:
    assert kernel.needed({}) == []
    assert kernel.needed({"can0": False}) == ["can", "can_raw"]
    assert kernel.needed({"can0": False, "vcan0": True}) == ["can", "can_raw", "vcan"]
    found = shown(kernel.judge(Modules({"can": "there", "can_raw": "loadable", "vcan": "missing"}, "6.1.0")))
    assert found["can, can_raw"][0] == "ok"
    assert found["vcan"][:2] == ("failed", "kernel 6.1.0 does not have it")
    assert "modprobe -a vcan" in found["vcan"][2]
    assert shown(kernel.judge(Modules({"can": "unknown"}, "6.1.0")))["can"][0] == "not-checked"
    contained = shown(kernel.judge(Modules({"can": "missing"}, "6.1.0", "podman")))
    assert contained["can"][2].startswith("on the host: ")


FREE = Port(
    "/dev/serial/by-id/usb-x", there=True, by_id="/dev/serial/by-id/usb-x", group="dialout", user="joe"
)


@pytest.mark.parametrize(
    ("port", "verdict", "found", "todo"),
    [
        (FREE, "ok", "there, free, and ours to open", ""),
        (Port("/dev/bench/psu", True, by_id="/dev/serial/by-id/usb-x"), "ok", "there, free", ""),
        (
            Port("/dev/ttyS9", False, others=["/dev/ttyUSB0"]),
            "failed",
            "here are: /dev/ttyUSB0",
            "plug it in",
        ),
        (Port("/tmp/x", True, is_device=False), "failed", "no character device", "another port"),
        (
            Port("/dev/ttyUSB0", True, group="dialout", user="joe", allowed=False, in_group=False),
            "failed",
            "user joe may not open it: it is group dialout's",
            "usermod -aG dialout joe",
        ),
        (
            Port("/dev/ttyUSB0", True, group="dialout", user="joe", allowed=False),
            "failed",
            "user joe may not open it",
            "log in again, for the group to count",
        ),
        (
            Port("/dev/ttyUSB0", True, by_id="/dev/serial/by-id/usb-x"),
            "warning",
            "may be another adapter's",
            "write port: /dev/serial/by-id/usb-x",
        ),
        (
            Port("/dev/serial/by-id/usb-x", True, latency_ms=16),
            "warning",
            "holds answers back for up to 16 ms",
            "latency_timer",
        ),
        (
            Port("/dev/ttyUSB0", True, holders=[Holder(71, "minicom")]),
            "failed",
            "held by minicom (pid 71)",
            "end it: kill 71",
        ),
        (Port("/dev/ttyUSB0", True, holders=[Holder(42, "hilgate")]), "ok", "agent (pid 42) has it", ""),
        (
            # Nobody knows the pid where the settings name no store.
            Port("/dev/ttyUSB0", True, holders=[Holder(43, "hilgate", "hilgate@rig-07.service")]),
            "ok",
            "agent (pid 43) has it",
            "",
        ),
        (
            Port("/dev/ttyUSB0", True, holders=[Holder(44, "hilgate", "hilgate@rig-08.service")]),
            "failed",
            "held by hilgate (pid 44)",
            "name another here, or systemctl disable --now hilgate@rig-08.service",
        ),
        (
            Port("/dev/ttyS0", True, group="root", user="hilgate", allowed=False, group_may=False),
            "failed",
            "user hilgate may not open it",
            'KERNEL=="ttyS0", GROUP="dialout", MODE="0660"',
        ),
        (
            Port("/dev/ttyS0", True, group="root", user="joe", allowed=False),
            "failed",
            "it is group root's",
            "a udev rule",
        ),
    ],
)
def test_serial_ports(port: Port, verdict: str, found: str, todo: str) -> None:
    (one,) = serialport.judge(port, agent_pid=42, bench="rig-07")
    assert one.verdict == verdict
    assert found in one.found
    assert todo in one.todo
    assert bool(one.todo) == (verdict != "ok")


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/system-hilgate.slice/hilgate@rig-07.service\n", "hilgate@rig-07.service"),
        ("12:cpu:/\n0::/system.slice/chrony.service/sub\n", "chrony.service"),
        ("0::/user.slice/user-0.slice/user@0.service/app.slice/x.service\n", ""),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_the_service_of_a_process(cgroup: str, unit: str) -> None:
    assert unit_of(cgroup) == unit


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody may pass, as pytest's are not."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask for another user")
def test_root_asks_for_the_service(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "SERVICE_USER", "nobody")  # there is no hilgate on a machine without a bench
    shut, key = folder / "shut", folder / "key.pem"
    shut.mkdir(mode=0o700)
    for path, mode, may in ((key, 0o600, False), (key, 0o644, True), (shut / "key.pem", 0o644, False)):
        path.write_text("key")
        path.chmod(mode)
        assert host.service_may(path) is may
        assert not host.service_may(path, write=True)
    key.chmod(0o666)
    assert host.service_may(key, write=True)
    monkeypatch.setattr(host, "SERVICE_USER", "nobody-of-that-name")
    assert host.service_may(shut / "key.pem")


def test_a_key_that_only_root_can_read() -> None:
    found = secrets.judge(secrets.Facts("plc.connection.key", Path("/etc/hilgate/k.pem"), 0o600, hidden=True))
    assert found.verdict == "failed"
    assert found.todo == "chgrp hilgate /etc/hilgate/k.pem && chmod 640 /etc/hilgate/k.pem"


def test_a_store_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    monkeypatch.setattr(storage, "PRIVATE", tmp_path / "private")
    (tmp_path / "rig-07").symlink_to(tmp_path / "private/hilgate/rig-07")
    assert storage.judge_shut(tmp_path / "rig-07").verdict == "not-checked"
    assert storage.judge_shut(tmp_path / "rig-08").verdict == "failed"


LOCKS = """\
1: POSIX  ADVISORY  READ 5433 08:01:7864448 128 128
2: FLOCK  ADVISORY  WRITE 2001 00:05:77 0 EOF
2: -> FLOCK  ADVISORY  WRITE 2002 00:05:77 0 EOF
3: FLOCK  ADVISORY  WRITE 0 00:05:77 0 EOF
"""


def test_who_holds_a_lock() -> None:
    assert lock_owners(LOCKS, 77) == [2001]
    assert lock_owners(LOCKS, 7864448) == [5433]
    assert lock_owners(LOCKS, 7) == []


@given(st.text(alphabet=st.sampled_from("0123456789: ->FLOCK\nx")))
def test_a_table_of_locks_may_be_anything(text: str) -> None:
    assert all(pid > 0 for pid in lock_owners(text, 77))


STORE = Facts(
    Path("/var/lib/hilgate/rig-07"), 1024 * MIB, owner="hilgate", free=4096 * MIB, filesystem="ext4"
)


@pytest.mark.parametrize(
    ("changes", "subject", "verdict", "found"),
    [
        ({}, "/var/lib/hilgate/rig-07", "ok", "free, writable, owned by hilgate"),
        ({}, "disk", "ok", "4,096 MiB free on ext4"),
        ({}, "integrity", "ok", "whole"),
        (
            {"locked": True, "holder": "hilgate (pid 7)"},
            "/var/lib/hilgate/rig-07",
            "ok",
            "held by hilgate (pid 7)",
        ),
        ({"writable": False}, "/var/lib/hilgate/rig-07", "failed", "we may not write there; it is hilgate's"),
        ({"there": False}, "/var/lib/hilgate/rig-07", "ok", "the agent makes it"),
        ({"there": False, "writable": False}, "/var/lib/hilgate/rig-07", "failed", "does not let us make it"),
        ({"free": 100 * MIB}, "disk", "warning", "the outbox may grow to 1,024 MiB"),
        ({"free": 100 * MIB, "used": 1000 * MIB}, "disk", "ok", "100 MiB free"),
        ({"free": 15 * MIB, "wanted": 8 * MIB}, "disk", "failed", "the store needs 16 MiB to go on"),
        ({"free": 0, "used": 1024 * MIB}, "disk", "failed", "0 MiB free"),
        ({"filesystem": "nfs4"}, "disk", "warning", "not safe on a network file system"),
        ({"damage": "row 7 missing"}, "integrity", "failed", "row 7 missing"),
        ({"unread": "there is no database yet"}, "integrity", "not-checked", "no database yet"),
        ({"letters": 3}, "dead letters", "warning", "3 messages that the broker refused"),
    ],
)
def test_stores(changes: dict[str, Any], subject: str, verdict: str, found: str) -> None:
    whole = {name: getattr(STORE, name) for name in STORE.__struct_fields__} | changes
    rows = {one.subject: one for one in storage.judge(Facts(**whole))}
    assert rows[subject].verdict == verdict
    assert found in rows[subject].found
    assert bool(rows[subject].todo) == (verdict in ("warning", "failed"))


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
31 22 0:25 / /var/lib rw - xfs /dev/sdb1 rw
33 31 0:26 / /var/lib/hil\\040gate rw - nfs4 server:/x rw
34 22 0:27 / /var/lib/hilgate rw - tmpfs tmpfs rw
35 34 0:28 / /var/lib/hilgate rw - btrfs /dev/sdc rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/etc", "ext4"),
        ("/var/lib/other", "xfs"),
        ("/var/lib/hil gate/rig", "nfs4"),
        ("/var/lib/hilgate/rig-07", "btrfs"),
        ("/var/library", "ext4"),
    ],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert storage.filesystem_of(Path(path), MOUNTS) == kind


@pytest.mark.parametrize(
    ("facts", "subject", "verdict", "found"),
    [
        (Limits(4096 * MIB, None, 1024), "memory", "ok", "4,096 MiB of memory left on this host"),
        (Limits(4096 * MIB, 128 * MIB, 1024), "memory", "warning", "128 MiB of memory the cgroup's limit"),
        (Limits(4096 * MIB, 32 * MIB, 1024), "memory", "failed", "takes 64 MiB at least"),
        (Limits(50 * MIB, None, 1024), "memory", "failed", "50 MiB of memory left on this host"),
        (Limits(4096 * MIB, None, 64), "files", "warning", "64 open files at most"),
    ],
)
def test_limits(facts: Limits, subject: str, verdict: str, found: str) -> None:
    rows = {one.subject: one for one in limits.judge(facts)}
    assert rows[subject].verdict == verdict
    assert found in rows[subject].found


def test_a_cgroups_limit_is_the_least_on_its_way(tmp_path: Path) -> None:
    inner = tmp_path / "system.slice" / "hilgate.service"
    inner.mkdir(parents=True)
    assert limits.cgroup_limit("0::/system.slice/hilgate.service\n", tmp_path) is None
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "memory.max").write_text(f"{256 * MIB}\n")
    assert limits.cgroup_limit("0::/system.slice/hilgate.service\n", tmp_path) == 256 * MIB
    (inner / "memory.max").write_text(f"{128 * MIB}\n")
    assert limits.cgroup_limit("1:cpu:/x\n0::/system.slice/hilgate.service\n", tmp_path) == 128 * MIB
    assert limits.available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n") == 2 * MIB
    with pytest.raises(ValueError, match="MemAvailable"):
        limits.available("MemTotal: 9 kB\n")


RUNNING = {
    "LoadState": "loaded",
    "UnitFileState": "enabled",
    "ActiveState": "active",
    "SubState": "running",
    "Result": "success",
    "MainPID": "812",
    "NRestarts": "0",
    "WatchdogUSec": "30s",
    "StatusText": "available",
    "NeedDaemonReload": "no",
}


@pytest.mark.parametrize(
    ("changes", "worst", "found"),
    [
        ({}, "ok", "active (running), pid 812, available"),
        ({"LoadState": "not-found"}, "warning", "there is no such unit"),
        ({"LoadState": "bad-setting"}, "failed", "cannot be loaded (bad-setting)"),
        ({"UnitFileState": "disabled"}, "warning", "it is disabled"),
        ({"WatchdogUSec": "0"}, "warning", "no watchdog"),
        ({"NeedDaemonReload": "yes"}, "warning", "has changed"),
        ({"NRestarts": "4"}, "warning", "restarted 4 times"),
        ({"ActiveState": "inactive", "SubState": "dead"}, "warning", "inactive (dead)"),
        (
            {"ActiveState": "failed", "SubState": "failed", "Result": "watchdog", "ExecMainStatus": "6"},
            "failed",
            "last ended by watchdog, exit status 6",
        ),
        (
            {
                "ActiveState": "activating",
                "SubState": "auto-restart",
                "Result": "exit-code",
                "ExecMainStatus": "2",
            },
            "failed",
            "last ended by exit-code, exit status 2",
        ),
    ],
)
def test_units(changes: dict[str, str], worst: str, found: str) -> None:
    text = "\n".join(f"{name}={value}" for name, value in (RUNNING | changes).items())
    rows: list[Finding] = list(service.judge(service.parse("hilgate@rig-07.service", text)))
    (one,) = [row for row in rows if found in row.found]
    assert one.verdict == worst
    assert {row.verdict.value for row in rows} <= {"ok", worst}
    assert bool(one.todo) == (worst != "ok")


@pytest.mark.parametrize(
    ("files", "environ", "kind"),
    [
        ([], {}, ""),
        (["run/.containerenv"], {}, "podman"),
        ([".dockerenv"], {}, "docker"),
        (["run/systemd/container"], {}, "systemd-nspawn"),
        ([".dockerenv"], {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "Kubernetes"),
    ],
)
def test_containers(tmp_path: Path, files: list[str], environ: dict[str, str], kind: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("systemd-nspawn\n")
    assert host.container(tmp_path, environ) == kind


def test_sizes() -> None:
    assert mib(1536 * MIB) == "1,536 MiB"
