"""A process of its own on a UDP multicast bus: plain python-can, which knows nothing of hilgate.

It answers each data frame that it gets with one of the next identifier and the bytes reversed. On a frame of
id 0x7FE it sends a burst, as many frames as the data says (big-endian), numbered, and then one of id 0x7FD.
"""

import sys

import can


def main(channel: str, port: int) -> None:
    with can.Bus(channel, "udp_multicast", ignore_config=True, port=port, hop_limit=0) as bus:
        print("ready", flush=True)
        mine: list[tuple[int, bytes]] = []
        while True:
            message = bus.recv(600.0)  # whoever started it ends it
            if message is None:
                return
            what = message.arbitration_id, bytes(message.data)
            if what in mine:  # multicast comes back to its sender
                mine.remove(what)
                continue
            if message.arbitration_id == 0x7FE:
                for number in range(int.from_bytes(message.data, "big")):
                    send(bus, mine, 0x7FC, number.to_bytes(4, "big"), message)
                send(bus, mine, 0x7FD, b"", message)
            elif not message.is_remote_frame:
                send(bus, mine, message.arbitration_id + 1, bytes(reversed(message.data)), message)


def send(
    bus: can.BusABC, mine: list[tuple[int, bytes]], identifier: int, data: bytes, like: can.Message
) -> None:
    mine.append((identifier, data))
    bus.send(
        can.Message(
            arbitration_id=identifier,
            is_extended_id=like.is_extended_id,
            is_fd=like.is_fd,
            bitrate_switch=like.bitrate_switch,
            data=data,
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
