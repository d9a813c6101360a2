"""A broker as a process: ports, start, stop, restart, freeze."""

import abc
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).resolve().parents[3]
PEERS = ROOT / ".cache" / "peers"
GET = "make peers (or tests/tools/get-peers)"

_ATTENDED = ROOT / "tests" / "tools" / "attended"
_SASL_HEADER = b"AMQP\x03\x01\x00\x00"


@dataclass(frozen=True)
class User:
    name: str
    password: str


@dataclass(frozen=True)
class Users:
    """The administrator, and an agent and a client with the least rights that docs/brokers.md names."""

    admin: User = User("admin", "admin-secret")
    agent: User = User("hil-agent", "agent-secret")
    client: User = User("hil-client", "client-secret")


@dataclass(frozen=True)
class Certificates:
    """PEM files: whom clients trust, and the broker's own chain and key, for 127.0.0.1 and localhost."""

    authority: Path
    chain: Path
    key: Path


def free_ports(count: int) -> list[int]:
    """Ports below the range of outgoing connections, so that nothing takes one while its broker restarts."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in ports:
                ports.append(port)
    return ports


def child_of(pid: int) -> int:
    """The first child of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    if not children:
        raise ProcessLookupError(f"process {pid} has no child")
    return int(children[0])


def all_stopped(pid: int) -> bool:
    """Whether every thread of a process is stopped: state T (proc(5), /proc/pid/stat)."""
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    try:
        return all(thread.read_text().rpartition(") ")[2].startswith("T") for thread in threads)
    except (FileNotFoundError, ProcessLookupError):  # a thread ended meanwhile
        return False


def speaks_amqp(port: int) -> bool:
    """Whether a broker answers AMQP's SASL protocol header (AMQP 1.0 part 5, section 5.3.1) on loopback."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(_SASL_HEADER)
            return connection.recv(8).startswith(b"AMQP")
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"gave up after {timeout:g} s waiting until {what}")
        time.sleep(0.05)


class Broker(abc.ABC):
    """One broker with its own directory, ports and process. Its messages outlive `stop` and `start`."""

    name: ClassVar[str]
    flavour: ClassVar[str]
    """What wire.md calls this kind of broker."""

    def __init__(self, home: Path, certificates: Certificates, users: Users) -> None:
        self.home = home
        self.certificates = certificates
        self.users = users
        self.port, self.tls_port, *self.other_ports = free_ports(4)
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    @abc.abstractmethod
    def why_missing(cls) -> str | None:
        """Why this broker cannot run here, or None."""

    @abc.abstractmethod
    def command(self) -> tuple[Sequence[str | Path], dict[str, str]]:
        """The server's command line and environment."""

    def server_pid(self) -> int:
        """The process that answers clients."""
        if self._process is None:
            raise ProcessLookupError(f"{self.name} is not running")
        return child_of(self._process.pid)

    @property
    def url(self) -> str:
        return f"amqp://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"amqps://localhost:{self.tls_port}"

    @property
    def log(self) -> Path:
        return self.home / "broker.log"

    def start(self) -> None:
        """Starts it and returns once it answers AMQP."""
        arguments, environment = self.command()
        with self.log.open("ab") as log:
            self._process = process = subprocess.Popen(
                [sys.executable, _ATTENDED, *arguments],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )

        def answers() -> bool:
            if process.poll() is not None:
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                raise RuntimeError(f"{self.name} ended with status {process.returncode}:\n{tail}")
            return speaks_amqp(self.port)

        try:
            wait_until(answers, f"{self.name} answers on port {self.port}")
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Lets it end in good order; kills it after 30 s."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.server_pid(), signal.SIGCONT)
            os.kill(self.server_pid(), signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        self.kill()

    def kill(self) -> None:
        """Ends it at once, as a power cut does."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, the server is stopped in its tracks: connections stay open and nothing is answered."""
        server = self.server_pid()
        os.kill(server, signal.SIGSTOP)
        try:
            # One thread takes the signal and stops the others: until it gets to run, these still answer.
            wait_until(lambda: all_stopped(server), f"{self.name} has stopped in its tracks")
            yield
        finally:
            os.kill(server, signal.SIGCONT)
