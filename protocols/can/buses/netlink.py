"""Network interfaces by rtnetlink: what a CAN interface is set to, and virtual ones made and removed.

linux/rtnetlink.h, linux/if_link.h, linux/can/netlink.h. Every call asks the kernel and takes well under a
millisecond, unless others keep it busy with their interfaces.
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from protocols.can.bus import BusState
from protocols.can.buses.layout import FD_MTU

NAME_MAX: Final = 15
"""Bytes of an interface's name."""

_PATIENCE_S: Final = 5.0
_ARPHRD_CAN: Final = 280
_IFF_UP: Final = 0x1
_CLONE_NEWNET: Final = 0x4000_0000
_HEADER: Final = struct.Struct("=IHHII")
_IFINFO: Final = struct.Struct("=BxHiII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_U16: Final = struct.Struct("=H")
_U32: Final = struct.Struct("=I")
_ERROR: Final = struct.Struct("=i")
_TYPE_MASK: Final = 0x3FFF

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_NLM_REQUEST, _NLM_ACK, _NLM_DUMP, _NLM_EXCL, _NLM_CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
_IFLA_IFNAME, _IFLA_MTU, _IFLA_TXQLEN, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 3, 4, 13, 18, 28
_INFO_KIND, _INFO_DATA, _INFO_XSTATS = 1, 2, 3
_VXCAN_INFO_PEER = 1
_CAN_BITTIMING, _CAN_STATE, _CAN_CTRLMODE, _CAN_RESTART_MS = 1, 4, 5, 6
_CAN_BERR_COUNTER, _CAN_DATA_BITTIMING = 8, 9
_MODE_LISTEN_ONLY, _MODE_FD = 0x02, 0x20
_RESTARTS_OFFSET = 20
"""In struct can_device_stats."""
_STATES: Final = (
    BusState.ACTIVE,
    BusState.WARNING,
    BusState.PASSIVE,
    BusState.BUS_OFF,
    BusState.STOPPED,
    BusState.STOPPED,  # sleeping
)


class Link(msgspec.Struct, frozen=True):
    """A network interface. What its driver does not tell is None, as `state` to `restart_ms` of a vcan."""

    name: str
    is_can: bool
    up: bool
    mtu: int
    kind: str
    """`can`, `vcan`, `vxcan`, ...; empty where it has none."""
    state: BusState | None = None
    bitrate: int | None = None
    data_bitrate: int | None = None
    listen_only: bool | None = None
    fd: bool | None = None
    tx_errors: int | None = None
    rx_errors: int | None = None
    restarts: int | None = None
    restart_ms: int | None = None
    """After so long it leaves bus-off by itself; 0: never."""
    queue: int | None = None
    """Frames that may wait to be sent (txqueuelen)."""


def link(name: str) -> Link:
    """The interface of this name.

    Raises:
        OSError: ENODEV if there is none.
    """
    wanted = _attribute(_IFLA_IFNAME, _name(name))
    try:
        (payload,) = _ask(_RTM_GETLINK, 0, wanted)
    except OSError as error:
        texts = {errno.ENODEV: f"there is no interface {name}"}
        raise _said(error, texts, f"asking about the interface {name}") from None
    return parse_link(payload)


def can_links() -> Sequence[Link]:
    """All CAN interfaces there are."""
    return [one for one in map(parse_link, _ask(_RTM_GETLINK, _NLM_DUMP, b"")) if one.is_can]


def make_vcan(name: str) -> None:
    """Makes a virtual CAN interface that carries CAN FD too, and brings it up.

    Raises:
        PermissionError: it takes CAP_NET_ADMIN.
        FileExistsError: there is an interface of this name.
        OSError: EOPNOTSUPP if the kernel has no vcan.
    """
    _make(name, "vcan", b"")


def make_vxcan(name: str, peer: str, namespace: str | None = None) -> None:
    """Makes a pair of virtual CAN interfaces, both up; the peer in another network namespace if one is named.

    `namespace` is a name as of `ip netns`, or a path such as /proc/123/ns/net.

    Raises:
        PermissionError, FileExistsError, OSError: as `make_vcan`; FileNotFoundError if there is no such
            namespace.
    """
    # It cannot be made up: until both ends are made, none has a peer (vxcan_open in drivers/net/can/vxcan.c).
    inner = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, _name(peer))
    inner += _attribute(_IFLA_MTU, _U32.pack(FD_MTU))
    if namespace is None:
        _make(name, "vxcan", _attribute(_VXCAN_INFO_PEER, inner))
        set_up(peer, True)
        return
    path = namespace if "/" in namespace else f"/run/netns/{namespace}"
    with open(path, "rb") as handle:
        inner += _attribute(_IFLA_NET_NS_FD, _U32.pack(handle.fileno()))
        _make(name, "vxcan", _attribute(_VXCAN_INFO_PEER, inner))
        try:
            _within(handle.fileno(), lambda: set_up(peer, True))
        except OSError:
            remove(name)
            raise


