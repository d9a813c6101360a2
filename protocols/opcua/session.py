"""A session with a server: what the rest of the driver stands on."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from protocols.opcua.config import OpcuaDevice

if TYPE_CHECKING:
    from asyncua import ua
    from asyncua.client.ua_client import UaClient


class Session:
    """A secure channel and an activated session on it."""

    device: OpcuaDevice

    @property
    def services(self) -> "UaClient":
        """The services of OPC 10000-4 as asyncua's low-level client has them: read, write, call, browse, ...

        Raises:
            DriverError: `disconnected`: there is no session now.
        """
        raise NotImplementedError

    def errors(self, what: str) -> AbstractContextManager[None]:
        """Turns what asyncua raises within into a DriverError: `timeout`, `disconnected` or `device-error`.

        `what` is what was tried, such as "read speed"; the text names the server and its status code.
        """
        raise NotImplementedError

    async def resolve(self, nodes: Sequence[str | Sequence[str]]) -> "Sequence[ua.NodeId | ua.StatusCode]":
        """Node ids of what profiles write: ns=, nsu= and browse paths; else why there is none.

        Raises:
            DriverError: the server did not answer.
        """
        raise NotImplementedError

    def node_id(self, point: str) -> "ua.NodeId":
        """The node of a point.

        Raises:
            DriverError: `device-error`: the server has no such node.
        """
        raise NotImplementedError
