"""What fails in the guest fails the run: proven with tests that fail there in every way."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guest import IN_UML, REPORTS, can_is_here

ROOT = Path(__file__).parents[2]
GET = "make peers"
TESTS = """
import subprocess, time
import pytest

pytestmark = pytest.mark.socketcan

@pytest.fixture
def not_torn_down():
    yield
    raise OSError("cannot tear down")

def test_passes():
    with open("/proc/cmdline") as file:
        assert "rootfstype=hostfs" in file.read()

@pytest.mark.parametrize("number", [1, 2])
def test_fails_for_one(number):
    print("said in the guest")
    assert number == 1

def test_is_skipped():
    pytest.skip("for a reason")

def test_fails_late(not_torn_down):
    pass

def test_is_not_chosen():
    assert False

def test_ends_the_guest():
    print("about to halt", flush=True)
    subprocess.run(["/sbin/halt", "-d", "-f", "-p"])
    time.sleep(60)

def test_never_begins():
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, need: Callable[[str, str | None, str], None]) -> Path:
    """A project of its own with the tests above."""
    if REPORTS in os.environ or can_is_here():
        pytest.skip("this kernel has CAN: there is no guest to test")
    check = subprocess.run([IN_UML, "--check"], capture_output=True, text=True, check=False)
    need("user-mode-linux", check.stderr.strip() or None, GET)
    (tmp_path / "conftest.py").write_text("from tests.guest import register as pytest_configure\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = socketcan\naddopts = -p no:cacheprovider -rA\n")
    (tmp_path / "test_there.py").write_text(TESTS)
    return tmp_path


def run(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """The exit status and the output of pytest there."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "HILGATE_REQUIRE_PEERS": "0", "COLUMNS": "400"}
        | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_what_fails_in_the_guest_fails_the_run(folder: Path) -> None:
    status, output = run(folder, "-k", "not chosen")
    assert status == 1
    for line in (
        "PASSED test_there.py::test_passes",
        "PASSED test_there.py::test_fails_for_one[1]",
        "FAILED test_there.py::test_fails_for_one[2] - assert 2 == 1",
        "ERROR test_there.py::test_fails_late - OSError: cannot tear down",
        "FAILED test_there.py::test_ends_the_guest",
        "ERROR test_there.py::test_never_begins",
        "for a reason",
        "said in the guest",
        "the guest ended, with status 125, without a report",
    ):
        assert line in output
    assert "2 failed, 3 passed, 1 skipped, 1 deselected, 2 errors" in output


def test_what_passes_in_the_guest_passes(folder: Path) -> None:
    status, output = run(folder, "test_there.py::test_passes", "test_there.py::test_fails_for_one[1]")
    assert status == 0, output
    assert "2 passed" in output


def test_without_a_guest_they_are_skipped_unless_peers_are_required(folder: Path) -> None:
    tools = folder / "bin"
    tools.mkdir()
    for name in ("env", "gcc", "setpriv", "ip", "insmod"):
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert found is not None
        (tools / name).symlink_to(found)
    (tools / "python3").symlink_to(Path(sys.executable).resolve())
    status, output = run(folder, PATH=str(tools))
    assert status == 0
    assert "8 skipped" in output
    assert "apt-get install --no-install-recommends gcc user-mode-linux" in output
    status, output = run(folder, PATH=str(tools), HILGATE_REQUIRE_PEERS="1")
    assert status == 1
    assert "8 errors" in output


def test_a_guest_without_can_fails_them(folder: Path) -> None:
    """As if it had: the pytest that writes reports finds none here, where there is none."""
    status, output = run(folder, **{REPORTS: str(folder / "reports")})
    assert status == 4
    assert "the guest has no CAN" in output
