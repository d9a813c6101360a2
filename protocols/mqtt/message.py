"""What goes to and comes from a broker, and what a kind of payload is to the driver."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from protocols.base import DeviceState, Sample, Value


class Message(msgspec.Struct, frozen=True):
    """A PUBLISH as it came in. `time_ns` is when, UTC since 1970."""

    topic: str
    payload: bytes
    time_ns: int
    qos: int = 0
    retain: bool = False
    correlation: bytes | None = None
    """MQTT 5: Correlation Data (MQTT 5.0, 3.3.2.3.6)."""
    response_topic: str | None = None
    """MQTT 5: where an answer is wanted (MQTT 5.0, 3.3.2.3.5)."""


class Publication(msgspec.Struct, frozen=True):
    """A PUBLISH as it goes out."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    response_topic: str | None = None
    correlation: bytes | None = None
    expiry_s: int | None = None


class Subscription(msgspec.Struct, frozen=True):
    """A topic filter, with $share where it is shared."""

    filter: str
    qos: int


class Host(Protocol):
    """What a kind of payload stands on: the session with the broker, and the agent behind it."""

    @property
    def refused(self) -> Mapping[str, str]:
        """Topic filters that the broker refused, and why: the device is `degraded` by that alone."""

    def sample(self, sample: Sample) -> None:
        """Takes readings; those that come before the agent listens are kept for it."""

    def state(self, state: DeviceState, reason: str = "") -> None:
        """Takes `online` or `degraded` of the device behind the broker."""

    def lost(self, count: int, reason: str) -> None:
        """Counts what came and could not be taken."""

    async def publish(self, publication: Publication) -> None:
        """Publishes; returns when the broker has it (QoS 1, 2) or the socket (QoS 0).

        Raises:
            DriverError: `timeout` or `disconnected`: whether it went out is not known; `device-error`: the
                broker refused it.
        """

    async def request(self, publication: Publication, answers: str, timeout: float) -> Message:
        """Publishes and waits for the answer on the topic filter `answers`, or (MQTT 5) by response topic.

        Raises:
            DriverError: as `publish`; `timeout`: nobody answered in `timeout` seconds.
        """


class Payloads(Protocol):
    """A kind of payload: how a device's points are in its messages. Made anew for each connection."""

    will: Publication | None
    """Our last will (MQTT 5.0, 3.1.2.5), published by the broker when we are gone without a word."""

    def subscriptions(self) -> Sequence[Subscription]:
        """What has to be subscribed to before `begin`."""

    async def begin(self, host: Host) -> None:
        """The session is there and subscribed; what came meanwhile is taken once this is over.

        Raises:
            DriverError: the device cannot be spoken to.
        """

    def take(self, message: Message) -> None:
        """Takes a message of a subscription. What cannot be read becomes `bad` or `lost`; never raises."""

    async def read(self, points: Sequence[str]) -> Sample:
        """Reads points now: what the device last said, or what it says when asked.

        Raises:
            DriverError: not one has a value.
        """

    async def write(self, values: Mapping[str, Value]) -> Sample:
        """Publishes values that `Point.accept` has passed; see `protocols.base.Driver.write`."""

    async def call(self, method: str, args: Mapping[str, Any]) -> Any:
        """Carries out a method of its own, such as `rebirth`.

        Raises:
            Refused: this kind has no such method, or the arguments are wrong.
            DriverError: it was tried and failed.
        """

    def status(self) -> Mapping[str, Any]:
        """Its part of `call status`: what is known of the device, messages not taken by reason."""

    async def end(self) -> None:
        """The session is over, and timers with it; where it is closed in good order, a last word may be
        published, such as our own offline. Where the link is lost that is a DriverError, which may pass."""
