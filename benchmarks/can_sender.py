"""Sends CAN frames over UDP to ports of loopback in turn, at a steady rate: RATE SECONDS PORT..."""

import socket
import struct
import sys
import time

_FRAME = struct.Struct("=IB3x8s")
_CHUNK_S = 0.002


def main(rate: int, seconds: float, ports: list[int]) -> int:
    """Sends and returns how many; what is late is caught up, a few at a time."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in ports]
    for sock, port in zip(sockets, ports, strict=True):
        sock.connect(("127.0.0.1", port))
    start, sent, total = time.monotonic(), 0, int(rate * seconds)
    while sent < total:
        due = min(total, int((time.monotonic() - start) * rate))
        # Not more than a bus could have carried in 20 ms at twice the rate.
        for n in range(sent, min(due, sent + rate // 25 + 1)):
            value = n * 0x9E3779B97F4A7C15 & (1 << 64) - 1
            sockets[n % len(sockets)].send(_FRAME.pack(0x100, 8, value.to_bytes(8, "little")))
            sent = n + 1
        time.sleep(_CHUNK_S)
    return sent


if __name__ == "__main__":
    print(main(int(sys.argv[1]), float(sys.argv[2]), [int(port) for port in sys.argv[3:]]))
