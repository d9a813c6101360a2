"""Clients under measurement by `benchmarks.mqtt_driver`, each in a process of its own: NAME PORT QOS.

A client subscribes, says that it is ready, takes all messages, and prints its CPU and wall-clock seconds.
"""

import asyncio
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from protocols.base import DeviceState, Sample
from protocols.mqtt.config import MqttDevice
from protocols.mqtt.driver import MqttDriver

MESSAGES = 10_000
TOPIC = "bench/state"
_PAYLOAD = b'{"speed": 1500.25, "temperature": 20.5, "state": "running"}'
_IN_FLIGHT = 20


class _Count:
    """Counts messages and says what they cost, from the first to the last."""

    def __init__(self) -> None:
        self.seen = 0
        self.cpu = self.wall = 0.0

    def one(self) -> bool:
        """Whether it was the last."""
        if self.seen == 0:
            self.cpu, self.wall = time.process_time(), time.perf_counter()
        self.seen += 1
        return self.seen == MESSAGES

    def say(self) -> None:
        print(json.dumps((time.process_time() - self.cpu, time.perf_counter() - self.wall)))


def _ready() -> None:
    print("ready", flush=True)


class _Sink:
    """A sink that counts samples."""

    def __init__(self, count: _Count, done: asyncio.Event) -> None:
        self._count, self._done = count, done

    def sample(self, sample: Sample) -> None:
        assert len(sample.values) == 3
        if self._count.one():
            self._done.set()

    def state(self, state: DeviceState, reason: str = "") -> None:
        """Nothing is made of it."""

    def frames(self, body: bytes, time_ns: int) -> None:
        """There are none."""

    def missed(self, cycles: int, period: float) -> None:
        """Nothing is polled."""

    def lost(self, count: int, reason: str) -> None:
        raise AssertionError(reason)

    async def kept(self) -> None:
        """At once: what the store costs is measured elsewhere."""


async def _hilgate(port: int, qos: int) -> None:
    points = {
        "speed": {"topic": TOPIC, "path": "speed"},
        "temperature": {"topic": TOPIC, "path": "temperature"},
        "state": {"topic": TOPIC, "path": "state", "type": "string"},
    }
    connection = {"transport": "tcp", "host": "127.0.0.1", "port": port}
    config = {"protocol": "mqtt", "connection": connection, "points": points, "qos": qos}
    driver = MqttDriver(MqttDevice.model_validate(config).named("bench"))
    await driver.connect()
    count, done = _Count(), asyncio.Event()
    run = asyncio.create_task(driver.run(_Sink(count, done)))
    await asyncio.sleep(0)
    _ready()
    await done.wait()
    count.say()
    run.cancel()
    await driver.close()


def _subscribing(client: paho.Client, qos: int) -> Callable[..., None]:
    def connected(*_: Any) -> None:
        client.subscribe(TOPIC, qos)

    return connected


def _paho(port: int, qos: int) -> paho.Client:
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_connect = _subscribing(client, qos)
    client.on_subscribe = lambda *_: _ready()
    client.connect("127.0.0.1", port)
    return client


def _threaded(port: int, qos: int) -> None:
    """paho's own loop in its own thread."""
    count, done = _Count(), threading.Event()
    client = _paho(port, qos)
    client.on_message = lambda *_: done.set() if count.one() else None
    client.loop_start()
    done.wait()
    count.say()
    client.disconnect()
    client.loop_stop()


async def _external(port: int, qos: int) -> None:
    """paho on an asyncio loop by its hooks, as its example has it."""
    loop = asyncio.get_running_loop()
    count, done = _Count(), asyncio.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)

    def opened(_client: Any, _data: Any, sock: Any) -> None:
        loop.add_reader(sock, client.loop_read)

    client.on_socket_open = opened

    def closed(_client: Any, _data: Any, sock: Any) -> None:
        loop.remove_reader(sock)

    def unwritten(_client: Any, _data: Any, sock: Any) -> None:
        loop.remove_writer(sock)

    client.on_socket_close = closed
    client.on_socket_register_write = lambda _client, _data, sock: loop.add_writer(sock, client.loop_write)
    client.on_socket_unregister_write = unwritten
    client.on_connect = _subscribing(client, qos)
    client.on_subscribe = lambda *_: _ready()
    client.on_message = lambda *_: done.set() if count.one() else None
    client.connect("127.0.0.1", port)
    await done.wait()
    count.say()
    client.disconnect()


def publish(port: int, qos: int) -> None:
    """Publishes all messages as fast as they are taken, by MQTT 3.1.1 made by hand."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"\x10\x0c\0\4MQTT\4\2\0\0\0\0")
        sock.recv(4)
        topic = len(TOPIC).to_bytes(2, "big") + TOPIC.encode()
        unacknowledged = 0
        for number in range(MESSAGES):
            mid = (number % 65535 + 1).to_bytes(2, "big") if qos else b""
            body = topic + mid + _PAYLOAD
            sock.sendall(bytes((0x30 | qos << 1, len(body))) + body)
            unacknowledged += bool(qos)
            while unacknowledged >= _IN_FLIGHT:
                unacknowledged -= len(sock.recv(4096)) // 4
        sock.sendall(b"\xe0\0")
        while sock.recv(4096):
            pass


def main() -> None:
    """Runs the client that the command line names."""
    name, port, qos = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    match name:
        case "hilgate":
            asyncio.run(_hilgate(port, qos))
        case "hilgate-uvloop":
            import uvloop

            uvloop.run(_hilgate(port, qos))
        case "paho-thread":
            _threaded(port, qos)
        case "paho-loop":
            asyncio.run(_external(port, qos))
        case "publish":
            publish(port, qos)


if __name__ == "__main__":
    main()
