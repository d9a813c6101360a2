"""All simulated MQTT devices, and the brokers that they and the agent meet at."""

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Protocol

from protocols.base import DriverError
from protocols.mqtt.config import MqttDevice, Tls
from sim.mqtt.broker import Broker
from sim.tls import HOST, certificates


class SimulatedDevice(Protocol):
    """A device that plays its part as an MQTT client."""

    async def run(self, ready: asyncio.Event) -> None:
        """Plays until it is cancelled; `ready` is set once it publishes and listens.

        Raises:
            DriverError: the broker is gone.
        """


@asynccontextmanager
async def simulated(devices: Mapping[str, MqttDevice]) -> AsyncIterator[Mapping[str, MqttDevice]]:
    """Runs all devices, those of one broker at one broker, and gives them with connections to it.

    The broker asks for a name and password where its devices have one and the same name.

    Raises (on entering):
        OSError: no port could be had, or TLS is wanted and the package `trustme` is missing.
        pydantic.ValidationError: a `sim` section is wrong.
    """
    moved: dict[str, MqttDevice] = {}
    async with AsyncExitStack() as stack:
        for members in _brokers(devices).values():
            _, update = await _broker(stack, members)
            for name, device in members.items():
                connection = device.connection.model_copy(update=update)
                moved[name] = device.model_copy(update={"connection": connection})
                await _play(stack, moved[name])
        yield {name: moved[name] for name in devices}


def _brokers(devices: Mapping[str, MqttDevice]) -> Mapping[tuple[str, int], dict[str, MqttDevice]]:
    found: dict[tuple[str, int], dict[str, MqttDevice]] = {}
    for name, device in devices.items():
        where = device.connection
        found.setdefault((where.host, where.port), {})[name] = device
    return found


async def _broker(
    stack: AsyncExitStack, members: Mapping[str, MqttDevice]
) -> tuple[Broker, Mapping[str, Any]]:
    """A broker for these devices, and what changes in their connections."""
    connections = [device.connection for device in members.values()]
    update: dict[str, Any] = {"host": HOST}
    context = None
    if secured := [one for one in connections if isinstance(one, Tls)]:
        mutual = any(one.cert is not None for one in secured)
        context, changed = stack.enter_context(certificates(next(iter(members)), mutual=mutual))
        update |= changed
    user = None
    names = {one.username for one in connections}
    if len(names) == 1 and (name := names.pop()) is not None:
        user = name, ""
        if any(one.password_file is not None for one in connections):
            password, update["password_file"] = stack.enter_context(_password())
            user = name, password
    else:
        update["password_file"] = None
    broker = Broker(HOST, 0, tls=context, user=user)
    await broker.start()
    stack.push_async_callback(broker.close)
    return broker, update | {"port": broker.port}


@contextmanager
def _password() -> Iterator[tuple[str, str]]:
    """A password, and the file that it stands in as long."""
    password = secrets.token_urlsafe(12)
    with tempfile.NamedTemporaryFile("w", prefix="hilgate-") as file:
        file.write(f"{password}\n")
        file.flush()
        yield password, file.name


async def _play(stack: AsyncExitStack, device: MqttDevice) -> None:
    """Lets the device play, and returns once it does."""
    # In a thread, because behaviours may read files.
    player = await asyncio.to_thread(_made, device)
    ready = asyncio.Event()
    task = asyncio.create_task(player.run(ready), name=f"simulated {device.name}")

    async def end() -> None:
        task.cancel()
        await asyncio.wait((task,))

    stack.push_async_callback(end)
    begun = asyncio.create_task(ready.wait(), name=f"simulated {device.name} begins")
    try:
        await asyncio.wait((task, begun), return_when=asyncio.FIRST_COMPLETED)
    finally:
        begun.cancel()
    if task.done():
        try:
            task.result()
        except* DriverError as group:
            reason = str(group.exceptions[0])
        else:
            return
        raise OSError(f"{device.name} cannot be simulated: {reason}")


def _made(device: MqttDevice) -> SimulatedDevice:
    """The device's own kind of payload, imported where it is used."""
    match device.payload:
        case "sparkplug":
            from sim.mqtt.sparkplug import make as sparkplug

            return sparkplug(device, device.connection.port)
        case "kubeedge":
            from sim.mqtt.kubeedge import make as kubeedge

            return kubeedge(device, device.connection.port)
    from sim.mqtt.topics import make

    return make(device, device.connection.port)
