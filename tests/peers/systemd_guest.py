"""A Debian 12 booted with systemd in a container, with the wheel of this checkout in /opt/hilgate."""

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
TAR = ROOT / ".cache" / "peers" / "roots" / "systemd.tar"
PATIENCE_S = 120.0


def why_missing() -> str | None:
    """Why no guest can be booted here, or None."""
    if os.geteuid() != 0:
        return "only root can boot one"
    for program in ("systemd-nspawn", "nsenter"):
        if shutil.which(program) is None:
            return f"no {program}"
    return None if TAR.exists() else f"no {TAR.name}"


HOW = "as root: apt-get install systemd-container mmdebstrap && tests/tools/get-peers systemd"


class Guest:
    """One file tree, and the systemd that runs in it. The network is the machine's."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0

    def prepare(self) -> None:
        """Unpacks the tree, and installs hilgate there as docs/systemd.md says, without an index."""
        self.root.mkdir()
        subprocess.run(["tar", "-xf", str(TAR), "-C", str(self.root)], check=True, timeout=300)
        wheels = self.root / "wheels"
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "wheel"]
        build = [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(ROOT)]
        subprocess.run(build, check=True, timeout=300)
        self._chroot("/usr/bin/python3", "-m", "venv", "--without-pip", "/opt/hilgate")
        (site,) = self.root.glob("opt/hilgate/lib/python3.*/site-packages")
        pins = re.findall(
            r"^([\w.-]+==.+) \\$", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE
        )
        for pin in [*map(Requirement, pins), Requirement("pip")]:
            if pin.marker is None or pin.marker.evaluate():
                _copy(pin.name, site)
        (wheel,) = wheels.glob("hilgate-*.whl")
        install = ["install", "--quiet", "--no-index", "--no-deps", f"/wheels/{wheel.name}"]
        self._chroot("/opt/hilgate/bin/python", "-m", "pip", *install)

    def _chroot(self, *command: str) -> None:
        subprocess.run(["chroot", str(self.root), *command], check=True, timeout=300)

    def boot(self) -> None:
        """Boots, and returns when systemd says that it is up."""
        command = [
            "systemd-nspawn",
            "--quiet",
            f"--directory={self.root}",
            f"--machine=hilgate-{os.getpid()}",
        ]
        command += ["--register=no", "--keep-unit", "--console=pipe", "--boot"]
        with (self._folder / "console.log").open("wb") as console:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True
            )
        self.until(self._is_up)

    def _is_up(self) -> bool:
        assert self._process is not None
        # There is another child for a moment, before the guest's first process.
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children:
            return False
        self._init = int(children[-1])
        return self.run("systemctl", "is-system-running", check=False) in ("running", "degraded")

    def run(self, *command: str, check: bool = True, error: bool = False) -> str:
        """What a command in the guest prints, as root; with `error` its errors too."""
        enter = ["nsenter", "-t", str(self._init), "-m", "-u", "-i", "-p", "-C", "--"]
        done = subprocess.run(
            [*enter, *command],
            env={"PATH": "/opt/hilgate/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if error else subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0 or not check, (command, done.returncode, done.stdout, done.stderr)
        return done.stdout.strip()

    def until(self, condition: Callable[[], object]) -> None:
        """Waits for something to be true in the guest."""
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert self._process is not None
            assert self._process.poll() is None, "the guest has ended"
            assert time.monotonic() < end, "it does not come true"
            time.sleep(0.1)

    def stop(self) -> None:
        """Powers it off, and by force if it does not."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)  # to systemd-nspawn: the guest powers off
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its processes go with their PID namespace
            self._process.wait()


def _copy(name: str, site: Path) -> None:
    """Copies what an installed distribution has in its site-packages."""
    distribution = importlib.metadata.distribution(name)
    for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
        source = Path(str(distribution.locate_file(top)))
        if source.is_dir():
            shutil.copytree(source, site / top)  # with what is compiled: the service could not keep it
        else:
            shutil.copy(source, site / top)
