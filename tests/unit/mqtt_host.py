"""What kinds of MQTT payloads stand on, scripted: it keeps what they say."""

from collections.abc import Mapping

from protocols.base import DeviceState, Sample
from protocols.mqtt.message import Message, Publication


class ScriptedHost:
    """Implements `protocols.mqtt.message.Host`."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.states: list[tuple[DeviceState, str]] = []
        self.losses: list[tuple[int, str]] = []
        self.published: list[Publication] = []
        self.no: dict[str, str] = {}

    @property
    def refused(self) -> Mapping[str, str]:
        """Topic filters that the broker refused, and why."""
        return self.no

    def sample(self, sample: Sample) -> None:
        """Keeps it."""
        self.samples.append(sample)

    def state(self, state: DeviceState, reason: str = "") -> None:
        """Keeps it."""
        self.states.append((state, reason))

    def lost(self, count: int, reason: str) -> None:
        """Keeps it."""
        self.losses.append((count, reason))

    async def publish(self, publication: Publication) -> None:
        """Keeps it."""
        self.published.append(publication)

    async def request(self, publication: Publication, answers: str, timeout: float) -> Message:
        """Nobody asks that way."""
        raise AssertionError(answers)
