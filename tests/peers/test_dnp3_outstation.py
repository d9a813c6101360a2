"""Our simulated DNP3 outstation with the master of opendnp3."""

from collections.abc import Callable

import opendnp3_peer
import pytest
from opendnp3_rig import TRANSPORTS, SimulatedRig
from opendnp3_rows import ON_EVERY_LINE, ROWS

pytestmark = pytest.mark.peer("opendnp3")


@pytest.fixture(autouse=True)
def _opendnp3(need: Callable[[str, str | None, str], None]) -> None:
    opendnp3_peer.demand(need)


@pytest.mark.parametrize("row", ROWS)
async def test_by_tcp(row: str) -> None:
    await ROWS[row].outstation(SimulatedRig("tcp"))


@pytest.mark.parametrize("transport", [one for one in TRANSPORTS if one != "tcp"])
@pytest.mark.parametrize("row", ON_EVERY_LINE)
async def test_on_other_lines(transport: str, row: str) -> None:
    await ROWS[row].outstation(SimulatedRig(transport))
