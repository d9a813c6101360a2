"""Which sessions get a message: subscriptions with wildcards, shared ones, and what is retained. Pure."""

import itertools
from collections.abc import Iterator

from paho.mqtt.client import topic_matches_sub
from paho.mqtt.matcher import MQTTMatcher

from sim.mqtt.broker.packets import Malformed, Message, Subscription
from sim.mqtt.broker.session import Session, lowered

_RETAINED = 100_000
"""Topics of which a last message is kept."""

_Members = dict[tuple[str, str], tuple[Session, Subscription]]
"""By group (empty: not shared) and client."""


def _parted(name: str) -> tuple[str, str]:
    """Group and filter of a subscription (MQTT 5.0, 4.8.2)."""
    if not name.startswith("$share/"):
        return "", name
    _, group, rest = [*name.split("/", 2), "", ""][:3]
    if not group or not rest or set(group) & set("+#"):
        raise Malformed("a shared subscription is $share/<name>/<filter>")
    return group, rest


class Router:
    """All subscriptions and retained messages of a broker."""

    def __init__(self) -> None:
        self.retained: dict[str, Message] = {}
        self._filters = MQTTMatcher()  # type: ignore[no-untyped-call]  # paho does not type its matcher
        self._by_filter: dict[str, _Members] = {}
        self._turn = itertools.count()

    def subscribe(self, session: Session, wanted: Subscription, now: float) -> Iterator[Message]:
        """Adds a subscription, and gives the retained messages that it brings.

        Raises:
            Malformed: the filter breaks the rules (MQTT 5.0, 4.7.1).
        """
        group, name = _parted(wanted.filter)
        levels = name.split("/")
        if "#" in levels[:-1] or any(len(level) > 1 and set(level) & set("+#") for level in levels):
            raise Malformed(f"{name!r:.60} is no topic filter")
        members = self._by_filter.get(name)
        if members is None:
            members = self._by_filter[name] = {}
            self._filters[name] = members
        is_new = (group, session.client_id) not in members
        members[group, session.client_id] = session, wanted
        if group or wanted.retain_handling == 2 or (wanted.retain_handling == 1 and not is_new):
            return
        for topic, message in list(self.retained.items()):
            alive = message.expires is None or message.expires > now
            if alive and topic_matches_sub(name, topic):
                yield lowered(message, wanted.qos, retain=True)

    def unsubscribe(self, session: Session, name: str) -> bool:
        """Removes a subscription; says whether there was one."""
        group, plain = _parted(name)
        members = self._by_filter.get(plain, {})
        found = members.pop((group, session.client_id), None)
        if found is not None and not members:
            del self._by_filter[plain]
            del self._filters[plain]  # type: ignore[no-untyped-call]  # paho does not type its matcher
        return found is not None

    def forget(self, session: Session) -> None:
        """Removes all subscriptions of a session."""
        for name, members in list(self._by_filter.items()):
            for group, client in list(members):
                if client == session.client_id:
                    self.unsubscribe(session, f"$share/{group}/{name}" if group else name)

    def route(self, message: Message, sender: Session | None, now: float) -> int:
        """Gives a message to all who subscribed, each once; says to how many. Retains it where asked to."""
        if message.retain:
            self._retain(message)
        chosen: dict[str, tuple[Session, int, bool]] = {}
        matching = self._filters.iter_match(message.topic)  # type: ignore[no-untyped-call]  # paho does not type its matcher
        for members in matching:
            for session, wanted in self._of(members):
                if wanted.no_local and session is sender:
                    continue
                _, qos, retain = chosen.get(session.client_id, (session, 0, False))
                keeps = retain or (wanted.as_published and message.retain)
                chosen[session.client_id] = session, max(qos, wanted.qos), keeps
        for session, qos, retain in chosen.values():
            session.give(lowered(message, qos, retain), now)
        return len(chosen)

    def _of(self, members: _Members) -> Iterator[tuple[Session, Subscription]]:
        """All that are not shared, and of each group one in turn: one that is there, if any is."""
        groups: dict[str, list[tuple[Session, Subscription]]] = {}
        for (group, _), one in members.items():
            if group:
                groups.setdefault(group, []).append(one)
            else:
                yield one
        for group_members in groups.values():
            there = [one for one in group_members if one[0].send is not None] or group_members
            yield there[next(self._turn) % len(there)]

    def _retain(self, message: Message) -> None:
        if not message.payload:
            self.retained.pop(message.topic, None)
        elif message.topic in self.retained or len(self.retained) < _RETAINED:
            self.retained[message.topic] = message
