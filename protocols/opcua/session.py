"""A session with a server: what the rest of the driver stands on."""

import asyncio
import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.ua_binary import struct_from_binary
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

import protocols.opcua.bounds
import protocols.opcua.link  # noqa: F401  # these two put asyncua's decoder and connection right
from protocols.base import DriverError
from protocols.opcua import nodes as node_ids
from protocols.opcua import security
from protocols.opcua.config import OpcuaDevice
from protocols.opcua.errors import UNDECODABLE, Unsound, of_connecting, of_service
from protocols.opcua.limits import Limits
from protocols.opcua.plan import pieces
from protocols.opcua.status import words

if TYPE_CHECKING:
    from asyncua.client.ua_client import UaClient

_Response = TypeVar("_Response")

_STATE: Final = ua.NodeId(ua.Int32(ObjectIds.Server_ServerStatus_State))
_CLOCK: Final = ua.NodeId(ua.Int32(ObjectIds.Server_ServerStatus_CurrentTime))
_NAMESPACES: Final = ua.NodeId(ua.Int32(ObjectIds.Server_NamespaceArray))
_GRACE_S: Final = 0.5
"""How long a server may take to close the session when we go."""
_LEAST_S: Final = 0.1
"""Seconds between two requests that keep something alive, however short a server says that it lives."""
_RENEWED: Final = 0.75
"""After which part of its life a channel's token is renewed."""


