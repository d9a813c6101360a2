"""Prometheus's promtool."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

Need = Callable[[str, str | None, str], None]
"""The fixture `need`."""
ROOT = Path(__file__).resolve().parents[2]
_GOT = ROOT / ".cache" / "peers" / "promtool"


def promtool(need: Need, *words: str, told: bytes = b"", folder: Path = ROOT) -> str:
    """Runs promtool; its output. It has to end well, or the test fails."""
    program = str(_GOT) if _GOT.exists() else shutil.which("promtool")
    need("promtool", None if program else "it is not installed", "tests/tools/get-peers promtool")
    done = subprocess.run(
        [str(program), *words], input=told, capture_output=True, cwd=folder, timeout=120, check=False
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said
