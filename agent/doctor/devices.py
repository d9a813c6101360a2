"""The check `device`: each enabled device: by the word of the agent that runs, else by connecting to it."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence

from agent.doctor import serialport
from agent.doctor.case import Case, Look
from agent.doctor.finding import Finding, Verdict, failed, not_checked, ok, warning
from agent.doctor.presence import Presence
from agent.plugins import protocols
from protocols import transport
from protocols.base import DeviceConfig, DeviceState, DriverError, Shared

CLOSE_GRACE_S = 1.0


def judge_word(device: DeviceConfig, presence: Presence) -> Finding:
    """What is to be said by the word of a running agent."""
    heard = presence.heard
    if heard is None:
        why = f"{presence} has it, and its availability was not heard from the broker"
        return not_checked(device.name, why, "look at the row `broker`, or into its log")
    said = heard.devices.get(device.name)
    if said is None:
        return failed(
            device.name, f"{presence} does not know it: it runs another profile", "restart the agent"
        )
    state, reason = str(said.get("state")), str(said.get("reason") or "")
    found = f"{presence} says it is {state}{': ' if reason else ''}{reason}"
    if state == DeviceState.ONLINE:
        return ok(device.name, found)
    if state in (DeviceState.DEGRADED, DeviceState.CONNECTING):
        return warning(device.name, found, "mend what its reason says")
    return failed(device.name, found, "mend what its reason says; the agent connects by itself then")


def judge_connection(device: DeviceConfig, error: Exception | None) -> Finding:
    """What is to be said once connecting to it has ended."""
    if error is None:
        return ok(device.name, f"answers ({device.protocol})")
    if isinstance(error, DriverError):
        return failed(device.name, str(error), way_out(device, error))
    return failed(device.name, f"internal error in the driver: {type(error).__name__}: {error}")


def way_out(device: DeviceConfig, error: DriverError) -> str:
    """What to do about a device that cannot be reached."""
    where = endpoint(device)
    text = str(error)
    if "install hilgate[" in text:
        return f"pip install 'hilgate[{text.partition('hilgate[')[2].partition(']')[0]}]'"
    if where is not None and error.code == "disconnected" and "refused" in text:
        return f"is it switched on, and does it listen on port {where[1]}? nc -vz {where[0]} {where[1]}"
    if where is not None and error.code == "disconnected" and "not found" in text:
        return f"getent hosts {where[0]}"
    if where is not None and error.code in ("timeout", "disconnected"):
        return (
            f"ping {where[0]}; then: unit or address in the profile, and the device's own limits of clients"
        )
    if device.protocol == "can":
        return "mend the row `can` first"
    return "power, wiring, and the connection in the profile"


def endpoint(device: DeviceConfig) -> tuple[str, int] | None:
    """Host and TCP port of a device that is called there; None of every other."""
    connection = getattr(device, "connection", None)
    host, port = getattr(connection, "host", None), getattr(connection, "port", None)
    if not isinstance(host, str) or not isinstance(port, int):
        return None
    return None if getattr(connection, "role", "connect") == "listen" else (host, port)


def parts(case: Case) -> Mapping[str, Look]:
    """A look at each enabled device."""
    if not case.devices:

        async def nothing() -> list[Finding]:
            return [not_checked("", case.no_devices)]

        return {"": nothing}
    shared: Shared = {}

    def look_at(device: DeviceConfig) -> Look:
        async def look() -> Sequence[Finding]:
            presence = await case.presence()
            if presence.running:
                return [judge_word(device, presence)]
            return [await _connect(device, shared, case.limit)]

        return look

    return {name: look_at(device) for name, device in case.devices.items()}


async def _connect(device: DeviceConfig, shared: Shared, limit: float) -> Finding:
    looked_at = device.looked_at()
    if isinstance(looked_at, str):
        return await _call(device, looked_at, limit)
    if (port := serialport.port_of(device)) is not None:
        facts = await asyncio.to_thread(serialport.gather, port)
        broken = [row for row in serialport.judge(facts, None) if row.verdict is Verdict.FAILED]
        if broken:  # opening a port that somebody has would disturb both
            return failed(device.name, f"{port}: {broken[0].found}", "mend the row `serial` first")
    driver = protocols()[device.protocol].driver(looked_at, shared)
    try:
        async with asyncio.timeout(limit):
            await driver.connect()
    except TimeoutError:
        return judge_connection(device, DriverError("timeout", f"no answer in {limit:g} s"))
    except Exception as error:  # noqa: BLE001  # whatever a driver does is that device's row
        return judge_connection(device, error)
    finally:
        with contextlib.suppress(Exception):  # what was found, was found
            async with asyncio.timeout(CLOSE_GRACE_S):
                await driver.close()
    return judge_connection(device, None)


async def _call(device: DeviceConfig, why: str, limit: float) -> Finding:
    """Only whether it takes a connection, where asking it more would not leave it alone."""
    where = endpoint(device)
    if where is None:
        return not_checked(device.name, why)
    try:
        await transport.connect(*where, limit, _Caller())
    except DriverError as error:
        return judge_connection(device, error)
    return ok(device.name, f"{where[0]}:{where[1]} takes connections; not asked more, for {why}")


class _Caller(asyncio.Protocol):
    """Hangs up as soon as it is through."""

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        """The other end has answered."""
        made.close()
