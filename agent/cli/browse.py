"""`hilgate browse`: what an OPC UA server has, as a profile to begin with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from agent.cli import options
from agent.cli.exits import Exit, Failure
from agent.cli.signals import comment, dashed, scalar

if TYPE_CHECKING:
    from protocols.opcua.browse import Browsed, Found
    from protocols.opcua.config import OpcuaDevice
    from protocols.opcua.walk import Bounds

_NAME_MOST = 63
_SECURITY = "Security"
_INDENT = " " * 6


def browse(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="The server, such as opc.tcp://plc.example:4840.")
    ],
    root: Annotated[
        str, typer.Option(metavar="NODE", help="Where to begin: a node id or a browse path from Root.")
    ] = "i=85",
    depth: Annotated[int, typer.Option(min=0, max=100, help="How many levels down from there.")] = 16,
    most: Annotated[
        int, typer.Option("--max", min=1, max=1_000_000, help="How many nodes are looked at at most.")
    ] = 20_000,
    namespace: Annotated[
        str | None, typer.Option(metavar="URI", help="Only nodes of this namespace become points.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="Security policy; Basic256Sha256 by default.", rich_help_panel=_SECURITY),
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="Sign or SignAndEncrypt (default).", rich_help_panel=_SECURITY)
    ] = None,
    cert: Annotated[
        str | None, typer.Option(metavar="FILE", help="Our certificate.", rich_help_panel=_SECURITY)
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its key, in PEM.", rich_help_panel=_SECURITY)
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH", help="Certificates to trust; may be repeated.", rich_help_panel=_SECURITY
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify", help="Check the server's certificate.", rich_help_panel=_SECURITY
        ),
    ] = True,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="The name to log in with.", rich_help_panel=_SECURITY)
    ] = None,
    password_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its password.", rich_help_panel=_SECURITY)
    ] = None,
    allow_insecure: Annotated[
        bool,
        typer.Option(
            "--allow-insecure",
            help="Take broken policies, send the password unencrypted.",
            rich_help_panel=_SECURITY,
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Print a profile with what an OPC UA server has: its variables with their units, ranges and labels,
    its methods and its alarms.

    All points are read-only: remove what is not wanted, and say `access: rw` and limits where it may be
    written.
    """
    from agent import logs
    from agent.cli import loop, output
    from protocols.opcua.walk import Bounds

    logs.setup("text", "warning")
    security = _given(
        {"policy": policy, "mode": mode, "cert": cert, "key": key, "trust": trust},
        verify=None if verify else False,
        allow_insecure=allow_insecure or None,
    )
    who = _given(
        {"name": user, "password_file": password_file},
        allow_insecure=(user is not None and allow_insecure) or None,
    )
    connection = _given({"url": url, "security": security or None, "user": who or None})
    device = _device(connection)
    bounds = Bounds(depth, most, namespace)
    browsed = loop.execute(lambda _: _browsed(device, _node(root), bounds))
    if not browsed.complete:
        output.say("hilgate: there is more: a larger --depth or --max gets it, another --root less of it")
    if as_json:
        output.json_line(profile(connection, browsed.found))
        return
    for line in profile_lines(connection, browsed.found):
        typer.echo(line)


