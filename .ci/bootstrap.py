#!/usr/bin/env python3
"""Makes .venv with exactly what the lock files name, from a bare Debian: python3 and gcc are enough.

Debian's python3 comes without pip and without the C headers that python-qpid-proton is compiled with. Where
they are missing they are taken from Debian's own packages, unpacked into .cache: that needs no root and
changes nothing outside of the checkout. Standard library only, for it runs before anything is installed.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CACHE = ROOT / ".cache" / "bootstrap"
LOG = CACHE / "log.txt"
READY = VENV / ".ready"
BUILD_LOCK = ROOT / "requirements-build.lock"
DEV_LOCK = ROOT / "requirements-dev.lock"
PYTHONS = ("python3.13", "python3.12", "python3.11")
SYSTEM_PACKAGES = "sudo apt-get install gcc libc6-dev python3-dev python3-venv"
APT_HINT = f"where apt-get works as root, this is enough: {SYSTEM_PACKAGES}."


def stop(sentence: str) -> NoReturn:
    """Ends with one sentence on what is wrong, and what to type."""
    sys.exit(f"bootstrap: {sentence}")


def use_new_enough_python() -> None:
    """Starts again under another Python where this one is too old."""
    if sys.version_info >= (3, 11):  # noqa: UP036  # it is this that says so
        return
    found = next(filter(None, map(shutil.which, PYTHONS)), None)
    if found is None:
        stop(f"Python 3.11 or newer is needed, and this is {sys.version.split()[0]}; install python3.11.")
    os.execv(found, [found, *sys.argv])


def key() -> str:
    """What the virtual environment depends on: while this stays, there is nothing to do."""
    digest = hashlib.sha256()
    for path in (BUILD_LOCK, DEV_LOCK, ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    return f"{identity()}\n{digest.hexdigest()}\n"


def identity() -> str:
    """A virtual environment is bound to its place and its Python: with another of them it is made anew."""
    return f"{ROOT}\n{sys.version}"


def run(
    what: str,
    command: list[str],
    environment: dict[str, str] | None = None,
    hint: str = "is pip's package index within reach?",
) -> None:
    """Runs a step into the log, and shows that it is alive; its output is shown only when it fails."""
    start = time.monotonic()
    print(f"  {what} ...", flush=True)
    with LOG.open("a+") as log:
        log.write(f"\n$ {' '.join(command)}\n")
        log.flush()
        begin = log.tell()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        while True:
            try:
                status = process.wait(timeout=10)
                break
            except subprocess.TimeoutExpired:
                print(f"    {time.monotonic() - start:.0f} s", flush=True)
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if status:
            log.seek(begin)
            print("".join(log.readlines()[-25:]), file=sys.stderr)
            stop(f"this step failed: {what}; {hint} Its output stands above and in {LOG.relative_to(ROOT)}.")


@functools.cache
def apt() -> tuple[str, ...]:
    """An apt-get with package lists of its own: the system's may be empty, stale, or need root to renew."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        stop(
            f"pip or Python.h is missing. On Debian or Ubuntu: {SYSTEM_PACKAGES}; elsewhere install the same."
        )
    directory = CACHE / "apt"
    (directory / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    options = (
        f"Dir::State::lists={directory}/lists",
        f"Dir::Cache={directory}/cache",
        "APT::Sandbox::User=",
        "Acquire::Languages=none",
    )
    command = ("apt-get", "-q", *(word for option in options for word in ("-o", option)))
    run("Debian's package lists", [*command, "update"], hint=APT_HINT)
    return command


def unpack_debian(package: str) -> Path:
    """Unpacks a Debian package into .cache and gives the place."""
    target = CACHE / package
    if target.is_dir():
        return target
    command = apt()
    fetched, unpacked = CACHE / "debs", CACHE / "unpacking"
    for directory in (fetched, unpacked):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
    run(f"Debian's {package}", ["env", "-C", str(fetched), *command, "download", package], hint=APT_HINT)
    (archive,) = fetched.glob("*.deb")
    run(f"unpacking {package}", ["dpkg-deb", "-x", str(archive), str(unpacked)])
    unpacked.rename(target)
    return target


def compile_environment() -> dict[str, str]:
    """The environment that python-qpid-proton is compiled in, checked before the long steps.

    pkg-config is made to find nothing: proton would link Cyrus SASL and OpenSSL where their headers happen to
    be, and then behave differently from machine to machine. TLS is asyncio's here, SASL proton's own.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        stop(f"a C compiler is missing, and python-qpid-proton has to be compiled; type: {SYSTEM_PACKAGES}")
    probe = subprocess.run(
        [compiler, "-fsyntax-only", "-xc", "-"],
        input=b"#include <stdlib.h>\n",
        stderr=subprocess.DEVNULL,
        check=False,
    )
    if probe.returncode:
        stop(f"the C compiler finds no <stdlib.h>; type: {SYSTEM_PACKAGES}")
    environment = {"PKG_CONFIG_LIBDIR": str(CACHE / "none"), "PKG_CONFIG_PATH": ""}
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").is_file():
        unpacked = unpack_debian(f"libpython3.{sys.version_info.minor}-dev")
        flags = f"-I{unpacked}/usr/include -I{unpacked}{include}"
        environment["CFLAGS"] = f"{os.environ.get('CFLAGS', '')} {flags}".strip()
    return environment


def first_pip(python: Path) -> list[str]:
    """A command that runs some pip for the new environment; that one then installs the locked pip."""
    if importlib.util.find_spec("ensurepip") is not None:
        run("pip, from ensurepip", [str(python), "-m", "ensurepip"])
        return [str(python), "-m", "pip"]
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "--python", str(python)]
    wheels = unpack_debian("python3-pip-whl") / "usr/share/python-wheels"
    return [str(python), f"{next(wheels.glob('pip-*.whl'))}/pip"]


def make() -> None:
    """Makes the virtual environment, or brings it up to date."""
    LOG.write_text("")
    environment = compile_environment()
    python = VENV / "bin" / "python"
    if not (python.exists() and READY.is_file() and READY.read_text().startswith(identity())):
        run(
            "a new virtual environment in .venv",
            [sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)],
        )
        locked = ["install", "--require-hashes", "--disable-pip-version-check", "-r", str(BUILD_LOCK)]
        run("the tools that build packages", [*first_pip(python), *locked])
    READY.write_text(identity())
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-build-isolation"]
    run(
        "the locked packages (compiles python-qpid-proton the first time: a minute or two)",
        [*pip, "--require-hashes", "-r", str(DEV_LOCK)],
        environment,
    )
    run("hilgate itself, editable", [*pip, "--no-deps", "-e", str(ROOT)])
    READY.write_text(key())


def main() -> None:
    """Makes .venv unless it is as the lock files say already."""
    use_new_enough_python()
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        # `make demo` and `make test` typed in two terminals at once: the second one waits.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if READY.is_file() and READY.read_text() == key():
            return
        start = time.monotonic()
        print("Making .venv (once; again only when the lock files change)", flush=True)
        make()
        print(f".venv is ready ({time.monotonic() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        stop("interrupted; start it again to go on.")
