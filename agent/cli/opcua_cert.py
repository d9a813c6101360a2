"""`hilgate opcua-cert`: a certificate by which OPC UA servers know this gateway."""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from agent.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from protocols.opcua.certificates import Identity

_YEARS = 5 * 365


def opcua_cert(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the files go: hilgate.pem, .der and -key.pem.")
    ] = Path(),
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST", help="Name or address of this host; may be repeated. Default: its name."
        ),
    ] = None,
    uri: Annotated[
        str | None, typer.Option(metavar="URI", help="The application's URI. Default: urn:HOST:hilgate.")
    ] = None,
    name: Annotated[str, typer.Option(help="The application's name.")] = "hilgate",
    days: Annotated[int, typer.Option(min=1, help="How long it is valid.")] = _YEARS,
    key_size: Annotated[int, typer.Option(min=2048, max=4096, help="Of the RSA key, in bits.")] = 2048,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
) -> None:
    """Make a key and a self-signed certificate for connections to OPC UA servers.

    Prints the lines for the profile. The key stays here, and only its owner may read it; the certificate goes
    to the server's administrator.
    """
    from agent.cli import output

    hosts = host or [socket.gethostname()]
    paths = [out / "hilgate.pem", out / "hilgate.der", out / "hilgate-key.pem"]
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise Failure(f"{', '.join(there)}: there already; --force overwrites", Exit.USAGE)
    made = _made(name, uri, hosts, days, key_size)
    from protocols.opcua import certificates

    out.mkdir(parents=True, exist_ok=True)
    cert, der, key = paths
    _write(key, certificates.key_pem(made.key), 0o600)
    _write(cert, certificates.pem(made.certificate), 0o644)
    _write(der, certificates.der(made.certificate), 0o644)
    for line in _profile(cert, key):
        typer.echo(line)
    (said,) = certificates.application_uris(made.certificate)
    output.say(f"Give {der} to the server's administrator, who puts it among the trusted certificates.")
    output.say(f"Application URI: {said}")
    output.say(f"SHA-256: {certificates.thumbprint(made.certificate)}")
    output.say(f"SHA-1, as some servers show it: {certificates.sha1(made.certificate)}")
    output.say(f"Valid until {made.certificate.not_valid_after_utc:%Y-%m-%d}.")


def _made(name: str, uri: str | None, hosts: list[str], days: int, key_size: int) -> "Identity":
    """Raises Failure: a package is missing, or something cannot stand in a certificate."""
    try:
        from protocols.opcua import certificates
    except ModuleNotFoundError as error:
        raise Failure(f"this needs the package {error.name}: install hilgate[opcua]") from None
    said = certificates.default_uri(hosts[0]) if uri is None else uri
    if not urlsplit(said).scheme:
        raise Failure(f"{said!r} is no URI; one begins with a word such as urn:", Exit.USAGE)
    if not all(hosts):
        raise Failure("a host has no name", Exit.USAGE)
    try:
        return certificates.self_signed(name, said, hosts, days, key_size)
    except ValueError as error:
        raise Failure(f"that cannot stand in a certificate: {error}", Exit.USAGE) from None


def _write(path: Path, data: bytes, mode: int) -> None:
    """Writes a new file, which nobody could read with other rights for a moment."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)


def _profile(cert: Path, key: Path) -> list[str]:
    """What to say in a profile, which may lie elsewhere."""
    from agent.cli.signals import scalar

    files = [scalar(str(path if path.parent == Path() else path.resolve())) for path in (cert, key)]
    return [
        "connection:",
        "  security:",
        "    policy: Basic256Sha256",
        "    mode: SignAndEncrypt",
        f"    cert: {files[0]}",
        f"    key: {files[1]}",
        "    trust: [server.der]  # the server's certificate, or its authority's; or a folder of them",
    ]