def _within(namespace: int, act: Callable[[], None]) -> None:
    """Does something in another network namespace, in a thread of its own: a namespace is a thread's."""

    def work() -> None:
        if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise _said(OSError(number, os.strerror(number)), {}, "entering a network namespace")
        act()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(work).result()


def remove(name: str) -> None:
    """Removes a virtual interface; of a pair both.

    Raises:
        PermissionError: it takes CAP_NET_ADMIN.
        OSError: ENODEV if there is none, EOPNOTSUPP if it is no virtual one.
    """
    try:
        _ask(_RTM_DELLINK, _NLM_ACK, _attribute(_IFLA_IFNAME, _name(name)))
    except OSError as error:
        texts = {errno.ENODEV: f"there is no interface {name}", errno.EOPNOTSUPP: f"{name} is not virtual"}
        raise _said(error, texts, f"removing the interface {name}") from None


def set_up(name: str, up: bool) -> None:
    """Brings an interface up or down.

    Raises:
        PermissionError: it takes CAP_NET_ADMIN.
        OSError: ENODEV if there is none, or what its driver says.
    """
    try:
        _ask(_RTM_NEWLINK, _NLM_ACK, _attribute(_IFLA_IFNAME, _name(name)), up)
    except OSError as error:
        texts = {errno.ENODEV: f"there is no interface {name}"}
        raise _said(error, texts, f"bringing {name} {'up' if up else 'down'}") from None


def _make(name: str, kind: str, data: bytes) -> None:
    info = _attribute(_INFO_KIND, kind.encode()) + (_attribute(_INFO_DATA, data) if data else b"")
    attributes = (
        _attribute(_IFLA_IFNAME, _name(name))
        + _attribute(_IFLA_MTU, _U32.pack(FD_MTU))
        + _attribute(_IFLA_LINKINFO, info)
    )
    try:
        _ask(_RTM_NEWLINK, _NLM_ACK | _NLM_CREATE | _NLM_EXCL, attributes, True)
    except OSError as error:
        texts = {
            errno.EOPNOTSUPP: f"this kernel has no {kind} (is there a module to load: modprobe {kind}?)",
            errno.EEXIST: f"there is an interface {name} already, or the name of its peer is taken",
        }
        raise _said(error, texts, f"making the interface {name}") from None


def _said(error: OSError, texts: Mapping[int, str], what: str) -> OSError:
    number = error.errno or 0
    more = " takes the right to administer the network (CAP_NET_ADMIN)" if number == errno.EPERM else ""
    return OSError(number, texts.get(number) or what + (more or f" failed: {error.strerror}"))


def _name(name: str) -> bytes:
    encoded = os.fsencode(name)
    if not 1 <= len(encoded) <= NAME_MAX:
        raise OSError(errno.EINVAL, f"an interface's name has 1 to {NAME_MAX} bytes; got {name!r}")
    return encoded + b"\0"


def _attribute(kind: int, data: bytes) -> bytes:
    padding = bytes(-len(data) % 4)
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + padding


def _up(up: bool = True) -> bytes:
    return _IFINFO.pack(socket.AF_UNSPEC, 0, 0, _IFF_UP if up else 0, _IFF_UP)


