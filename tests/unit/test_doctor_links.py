"""What `hilgate doctor` makes of facts about CAN, certificates, brokers, devices; and how it runs checks."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.doctor import broker, can, certificates, devices, secrets
from agent.doctor.can import Facts
from agent.doctor.case import Case, Check, Look
from agent.doctor.checks import CHECKS
from agent.doctor.examine import examine
from agent.doctor.finding import Finding, Verdict, ok
from agent.doctor.locks import Holder
from agent.doctor.login import Addresses
from agent.doctor.presence import Heard, Presence
from protocols.amqp.options import Options
from protocols.base import DriverError
from protocols.can.bus import BusState
from protocols.can.buses.netlink import Link
from protocols.can.config import Connection
from protocols.modbus.config import ModbusDevice
from protocols.tls import Validity

DOCS = Path(__file__).resolve().parents[2] / "docs"
DAY = 86400.0

CAN0: dict[str, Any] = {
    "name": "can0",
    "is_can": True,
    "up": True,
    "mtu": 16,
    "kind": "can",
    "state": BusState.ACTIVE,
    "bitrate": 500_000,
    "listen_only": False,
    "fd": False,
    "tx_errors": 0,
    "rx_errors": 0,
    "restarts": 0,
    "restart_ms": 100,
    "queue": 1000,
}
VCAN0: dict[str, Any] = {
    "name": "vcan0",
    "is_can": True,
    "up": True,
    "mtu": 72,
    "kind": "vcan",
    "queue": 1000,
}


@pytest.mark.parametrize(
    ("wanted", "there", "verdict", "found", "todo"),
    [
        ({"channel": "can0", "bitrate": 500_000}, CAN0, "ok", "500000 bit/s, error active", ""),
        ({"channel": "vcan0"}, VCAN0, "ok", "up (vcan), queue 1000", ""),
        ({"channel": "can1"}, None, "failed", "no such interface; CAN interfaces here: can0", "plugged in?"),
        ({"channel": "vcan7"}, None, "failed", "no such interface", "ip link add vcan7 type vcan"),
        (
            {"channel": "eth0"},
            CAN0 | {"name": "eth0", "is_can": False},
            "failed",
            "no CAN interface",
            "another",
        ),
        (
            {"channel": "can0", "bitrate": 250_000},
            CAN0 | {"up": False},
            "failed",
            "it is down",
            "ip link set can0 up type can bitrate 250000",
        ),
        (
            {"channel": "can0", "bitrate": 250_000},
            CAN0,
            "failed",
            "its bit rate is 500000 and should be 250000",
            "ip link set can0 down && ip link set can0 up type can bitrate 250000",
        ),
        (
            {"channel": "can0", "fd": True, "bitrate": 500_000, "data_bitrate": 2_000_000},
            CAN0,
            "failed",
            "CAN FD is off and should be on",
            "dbitrate 2000000 fd on",
        ),
        (
            {"channel": "can0"},
            CAN0 | {"state": BusState.BUS_OFF, "restart_ms": 0, "tx_errors": 248},
            "failed",
            "it is bus-off: it takes no part in the bus; error counters 248 sending",
            "ip link set can0 type can restart",
        ),
        (
            {"channel": "can0"},
            CAN0 | {"state": BusState.PASSIVE, "rx_errors": 130},
            "warning",
            "is error passive",
            "termination",
        ),
        ({"channel": "can0"}, CAN0 | {"restart_ms": 0}, "warning", "bus-off for ever", "restart-ms 100"),
        (
            {"channel": "can0"},
            CAN0 | {"queue": 10},
            "warning",
            "only 10 frames",
            "ip link set can0 txqueuelen",
        ),
    ],
)
def test_interfaces(
    wanted: dict[str, Any], there: dict[str, Any] | None, verdict: str, found: str, todo: str
) -> None:
    link = None if there is None else Link(**there)
    (one,) = can.judge(Connection(**wanted), Facts(link, ("can0",)))
    assert one.verdict == verdict
    assert found in one.found
    assert todo in one.todo
    assert bool(one.todo) == (verdict != "ok")


def test_several_worries_are_several_rows() -> None:
    link = Link(**CAN0 | {"restart_ms": 0, "queue": 10})
    rows = list(can.judge(Connection(channel="can0"), Facts(link)))
    assert [row.verdict for row in rows] == ["warning", "warning"]


@pytest.mark.parametrize(
    ("begins", "ends", "verdict", "found"),
    [
        (-100, 300, "ok", "valid for 300 more days, until 2002-07-06"),
        (-100, 30.5, "ok", "valid for 30 more days"),
        (-100, 29, "warning", "valid for 29 more days"),
        (-100, -2, "failed", "it has expired on 2001-09-07, 2 days ago"),
        (1, 300, "failed", "not valid before 2001-09-10"),
    ],
)
def test_certificates(begins: float, ends: float, verdict: str, found: str) -> None:
    now = 1_000_000_000.0  # 2001-09-09
    one = Validity(now + begins * DAY, now + ends * DAY)
    judged = certificates.judge(certificates.Facts("tls_cert (/etc/x.pem)", (one,)), now)
    assert judged.verdict == verdict
    assert found in judged.found
    assert bool(judged.todo) == (verdict != "ok")


def test_of_a_chain_the_first_to_end_counts_and_of_authorities_the_last() -> None:
    two = (Validity(0, 5 * DAY), Validity(0, 500 * DAY))
    assert certificates.judge(certificates.Facts("tls_cert", two), DAY).verdict == "warning"
    assert certificates.judge(certificates.Facts("tls_ca", two, authority=True), DAY).verdict == "ok"
    broken = certificates.judge(certificates.Facts("tls_ca", error="ca: x holds no certificate"), DAY)
    assert (broken.verdict, broken.found) == ("failed", "ca: x holds no certificate")


@pytest.mark.parametrize(
    ("facts", "verdict", "todo"),
    [
        (secrets.Facts("tls_key", Path("/etc/k"), 0o100640), "ok", ""),
        (secrets.Facts("tls_key", Path("/etc/k"), 0o100644), "warning", "chmod o= /etc/k"),
        (secrets.Facts("tls_key", Path("/etc/a k"), 0o100602), "warning", "chmod o= '/etc/a k'"),
        (secrets.Facts("tls_key", Path("/etc/k"), 0o100600, empty=True), "failed", "first line"),
        (secrets.Facts("tls_key", Path("/etc/k"), error="Permission denied"), "failed", "read it"),
    ],
)
def test_secrets(facts: secrets.Facts, verdict: str, todo: str) -> None:
    one = secrets.judge(facts)
    assert one.verdict == verdict
    assert todo in one.todo
    assert one.subject == f"tls_key ({facts.path})"


def test_the_commands_for_permissions_are_those_of_the_page_on_brokers() -> None:
    page = (DOCS / "brokers.md").read_text()
    for flavour in ("rabbitmq", "rabbitmq3"):
        assert broker.permit(flavour, "access refused") in page
    assert "<security-setting" in page
    assert "queue_prefix" in broker.permit("generic", "no such node (amqp:not-found)")


class Told:
    """What a broker's login told, for `judge_addresses`."""

    refusal = ""
    max_message_size = 0

    def __init__(self, flavour: str) -> None:
        self.flavour = flavour


