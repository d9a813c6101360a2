"""What a server can do at once: its capabilities and operation limits (OPC 10000-5, ServerCapabilities)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec
from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from protocols.opcua.plan import pieces as pieces

if TYPE_CHECKING:
    from asyncua.client.ua_client import UaClient

_SERVER: Final = "Server_ServerCapabilities_"
_OPERATIONS: Final = "Server_ServerCapabilities_OperationLimits_"
_NODES: Final[Mapping[str, str]] = {
    "read": _OPERATIONS + "MaxNodesPerRead",
    "write": _OPERATIONS + "MaxNodesPerWrite",
    "call": _OPERATIONS + "MaxNodesPerMethodCall",
    "browse": _OPERATIONS + "MaxNodesPerBrowse",
    "translate": _OPERATIONS + "MaxNodesPerTranslateBrowsePathsToNodeIds",
    "monitor": _OPERATIONS + "MaxMonitoredItemsPerCall",
    "items_per_subscription": _SERVER + "MaxMonitoredItemsPerSubscription",
    "subscriptions": _SERVER + "MaxSubscriptionsPerSession",
}


class Limits(msgspec.Struct, frozen=True):
    """Most operations of one request, by kind, and most items and subscriptions; 0: it does not say."""

    read: int = 0
    write: int = 0
    call: int = 0
    browse: int = 0
    translate: int = 0
    monitor: int = 0
    items_per_subscription: int = 0
    subscriptions: int = 0

    @classmethod
    async def of(cls, services: "UaClient") -> Self:
        """Asks a server; what it does not say, or says nonsense of, is no limit.

        Raises:
            UaError, OSError, TimeoutError: as asyncua has them.
        """
        wanted = [
            ua.ReadValueId(ua.NodeId(ua.Int32(getattr(ObjectIds, name))), ua.IntegerId(AttributeIds.Value))
            for name in _NODES.values()
        ]
        try:
            values = await _read(services, wanted)
        except UaStatusCodeError as error:
            if error.code != StatusCodes.BadTooManyOperations:
                raise
            values = [value for one in wanted for value in await _read(services, [one])]
        return cls(**{kind: _limit(data) for kind, data in zip(_NODES, values, strict=True)})


async def _read(services: "UaClient", wanted: list[ua.ReadValueId]) -> list[ua.DataValue]:
    values = await services.read(ua.ReadParameters(0, ua.TimestampsToReturn.Neither, wanted))
    if len(values) != len(wanted):
        raise UaError(f"it gave {len(values)} values of {len(wanted)} nodes")
    return values


def _limit(data: ua.DataValue) -> int:
    value: Any = data.Value.Value if data.Value is not None else None
    good = data.StatusCode is None or data.StatusCode.is_good()
    return value if good and isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
