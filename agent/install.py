"""What `hilgate install` puts where: unit, group, profile, settings, drop-ins, files for CAN interfaces."""

import hashlib
import os
import shlex
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.profile import Profile

EXECUTABLE = "/opt/hilgate/bin/hilgate"
"""The program that the units name as they are shipped."""
UNITS = Path("etc/systemd/system")
CONFIGURATION = Path("etc/hilgate")
USERS = Path("etc/sysusers.d/hilgate.conf")
"""What systemd-sysusers makes the user and the group of."""
_MARK = "# Installed by hilgate; replaced by the next `hilgate install` unless changed. sha256:"
_NETWORK = {
    "80-can.network": "etc/systemd/network",
    "80-vcan.network": "etc/systemd/network",
    "80-can.link": "etc/systemd/network",
    "hilgate-can.conf": "etc/modules-load.d",
    "80-hilgate.rules": "etc/udev/rules.d",
}

NETWORK_BITRATE = 500_000
"""What 80-can.network sets."""

State = Literal["new", "same", "older", "changed", "there"]


@dataclass(frozen=True)
class Target:
    """One file that belongs on the host.

    Args:
        path: Where, from the root.
        text: What is in it.
        ours: Nobody is meant to edit it: an earlier one that nobody has edited is replaced.
        once: Made when it is missing, and then left to its owner.
    """

    path: Path
    text: str
    ours: bool = False
    once: bool = False

    @property
    def content(self) -> str:
        """The whole file; one of ours says by its first line what it was when it was put there."""
        return f"{_MARK}{_digest(self.text)}\n{self.text}" if self.ours else self.text

    def state(self, root: Path) -> State:
        """How the file that is there compares: `older` is an earlier one of ours, `changed` somebody's.

        Raises:
            OSError: it cannot be read.
        """
        try:
            there = (root / self.path).read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return "new"
        if there == self.content:
            return "same"
        if self.once:
            return "there"
        first, _, rest = there.partition("\n")
        return "older" if self.ours and first == _MARK + _digest(rest) else "changed"

    def write(self, root: Path) -> None:
        """Puts it there, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        path = root / self.path
        for folder in reversed([folder for folder in path.parents if not folder.exists()]):
            folder.mkdir()
            folder.chmod(0o755)  # the service has to pass, whatever this shell's umask is
        part = path.with_name(f".{path.name}.part")
        part.write_text(self.content, "utf-8")
        part.chmod(0o644)
        os.replace(part, path)


def shipped() -> Path:
    """The folder of units and their like, of a checkout or of an installed wheel.

    Raises:
        FileNotFoundError: this installation has none.
    """
    checkout = Path(__file__).resolve().parent.parent / "systemd"
    installed = Path(sysconfig.get_path("data")) / "share" / "hilgate" / "systemd"
    for folder in (checkout, installed):
        if (folder / "hilgate@.service").is_file():
            return folder
    raise FileNotFoundError(f"{installed} is missing: this installation of hilgate brought no units")


def extras() -> list[str]:
    """What can be installed beside: the drop-ins by name, and `can-network`."""
    return sorted([*(path.stem for path in (shipped() / "drop-ins").glob("*.conf")), "can-network"])


def targets(
    profile: str, settings: str, name: str, executable: str, beside: Sequence[str], *, plain: bool
) -> Iterator[Target]:
    """All files of one bench.

    Args:
        profile: The text of its profile.
        settings: The text of its settings.
        name: What its files are called: the instance of the unit.
        executable: The program that runs it.
        beside: Names of `extras`.
        plain: Whether `hilgate.service` runs it, and not an instance of `hilgate@.service`.
    """
    folder = shipped()
    unit = "hilgate.service" if plain else "hilgate@.service"
    text = (folder / unit).read_text("utf-8").replace(EXECUTABLE, executable)
    yield Target(UNITS / unit, text, ours=True)
    yield Target(USERS, (folder / "sysusers.d" / USERS.name).read_text("utf-8"), ours=True)
    yield Target(CONFIGURATION / f"{name}.profile.yaml", profile)
    yield Target(CONFIGURATION / f"{name}.settings.yaml", settings, once=True)
    instance = unit if plain else f"hilgate@{name}.service"
    for extra in beside:
        if extra == "can-network":
            for file, place in _NETWORK.items():
                yield Target(Path(place) / file, (folder / "network" / file).read_text("utf-8"), ours=True)
        else:
            text = (folder / "drop-ins" / f"{extra}.conf").read_text("utf-8").replace("%i", name)
            yield Target(UNITS / f"{instance}.d" / f"{extra}.conf", text, ours=True)


def other_bitrates(profile: Profile) -> dict[str, int]:
    """The interfaces that 80-can.network would set to another bit rate than the profile has."""
    connections = [
        getattr(device, "connection", None) for device in profile.devices.values() if device.protocol == "can"
    ]
    return {
        str(one.channel): one.bitrate
        for one in connections
        if one is not None
        and one.interface == "socketcan"
        and str(one.channel).startswith("can")
        and one.bitrate not in (None, NETWORK_BITRATE)
    }


def variables(root: Path, name: str) -> dict[str, str]:
    """The variables of a bench's profile: its EnvironmentFile= (systemd.exec(5)), without continued lines.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        lines = (root / CONFIGURATION / f"{name}.env").read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith(("#", ";")):
            found[key.strip()] = _unquoted(value.strip())
    return found


def settings_text(name: str, bench: str, broker: str) -> str:
    """Settings to begin with: what is needed, and what else most benches want, as comments."""
    lines = [
        "# Settings of the agent; docs/settings.md has all fields.",
        f"bench: {bench}",
        f"broker: {broker}",
        # The unit says so too; this is for whoever looks: doctor, store, audit.
        f"store: /var/lib/hilgate/{name}",
        f"# Secrets are files /etc/credstore/hilgate.{name}.*, which only root can read.",
    ]
    lines += [
        f"#{field}: ${{CREDENTIALS_DIRECTORY:-/etc/credstore}}/hilgate.{name}.{secret}"
        for field, secret in (
            ("username_file", "username"),
            ("password_file", "password"),
            ("tls_cert", "tls-cert"),
            ("tls_key", "tls-key"),
        )
    ]
    if broker.startswith("amqps:"):
        lines.append("#tls_ca: /etc/hilgate/broker-ca.pem")
    return "\n".join(lines) + "\n"


def _unquoted(value: str) -> str:
    try:
        return " ".join(shlex.split(value))
    except ValueError:  # a quote without its end
        return value


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
