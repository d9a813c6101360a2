"""What is wrong with a bench until it is put right or a person has looked; kept over restarts."""

from collections.abc import Mapping, Sequence

import msgspec

from agent.events import Mode
from agent.safety.driving import PointOutcome
from agent.store import Store

_LISTED = 3


class Faults:
    """Faults by key, each a sentence. Those of a simulated bench are not those of the real one."""

    def __init__(self, store: Store, mode: Mode) -> None:
        self._store = store
        self._name = "faults" if mode == "hil" else f"faults-{mode}"
        kept = store.recall(self._name)
        self._texts: dict[str, str] = {} if kept is None else msgspec.json.decode(kept, type=dict[str, str])

    @property
    def texts(self) -> Mapping[str, str]:
        """The faults."""
        return self._texts

    @property
    def unsafe(self) -> set[str]:
        """The devices that could not be made safe."""
        return {key.removeprefix("safe:") for key in self._texts if key.startswith("safe:")}

    def set(self, key: str, text: str) -> None:
        """Notes a fault."""
        self._keep(self._texts | {key: text})

    def clear(self) -> None:
        """Forgets all."""
        self._keep({})

    def judge(self, outcomes: Sequence[PointOutcome]) -> None:
        """Notes the devices that could not be made safe, and forgets those that now could."""
        texts = dict(self._texts)
        for name in dict.fromkeys(outcome.device for outcome in outcomes):
            wrong = [outcome for outcome in outcomes if outcome.device == name and not outcome.good]
            texts.pop(f"safe:{name}", None)
            if wrong:
                said = [f"{outcome.point}: {outcome.reason}" for outcome in wrong[:_LISTED]]
                said += [f"and {len(wrong) - _LISTED} more"] if len(wrong) > _LISTED else []
                texts[f"safe:{name}"] = f"{name} could not be made safe: {'; '.join(said)}"
        self._keep(texts)

    def _keep(self, texts: dict[str, str]) -> None:
        if texts != self._texts:
            self._texts = texts
            self._store.remember(self._name, msgspec.json.encode(texts) if texts else None)
