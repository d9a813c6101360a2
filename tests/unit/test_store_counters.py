"""Counters never go back, whatever bears an older number."""

from pathlib import Path

from storing import message

from agent.store import Lane, SqliteStore


def test_a_repeated_result_takes_no_counter_back(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path, 10**7, 3600)
    numbers = [store.next_sequence("/benches/rig") for _ in range(5)]
    with store.together():
        for number in (*numbers, 2):
            store.outbox.put(message(number, Lane.RESULT))
    store.close()
    store = SqliteStore(tmp_path, 10**7, 3600)
    assert store.next_sequence("/benches/rig") == 6
    store.close()
