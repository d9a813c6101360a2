"""The audit of the locked dependencies: what it finds fails, and what it could not look up is said."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

AUDIT = Path(__file__).resolve().parents[1] / "tools" / "audit"
FOUND, NOT_AUDITED = 1, 3
CLEAN = {"name": "pyyaml", "version": "6.0.3", "vulns": []}
SKIPPED = {"name": "rich", "skip_reason": "Dependency not found on PyPI"}
HOLE = {"id": "PYSEC-2099-1", "aliases": ["CVE-2099-1"], "fix_versions": ["7"], "description": "a hole"}
VULNERABLE = CLEAN | {"vulns": [HOLE]}


def audit(environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, AUDIT],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def played(folder: Path, program: str, ignored: str = "", seconds: str = "60") -> Any:
    """Runs the audit with another program in pip-audit's place."""
    script = folder / "pip-audit"
    script.write_text(f"#!{sys.executable}\nimport json, sys, time\n{program}\n")
    script.chmod(0o755)
    (folder / "ignored.txt").write_text(ignored)
    return audit(
        {"PIP_AUDIT": str(script), "AUDIT_IGNORED": str(folder / "ignored.txt"), "AUDIT_SECONDS": seconds}
    )


def saying(*packages: dict[str, Any]) -> str:
    return f"print({json.dumps({'dependencies': packages, 'fixes': []})!r})"


def test_no_locked_dependency_has_a_known_vulnerability() -> None:
    done = audit()
    if done.returncode == NOT_AUDITED:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_looked_up_and_nothing_known_is_well(tmp_path: Path) -> None:
    done = played(tmp_path, saying(CLEAN))
    assert (done.returncode, done.stdout) == (0, "audited: 1 packages, no known vulnerability\n")


def test_a_finding_fails_and_says_what_fixes_it(tmp_path: Path) -> None:
    done = played(tmp_path, saying(VULNERABLE, SKIPPED) + "; sys.exit(1)")
    assert done.returncode == FOUND
    assert done.stdout == "VULNERABLE: pyyaml 6.0.3: PYSEC-2099-1, CVE-2099-1; fixed in 7\n"


@pytest.mark.parametrize("name", ["PYSEC-2099-1", "CVE-2099-1"])
def test_a_finding_may_be_ignored_for_a_reason(tmp_path: Path, name: str) -> None:
    done = played(tmp_path, saying(VULNERABLE), f"# why\n{name} we never load it\n")
    assert done.returncode == 0
    assert done.stdout.startswith("ignored: pyyaml 6.0.3: PYSEC-2099-1, CVE-2099-1: we never load it\n")


@pytest.mark.parametrize("line", ["PYSEC-2099-1", "PYSEC-2099-1 no", "pyyaml we never load it"])
def test_an_entry_without_an_id_or_a_reason_is_refused(tmp_path: Path, line: str) -> None:
    done = played(tmp_path, saying(VULNERABLE), line)
    assert done.returncode == FOUND
    assert "ignored.txt:1: should be an id" in done.stderr


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (saying(CLEAN, SKIPPED), "1 of 2 packages could not be looked up: rich"),
        (saying(), "the lock file names no package"),
        ("sys.exit('cannot connect')", "cannot connect"),
        ("print('[]')", "pip-audit said nothing"),
    ],
    ids=["one package unknown", "nothing", "no network", "other JSON"],
)
def test_what_could_not_be_looked_up_is_not_passed_over(tmp_path: Path, program: str, why: str) -> None:
    done = played(tmp_path, program)
    assert done.returncode == NOT_AUDITED
    assert done.stdout == f"not audited: no vulnerability data within reach ({why})\n"


def test_a_network_that_swallows_everything_does_not_hang(tmp_path: Path) -> None:
    done = played(tmp_path, "time.sleep(600)", seconds="0.5")
    assert done.returncode == NOT_AUDITED
    assert "no answer within 0.5 s" in done.stdout


def test_nothing_is_ignored_without_a_valid_reason(tmp_path: Path) -> None:
    listed = AUDIT.with_name("audit-ignored.txt").read_text("utf-8")
    assert played(tmp_path, saying(CLEAN), listed).returncode == 0
