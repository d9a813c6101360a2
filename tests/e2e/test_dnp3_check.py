"""What `hilgate check` says of the packages behind DNP3."""

from pathlib import Path

import pytest
from shell import hilgate

MISSING = "DNP3 devices need the package py1815, which is not installed; install hilgate[dnp3]"
UNUSED = "the package dnp3-python is installed here and is not used: docs/dnp3.md says why"


async def notes(profile: str, folder: Path) -> list[str]:
    (plan,) = (await hilgate("check", profile, "--json", PYTHONPATH=str(folder))).lines
    found: list[str] = plan["notes"]
    shown = await hilgate("check", profile, PYTHONPATH=str(folder))
    assert (shown.code, shown.err) == (0, "")
    assert [line for line in shown.out.splitlines() if line.startswith("note")] == [
        f"note: {note}" for note in found
    ]
    return found


async def test_it_has_nothing_to_say_where_all_is_there(tmp_path: Path) -> None:
    assert await notes("feeder-bay", tmp_path) == []


async def test_a_missing_package_is_said_with_its_extra_and_the_profile_stays_valid(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['py1815'] = None\n")
    assert await notes("feeder-bay", tmp_path) == [MISSING]
    assert await notes("hydraulic-rig", tmp_path) == []


@pytest.mark.parametrize("module", ["dnp3_python", "pydnp3"])
async def test_a_library_that_is_there_and_not_used_is_said(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text("raise SystemExit('it was imported')\n")
    assert await notes("feeder-bay", tmp_path) == [UNUSED]
