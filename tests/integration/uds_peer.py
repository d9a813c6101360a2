"""A diagnosed node in a process of its own: python-can, can-isotp and bytes by hand from ISO 14229-1.

Messages that begin with 0xA5 it sends back reversed; all others are diagnostic requests. It listens on 0x7E0
and answers from 0x7E8, and on 0x18DA10F1 from 0x18DAF110; with CAN FD frames where it is told to.
"""

import sys
import time

import can
import isotp

SEED = bytes.fromhex("0102aaff")
VIN = b"WHLGATE0123456789"
stored: dict[int, bytes] = {}


def answers(request: bytes) -> list[bytes]:
    """What the node says, one after the other."""
    service, rest = request[0], request[1:]
    match service:
        case 0xA5:
            return [request[::-1]]
        case 0x22:
            did = int.from_bytes(rest[:2], "big")
            if did == 0xF190:
                return [b"\x62" + rest[:2] + VIN]
            if did == 0xF1EE:
                return [b"\x62\xf1\xef" + b"of another"]
            return [b"\x62" + rest[:2] + stored[did]] if did in stored else [bytes([0x7F, service, 0x31])]
        case 0x2E:
            stored[int.from_bytes(rest[:2], "big")] = rest[2:]
            pending = [bytes([0x7F, service, 0x78])] * (3 if rest[:2] == b"\xf1\xa0" else 0)
            return [*pending, b"\x6e" + rest[:2]]
        case 0x10:
            return [b"\x50" + rest[:1] + bytes.fromhex("003201f4")]
        case 0x3E:
            return [] if rest[0] & 0x80 else [b"\x7e\x00"]
        case 0x11:
            return [b"\x51" + rest[:1] + (b"\x05" if rest[0] == 4 else b"")]
        case 0x27:
            if rest[0] % 2:
                return [b"\x67" + rest[:1] + SEED]
            good = rest[1:] == bytes(byte ^ 0xFF for byte in SEED)
            return [b"\x67" + rest[:1]] if good else [bytes([0x7F, service, 0x35])]
        case 0x31:
            return [b"\x71" + rest[:3] + b"\x10" + rest[3:]]
        case 0x14:
            return [b"\x54"]
        case 0x19 if rest[0] == 1:
            return [b"\x59\x01\xff\x01\x00\x02"]
        case 0x19:
            return [b"\x59" + rest[:1] + b"\xff" + bytes.fromhex("123456 2f ab0001 08")]
        case 0x28:
            return []
        case 0x29:
            return [b"\x62\xf1\x90late", bytes([0x7F, 0x22, 0x22]), b"\x69\x00"]
    return [bytes([0x7F, service, 0x11])]


def main(channel: str, port: int, fd: bool) -> None:
    params = {"blocksize": 4, "stmin": 1, "max_frame_size": 70_000, "tx_padding": 0xCC}
    params |= {"rx_flowcontrol_timeout": 30_000, "rx_consecutive_frame_timeout": 30_000}  # a busy machine's
    if fd:
        params |= {"can_fd": True, "tx_data_length": 64}
    with can.Bus(channel, "udp_multicast", ignore_config=True, port=port, hop_limit=0, fd=True) as bus:
        notifier = can.Notifier(bus, [], timeout=0.1)
        addresses = (
            isotp.Address(isotp.AddressingMode.Normal_11bits, rxid=0x7E0, txid=0x7E8),
            isotp.Address(isotp.AddressingMode.Normal_29bits, rxid=0x18DA10F1, txid=0x18DAF110),
        )
        stacks = [isotp.NotifierBasedCanStack(bus, notifier, address=one, params=params) for one in addresses]
        for stack in stacks:
            stack.start()
        print("ready", flush=True)
        ends = time.monotonic() + 900
        while time.monotonic() < ends:
            for stack in stacks:
                request = stack.recv(block=True, timeout=0.002)
                for answer in answers(bytes(request)) if request else []:
                    stack.send(answer)
                    if answer[0] == 0x7F and answer[2] == 0x78:
                        time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "fd")