@pytest.mark.parametrize(
    ("flavour", "refusal", "verdict"),
    [
        ("rabbitmq", "no queue 'hil.rig-07.commands' in vhost '/' (amqp:not-found)", "warning"),
        ("rabbitmq", "read access to queue refused (amqp:unauthorized-access)", "failed"),
        ("artemis", "not authorized (amqp:unauthorized-access)", "failed"),
        ("generic", "no such node (amqp:not-found)", "failed"),
    ],
)
def test_addresses(flavour: str, refusal: str, verdict: str) -> None:
    rows = list(broker.judge_addresses("rig-07", Told(flavour), Addresses(refusal, "")))  # type: ignore[arg-type]  # what is read of it
    assert [(row.subject, row.verdict.value) for row in rows] == [
        ("hil.rig-07.commands", verdict),
        ("hil.availability", "ok"),
    ]
    assert rows[0].todo


PUMP = ModbusDevice.model_validate(
    {
        "protocol": "modbus",
        "connection": {"transport": "tcp", "host": "plc-1.example", "port": 502, "unit": 1},
        "address_base": 0,
        "points": {"speed": {"table": "input", "address": 0}},
    }
).named("pump-plc")


def heard(**device: str) -> Heard:
    return Heard("rig-07", "available", {"pump-plc": device} if device else {}, {"hostname": "bench-07"})


