"""The receive queue of a UDP multicast bus: python-can leaves it as it is, and counts no losses."""

import contextlib
import os
import socket
import struct
from typing import Final

_SO_RCVBUFFORCE: Final = 33
_SO_MEMINFO: Final = 55
"""Socket options of asm-generic/socket.h that Python does not name."""

_MEMINFO: Final = struct.Struct("@9I")
"""Memory figures of a socket as far as SK_MEMINFO_DROPS, the last (linux/sock_diag.h; Linux 4.12)."""


class ReceiveQueue:
    """Enlarges a socket's queue to `size` bytes, as far as the kernel lets us, and tells what it dropped."""

    def __init__(self, file: int, size: int) -> None:
        self._socket = socket.socket(fileno=os.dup(file))
        self._seen = 0
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
        except OSError:
            # Without CAP_NET_ADMIN up to net.core.rmem_max.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def dropped(self) -> int:
        """Datagrams that did not fit since the last call."""
        figures = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        if len(figures) < _MEMINFO.size:
            return 0
        drops: int = _MEMINFO.unpack(figures)[-1]
        more: int = (drops - self._seen) & 0xFFFF_FFFF
        self._seen = drops
        return more

    def close(self) -> None:
        """Lets go of the socket; the bus has its own hold on it."""
        self._socket.close()
