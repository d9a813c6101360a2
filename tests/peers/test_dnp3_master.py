"""Our DNP3 master with the outstation of opendnp3."""

import shutil
from collections.abc import Callable
from pathlib import Path

import opendnp3_peer
import pytest
from brokers import Certificates
from opendnp3_rig import TRANSPORTS, Files, Lines, Rig
from opendnp3_rows import ON_EVERY_LINE, ROWS

Need = Callable[[str, str | None, str], None]

pytestmark = pytest.mark.peer("opendnp3")


@pytest.fixture
def rig(request: pytest.FixtureRequest, certificates: Certificates, tmp_path: Path, need: Need) -> Rig:
    """Lines of the kind that the test is parametrized with."""
    opendnp3_peer.demand(need)
    if request.param == "serial":
        need("socat", None if shutil.which("socat") else "no command socat", "apt-get install socat")
    files = Files(str(certificates.authority), str(certificates.chain), str(certificates.key))
    return Rig(Lines(request.param, files, tmp_path))


@pytest.mark.parametrize("rig", ["tcp"], indirect=True)
@pytest.mark.parametrize("row", ROWS)
async def test_by_tcp(rig: Rig, row: str) -> None:
    await ROWS[row].master(rig)


@pytest.mark.parametrize("rig", [one for one in TRANSPORTS if one != "tcp"], indirect=True)
@pytest.mark.parametrize("row", ON_EVERY_LINE)
async def test_on_other_lines(rig: Rig, row: str) -> None:
    await ROWS[row].master(rig)
