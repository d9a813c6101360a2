"""Secures a client as the profile asks: policy, certificates, trust and user; or says why it cannot be."""

import dataclasses
import datetime
import functools
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import structlog
from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto import security_policies
from asyncua.ua.uaerrors import UaError
from cryptography import x509

from protocols.base import DriverError
from protocols.opcua import certificates
from protocols.opcua.certificates import Identity
from protocols.opcua.config import BROKEN, Connection, OpcuaDevice
from protocols.tls import aside

_URI: Final = "http://opcfoundation.org/UA/SecurityPolicy#"
"""The URIs of the policies are this and the profile's word (OPC 10000-7)."""
_POLICIES: Final[Mapping[str, type[security_policies.SecurityPolicy]]] = {
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256_Sha256_RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
    "Basic128Rsa15": security_policies.SecurityPolicyBasic128Rsa15,
    "Basic256": security_policies.SecurityPolicyBasic256,
}
_CERTIFICATES: Final = (".pem", ".der", ".crt", ".cer")
"""What of a folder is read as certificates."""
_LEAST_BITS: Final = 2048
"""Of the keys of all policies but the broken ones, which take 1024."""

_log = structlog.get_logger("opcua")


class Choice(NamedTuple):
    """What of a server's offers is taken."""

    endpoint: ua.EndpointDescription
    token: ua.UserTokenPolicy


class Files(NamedTuple):
    """What the files hold that the profile names; read at each connect, since they may be replaced."""

    own: Identity | None
    user: Identity | None
    password: str | None
    trusted: Sequence[x509.Certificate]


async def secure(client: Client, device: OpcuaDevice) -> None:
    """Makes a client that has not connected yet do so as the profile says, and in no other way.

    Asks the server, on a connection of its own, for its endpoints.

    Raises:
        DriverError: `disconnected`: a file cannot be used, the server does not offer what is wanted, or its
            certificate is not to be trusted; the text says what to do.
        OSError, TimeoutError, UaError: the server could not be asked.
    """
    connection = device.connection
    files = await aside(lambda: read_files(device))
    asking = Client(connection.url, timeout=device.connect_timeout)
    choice = choose(await asking.connect_and_get_server_endpoints(), connection)
    security = connection.security
    if security.policy == "None":
        client.application_uri = certificates.default_uri(socket.gethostname())
        _forget_other(client, choice.endpoint)
    else:
        assert files.own is not None  # the profile gives them with every policy but None
        client.application_uri = certificates.application_uris(files.own.certificate)[0]
        server = _server_certificate(choice.endpoint, connection, files.trusted)
        policy = _POLICIES[security.policy](
            server, files.own.certificate, files.own.key, ua.MessageSecurityMode[security.mode]
        )
        client.security_policy = policy  # type: ignore[assignment]  # its type is that of the default
        client.uaclient.set_security(policy)
    _identify(client, connection, choice.token, files)
    for text in _weaknesses(connection):
        _warn_once(device.name, text)


def _forget_other(client: Client, endpoint: ua.EndpointDescription) -> None:
    """Has a client whose channel secures nothing take the server's new certificate for the old one's."""
    held = client.security_policy.peer_certificate
    if held and not (endpoint.ServerCertificate or b"").startswith(held):
        client.security_policy = security_policies.SecurityPolicyNone()  # type: ignore[no-untyped-call]  # as it is
        client.uaclient.set_security(client.security_policy)


def _identify(client: Client, connection: Connection, token: ua.UserTokenPolicy, files: Files) -> None:
    if connection.user is not None and connection.user.name is not None:
        client.set_user(connection.user.name)
        client.set_password(files.password or "")
    elif files.user is not None:
        client.user_certificate, client.user_private_key = files.user

    def pinned(token_type: ua.UserTokenType) -> ua.UserTokenPolicy:
        if token_type != token.TokenType:
            raise UaError(f"the session would be activated by {_kind(token_type)}")
        return token

    # Else the client takes the first token of a second list of endpoints, whatever that encrypts with.
    client.server_policy = pinned  # type: ignore[method-assign]  # the client has no other place for it


# What the server offers.


