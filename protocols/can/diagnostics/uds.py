"""`call uds`: one diagnostic service (ISO 14229-1) over ISO-TP. Requests and answers are udsoncan's."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from protocols.base import DriverError, Refused
from protocols.can.arguments import check_names, seconds
from protocols.can.config import Connection
from protocols.can.diagnostics.exchange import Exchange
from protocols.can.diagnostics.isotp import LINK_ARGUMENTS, Conversation, link_of
from protocols.can.frame import format_id

_NEGATIVE: Final = 0x7F
_PENDING: Final = 0x78
_P2_S: Final = 1.0
_P2_STAR_S: Final = 5.0
_ALTOGETHER_S: Final = 60.0


async def carry_out(args: Mapping[str, Any], exchange: Exchange, connection: Connection) -> Any:
    """Asks for one service and says what the node answered.

    `timeout` is how long the first answer may take (P2 of ISO 14229-2, with what the bus takes), and
    `pending_timeout` each further one after the node has said that it is still at it (P2*); at most a minute
    altogether.

    Raises:
        Refused: wrong arguments; nothing was sent.
        DriverError: `device-error` (a negative answer, with its name, or a wrong one), `timeout`, or as
            `Exchange.send`.
    """
    try:
        from protocols.can.diagnostics.uds_services import SERVICES
    except ImportError as error:
        text = "UDS needs the package udsoncan; install hilgate[uds]"
        raise DriverError("device-error", text) from error
    name = args.get("service")
    service = SERVICES.get(name) if isinstance(name, str) else None
    if service is None:
        raise Refused("malformed", f"service is one of {', '.join(SERVICES)}; got {name!r:.40}")
    common = (*LINK_ARGUMENTS, "service", "timeout", "pending_timeout")
    check_names(f"uds {name}", args, *common, *service.arguments)
    link = link_of(args, connection)
    first = seconds(args, "timeout", _P2_S)
    further = seconds(args, "pending_timeout", _P2_STAR_S)
    asked = service.ask(args)
    who = format_id(link.rx)
    try:
        async with asyncio.timeout(_ALTOGETHER_S), Conversation(link, exchange) as conversation:
            async with asyncio.timeout(first):
                await conversation.send(asked.payload)
                if asked.silent:
                    return {"service": name}
                payload = await _answer(conversation, asked.payload[0])
            while payload[0] == _NEGATIVE and payload[2] == _PENDING:
                async with asyncio.timeout(further):
                    payload = await _answer(conversation, asked.payload[0])
    except TimeoutError as error:
        raise DriverError("timeout", f"{who} did not answer {name} in time") from error
    if payload[0] == _NEGATIVE:
        raise DriverError("device-error", f"{who} refused {name}: {_negative(payload[2])}")
    try:
        return {"service": name, **asked.understand(payload)}
    except ValueError as error:
        raise DriverError("device-error", f"{who} gave a wrong answer to {name}: {error}") from error


async def _answer(conversation: Conversation, service: int) -> bytes:
    """The next answer to this service; one to another is a late one, of before."""
    while True:
        payload = await conversation.receive()
        if payload[:1] == bytes([(service + 0x40) & 0xFF]):
            return payload
        if len(payload) >= 3 and payload[0] == _NEGATIVE and payload[1] == service:
            return payload


def _negative(code: int) -> str:
    from udsoncan.ResponseCode import ResponseCode

    name = ResponseCode.get_name(code)
    return f"negative response code 0x{code:02X}" if name.isdigit() else f"{name} (0x{code:02X})"
