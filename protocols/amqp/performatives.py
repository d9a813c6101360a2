"""What AMQP frames say, as values: error conditions, outcomes, sources, targets, and how proton has them."""

import enum
from collections.abc import Callable, Sequence
from typing import Any

import cproton as pn
import msgspec
import proton


class OutcomeKind(enum.StrEnum):
    """What became of a message: the outcomes of AMQP 1.0 part 3, section 3.4, and one that a topic adds."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    RELEASED = "released"
    MODIFIED = "modified"
    UNROUTED = "unrouted"
    """The broker took the message and no queue or subscriber was there for it."""


class Condition(msgspec.Struct, frozen=True):
    """An AMQP error condition: a symbol such as `amqp:not-found`, and words for people."""

    name: str
    description: str = ""

    def __str__(self) -> str:
        return f"{self.description} ({self.name})" if self.description else self.name


class Outcome(msgspec.Struct, frozen=True):
    """How the peer settled a delivery. `condition` and `description` go with `REJECTED`."""

    kind: OutcomeKind
    condition: str = ""
    description: str = ""
    failed: bool = False
    """With `MODIFIED`: the attempt counts as a failed delivery."""
    undeliverable: bool = False
    """With `MODIFIED`: do not deliver to this receiver again."""


ACCEPTED = Outcome(OutcomeKind.ACCEPTED)
RELEASED = Outcome(OutcomeKind.RELEASED)


class Terminus(msgspec.Struct, frozen=True):
    """One end of a link: a source or a target (AMQP 1.0 part 3, section 3.5)."""

    address: str | None = None
    dynamic: bool = False
    capabilities: tuple[str, ...] = ()
    durability: int = pn.PN_NONDURABLE
    """0 none, 1 configuration, 2 configuration and unsettled state."""
    never_expires: bool = False
    copy: bool = False
    """Distribution mode of a source: copy instead of move."""
    coordinator: bool = False
    """A target that is a transaction coordinator (part 4, section 4.5.1), and no node."""


class PeerError(Exception):
    """The peer sent something in a frame that cannot be what it stands for."""


def read_text(get: Callable[[Any], Any], impl: Any) -> str | None:
    """The text that one of proton's getters gives.

    Raises:
        PeerError: it is not UTF-8.
    """
    try:
        text = get(impl)
    except UnicodeDecodeError as error:
        raise PeerError("text that is not UTF-8") from error
    return None if text is None else str(text)


def read_condition(impl: Any) -> Condition | None:
    """The condition that the peer gave, if any."""
    if not pn.pn_condition_is_set(impl):
        return None
    return Condition(
        read_text(pn.pn_condition_get_name, impl) or "",
        read_text(pn.pn_condition_get_description, impl) or "",
    )


def set_condition(impl: Any, condition: Condition | None) -> None:
    """Puts our condition where proton looks for it when it closes an endpoint."""
    if condition is not None:
        pn.pn_condition_set_name(impl, condition.name)
        pn.pn_condition_set_description(impl, condition.description)


def write_terminus(impl: Any, kind: int, terminus: Terminus | None) -> None:
    """Fills a local source or target; None leaves it null."""
    if terminus is None:
        pn.pn_terminus_set_type(impl, pn.PN_UNSPECIFIED)
        return
    pn.pn_terminus_set_type(impl, kind)
    if terminus.address is not None:
        pn.pn_terminus_set_address(impl, terminus.address)
    pn.pn_terminus_set_dynamic(impl, terminus.dynamic)
    pn.pn_terminus_set_durability(impl, terminus.durability)
    if terminus.never_expires:
        pn.pn_terminus_set_expiry_policy(impl, pn.PN_EXPIRE_NEVER)
    if terminus.copy:
        pn.pn_terminus_set_distribution_mode(impl, pn.PN_DIST_MODE_COPY)
    if terminus.capabilities:
        put_symbols(pn.pn_terminus_capabilities(impl), terminus.capabilities)


def read_terminus(impl: Any) -> Terminus | None:
    """The peer's source or target; None where it is null."""
    if pn.pn_terminus_get_type(impl) == pn.PN_UNSPECIFIED:
        return None
    return Terminus(
        address=read_text(pn.pn_terminus_get_address, impl),
        dynamic=bool(pn.pn_terminus_is_dynamic(impl)),
        capabilities=get_symbols(pn.pn_terminus_capabilities(impl)),
        durability=int(pn.pn_terminus_get_durability(impl)),
        never_expires=bool(pn.pn_terminus_get_expiry_policy(impl) == pn.PN_EXPIRE_NEVER),
        copy=bool(pn.pn_terminus_get_distribution_mode(impl) == pn.PN_DIST_MODE_COPY),
        coordinator=bool(pn.pn_terminus_get_type(impl) == pn.PN_COORDINATOR),
    )


