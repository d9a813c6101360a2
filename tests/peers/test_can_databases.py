"""The databases of cantools' own tests: every message of every file decodes as cantools does it."""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from can_databases import differences, loaded

from protocols.can.signals.database import FORMATS, load

FOLDER = Path(__file__).parents[2] / ".cache" / "peers"
FILES = FOLDER / f"cantools-{importlib.metadata.version('cantools')}" / "tests" / "files"
GET = "tests/tools/get-peers cantools"


@pytest.fixture
def files(need: Callable[[str, str | None, str], None]) -> list[Path]:
    need("cantools' test files", None if FILES.is_dir() else f"no folder {FILES}", GET)
    return sorted(path for path in FILES.rglob("*") if path.suffix[1:].lower() in FORMATS)


@pytest.mark.parametrize("word", FORMATS)
def test_equal_to_cantools(files: list[Path], word: str) -> None:
    found = {path: loaded(path) for path in files if path.suffix[1:].lower() == word}
    wrong = {path.name: names for path in found if (names := differences(found[path], Random(1)))}
    assert wrong == {}
    assert sum(map(len, found.values())) > 10


def test_what_cantools_reads_is_read(files: list[Path]) -> None:
    for path in files:
        if loaded(path):
            assert load([path]).messages, path.name
