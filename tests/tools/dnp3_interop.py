"""Prints which parts of DNP3 were seen to work with opendnp3 at the other end, as a table in Markdown.

Each cell is a run of a case that the tests run too. Ends with 1 if one failed, and says why below the table.
"""

import asyncio
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The cases are the tests' own.
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "peers"), str(ROOT / "tests" / "integration")]

import trustme  # noqa: E402  # after the path
from opendnp3_peer import GET, why_missing  # noqa: E402  # after the path
from opendnp3_rig import TRANSPORTS, Files, Lines, Rig, SimulatedRig  # noqa: E402  # after the path
from opendnp3_rows import NOTES, ON_EVERY_LINE, ROWS  # noqa: E402  # after the path

LINES = {
    "tcp": "TCP",
    "listen": "TCP, the outstation calls",
    "tls": "TLS, mutual authentication",
    "serial": "serial line (pty)",
}
SIDES = ("hilgate's master, opendnp3's outstation", "opendnp3's master, hilgate's simulated outstation")
_LONGEST_S = 90.0


class Trial:
    """Runs cases and keeps why some failed."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    async def cell(self, what: str, run: Callable[[], Awaitable[None]]) -> str:
        """`yes` or `no`."""
        start = time.monotonic()
        try:
            async with asyncio.timeout(_LONGEST_S):
                await run()
        except Exception as error:  # noqa: BLE001  # it is what the table is for
            self.failures.append(f"{what}: {type(error).__name__}: {error}")
            return "no"
        finally:
            print(f"{what}: {time.monotonic() - start:.1f} s", file=sys.stderr)
        return "yes"


def _files(folder: Path) -> Files:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    files = Files(*(str(folder / name) for name in ("ca.pem", "chain.pem", "key.pem")))
    authority.cert_pem.write_to_path(files.ca)
    issued.private_key_pem.write_to_path(files.key)
    for pem in issued.cert_chain_pems:
        pem.write_to_path(files.cert, append=True)
    return files


async def _tried(trial: Trial, transport: str, row: str, files: Files) -> tuple[str, str]:
    """A row on one kind of line, at both sides."""

    async def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            await ROWS[row].master(Rig(Lines(transport, files, Path(folder))))

    async def theirs() -> None:
        await ROWS[row].outstation(SimulatedRig(transport))

    what = f"{row}, {LINES[transport]}"
    return await trial.cell(f"{SIDES[0]}: {what}", ours), await trial.cell(f"{SIDES[1]}: {what}", theirs)


async def _table(trial: Trial, files: Files) -> list[tuple[str, str, str]]:
    rows = [(row, *await _tried(trial, "tcp", row, files)) for row in ROWS]
    for transport in TRANSPORTS[1:]:
        cells = [await _tried(trial, transport, row, files) for row in ON_EVERY_LINE]
        ours, theirs = ("yes" if set(side) == {"yes"} else "no" for side in zip(*cells, strict=True))
        rows.append((LINES[transport], ours, theirs))
    return rows


def main() -> int:
    """Runs all and prints the table as Markdown."""
    if (missing := why_missing()) is not None:
        print(f"opendnp3 is {missing}; to get it: {GET}", file=sys.stderr)
        return 2
    trial = Trial()
    with tempfile.TemporaryDirectory() as folder:
        rows = asyncio.run(_table(trial, _files(Path(folder))))
    print(f"| | {SIDES[0]} | {SIDES[1]} |\n| --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    stacks = ", ".join(f"{name} {version(name)}" for name in ("yadnp3", "py1815"))
    tried = ", ".join(f"*{row}*" for row in ON_EVERY_LINE)
    print(f"\nSeen with {stacks} and Python {platform.python_version()} on {platform.machine()};")
    print(f"on TCP where no other line is named, and on the other lines by {tried}.\n")
    for about, note in NOTES.items():
        print(f"- *{about}*: {note}")
    for failure in trial.failures:
        print(f"\n{failure}")
    return 1 if trial.failures else 0


if __name__ == "__main__":
    sys.exit(main())
