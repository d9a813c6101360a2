"""Hooks: what the profile has done before a lease begins and after it ended."""

from agent.bench import Bench
from agent.store import Store


class Hooks:
    """Carries out the hooks of a bench's profile; each is audited."""

    def __init__(self, bench_id: str, bench: Bench, store: Store) -> None:
        self._bench_id = bench_id
        self._bench = bench
        self._store = store
