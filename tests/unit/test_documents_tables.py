"""The tables and examples in the documents are those of the models."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from agent.document import parse_document, plain
from agent.profile import load_profile
from agent.settings import Settings

DOCS = Path(__file__).resolve().parents[2] / "docs"
MARK = "<!-- table: "


def documents() -> list[str]:
    return sorted(path.name for path in DOCS.glob("*.md") if MARK in path.read_text("utf-8"))


def examples(name: str) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```", (DOCS / name).read_text("utf-8"), re.MULTILINE | re.DOTALL)


def example(name: str) -> str:
    return examples(name)[0]


@pytest.fixture(scope="module")
def maker() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "make_tables.py"))


def test_there_are_documents_with_tables() -> None:
    assert documents() == [
        "authorization.md",
        "can.md",
        "dnp3-fields.md",
        "mqtt.md",
        "opcua-fields.md",
        "opcua.md",
        "profile.md",
        "settings.md",
        "text.md",
    ]


@pytest.mark.parametrize("name", documents())
def test_tables_are_in_step_with_the_models(name: str, maker: dict[str, Any]) -> None:
    text = (DOCS / name).read_text("utf-8")
    assert maker["rendered"](text) == text, "to mend it: python docs/make_tables.py"


def test_the_profile_in_the_document_is_a_good_one(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(example("profile.md"))
    assert list(load_profile(path, {}).devices) == ["pump-plc"]


@pytest.mark.parametrize("devices", examples("dnp3.md"), ids=["points", "channels", "quality"])
def test_the_devices_in_the_document_are_good_ones(devices: str, tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(f"profile: rig\n{devices}")
    assert {device.protocol for device in load_profile(path, {}).devices.values()} == {"dnp3"}


@pytest.mark.parametrize("devices", examples("text.md"), ids=["points", "lines"])
def test_the_instruments_in_the_document_are_good_ones(devices: str, tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(f"profile: rig\n{devices}")
    assert {device.protocol for device in load_profile(path, {}).devices.values()} == {"text"}


def test_the_settings_in_the_document_are_good_ones() -> None:
    root = parse_document(example("settings.md").encode(), "settings.md").root
    assert root is not None
    assert Settings.model_validate(plain(root)).bench == "rig-07"
