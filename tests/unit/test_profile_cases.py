"""Wrong profiles and the exact messages that a person gets: a folder is a case."""

from pathlib import Path

import pytest
from toy_protocol import INSTALLED

from agent.profile import ConfigErrors, load_profile
from protocols.can import PROTOCOL as CAN
from protocols.dnp3 import PROTOCOL as DNP3

CASES = Path(__file__).parent / "profiles"
VARIABLES = {"HOST": "plc.bench.example", "PORT": "1502", "WORD": "many"}


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir()))
def test_messages(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CASES / case)
    installed = {"can": CAN, "dnp3": DNP3} if case.startswith(("can-", "dnp3-")) else INSTALLED
    with pytest.raises(ConfigErrors) as caught:
        load_profile("profile.yaml", VARIABLES, installed)
    assert str(caught.value) + "\n" == (CASES / case / "expected.txt").read_text("utf-8")


def test_ten_mistakes_are_ten_messages() -> None:
    assert len((CASES / "ten-mistakes" / "expected.txt").read_text("utf-8").splitlines()) == 10