@pytest.mark.parametrize(
    ("presence", "verdict", "found"),
    [
        (Presence(heard=heard(state="online")), "ok", "the agent that runs on bench-07 says it is online"),
        (
            Presence(True, Holder(7, "hilgate"), heard(state="online")),
            "ok",
            "runs here (pid 7) says it is online",
        ),
        (Presence(heard=heard(state="degraded", reason="a point")), "warning", "it is degraded: a point"),
        (Presence(heard=heard(state="offline", reason="no answer")), "failed", "it is offline: no answer"),
        (Presence(heard=heard()), "failed", "runs another profile"),
        (Presence(True, Holder(7, "hilgate")), "not-checked", "its availability was not heard"),
    ],
)
def test_the_word_of_an_agent(presence: Presence, verdict: str, found: str) -> None:
    one = devices.judge_word(PUMP, presence)
    assert presence.running
    assert one.verdict == verdict
    assert found in one.found


@pytest.mark.parametrize(
    ("error", "verdict", "todo"),
    [
        (None, "ok", ""),
        (DriverError("disconnected", "plc:502 refused the connection"), "failed", "nc -vz plc-1.example 502"),
        (DriverError("disconnected", "plc: host not found (x)"), "failed", "getent hosts plc-1.example"),
        (DriverError("timeout", "unit 1 does not answer"), "failed", "ping plc-1.example"),
        (
            DriverError("disconnected", "x needs pyserial; install hilgate[modbus]"),
            "failed",
            "pip install 'hilgate[modbus]'",
        ),
        (KeyError("x"), "failed", ""),
    ],
)
def test_connecting(error: Exception | None, verdict: str, todo: str) -> None:
    one = devices.judge_connection(PUMP, error)
    assert one.verdict == verdict
    assert todo in one.todo


def test_certificates_that_are_not_accepted() -> None:
    options = Options("amqps://broker.example", "x")
    refused = broker.judge_unreached(options, ConnectionRefusedError())
    assert "nc -vz broker.example 5671" in refused.todo
    assert "did not answer" in broker.judge_unreached(options, TimeoutError()).found
    cut = broker.judge_insecure(options, ConnectionResetError("reset"))
    assert (cut.verdict, "in the midst of TLS" in cut.found) == (Verdict.FAILED, True)


async def test_a_check_that_fails_ends_no_other() -> None:
    waiting = asyncio.Event()

    async def good() -> Sequence[Finding]:
        return [ok("", "well")]

    async def bad() -> Sequence[Finding]:
        raise KeyError("nobody foresaw this")

    async def slow() -> Sequence[Finding]:
        await waiting.wait()
        return []

    def none(case: Case) -> Mapping[str, Look]:
        raise ValueError("not even what there is to look at")

    checks = [
        Check("good", "", lambda case: {"": good}),
        Check("bad", "", lambda case: {"one": bad, "other": good}),
        Check("slow", "", lambda case: {"": slow}),
        Check("none", "", none),
    ]
    said: list[tuple[str, Finding]] = []
    await examine(Case(None, None, 0.2), checks, lambda name, one: said.append((name, one)))
    rows = {(name, one.subject): one for name, one in said}
    assert len(rows) == len(said) == 5
    assert rows["good", ""].verdict == "ok"
    assert rows["bad", "one"].found == "the check itself failed: KeyError: 'nobody foresaw this'"
    assert rows["slow", ""].found == "it took longer than 200ms"
    assert "--timeout" in rows["slow", ""].todo
    assert rows["none", ""].verdict == "failed"


def test_the_page_has_every_check() -> None:
    """The table of docs/doctor.md is that of the code, word for word."""
    rows = re.findall(r"^\| `([a-z]+)` \| (.+?) \|", (DOCS / "doctor.md").read_text(), re.MULTILINE)
    assert rows == [(check.name, check.about) for check in CHECKS]
