"""Runs simulated OPC UA servers on loopback, one for each device, secured as its profile says."""

import asyncio
import contextlib
import logging
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.server import Server
from asyncua.ua.status_codes import StatusCodes
from cryptography import x509

from protocols.opcua import certificates
from protocols.opcua.certificates import Identity
from protocols.opcua.config import OpcuaDevice
from sim.behaviour import behaviours
from sim.opcua.alarms import Alarms
from sim.opcua.methods import add_methods
from sim.opcua.process import Process
from sim.opcua.services import SimulatedServer
from sim.opcua.space import Space, namespaces
from sim.tls import HOST

_DAYS: Final = 3650
"""How long certificates for the occasion are valid."""
_POLICIES: Final = {
    "Basic256Sha256": "Basic256Sha256",
    "Aes128_Sha256_RsaOaep": "Aes128Sha256RsaOaep",
    "Aes256_Sha256_RsaPss": "Aes256Sha256RsaPss",
    "Basic128Rsa15": "Basic128Rsa15",
    "Basic256": "Basic256",
}
"""What asyncua calls the policies."""


class Served(NamedTuple):
    """A simulated server that runs."""

    device: OpcuaDevice
    """As it was given, with a connection to what runs."""
    server: Server


@asynccontextmanager
async def simulated(devices: Mapping[str, OpcuaDevice]) -> AsyncIterator[Mapping[str, OpcuaDevice]]:
    """Runs all devices and gives them with connections to what runs.

    Raises (on entering):
        OSError: no port could be had.
        pydantic.ValidationError: a `sim` section is wrong.
        ValueError: nodes of a profile do not go together.
    """
    async with AsyncExitStack() as stack:
        yield {
            name: (await stack.enter_async_context(serving(device))).device
            for name, device in devices.items()
        }


@asynccontextmanager
async def serving(device: OpcuaDevice) -> AsyncIterator[Served]:
    """As `simulated`, of one device, and for tests: gives the server as well, to look at and to disturb."""
    # Else it warns of each thing that a client does, on standard error where nobody has set logging up.
    logging.getLogger("asyncua.server").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="hilgate-") as folder:
        secured = await asyncio.to_thread(_Secured, device, Path(folder))
        # In a thread, because behaviours may read files.
        made = await asyncio.to_thread(behaviours, device)
        server = Server(SimulatedServer(secured))
        await server.init()
        await secured.apply(server)
        uris = namespaces(device, secured.uri)
        await server.nodes.namespace_array.write_value(list(uris))
        space = Space(server, device, uris)
        variables = space.variables({point: behaviour.at(0.0) for point, behaviour in made.items()})
        process = Process(device, server.iserver, variables, made)
        await process.start()
        add_methods(space, device, process)
        alarms = Alarms(space, device, variables)
        server.set_endpoint(f"opc.tcp://{HOST}:0/")
        try:
            await server.start()
        except BaseException:
            await server.iserver.stop()
            raise
        task = asyncio.create_task(_run(process, alarms), name=f"{device.name} simulated")
        try:
            assert server.bserver is not None
            update = {"url": f"opc.tcp://{HOST}:{server.bserver.port}/", **secured.update}
            connection = device.connection.model_copy(update=update)
            yield Served(device.model_copy(update={"connection": connection}), server)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await server.stop()


async def _run(process: Process, alarms: Alarms) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(process.run())
        tasks.create_task(alarms.run())


class _Secured:
    """How a simulated server is secured: certificates and users made for the occasion."""

    def __init__(self, device: OpcuaDevice, folder: Path) -> None:
        """Makes what the profile has of them, and files in `folder` for the agent; takes a second."""
        self._connection = device.connection
        security, user = device.connection.security, device.connection.user
        self.uri = f"urn:{HOST}:hilgate:simulated:{device.name}"
        self._server: Identity | None = None
        self._agent: bytes | None = None
        self._user: bytes | None = None
        self._password = secrets.token_urlsafe(12)
        self.update: dict[str, Any] = {}
        if security.policy != "None" or user is not None:
            hosts = [HOST, "localhost", socket.gethostname()]
            self._server = certificates.self_signed(device.name, self.uri, hosts, _DAYS)
        if security.policy != "None":
            assert self._server is not None
            (folder / "server.der").write_bytes(certificates.der(self._server.certificate))
            self._agent = _write_identity(folder, "agent")
            changed = {"cert": str(folder / "agent.pem"), "key": str(folder / "agent.key")}
            trust = {"trust": (str(folder / "server.der"),)} if security.verify else {}
            self.update["security"] = security.model_copy(update={**changed, **trust})
        if user is not None and user.cert is not None:
            self._user = _write_identity(folder, "user")
            changed = {"cert": str(folder / "user.pem"), "key": str(folder / "user.key")}
            self.update["user"] = user.model_copy(update=changed)
        elif user is not None:
            (folder / "password").write_text(self._password)
            self.update["user"] = user.model_copy(update={"password_file": str(folder / "password")})

    async def apply(self, server: Server) -> None:
        """Has the server be so."""
        security, user = self._connection.security, self._connection.user
        await server.set_application_uri(self.uri)
        server.set_server_name("hilgate simulation")
        if self._server is not None:
            server.iserver.certificate, server.iserver.private_key = self._server
        server.iserver.certificate_validator = self._check
        if security.policy == "None":
            policy = ua.SecurityPolicyType.NoSecurity
        else:
            policy = ua.SecurityPolicyType[f"{_POLICIES[security.policy]}_{security.mode}"]
        server.set_security_policy([policy])
        token: type = ua.AnonymousIdentityToken
        if user is not None:
            token = ua.X509IdentityToken if user.cert is not None else ua.UserNameIdentityToken
        server.set_identity_tokens([token])

    async def _check(self, certificate: x509.Certificate, application: ua.ApplicationDescription) -> None:
        if self._agent is not None and certificates.der(certificate) != self._agent:
            raise ServiceError(StatusCodes.BadCertificateUntrusted)

    def get_user(
        self, server: Any, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        """The user, if it is the one that the profile has; the interface is asyncua's."""
        user = self._connection.user
        if user is not None and user.name is not None and (username, password) != (user.name, self._password):
            return None
        if user is not None and user.cert is not None and certificate != self._user:
            return None
        return User(role=UserRole.User, name=username)


def _write_identity(folder: Path, name: str) -> bytes:
    """Makes a certificate and its key for the agent; gives the certificate in DER."""
    made = certificates.self_signed("hilgate", f"urn:{HOST}:hilgate:{name}", [HOST], _DAYS)
    (folder / f"{name}.pem").write_bytes(certificates.pem(made.certificate))
    (folder / f"{name}.key").write_bytes(certificates.key_pem(made.key))
    return certificates.der(made.certificate)
