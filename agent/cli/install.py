"""`hilgate install`: a bench as a service of systemd."""

import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from agent.install import State

_SAID: dict["State", str] = {
    "new": "is new",
    "same": "is as it should be",
    "older": "is brought up to date",
    "changed": "differs and is kept; --force overwrites",
    "there": "is there and is kept",
}
_RELOAD = ["systemctl", "daemon-reload"]


def install(
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE", help="A profile file, or the name of a shipped profile.")
    ],
    bench: Annotated[str, typer.Option(metavar="ID", help="The bench's id.")],
    broker: Annotated[str, typer.Option(metavar="URL", help="The AMQP 1.0 broker.")],
    plain: Annotated[
        bool, typer.Option("--plain", help="hilgate.service, for a host with one bench, not hilgate@ID.")
    ] = False,
    beside: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME", help="A drop-in, or can-network; may be repeated."),
    ] = None,
    root: Annotated[Path, typer.Option(metavar="DIR", help="The file tree of an image.")] = Path("/"),
    program: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="hilgate as the service will see it; by default, this one."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what somebody has changed.")] = False,
) -> None:
    """Make a bench a service of systemd: unit, its group, profile and settings.

    What is there and was changed by somebody is kept, unless forced; called again, it brings units of an
    earlier version up to date. Nothing is started: what to type next stands at the end. The exit code is 1
    if something was kept that should be otherwise, or if the profile lacks files where it is then.
    """
    import shutil
    import subprocess

    from agent import install
    from agent.cli import configuration, output

    if not dry_run and root == Path("/") and os.geteuid() != 0:
        raise Failure("only root can install a service: type sudo in front, or try --dry-run", Exit.USAGE)
    if unknown := set(beside or ()) - set(install.extras()):
        raise Failure(
            f"there is no {' and no '.join(sorted(unknown))}; --with takes {', '.join(install.extras())}",
            Exit.USAGE,
        )
    checked = configuration.settings(None, {"bench": bench, "broker": broker}, {})
    name = "hilgate" if plain else checked.bench
    environ = {**install.variables(root, name), **os.environ}
    loaded = configuration.profile(profile, environ)
    settings = install.settings_text(name, checked.bench, checked.broker)
    files = [
        *install.targets(
            loaded.path.read_text("utf-8"),
            settings,
            name,
            _executable(program or _this_one(root)),
            beside or (),
            plain=plain,
        )
    ]
    kept = False
    for file in files:
        state = file.state(root)
        if state == "changed":
            kept = kept or not force
            said = "is overwritten, though it was changed" if force else _SAID[state]
        else:
            said = _SAID[state]
        typer.echo(f"/{file.path} {said}")
        if not dry_run and (state in ("new", "older") or (state == "changed" and force)):
            file.write(root)
    users_made = dry_run
    lacking = ""
    if not dry_run:
        lacking = _what_is_wrong(root / install.CONFIGURATION / f"{name}.profile.yaml", environ)
        users_made = _make_users(root, install.USERS.name)
        if root == Path("/") and Path("/run/systemd/system").is_dir() and shutil.which(_RELOAD[0]):
            subprocess.run(_RELOAD, check=False)
    unit = "hilgate" if plain else f"hilgate@{name}"
    if "can-network" in (beside or ()):
        for name_of_bus, bitrate in install.other_bitrates(loaded).items():
            output.say(
                f"80-can.network sets {install.NETWORK_BITRATE} bit/s, and the profile has {bitrate} for"
                f" {name_of_bus}: change the file before networkd reads it"
            )
    if lacking:
        output.say(f"{lacking}\nFirst: put the files that it names beside it, readable by the group hilgate")
    output.say(f"Next: look through /{install.CONFIGURATION}/{name}.settings.yaml, then")
    if not users_made:
        output.say(f"  systemd-sysusers {install.USERS.name}")
    output.say(f"  systemctl enable --now {unit}\n  systemctl status {unit}\n  journalctl -fu {unit}")
    raise typer.Exit(Exit.REJECTED if kept or lacking else Exit.OK)


def _what_is_wrong(profile: Path, environ: Mapping[str, str]) -> str:
    """What a profile lacks where it is now, such as a CAN database that stayed behind; empty if nothing."""
    from agent.cli import configuration

    try:
        configuration.profile(str(profile), environ)
    except Failure as failure:
        return str(failure)
    return ""


def _make_users(root: Path, file: str) -> bool:
    """Makes user and group of a file in sysusers.d; whether they are there now."""
    import shutil
    import subprocess

    program = shutil.which("systemd-sysusers")
    if program is None or not (root / "etc/passwd").is_file():
        return False  # a file tree without any user is no system yet
    where = [] if root == Path("/") else [f"--root={root.absolute()}"]
    return subprocess.run([program, *where, file], check=False).returncode == 0


def _this_one(root: Path) -> Path:
    """The program that runs now, by its path within the file tree."""
    program = Path(sysconfig.get_path("scripts")) / "hilgate"
    if not program.exists():
        program = Path(sys.argv[0]).absolute()
    if root != Path("/") and program.is_relative_to(root.absolute()):
        program = Path("/") / program.relative_to(root.absolute())
    return program


def _executable(program: Path) -> str:
    """The program as it stands in the unit.

    Raises:
        Failure: with the usage code, the service could not run it.
    """
    text = str(program)
    why = ""
    if not program.is_absolute():
        why = "its path does not begin with /"
    elif program.parts[1] in ("home", "root", "run", "tmp"):
        why = "services do not see it there"
    elif any(letter.isspace() or letter in "%$\"'\\;" for letter in text):
        why = "systemd would read its path otherwise"
    if why:
        raise Failure(f"{text} cannot be a service, for {why}: install hilgate in /opt/hilgate", Exit.USAGE)
    return text
