"""The threat model says nothing that no test shows."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
COLUMNS = 6
WAITING = "waits for"
"""What stands in place of a test that is not there yet; with the letter of whoever makes it."""


class Row(NamedTuple):
    """One row of a boundary's table."""

    number: int
    name: str
    cells: tuple[str, ...]

    @property
    def tests(self) -> list[str]:
        """The tests that it names."""
        return re.findall(r"`([^`]+)`", self.cells[-1])


def rows() -> list[Row]:
    """The rows of all tables that have ids."""
    found = []
    for number, line in enumerate((ROOT / "docs/threat-model.md").read_text().splitlines(), 1):
        if re.match(r"\| [A-Z0-9]+-\d+ \|", line):
            cells = tuple(cell.strip() for cell in line.strip().strip("|").split("|"))
            found.append(Row(number, cells[0], cells))
    return found


@cache
def declared(path: str) -> frozenset[str]:
    """The names of a file's tests."""
    tree = ast.parse((ROOT / "tests" / path).read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def is_there(test: str) -> bool:
    path, _, name = test.partition("::")
    return (ROOT / "tests" / path).is_file() and name in declared(path)


def test_each_row_is_whole_and_has_an_id_of_its_own() -> None:
    names = [row.name for row in rows()]
    assert len(names) > 50
    assert len(set(names)) == len(names)
    assert not [row for row in rows() if len(row.cells) != COLUMNS or not all(row.cells)]


def test_no_row_waits_for_its_test() -> None:
    assert not [f"line {row.number}: {row.name}" for row in rows() if WAITING in row.cells[-1]]


def test_each_row_names_a_test_that_exists() -> None:
    missing = [
        f"line {row.number}: {row.name}: {test}" for row in rows() for test in row.tests if not is_there(test)
    ]
    assert not missing
    assert not [row.name for row in rows() if not row.tests and WAITING not in row.cells[-1]]
