"""All checks, in the order of their rows in docs/doctor.md."""

from agent.doctor import (
    broker,
    can,
    certificates,
    configuration,
    devices,
    kernel,
    limits,
    secrets,
    serialport,
    service,
    storage,
    system,
    timekeeping,
)
from agent.doctor.case import Check

CHECKS = (
    Check("system", "Python, version, architecture, kernel, and the protocols' packages", system.parts),
    Check("profile", "the profile is valid; every mistake with file and line", configuration.profile),
    Check(
        "settings",
        "the settings are valid; every mistake with its place; tokens' keys can be used",
        configuration.settings,
    ),
    Check("clock", "a time service keeps the clock, and how far it is off", timekeeping.parts),
    Check("limits", "memory left, the cgroup's limit, open files", limits.parts),
    Check("kernel", "the modules that the profile's CAN buses need", kernel.parts),
    Check("can", "each CAN interface: there, up, set as the profile says, its errors and queue", can.parts),
    Check(
        "serial",
        "each serial port: there, ours (and the service's) to open, who holds it, a name that stays",
        serialport.parts,
        turns=2.0,
    ),
    Check("certificates", "each certificate: days left, and its key belongs to it", certificates.parts),
    Check(
        "secrets", "each key and password file: there, for the service, and not for everybody", secrets.parts
    ),
    Check("store", "its directory, disk, holder, integrity and dead letters", storage.parts),
    Check("broker", "name, TCP, TLS, login, the commands queue and availability", broker.parts, turns=3.0),
    Check(
        "device",
        "each enabled device answers, or what the running agent says of it",
        devices.parts,
        turns=3.0,
    ),
    Check("service", "the systemd unit: there, enabled, active, its watchdog and last end", service.parts),
)
"""Two turns and more: these wait for a running agent's word first, or go several steps."""