def choose(endpoints: Sequence[ua.EndpointDescription], connection: Connection) -> Choice:
    """The endpoint that is exactly as wanted, and how the user is shown on it.

    Raises:
        DriverError: `disconnected`: there is none; the text lists what there is.
    """
    security = connection.security
    mode = "None_" if security.policy == "None" else security.mode
    for endpoint in endpoints:
        if endpoint.SecurityPolicyUri == _URI + security.policy and endpoint.SecurityMode.name == mode:
            token = _token(endpoint, connection)
            if token is not None:
                return Choice(endpoint, token)
    kind = _kind(_wanted_token(connection))
    wanted = "policy None" if security.policy == "None" else f"{security.policy} with {security.mode}"
    offers = "; ".join(dict.fromkeys(_offer(endpoint) for endpoint in endpoints)) or "nothing"
    raise DriverError(
        "disconnected",
        f"{connection.url} does not offer {wanted} for {kind}; it offers {offers}",
    )


def _wanted_token(connection: Connection) -> ua.UserTokenType:
    if connection.user is None:
        return ua.UserTokenType.Anonymous
    return ua.UserTokenType.Certificate if connection.user.cert else ua.UserTokenType.UserName


def _token(endpoint: ua.EndpointDescription, connection: Connection) -> ua.UserTokenPolicy | None:
    """The endpoint's token of the wanted type that protects it best, with its policy filled in.

    A token without a policy of its own has the endpoint's (OPC 10000-4, UserTokenPolicy).
    """
    wanted, user = _wanted_token(connection), connection.user
    plain: ua.UserTokenPolicy | None = None
    for token in endpoint.UserIdentityTokens or ():
        if token.TokenType != wanted:
            continue
        uri = token.SecurityPolicyUri or endpoint.SecurityPolicyUri or ""
        filled: ua.UserTokenPolicy = dataclasses.replace(token, SecurityPolicyUri=uri)
        policy = uri.removeprefix(_URI)
        if wanted == ua.UserTokenType.Anonymous:
            return filled
        if policy in _POLICIES and (policy not in BROKEN or connection.security.allow_insecure):
            return filled
        if policy == "None" and wanted == ua.UserTokenType.UserName and user is not None:
            encrypted = endpoint.SecurityMode == ua.MessageSecurityMode.SignAndEncrypt
            plain = filled if encrypted or user.allow_insecure else plain
    return plain


def _kind(token_type: ua.UserTokenType) -> str:
    return {
        ua.UserTokenType.Anonymous: "anonymous users",
        ua.UserTokenType.UserName: "users with a password",
        ua.UserTokenType.Certificate: "users with a certificate",
    }.get(token_type, "users with a token")


def _offer(endpoint: ua.EndpointDescription) -> str:
    policy = (endpoint.SecurityPolicyUri or "no policy").removeprefix(_URI)
    tokens = dict.fromkeys(_kind(token.TokenType) for token in endpoint.UserIdentityTokens or ())
    mode = "" if policy == "None" else f" with {endpoint.SecurityMode.name}"
    return f"{policy}{mode} for {', '.join(tokens) or 'nobody'}"


# The server's certificate.


def _server_certificate(
    endpoint: ua.EndpointDescription, connection: Connection, trusted: Sequence[x509.Certificate]
) -> x509.Certificate:
    """The server's certificate, trusted.

    Raises:
        DriverError: `disconnected`: it cannot be used or is not to be trusted.
    """
    url, security = connection.url, connection.security
    try:
        chain = certificates.read_certificates(endpoint.ServerCertificate or b"")
        least = 1024 if security.policy in BROKEN else _LEAST_BITS
        if not certificates.is_strong(chain[0], least):
            raise ValueError(f"has no RSA key of {least} bits or more")
        wrong = None if not security.verify else _wrong(chain, endpoint, connection, trusted)
    except ValueError as error:
        text = f"{url}: the server's certificate cannot be used: it {error}"
        raise DriverError("disconnected", text) from error
    if wrong is not None:
        raise DriverError("disconnected", f"{url}: the server's certificate {wrong}")
    return chain[0]