def put_symbols(impl: Any, symbols: Sequence[str]) -> None:
    """Writes capabilities: an array of symbols."""
    data = proton.Data(impl)
    data.put_array(False, proton.Data.SYMBOL)
    data.enter()
    for symbol in symbols:
        data.put_symbol(symbol)
    data.exit()


def get_symbols(impl: Any) -> tuple[str, ...]:
    """Reads capabilities: an array of symbols, or a single one (the encoding of `multiple`)."""
    value = get_object(proton.Data(impl))
    items = value.elements if isinstance(value, proton.Array) else [value]
    return tuple(str(item) for item in items if isinstance(item, str))


def get_object(data: proton.Data) -> Any:
    """The Python value of a proton data tree; None where it is empty.

    Raises:
        PeerError: bytes in it are not what their type promises, or it is nested too deeply.
    """
    data.rewind()
    try:
        return data.get_object() if data.next() is not None else None
    except (ValueError, TypeError, RecursionError, proton.ProtonException) as error:
        raise PeerError(f"a value that cannot be read: {error}") from error
    finally:
        data.rewind()


_STATES = {
    OutcomeKind.ACCEPTED: pn.PN_ACCEPTED,
    OutcomeKind.REJECTED: pn.PN_REJECTED,
    OutcomeKind.RELEASED: pn.PN_RELEASED,
    OutcomeKind.MODIFIED: pn.PN_MODIFIED,
}


def read_outcome(delivery: Any) -> Outcome | None:
    """How the peer settled, or is about to settle, a delivery of ours; None while it has not said."""
    state = pn.pn_delivery_remote_state(delivery)
    if state == pn.PN_ACCEPTED:
        return ACCEPTED
    if state == pn.PN_RELEASED:
        return RELEASED
    if state == pn.PN_REJECTED:
        condition = read_condition(pn.pn_disposition_condition(pn.pn_delivery_remote(delivery)))
        if condition is None:
            return Outcome(OutcomeKind.REJECTED)
        return Outcome(OutcomeKind.REJECTED, condition.name, condition.description)
    if state == pn.PN_MODIFIED:
        remote = pn.pn_delivery_remote(delivery)
        failed = bool(pn.pn_disposition_is_failed(remote))
        return Outcome(
            OutcomeKind.MODIFIED,
            failed=failed,
            undeliverable=bool(pn.pn_disposition_is_undeliverable(remote)),
        )
    # Settled without an outcome says nothing of the message: a delivery that may have failed.
    return Outcome(OutcomeKind.MODIFIED, failed=True) if pn.pn_delivery_settled(delivery) else None


def write_outcome(delivery: Any, outcome: Outcome) -> None:
    """Gives a delivery of the peer's its outcome and settles it."""
    local = pn.pn_delivery_local(delivery)
    if outcome.kind is OutcomeKind.REJECTED:
        condition = Condition(outcome.condition, outcome.description)
        set_condition(pn.pn_disposition_condition(local), condition)
    elif outcome.kind is OutcomeKind.MODIFIED:
        pn.pn_disposition_set_failed(local, outcome.failed)
        pn.pn_disposition_set_undeliverable(local, outcome.undeliverable)
    pn.pn_delivery_update(delivery, _STATES[outcome.kind])
    pn.pn_delivery_settle(delivery)
