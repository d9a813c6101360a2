"""The built wheel, installed outside of the checkout beside the locked runtime packages and nothing else."""

import importlib.metadata
import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]

Hilgate = Callable[..., str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; what only developers have is not visible in it."""
    place = tmp_path_factory.mktemp("wheel")
    environment = place / "venv"
    venv.create(environment, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place), str(ROOT)]
    subprocess.run([*pip, *build], check=True, timeout=300)
    (wheel,) = place.glob("hilgate-*.whl")
    install = [
        "--python",
        str(environment / "bin" / "python"),
        "install",
        "--no-index",
        "--no-deps",
        str(wheel),
    ]
    subprocess.run([*pip, *install], check=True, timeout=300)
    (site,) = environment.glob("lib/python3.*/site-packages")
    pins = re.findall(r"^([\w.-]+==.+) \\$", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE)
    for pin in map(Requirement, pins):
        if pin.marker is None or pin.marker.evaluate():
            _link(pin.name, site)
    return environment


def _link(name: str, site: Path) -> None:
    """Makes an installed distribution visible in another environment."""
    distribution = importlib.metadata.distribution(name)
    for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
        (site / top).symlink_to(Path(str(distribution.locate_file(top))))


@pytest.fixture
def hilgate(installed: Path, tmp_path: Path) -> Hilgate:
    """Runs the installed command somewhere else, and gives what it printed."""

    def run(*arguments: str) -> str:
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HILGATE_"))
        }
        command = [str(installed / "bin" / "hilgate"), *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_wheel_is_what_runs(installed: Path) -> None:
    program = "import agent, protocols, sim, bench_profiles as b; print(agent.__file__, b.__file__)"
    done = subprocess.run(
        [str(installed / "bin" / "python"), "-I", "-c", program], capture_output=True, text=True, check=True
    )
    assert all(path.startswith(str(installed)) for path in done.stdout.split())


def test_version(hilgate: Hilgate) -> None:
    assert hilgate("--version").strip() == f"hilgate {importlib.metadata.version('hilgate')}"


@pytest.mark.parametrize("profile", sorted(path.stem for path in (ROOT / "bench_profiles").glob("*.yaml")))
def test_shipped_profiles_are_inside(hilgate: Hilgate, profile: str) -> None:
    assert hilgate("check", profile)


def test_a_whole_bench_runs(hilgate: Hilgate) -> None:
    events = hilgate("demo", "hydraulic-rig", "--for", "8s", "--json").splitlines()
    assert any("io.hilgate.samples.v1" in line for line in events)


def test_types_are_announced(installed: Path) -> None:
    (site,) = installed.glob("lib/python3.*/site-packages")
    assert all((site / package / "py.typed").is_file() for package in ("agent", "protocols", "sim"))


def test_units_are_inside(installed: Path) -> None:
    program = "from agent.install import extras, shipped; print(shipped()); extras()"
    done = subprocess.run(
        [str(installed / "bin" / "python"), "-I", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(installed / "share/hilgate/systemd")
