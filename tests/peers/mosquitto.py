"""mosquitto as a peer: in a process of its own on loopback, with its own configuration."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

GET = "make peers"
WAIT_S = 20.0
_PROGRAM = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
_PASSWORDS = shutil.which("mosquitto_passwd")


def why_missing() -> str | None:
    """Why there is no mosquitto; None where there is."""
    return None if _PROGRAM and _PASSWORDS else "no mosquitto"


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.contextmanager
def mosquitto(folder: Path, *lines: str, users: dict[str, str] | None = None, acl: str = "") -> Iterator[int]:
    """Runs it with these lines of configuration; gives its port."""
    assert _PROGRAM is not None
    port = free_port()
    config = [f"listener {port} 127.0.0.1", "persistence false", "user root", *lines]
    if users:
        assert _PASSWORDS is not None
        file = folder / "passwords"
        file.write_text("".join(f"{name}:{password}\n" for name, password in users.items()))
        subprocess.run([_PASSWORDS, "-U", file], check=True, capture_output=True)
        config += [f"password_file {file}", "allow_anonymous false"]
    else:
        config.append("allow_anonymous true")
    if acl:
        (folder / "acl").write_text(acl)
        config.append(f"acl_file {folder / 'acl'}")
    path = folder / "mosquitto.conf"
    path.write_text("\n".join(config) + "\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([_PROGRAM, "-v", "-c", path], stdout=log, stderr=log)
        try:
            _wait(process, port, folder / "log")
            yield port
        finally:
            process.terminate()
            process.wait(WAIT_S)


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text(errors="replace")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(log.read_text(errors="replace"))
