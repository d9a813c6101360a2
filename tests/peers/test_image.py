"""The image: built from the Dockerfile, looked through, and run as a locked-down cluster would run it."""

import asyncio
import json
import os
import re
import socket
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from importlib.metadata import distributions, version
from pathlib import Path

import containers
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from desk import Desk, desk
from packaging.requirements import Requirement

from sim.broker import Broker

pytestmark = pytest.mark.peer("container")
Need = Callable[[str, str | None, str], None]
PYTHON = "/opt/hilgate/bin/python"
STORE = "var/lib/hilgate"


@pytest.fixture(scope="module")
def image(need: Need) -> str:
    need("container", containers.why_missing(), containers.GET)
    containers.build()
    return containers.IMAGE


@pytest.fixture(scope="module")
def tree(image: str) -> Iterator[Path]:
    with containers.tree() as place:
        yield place


def files(tree: Path) -> Iterator[tuple[str, os.stat_result]]:
    for path in tree.rglob("*"):
        if not path.is_symlink():
            yield str(path.relative_to(tree)), path.stat()


def test_nobody_can_write_but_to_the_store(tree: Path) -> None:
    loose = {
        name
        for name, status in files(tree)
        if status.st_mode & 0o022 or status.st_mode & 0o6000 or (status.st_uid, status.st_gid) != (0, 0)
    }
    assert loose == {STORE}
    store = (tree / STORE).stat()
    assert (stat.S_IMODE(store.st_mode), store.st_uid, store.st_gid) == (0o770, 65532, 0)


def test_there_is_no_shell_compiler_installer_or_cache(tree: Path) -> None:
    programs = {path.name for folder in ("usr/bin", "usr/sbin") for path in (tree / folder).iterdir()}
    assert {name for name in programs if not re.fullmatch(r"python3(\.\d+)?", name)} == {"tini-static"}
    own = {path.name for path in (tree / "opt/hilgate/bin").iterdir()}
    assert {name for name in own if not re.fullmatch(r"python(3(\.\d+)?)?", name)} == {"hilgate"}
    names = {Path(name).name for name, _ in files(tree)}
    assert not names & {
        "pip",
        "ensurepip",
        "setuptools",
        "sh",
        "bash",
        "dash",
        "apt-get",
        "dpkg-query",
        "gcc",
        "cc1",
    }
    assert not [name for name, _ in files(tree) if name.endswith((".whl", ".a", ".pyi", ".deb"))]
    assert not {path.name for path in tree.iterdir()} & {"root", "home", "src", "wheels", "tools"}
    assert not (tree / "var/cache").exists()