def _given(fields: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {name: value for name, value in {**fields, **more}.items() if value is not None}


def _device(connection: Mapping[str, Any]) -> "OpcuaDevice":
    from pathlib import Path

    from pydantic import ValidationError

    from protocols.opcua.config import OpcuaDevice

    try:
        device = OpcuaDevice.model_validate(
            {"protocol": "opcua", "connection": connection, "connect_timeout": 20.0, "points": {}}
        )
    except ValidationError as error:
        told = (
            f"{one['loc'][-1] if one['loc'] else 'url'}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        )
        raise Failure("; ".join(told), Exit.USAGE) from None
    return device.named("browse", Path.cwd())


def _node(root: str) -> str | Sequence[str]:
    from pydantic import TypeAdapter, ValidationError

    from protocols.opcua.point import Node

    try:
        checked: str | Sequence[str] = TypeAdapter(Node).validate_python(root)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise Failure(f"--root {message}", Exit.USAGE) from None
    return checked


async def _browsed(device: "OpcuaDevice", root: str | Sequence[str], bounds: "Bounds") -> "Browsed":
    from agent.cli.output import say
    from protocols.base import DriverError
    from protocols.opcua.browse import browse as walk
    from protocols.opcua.session import Session

    session = Session(device)
    try:
        await session.open()
        return await walk(session, root, bounds, lambda nodes: say(f"hilgate: {nodes:,} nodes"))
    except DriverError as error:
        raise Failure(str(error)) from None
    finally:
        await session.close()


def profile(connection: Mapping[str, Any], found: "Sequence[Found]") -> dict[str, Any]:
    """The profile as a whole, for machines."""
    device: dict[str, Any] = {"protocol": "opcua", "connection": connection, "points": {}, "methods": {}}
    for name, one in _named(found):
        fields = {key: value for key, value in one.fields.items() if (key, value) != ("type", "number")}
        if "labels" in fields:
            fields["labels"] = {str(raw): label for raw, label in fields["labels"].items()}
        device["methods" if one.method else "points"][name] = fields
    if not device["methods"]:
        del device["methods"]
    return {"profile": _profile_name(connection["url"]), "devices": {"server": device}}


def profile_lines(connection: Mapping[str, Any], found: "Sequence[Found]") -> Iterator[str]:
    """The same with remarks, for people, line by line."""
    whole = profile(connection, found)
    (device,) = whole["devices"].values()
    yield f"# Made from {comment(connection['url'])}: remove what is not wanted."
    yield "# Where a bench may write say access: rw, min, max and safe."
    yield f"profile: {whole['profile']}"
    yield "devices:"
    yield "  server:"
    yield "    protocol: opcua"
    yield "    connection:"
    for key, value in connection.items():
        yield f"{_INDENT}{key}: {_flow(value)}"
    yield "    points:" + ("" if device["points"] else " {}")
    methods = device.get("methods", {})
    remarks = {name: "; ".join(one.notes) for name, one in _named(found)}
    for name, fields in device["points"].items():
        yield f"{_INDENT}{name}: {_flow(fields)}" + (f" # {remarks[name]}" if remarks[name] else "")
    if methods:
        yield "    methods:"
    for name, fields in methods.items():
        yield f"{_INDENT}{name}: {_flow(fields)}"


def _profile_name(url: str) -> str:
    return dashed(urlsplit(url).hostname or "") or "server"


def _named(found: "Sequence[Found]") -> Iterator[tuple[str, "Found"]]:
    """Each with a name that nothing else has: with as much of its path as that takes, or with a number."""
    taken: set[str] = set()
    for one in found:
        words = [word for word in map(dashed, one.path) if word] or ["root"]
        shortest = 2 if one.path[-1:] == ("events",) and len(words) > 1 else 1
        tries = [
            "-".join(words[-count:])[:_NAME_MOST].strip("-") for count in range(shortest, len(words) + 1)
        ]
        name = next((name for name in tries if name not in taken), None)
        name = name or f"{tries[0][: _NAME_MOST - 8]}-{len(taken)}"
        taken.add(name)
        yield name, one


def _flow(value: Any) -> str:
    """A value as YAML in a line."""
    match value:
        case str():
            return scalar(value)
        case bool():
            return "true" if value else "false"
        case float():
            written = f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)
            return written if "." in written else written.replace("e", ".0e")
        case list() | tuple():
            return "[" + ", ".join(map(_flow, value)) + "]"
        case dict():
            return "{" + ", ".join(f"{_key(key)}: {_flow(one)}" for key, one in value.items()) + "}"
    return str(value)


def _key(key: str) -> str:
    return key if key.lstrip("-").isdecimal() else scalar(key)
