"""The operations of `call`: a query or a command by hand, identification, the state of the line."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from protocols.base import Refused
from protocols.text.framing import LINE, Want
from protocols.text.instrument import Instrument
from protocols.text.point import MOST_TEXT

_MOST_BLOCK = 64 * 1024
"""Bytes of a block that a call takes: it goes as hex into one result."""

_Command = Annotated[str, msgspec.Meta(min_length=1, max_length=MOST_TEXT)]
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=300)]


class _Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    command: _Command
    block: bool = False
    timeout: _Seconds | None = None

    async def carry_out(self, instrument: Instrument) -> Any:
        want = Want(block=_MOST_BLOCK) if self.block else LINE
        async with instrument.turn():
            reply, _ = await instrument.ask(self.command, want, self.timeout)
        return {"answer": reply.text} if reply.block is None else {"block": reply.block.hex()}


class _Send(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    command: _Command

    async def carry_out(self, instrument: Instrument) -> Any:
        async with instrument.turn():
            await instrument.tell(self.command)
            await instrument.check(self.command[:60])
        return {}


class _Identify(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    async def carry_out(self, instrument: Instrument) -> Any:
        identify = instrument.device.identify
        query = "*IDN?" if identify is None else identify.query
        async with instrument.turn():
            reply, _ = await instrument.ask(query)
        fields = [field.strip() for field in reply.text.split(",")]
        named = (
            dict(zip(("maker", "model", "serial", "version"), fields, strict=True))
            if len(fields) == 4
            else {}
        )
        return {"answer": reply.text, **named}


class _Status(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    async def carry_out(self, instrument: Instrument) -> Any:
        return instrument.status()


_METHODS: Mapping[str, type[_Query | _Send | _Identify | _Status]] = {
    "query": _Query,
    "send": _Send,
    "identify": _Identify,
    "status": _Status,
}


async def carry_out(method: str, args: Mapping[str, Any], instrument: Instrument) -> Any:
    """The answer to one of `PROTOCOL.methods`.

    Raises:
        Refused: unknown method or wrong arguments; nothing was sent.
        DriverError: the instrument said no or did not answer.
    """
    kind = _METHODS.get(method)
    if kind is None:
        raise Refused("malformed", f"no method {method!r:.60}; there are {', '.join(_METHODS)}")
    try:
        wanted = msgspec.convert(args, kind)
    except msgspec.ValidationError as error:
        raise Refused("malformed", f"{method}: {error}") from None
    return await wanted.carry_out(instrument)
