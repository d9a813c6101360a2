"""A service manager's end of sd_notify(3)."""

import contextlib
import socket


class Manager:
    """Listens as systemd does, and keeps every datagram as its assignments."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.setblocking(False)
        self.told: list[dict[str, str]] = []

    def listen(self) -> list[dict[str, str]]:
        with contextlib.suppress(BlockingIOError):
            while True:
                lines = self.socket.recv(4096).decode().split("\n")
                self.told.append(dict(line.split("=", 1) for line in lines))
        return self.told

    def heard(self, key: str) -> list[str]:
        return [fields[key] for fields in self.listen() if key in fields]