def test_nothing_of_this_machine_is_in_it(image: str, tree: Path) -> None:
    (about,) = json.loads(containers.tool("podman", "image", "inspect", image).stdout)
    names = {entry.partition("=")[0] for entry in about["Config"]["Env"]}
    assert names == {"PATH", "LANG", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    with tarfile.open(containers.BASE) as base:
        member = base.extractfile("./etc/ssl/certs/ca-certificates.crt")
        assert member is not None
        assert (tree / "etc/ssl/certs/ca-certificates.crt").read_bytes() == member.read()
    etc = {str(path.relative_to(tree)) for path in (tree / "etc").rglob("*") if path.is_file()}
    assert not {name for name in etc if re.search(r"pip|apt|\.key|\.pem|resolv|hosts|shadow", name)}
    keys = [name for name, _ in files(tree) if name.endswith((".pem", ".key", ".p12"))]
    assert not [name for name in keys if b"PRIVATE KEY" in (tree / name).read_bytes()]


def test_labels_and_how_it_is_started(image: str) -> None:
    (about,) = json.loads(containers.tool("podman", "image", "inspect", image).stdout)
    config = about["Config"]
    label = {
        key.rpartition(".")[2]: value for key, value in config["Labels"].items() if "opencontainers" in key
    }
    assert (label["version"], label["revision"]) == (version("hilgate"), "0123abc")
    assert (label["created"], label["licenses"]) == ("2026-01-02T03:04:05Z", "Apache-2.0")
    assert (config["User"], config["StopSignal"]) == ("65532:65532", "SIGTERM")
    assert config["Entrypoint"] == ["/usr/bin/tini-static", "--", "/opt/hilgate/bin/hilgate"]
    assert about["Healthcheck"]["Test"] == ["CMD", PYTHON, "-I", "-m", "agent.health"]


def test_the_bill_of_materials_lists_exactly_what_is_there(tree: Path) -> None:
    text = (tree / "usr/share/hilgate/sbom.cdx.json").read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    parts = [*bill["components"], bill["metadata"]["component"]]
    found: dict[str, set[tuple[str, str]]] = {"pypi": set(), "deb": set(), "cpython": set()}
    for part in parts:
        kind = part["purl"].removeprefix("pkg:").partition("/")[0] if "purl" in part else part["name"]
        found[kind].add((part["name"], part["version"]))
    (site,) = tree.glob("opt/hilgate/lib/python3.*/site-packages")
    present = {
        (re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower(), one.version)
        for one in distributions(path=[str(site)])
    }
    assert found["pypi"] == present
    lock = (containers.ROOT / "requirements.lock").read_text("utf-8")
    pins = map(Requirement, re.findall(r"^([\w.-]+==.+) \\$", lock, re.MULTILINE))
    wanted = {pin.name for pin in pins if pin.marker is None or pin.marker.evaluate()}
    assert {name for name, _ in present} == wanted | {"hilgate"}
    assert {name for name, _ in found["deb"]} == {
        path.name for path in (tree / "var/lib/dpkg/status.d").iterdir()
    }
    assert {"libc6", "libssl3", "libsqlite3-0", "tini"} <= {name for name, _ in found["deb"]}
    (interpreter,) = found["cpython"]
    assert interpreter[1].startswith(site.parent.name.removeprefix("python"))
    assert all(part["licenses"] for part in parts if part.get("purl", "").startswith("pkg:pypi/"))


def test_the_build_sees_sources_only(need: Need, tmp_path: Path) -> None:
    need("container", containers.why_missing(), containers.GET)
    whole = tmp_path / "Dockerfile"
    whole.write_text("FROM scratch\nCOPY . /\n")
    words = ("--isolation", "chroot", "--format", "docker", "--quiet", "--file", str(whole))
    made = containers.tool("buildah", "bud", *words, str(containers.ROOT)).stdout.strip()
    try:
        with containers.tree(made) as place:
            seen = {str(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir()}
    finally:
        containers.tool("buildah", "rmi", made)
    meant = "pyproject.toml README.md LICENSE requirements.lock requirements-build.lock deploy/image"
    meant += " agent protocols sim bench_profiles"
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *meant.split()]
    known = subprocess.run(listing, cwd=containers.ROOT, capture_output=True, text=True, check=True)
    assert seen == set(known.stdout.splitlines())


async def test_the_demo_runs_locked_down(image: str) -> None:
    async with containers.container(image, "demo", "--json", "--port", "0") as demo:
        async with asyncio.timeout(containers.STEP_S):
            while "io.hilgate.samples.v1" not in await demo.logs():
                assert (await demo.state())["Running"], await demo.logs()
                await asyncio.sleep(0.5)
        await demo.podman("stop", "--time", "60", demo.name)
        assert (await demo.state())["ExitCode"] == 0, await demo.logs()


@pytest.fixture
def address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


async def test_an_agent_runs_is_healthy_reaps_and_leaves(image: str, address: str) -> None:
    broker = Broker("127.0.0.1", 0)
    await broker.start()
    try:
        async with desk(broker.url, "rig-07") as someone:
            await live_and_leave(image, someone, broker.url, address)
    finally:
        await broker.close()


async def live_and_leave(image: str, someone: Desk, url: str, address: str) -> None:
    profile = containers.ROOT / "bench_profiles" / "hydraulic-rig.yaml"
    variables = {"BENCH": "rig-07", "BROKER": url, "SIL": "true", "HTTP": address, "STORE": f"/{STORE}"}
    mounts = [
        *(word for key, value in variables.items() for word in ("--env", f"HILGATE_{key}={value}")),
        *("--volume", f"{profile}:/etc/hilgate/profile.yaml:ro"),
        *("--mount", f"type=tmpfs,destination=/{STORE},tmpfs-mode=0770"),
    ]
    command = ("run", "/etc/hilgate/profile.yaml")
    async with containers.container(*mounts, image, *command) as agent:
        await until_said(agent, someone, "available")
        assert (await agent.podman("healthcheck", "run", agent.name, check=False)).returncode == 0
        assert (await agent.state())["Health"]["Status"] == "healthy"
        assert (await agent.python(f"import os; print(len(os.listdir('/{STORE}')) > 0)")).strip() == "True"
        await agent.python(ORPHAN)
        await until_no_zombie(agent)
        await agent.podman("stop", "--time", "60", agent.name)
        assert (await agent.state())["ExitCode"] == 0, await agent.logs()
        assert someone.availability()["state"] == "offline"


async def until_said(agent: containers.Container, someone: Desk, state: str) -> None:
    """Waits until the bench says that it is in a state; its container has to go on until then."""
    async with asyncio.timeout(containers.STEP_S):
        while someone.availability().get("state") != state:
            assert (await agent.state())["Running"], await agent.logs()
            await asyncio.sleep(0.5)


ORPHAN = "import os, time\nif not os.fork():\n    os.setsid()\n    time.sleep(0.5)\n    os._exit(0)"
"""Leaves a child behind that ends a moment after its parent, as a program that a hook starts may."""
ZOMBIES = (
    "import pathlib\n"
    "for path in pathlib.Path('/proc').glob('[0-9]*/stat'):\n"
    "    print(path.read_text().rpartition(')')[2].split()[0], end='')"
)


async def until_no_zombie(one: containers.Container) -> None:
    """Waits until tini, agent and who asks are all there is: the orphan ended, and was reaped."""
    async with asyncio.timeout(containers.STEP_S):
        while len(await one.python(ZOMBIES)) != 3:
            await asyncio.sleep(0.2)
