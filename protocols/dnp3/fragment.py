"""What comes from an outstation, as the layers hand it on, and what the layers above may ask of one."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from protocols.base import DriverError
from protocols.dnp3.objects import Iin


class Block(msgspec.Struct, frozen=True, gc=False):
    """The objects under one object header, column by column, in the order they came."""

    group: int
    variation: int
    indices: Sequence[int]
    """Empty for objects that have none: times."""
    values: Sequence[Any]
    """bool of a binary, 0 to 3 of a double-bit input, int or float of a number, bytes of an octet string;
    milliseconds of groups 50 to 52; the whole object's octets of a command."""
    flags: Sequence[int] | None = None
    """Flag octets without the bits that hold the state; None where the variation has none."""
    times: Sequence[int] | None = None
    """UTC milliseconds since 1970 by the outstation's clock; None where the variation has none."""
    synchronised: bool = True
    """False: the outstation says that its clock was not set when it stamped these."""


class Decoded(msgspec.Struct, frozen=True):
    """What could be read of a fragment's objects, and what could not."""

    blocks: Sequence[Block]
    unread: bytes = b""
    problem: str = ""
    """Why reading stopped before the end; empty if it did not."""


class Fragment(msgspec.Struct, frozen=True):
    """One response fragment. It is handed on before it is confirmed."""

    time_ns: int
    """When it came, UTC."""
    iin: Iin
    decoded: Decoded
    report: bool = True
    """Its present values are to be passed on as samples: a poll's or unsolicited. Events always are."""
    unsolicited: bool = False
    repeated: bool = False
    """Its events were handed on before: the outstation had not seen the confirmation."""
    crossed: bool = False
    """It answers a request sent before earlier events were confirmed: it does not show that this arrived."""


class Reply(msgspec.Struct, frozen=True):
    """A whole response to one request."""

    iin: Iin
    blocks: Sequence[Block]
    time_ns: int
    """When its last fragment came, UTC."""
    problem: str = ""
    """What of it could not be read, and why; empty if all could."""
    sent_ns: int = 0
    """When the request left, after it had waited for its turn, UTC; 0: not known."""


class NotSent(DriverError):
    """The request never left: the outstation cannot have acted on it."""


class Outstation(Protocol):
    """One outstation, as what is above the link sees it."""

    name: str
    """As people call it: `outstation 10 at rtu.bench.example:20000`."""

    async def ask(
        self, function: int, body: bytes = b"", *, responds: bool = True, report: bool = False
    ) -> Reply:
        """Sends one request and waits for its whole response; requests take turns.

        Only a READ is sent again, as often as the profile's `retries` says. With `responds=False` (functions
        that are answered by silence) an empty reply is returned once it is sent. `report`: see `Fragment`.
        An OPERATE that is asked for right after its SELECT was answered is the very next request.

        Raises:
            NotSent: the channel was not open.
            DriverError: `timeout` or `disconnected`; whether the outstation acted on it is not known.
        """