def _ask(kind: int, flags: int, attributes: bytes, up: bool | None = None) -> Sequence[bytes]:
    """What the kernel answers: the payloads of its messages about links."""
    info = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) if up is None else _up(up)
    payload = info + attributes
    request = _HEADER.pack(_HEADER.size + len(payload), kind, flags | _NLM_REQUEST, 1, 0) + payload
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(_PATIENCE_S)
        sock.sendto(request, (0, 0))
        links: list[bytes] = []
        while True:
            for answer, content in parse_messages(sock.recv(1 << 17)):
                if answer == _RTM_NEWLINK:
                    links.append(content)
                if answer == _NLMSG_DONE or (answer == _RTM_NEWLINK and not flags & _NLM_DUMP):
                    return links
                if answer == _NLMSG_ERROR:
                    number = -_number(content, _ERROR)
                    if number == 0:
                        return links
                    raise OSError(number, os.strerror(number))


def _broken(what: str) -> OSError:
    return OSError(errno.EBADMSG, f"the kernel's answer about interfaces cannot be read: {what}")


def parse_messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The netlink messages of a datagram: type and payload of each.

    Raises:
        OSError: EBADMSG if the datagram is cut off.
    """
    offset = 0
    while offset < len(data):
        if len(data) - offset < _HEADER.size:
            raise _broken("a header is cut off")
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= len(data) - offset:
            raise _broken(f"a message of {length} bytes in {len(data) - offset}")
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += -(-length // 4) * 4


def _attributes(data: bytes) -> Mapping[int, bytes]:
    found: dict[int, bytes] = {}
    offset = 0
    while offset < len(data):
        if len(data) - offset < _ATTRIBUTE.size:
            raise _broken("an attribute is cut off")
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if not _ATTRIBUTE.size <= length <= len(data) - offset:
            raise _broken(f"an attribute of {length} bytes in {len(data) - offset}")
        found[kind & _TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += -(-length // 4) * 4
    return found


def _number(data: bytes, layout: struct.Struct = _U32, offset: int = 0) -> int:
    if len(data) < offset + layout.size:
        raise _broken(f"a field of {len(data)} bytes")
    number: int = layout.unpack_from(data, offset)[0]
    return number


def parse_link(payload: bytes) -> Link:
    """The interface that a message about one is about.

    Raises:
        OSError: EBADMSG if the message is not whole.
    """
    if len(payload) < _IFINFO.size:
        raise _broken("a message about an interface is cut off")
    _, hardware, _, flags, _ = _IFINFO.unpack_from(payload)
    attributes = _attributes(payload[_IFINFO.size :])
    info = _attributes(attributes.get(_IFLA_LINKINFO, b""))
    basics = Link(
        name=os.fsdecode(attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0")),
        is_can=hardware == _ARPHRD_CAN,
        up=bool(flags & _IFF_UP),
        mtu=_number(attributes[_IFLA_MTU]) if _IFLA_MTU in attributes else 0,
        kind=info.get(_INFO_KIND, b"").rstrip(b"\0").decode(errors="replace"),
        queue=_number(attributes[_IFLA_TXQLEN]) if _IFLA_TXQLEN in attributes else None,
    )
    # The data and statistics of other kinds of interfaces mean something else.
    return _with_can(basics, info) if basics.is_can and basics.kind == "can" else basics


def _with_can(basics: Link, info: Mapping[int, bytes]) -> Link:
    can = _attributes(info.get(_INFO_DATA, b""))
    found: dict[str, Any] = {}
    if _CAN_STATE in can:
        state = _number(can[_CAN_STATE])
        found["state"] = _STATES[state] if state < len(_STATES) else BusState.UNKNOWN
    for key, kind in (("bitrate", _CAN_BITTIMING), ("data_bitrate", _CAN_DATA_BITTIMING)):
        if kind in can:
            # An interface whose bit rate was never set shows 0.
            found[key] = _number(can[kind]) or None
    if _CAN_RESTART_MS in can:
        found["restart_ms"] = _number(can[_CAN_RESTART_MS])
    if _CAN_CTRLMODE in can:
        mode = _number(can[_CAN_CTRLMODE], offset=4)
        found |= {"listen_only": bool(mode & _MODE_LISTEN_ONLY), "fd": bool(mode & _MODE_FD)}
    if _CAN_BERR_COUNTER in can:
        counters = can[_CAN_BERR_COUNTER]
        found |= {"tx_errors": _number(counters, _U16), "rx_errors": _number(counters, _U16, 2)}
    if _INFO_XSTATS in info:
        found["restarts"] = _number(info[_INFO_XSTATS], offset=_RESTARTS_OFFSET)
    return msgspec.structs.replace(basics, **found)