class Session:
    """A secure channel and an activated session on it.

    Lives on when the link is lost: opened again it takes up the session that the server still holds.
    """

    def __init__(self, device: OpcuaDevice) -> None:
        self.device = device
        self.limits = Limits()
        self.namespaces: Sequence[str] = ()
        self.number = 0
        """Counts the sessions: a link that takes one up again does not change it."""
        self._client: Client | None = None
        self._over = asyncio.Event()
        self._reason = ""
        self._up = False
        self._tasks: list[asyncio.Task[None]] = []
        self._nodes: dict[str, ua.NodeId | ua.StatusCode] = {}

    @property
    def services(self) -> "UaClient":
        """The services of OPC 10000-4 as asyncua's low-level client has them: read, write, call, browse, ...

        Raises:
            DriverError: `disconnected`: there is no session now.
        """
        if self._client is None or not self._up:
            raise DriverError("disconnected", f"{self.device.connection.url} is not connected")
        return self._client.uaclient

    @property
    def timeout(self) -> float:
        """Seconds that the server holds the session when nothing comes from us, as it revised them."""
        return self._client.session_timeout / 1000 if self._client is not None else 0.0

    # -- life -----------------------------------------------------------------------------------

    async def open(self) -> bool:
        """Connects and activates a session; says whether it is the one that there was before.

        Raises:
            DriverError: the server cannot be reached, is no OPC UA server, or does not let us in.
        """
        await self._drop("connecting again")
        self._over, self._reason = asyncio.Event(), ""
        device = self.device
        client = self._client
        if client is None:
            client = self._client = Client(device.connection.url, timeout=device.timeout)
            client.name = client.description = f"hilgate {device.name}".rstrip()
        try:
            async with asyncio.timeout(device.connect_timeout):
                resumed = await self._open(client)
        except TimeoutError as error:
            text = f"{device.connection.url} gave no session within {device.connect_timeout:g} s"
            await self._drop(text)
            raise DriverError("timeout", text) from error
        except BaseException:
            await self._drop("no session was made")
            raise
        return resumed

    async def _open(self, client: Client) -> bool:
        with of_connecting(self.device):
            await security.secure(client, self.device)
            await client.connect_socket()
            assert client.uaclient.protocol is not None  # it was made just now
            client.uaclient.protocol.on_connection_lost = functools.partial(self._cut, self._over)
            await client.send_hello()
            await client.open_secure_channel()
            resumed = await self._resume(client)
            if not resumed:
                client.session_timeout = int(self.device.session_timeout * 1000)
                await client.create_session()
                self.number += 1
                try:
                    await self._activate(client)
                except UaStatusCodeError:
                    with suppress(UaError):
                        await client.uaclient.close_session(True)
                    raise
        self._up = True
        if self._over.is_set():
            raise DriverError("disconnected", self._reason)
        with self.errors("read its capabilities"):
            self.limits = await Limits.of(client.uaclient)
            (held,) = await self.read([ua.ReadValueId(_NAMESPACES, ua.IntegerId(AttributeIds.Value))])
            uris = held.Value.Value if held.Value is not None else None
            self.namespaces = [str(uri) for uri in uris] if isinstance(uris, list) else []
        self._tasks = [
            asyncio.create_task(self._watch(), name=f"{self.device.name}: watch"),
            asyncio.create_task(self._renew(client), name=f"{self.device.name}: renew channel"),
        ]
        return resumed

    async def _resume(self, client: Client) -> bool:
        """Activates the session that the server holds for us on the new channel (OPC 10000-4)."""
        session = client.uaclient.session
        if not session.has_session:
            return False
        session.rebind_authentication_token()
        try:
            await self._activate(client)
        except UaStatusCodeError:  # whatever it has against the old session, a new one will tell
            session.reset_authentication_token()
            return False
        return True

    async def _activate(self, client: Client) -> None:
        await client._activate_with_credentials()

    async def close(self) -> bool:
        """Ends the session at the server, with its subscriptions, and the link; says whether it did.

        After the link was lost nothing is ended: the next `open` takes the session up again.
        """
        client, up = self._client, self._up
        if client is None:
            return False
        try:
            if up:
                with suppress(*UNDECODABLE, OSError, TimeoutError):  # it ends by itself when we are gone
                    async with asyncio.timeout(_GRACE_S):
                        await client.uaclient.close_session(True)
                        await client.close_secure_channel()
                self._client = None
            await self._drop("closed")
        finally:
            client.disconnect_socket()
        return up

    async def _drop(self, reason: str) -> None:
        self._lose(reason)
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            self._client.disconnect_socket()

    async def lost(self) -> str:
        """Returns when the link is lost, with the reason."""
        await self._over.wait()
        return self._reason

    def _lose(self, reason: str) -> None:
        if not self._over.is_set():
            self._reason = reason
            self._over.set()
        self._up = False

    def _cut(self, link: asyncio.Event, error: Exception | None) -> None:
        if link is not self._over:
            return  # an earlier link, which we let go
        if self._client is not None:
            self._client.uaclient.notify_transport_lost()
        if isinstance(error, Unsound):
            self._lose(f"{self.device.connection.url} {error}")
            return
        why = f": {error}" if error is not None and str(error) else ""
        self._lose(f"{self.device.connection.url} closed the connection{why}")

    async def _watch(self) -> None:
        """Asks for the server's state, which keeps the session alive; gives up on a server that is mute."""
        while True:
            await asyncio.sleep(max(_LEAST_S, min(self.device.timeout / 2, self.timeout / 3)))
            try:
                await self.read([ua.ReadValueId(_STATE, ua.IntegerId(AttributeIds.Value))])
            except DriverError as error:
                if error.code != "device-error":
                    self._lose(str(error))
                    return

    async def _renew(self, client: Client) -> None:
        """Renews the channel's token in time (OPC 10000-4, OpenSecureChannel)."""
        while True:
            await asyncio.sleep(max(_LEAST_S, client.secure_channel_timeout / 1000 * _RENEWED))
            try:
                with self.errors("renew the secure channel"):
                    await client.open_secure_channel(renew=True)
                    client.uaclient.revolve_security_token()
            except DriverError as error:
                self._lose(str(error))
                return

    async def status(self) -> dict[str, Any]:
        """The session as the server revised it, and the server's state and clock; JSON-able.

        Raises:
            DriverError: the server did not answer.
        """
        wanted = [ua.ReadValueId(node, ua.IntegerId(AttributeIds.Value)) for node in (_STATE, _CLOCK)]
        state, clock = (
            data.Value.Value if data.Value is not None else None for data in await self.read(wanted)
        )
        return {
            "url": self.device.connection.url,
            "session_timeout": self.timeout,
            "server_state": _state_name(state),
            "server_time": clock.replace(tzinfo=UTC).isoformat() if isinstance(clock, datetime) else None,
            "limits": msgspec.structs.asdict(self.limits),
        }

    # -- errors ---------------------------------------------------------------------------------

    def errors(self, what: str) -> AbstractContextManager[None]:
        """Turns what asyncua raises within into a DriverError: `timeout`, `disconnected` or `device-error`.

        `what` is what was tried, such as "read speed"; the text names the server and its status code.
        """
        return of_service(self.device, what, self._lose, lambda: self._reason)

    # -- services -------------------------------------------------------------------------------

    async def ask(self, request: Any, response: type[_Response], timeout: float | None = None) -> _Response:
        """A service that asyncua's client has not, or not without more than the service; 0: no time limit.

        Raises:
            DriverError: `disconnected`: there is no session now.
            UaError, OSError, TimeoutError: as asyncua has them; see `errors`.
        """
        protocol = self.services.protocol
        if protocol is None:
            raise DriverError("disconnected", f"{self.device.connection.url} is not connected")
        answer: Any = struct_from_binary(response, await protocol.send_request(request, timeout))
        answer.ResponseHeader.ServiceResult.check()
        return answer  # type: ignore[no-any-return]  # it is of the class that was asked for

    async def read(
        self,
        wanted: Sequence[ua.ReadValueId],
        stamps: ua.TimestampsToReturn = ua.TimestampsToReturn.Neither,
    ) -> list[ua.DataValue]:
        """The values of attributes, in their order, in as many requests as the server's limits take.

        Raises:
            DriverError: the server refused to, or did not answer.
        """
        values: list[ua.DataValue] = []
        with self.errors(f"read {len(wanted)} attributes"):
            for piece in pieces(wanted, self.limits.read):
                got = await self.services.read(ua.ReadParameters(0, stamps, list(piece)))
                if len(got) != len(piece):
                    raise UaError(f"it gave {len(got)} values of {len(piece)} nodes")
                values += got
        return values

    async def resolve(self, nodes: Sequence[str | Sequence[str]]) -> "Sequence[ua.NodeId | ua.StatusCode]":
        """Node ids of what profiles write: ns=, nsu= and browse paths; else why there is none.

        Raises:
            DriverError: the server did not answer.
        """
        found = [node_ids.resolved(node, self.namespaces) for node in nodes]
        paths = [(place, one) for place, one in enumerate(found) if isinstance(one, ua.BrowsePath)]
        with self.errors("follow browse paths"):
            for piece in pieces(paths, self.limits.translate):
                asked = [path for _, path in piece]
                results = await self.services.translate_browsepaths_to_nodeids(asked)
                if len(results) != len(piece):
                    raise UaError(f"it gave {len(results)} targets of {len(piece)} browse paths")
                for (place, _), result in zip(piece, results, strict=True):
                    found[place] = node_ids.target(result, self.namespaces)
        return [one for one in found if not isinstance(one, ua.BrowsePath)]

    async def find_points(self) -> None:
        """Finds the nodes of all points, for `node_id` and `found`.

        Raises:
            DriverError: the server did not answer.
        """
        points = self.device.points
        nodes = await self.resolve([point.node for point in points.values()])
        self._nodes = dict(zip(points, nodes, strict=True))

    def found(self, point: str) -> "ua.NodeId | ua.StatusCode":
        """The node of a point, or why there is none."""
        return self._nodes.get(point) or ua.StatusCode(ua.UInt32(StatusCodes.BadNodeIdUnknown))

    def node_id(self, point: str) -> "ua.NodeId":
        """The node of a point.

        Raises:
            DriverError: `device-error`: the server has no such node.
        """
        node = self.found(point)
        if isinstance(node, ua.StatusCode):
            written = self.device.points[point].node
            path = written if isinstance(written, str) else "/" + "/".join(written)
            text = f"{self.device.connection.url} has no node {path} for {point}: {words(node.value)}"
            raise DriverError("device-error", text)
        return node


def _state_name(state: Any) -> str | None:
    try:
        return str(ua.ServerState(state).name).rstrip("_").lower()
    except ValueError:
        return None
