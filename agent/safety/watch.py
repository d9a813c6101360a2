"""When devices have to be made safe without anybody asking. Pure."""

from collections.abc import Set


class BrokerWatch:
    """Tells once per loss that the broker has been away for `limit` seconds; None: never."""

    def __init__(self, limit: float | None, now: float) -> None:
        self._limit = limit
        self._heard = now
        self._told = False

    def lost(self, connected: bool, now: float) -> bool:
        """Whether the limit has just been passed."""
        if connected:
            self._heard, self._told = now, False
        if self._limit is None or self._told or now - self._heard < self._limit:
            return False
        self._told = True
        return True


class ReturnWatch:
    """Tells which unsafe devices have come back; of a new run's all are taken to have been away."""

    def __init__(self, unsafe: Set[str]) -> None:
        self._away = unsafe

    def back(self, unsafe: Set[str], usable: Set[str]) -> Set[str]:
        """Those that are still unsafe, were away at the last look, and are not now."""
        returned = self._away & unsafe & usable
        self._away = unsafe - usable
        return returned
