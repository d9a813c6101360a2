"""Network interfaces that live as long as a simulation: vcan, and vxcan pairs."""

import errno
import itertools
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from protocols.can.buses import netlink

_log = structlog.get_logger("sim")

_MADE_UP = re.compile(r"hilsim\d+")


@contextmanager
def vcan(name: str | None) -> Iterator[str]:
    """A vcan interface, by this name or one that is made up; gives its name.

    One that has the name already is used, and left there.

    Raises (on entering):
        PermissionError: without CAP_NET_ADMIN.
        OSError: the kernel has no vcan (EOPNOTSUPP), another agent uses the name (EADDRINUSE), or
            an interface of another kind has it (EEXIST).
    """
    with _interface(name, "vcan", netlink.make_vcan) as made:
        yield made


@contextmanager
def vxcan(name: str | None, namespace: str | None) -> Iterator[tuple[str, str]]:
    """A vxcan pair; gives the name that the agent is to use, and that for a node beside it.

    With a namespace the other end is there, under the same name, and the node uses the agent's end too.
    Without one the node has the other end, called after the first with an x.

    Raises (on entering):
        OSError: as `vcan`, or there is no such namespace.
    """

    def make(made: str) -> None:
        netlink.make_vxcan(made, made if namespace else _other(made), namespace)

    with _interface(name, "vxcan", make) as made:
        yield made, made if namespace else _other(made)


def _other(name: str) -> str:
    return f"{name}x"


@contextmanager
def _interface(name: str | None, kind: str, make: Callable[[str], None]) -> Iterator[str]:
    if name is None:
        _sweep()
    with _claimed(name) as claimed:
        if name is not None and _exists(name):
            found = netlink.link(name).kind
            if found != kind:
                raise OSError(errno.EEXIST, f"interface {name} is there already, and no {kind}")
            _log.info("simulated bus is on an interface that was there", interface=name)
            yield name
            return
        make(claimed)
        try:
            yield claimed
        finally:
            try:
                netlink.remove(claimed)
            except OSError as error:  # somebody else removed it, or its namespace is gone with it
                _log.warning("simulated bus could not be removed", interface=claimed, reason=str(error))


def _exists(name: str) -> bool:
    return any(name == one for _, one in socket.if_nameindex())


@contextmanager
def _claimed(name: str | None) -> Iterator[str]:
    """Holds a name against all agents that share these interfaces; None makes one up.

    The claim is a socket with an abstract address (unix(7)): known in one network namespace, as interfaces
    are, and gone with its process however that ends.
    """
    for one in [name] if name is not None else _made_up():
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
            try:
                claim.bind(f"\0hilgate-interface-{one}")
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            yield one
            return
    raise OSError(errno.EADDRINUSE, f"another agent has its simulated bus on {name}")


def _made_up() -> Iterator[str]:
    names = (f"hilsim{number}" for number in itertools.count())
    return (name for name in names if not _exists(name))


def _sweep() -> None:
    """Removes the interfaces that killed agents left: those with a name made up by us that nobody claims."""
    for _, name in socket.if_nameindex():
        if _MADE_UP.fullmatch(name):
            try:
                with _claimed(name):
                    netlink.remove(name)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:  # a living agent's
                    _log.warning("cannot remove what a killed agent left", interface=name, reason=str(error))
            else:
                _log.info("removed what a killed agent left", interface=name)