def _wrong(
    chain: Sequence[x509.Certificate],
    endpoint: ua.EndpointDescription,
    connection: Connection,
    trusted: Sequence[x509.Certificate],
) -> str | None:
    """Why the server's certificate is not to be trusted (OPC 10000-4), in half a sentence."""
    server = chain[0]
    if not certificates.is_trusted(chain, trusted):
        where = " or ".join(connection.security.trust)
        return (
            f"({certificates.subject(server)}, SHA-256 {certificates.thumbprint(server)}) is not trusted; "
            f"where that is the server's, put the certificate, or its authority's, into {where}"
        )
    now = datetime.datetime.now(datetime.UTC)
    if now < server.not_valid_before_utc:
        return f"is valid only from {server.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; are both clocks right?"
    if now > server.not_valid_after_utc:
        return f"was valid until {server.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; the server needs a new one"
    uris = certificates.application_uris(server)
    if endpoint.Server.ApplicationUri not in uris:
        return (
            f"is of the application {', '.join(uris) or 'without URI'}, "
            f"and the server says it is {endpoint.Server.ApplicationUri}"
        )
    host = urlsplit(connection.url).hostname or ""
    if not certificates.is_of_host(server, host):
        names = ", ".join(certificates.hosts_of(server)) or "no host"
        return f"is for {names}, and not for {host}; use such a name in the url"
    return None


# Files.


def read_files(device: OpcuaDevice) -> Files:
    """Reads the files that the profile names.

    Raises:
        DriverError: `disconnected`: one cannot be used; the text names it.
    """
    security, user, folder = device.connection.security, device.connection.user, device.folder
    own = user_identity = password = None
    if security.cert is not None and security.key is not None:
        own = _identity(folder / security.cert, folder / security.key)
        if not certificates.application_uris(own.certificate):
            text = "has no application URI; `hilgate opcua-cert` makes a certificate that has"
            raise _unusable(folder / security.cert, text)
    if user is not None and user.cert is not None and user.key is not None:
        user_identity = _identity(folder / user.cert, folder / user.key)
    elif user is not None and user.password_file is not None:
        password = _password(folder / user.password_file)
    named = security.trust if security.verify else ()
    trusted = [made for name in named for path in _files(folder / name) for made in _chain(path)]
    return Files(own, user_identity, password, trusted)


def _identity(cert: Path, key: Path) -> Identity:
    certificate = _chain(cert)[0]
    try:
        private = certificates.read_key(_bytes(key))
    except ValueError as error:
        raise _unusable(key, str(error)) from error
    if certificate.public_key() != private.public_key():
        raise _unusable(key, f"does not belong to {cert}")
    now = datetime.datetime.now(datetime.UTC)
    if now > certificate.not_valid_after_utc:
        raise _unusable(cert, f"was valid until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    return Identity(certificate, private)


def _chain(path: Path) -> Sequence[x509.Certificate]:
    try:
        found = certificates.read_certificates(_bytes(path))
        for certificate in found:
            certificates.hosts_of(certificate)  # the library reads extensions only now
    except ValueError as error:
        raise _unusable(path, str(error)) from error
    return found


def _files(path: Path) -> Sequence[Path]:
    """The file, or the certificates in the folder."""
    if not path.is_dir():
        return [path]
    try:
        return sorted(inside for inside in path.iterdir() if inside.suffix.lower() in _CERTIFICATES)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error


def _password(path: Path) -> str:
    try:
        lines = _bytes(path).decode().splitlines()
    except UnicodeDecodeError as error:
        raise _unusable(path, "is no text in UTF-8") from error
    if not lines or not lines[0]:
        raise _unusable(path, "has no password in its first line")
    return lines[0]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error


def _unusable(path: Path, reason: str) -> DriverError:
    return DriverError("disconnected", f"{path} cannot be used: {reason}")


# What weakens.


def _weaknesses(connection: Connection) -> Iterator[str]:
    security, user = connection.security, connection.user
    if security.policy == "None":
        yield "policy: None: nothing is signed or encrypted, and anyone may be the server"
    if security.policy in BROKEN:
        yield f"policy: {security.policy}: it is broken"
    if user is not None and user.allow_insecure:
        yield "user: allow_insecure: the password may be sent where nothing encrypts it"


@functools.cache
def _warn_once(device: str, text: str) -> None:
    """Says it once in a process, not at each connect."""
    _log.warning("insecure", device=device, what=text)
