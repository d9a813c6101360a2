"""What holds for the whole tree: small files, living links, documented modules, locked versions."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("agent", "protocols", "sim", "bench_profiles")
MOST_LINES = 400
WRITTEN_BY_HAND = (".py", ".js", ".c", ".md")
# A registry is the business of the machine that installs. Split, so that this file does not name them either.
REGISTRY_HOSTS = re.compile(
    "|".join(
        re.escape(host)
        for host in (
            "pypi" + ".org",
            "pythonhosted" + ".org",
            "npmjs" + ".org",
            "npmjs" + ".com",
            "maven" + ".org",
            "maven.apache" + ".org/maven2",
            "deb.debian" + ".org",
            "docker" + ".io",
            "crates" + ".io",
        )
    )
)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


def tracked() -> list[Path]:
    """The files of the tree, as git sees them; also those not yet committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def texts() -> Iterator[tuple[str, str]]:
    for path in tracked():
        try:
            yield str(path.relative_to(ROOT)), path.read_text("utf-8")
        except UnicodeDecodeError:
            continue


def test_files_stay_small() -> None:
    long = {
        name: lines
        for name, text in texts()
        if name.endswith(WRITTEN_BY_HAND) and (lines := text.count("\n")) > MOST_LINES
    }
    assert not long, f"over {MOST_LINES} lines, split them: {long}"


def test_no_registry_is_named() -> None:
    found = {name: match[0] for name, text in texts() if (match := REGISTRY_HOSTS.search(text))}
    assert not found


def _heading_anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_relative_links_in_documents_lead_somewhere() -> None:
    dead = []
    for name, text in texts():
        if not name.endswith(".md"):
            continue
        for target in (first or second for first, second in LINK.findall(CODE.sub("", text))):
            if re.match(r"[a-z]+:", target):
                continue
            file, _, anchor = target.partition("#")
            path = (ROOT / name).parent / file if file else ROOT / name
            if not path.exists() or (
                anchor and path.suffix == ".md" and anchor not in _heading_anchors(path.read_text("utf-8"))
            ):
                dead.append(f"{name}: {target}")
    assert not dead


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        name
        for name, text in texts()
        if name.endswith(".py") and name.split("/")[0] in PACKAGES and not ast.get_docstring(ast.parse(text))
    ]
    assert not silent


def _locked(name: str) -> dict[str, str]:
    """The pinned version of every distribution in a lock file; each must have a hash."""
    versions: dict[str, str] = {}
    for block in re.split(r"\n(?=[a-zA-Z0-9])", (ROOT / name).read_text("utf-8")):
        pin = re.match(r"([a-zA-Z0-9._-]+)==([^ ;\\]+)", block)
        if pin:
            assert "--hash=sha256:" in block, f"{pin[1]} has no hash in {name}"
            versions[canonicalize_name(pin[1])] = pin[2]
    return versions


@pytest.mark.parametrize(
    ("lock", "left_out", "groups"),
    [
        ("requirements-build.lock", None, ("build",)),
        ("requirements.lock", {"all", "convert", "opendnp3"}, ()),
        ("requirements-dev.lock", set(), ("build", "dev")),
    ],
)
def test_lock_holds_what_the_project_asks_for(
    lock: str, left_out: set[str] | None, groups: tuple[str, ...]
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    locked = _locked(lock)
    asked = [text for group in groups for text in project["dependency-groups"][group]]
    if left_out is not None:
        asked += project["project"]["dependencies"]
        extras = project["project"]["optional-dependencies"]
        asked += [text for name, extra in extras.items() if name not in left_out for text in extra]
    wrong = [
        text
        for text in asked
        if (wanted := Requirement(text)).name != "hilgate"
        and (
            (version := locked.get(canonicalize_name(wanted.name))) is None
            or not wanted.specifier.contains(version, prereleases=True)
        )
    ]
    assert not wrong, f"{lock} does not fit pyproject.toml; type: make lock"


def test_what_the_agent_runs_with_leaves_out_what_is_heavy() -> None:
    """asammdf alone makes `import can` take three times the memory."""
    assert not {"asammdf", "numpy", "pandas", "pyarrow"} & _locked("requirements.lock").keys()


def test_locks_agree() -> None:
    runtime, dev = _locked("requirements.lock"), _locked("requirements-dev.lock")
    assert {name: dev.get(name) for name in runtime} == runtime


def test_nothing_is_raised_within_except_star() -> None:
    """Debian 12's Python 3.11.2 makes an exception group of it, later ones of 3.11 do not."""
    found = [
        f"{path.relative_to(ROOT)}:{inner.lineno}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for block in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(block, ast.TryStar)
        for handler in block.handlers
        for inner in ast.walk(handler)
        if isinstance(inner, ast.Raise)
    ]
    assert found == []
