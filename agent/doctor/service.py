"""The check `service`: the systemd unit: there, enabled, active, with a watchdog, and how it last ended."""

import os
from collections.abc import Iterator, Mapping

import msgspec

from agent.doctor import host
from agent.doctor.case import Case, Look
from agent.doctor.finding import Finding, failed, not_checked, ok, warning

_PROPERTIES = (
    "LoadState",
    "UnitFileState",
    "ActiveState",
    "SubState",
    "Result",
    "ExecMainStatus",
    "NRestarts",
    "WatchdogUSec",
    "MainPID",
    "StatusText",
    "NeedDaemonReload",
)


class Unit(msgspec.Struct, frozen=True):
    """A unit, as `systemctl show` has it; its names of properties are in org.freedesktop.systemd1(5)."""

    name: str
    properties: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        return self.properties.get(name, "")


def systemd_runs() -> bool:
    """Whether systemd is the init system (sd_booted(3))."""
    return os.path.exists("/run/systemd/system")


def parse(name: str, text: str) -> Unit:
    """A unit from what `systemctl show` printed: NAME=VALUE lines."""
    pairs = (line.partition("=") for line in text.splitlines())
    return Unit(name, {key: value for key, equals, value in pairs if equals})


def judge(unit: Unit) -> Iterator[Finding]:
    """What is to be said of a unit."""
    name = unit.name
    if unit["LoadState"] == "not-found":
        yield warning(
            name, "there is no such unit: the agent does not start with the host", "hilgate install --help"
        )
        return
    if unit["LoadState"] not in ("loaded", ""):
        yield failed(name, f"it cannot be loaded ({unit['LoadState']})", f"systemd-analyze verify {name}")
        return
    yield _activity(unit)
    if unit["UnitFileState"] not in ("enabled", "enabled-runtime", "static", "generated"):
        found = f"it is {unit['UnitFileState'] or 'not enabled'}: it does not start with the host"
        yield warning(name, found, f"systemctl enable {name}")
    if unit["WatchdogUSec"] in ("0", "infinity"):
        yield warning(name, "it has no watchdog: an agent that hangs is not restarted", "set WatchdogSec=")
    if unit["NeedDaemonReload"] == "yes":
        yield warning(name, "its file has changed since systemd read it", "systemctl daemon-reload")


def _activity(unit: Unit) -> Finding:
    name, state, result = unit.name, unit["ActiveState"], unit["Result"]
    shown = f"{state} ({unit['SubState']})"
    logs = f"journalctl -u {name} -n 50"
    if state == "failed" or (state == "activating" and result not in ("success", "")):
        found = f"{shown}: it last ended by {result}, exit status {unit['ExecMainStatus']}"
        return failed(name, found, f"{logs}; then systemctl reset-failed {name} && systemctl start {name}")
    if state not in ("active", "activating", "reloading"):
        return warning(name, shown, f"systemctl start {name}")
    status = f", {unit['StatusText']}" if unit["StatusText"] else ""
    restarts = int(unit["NRestarts"]) if unit["NRestarts"].isdecimal() else 0
    found = f"{shown}, pid {unit['MainPID']}{status}"
    if restarts:
        return warning(name, f"{found}; restarted {restarts} times since it was started", logs)
    return ok(name, found)


def parts(case: Case) -> Mapping[str, Look]:
    """One look at the bench's unit."""

    async def look() -> list[Finding]:
        if not systemd_runs():
            where = f", in a container ({case.container})" if case.container else ""
            return [not_checked("", f"systemd does not run here{where}")]
        if case.settings is None:
            return [not_checked("", f"the unit bears the bench's id, and {case.no_settings}")]
        return list(judge(await _gather(case.settings.bench)))

    return {"": look}


async def _gather(bench: str) -> Unit:
    """The bench's own unit, or the plain one where that is there and the other is not."""
    units = [await _show(name) for name in (f"hilgate@{bench}.service", "hilgate.service")]
    return next((unit for unit in units if unit["LoadState"] != "not-found"), units[0])


async def _show(name: str) -> Unit:
    words = ("systemctl", "show", name, f"--property={','.join(_PROPERTIES)}")
    code, printed = await host.output(*words)
    if code != 0:
        raise OSError(f"{' '.join(words[:3])}: {printed or 'systemctl is not here'}")
    return parse(name, printed)
