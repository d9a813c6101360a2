"""Our DNP3 master with the outstation of opendnp3."""

from collections.abc import Callable
from pathlib import Path

import opendnp3_our_master as cases
import opendnp3_peer
import pytest
from brokers import Certificates
from opendnp3_rig import TRANSPORTS, Files, Lines, Rig

Need = Callable[[str, str | None, str], None]

pytestmark = pytest.mark.peer("opendnp3")


@pytest.fixture
def rig(request: pytest.FixtureRequest, certificates: Certificates, tmp_path: Path, need: Need) -> Rig:
    """Lines of the kind that the test is parametrized with."""
    opendnp3_peer.demand(need)
    files = Files(str(certificates.authority), str(certificates.chain), str(certificates.key))
    return Rig(Lines(request.param, files, tmp_path))


@pytest.mark.parametrize("rig", ["tcp"], indirect=True)
@pytest.mark.parametrize("case", cases.ROWS.values(), ids=lambda case: case.__name__)
async def test_by_tcp(rig: Rig, case: cases.Case) -> None:
    await case(rig)


@pytest.mark.parametrize("rig", [one for one in TRANSPORTS if one != "tcp"], indirect=True)
@pytest.mark.parametrize("case", cases.ON_EVERY_LINE, ids=lambda case: case.__name__)
async def test_on_other_lines(rig: Rig, case: cases.Case) -> None:
    await case(rig)
