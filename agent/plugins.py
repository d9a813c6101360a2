"""Protocols and simulators, found by entry points and imported only when they are asked for."""

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from protocols.base import DeviceProtocol
from sim.base import Simulator

T = TypeVar("T")


class PluginError(Exception):
    """A plug-in is installed but cannot be imported; the text says which and why."""


class Plugins(Mapping[str, T]):
    """What is installed in one entry point group, by name; looking one up imports it.

    Looking up raises `PluginError` where the import fails: an extra is missing, for instance.
    """

    def __init__(self, group: str) -> None:
        self._found: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=group)}

    def __getitem__(self, name: str) -> T:
        point = self._found[name]
        try:
            plugin: T = point.load()
        except (ImportError, AttributeError) as error:
            raise PluginError(f"{name} is installed but cannot be used: {error}") from error
        return plugin

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._found))

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, name: object) -> bool:
        return name in self._found


def protocols() -> Mapping[str, DeviceProtocol]:
    """The installed protocols, by the word that profiles use in `protocol:`."""
    return Plugins[DeviceProtocol]("hilgate.protocols")


def simulators() -> Mapping[str, Simulator]:
    """The installed simulators, by the same words."""
    return Plugins[Simulator]("hilgate.simulators")
