"""The libmodbus server as a process: compiled when it is first asked for."""

import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

_SOURCE = Path(__file__).with_name("modbus_server.c")
_BINARY = Path(__file__).parents[2] / ".cache" / "modbus_server"

HOW = "apt-get install libmodbus-dev pkg-config gcc"


def why_missing() -> str | None:
    """Why the server cannot be compiled here, or None."""
    for tool in ("gcc", "pkg-config"):
        if shutil.which(tool) is None:
            return f"no {tool}"
    found = subprocess.run(["pkg-config", "--exists", "libmodbus"], check=False)
    return None if found.returncode == 0 else "no libmodbus headers"


def compiled() -> Path:
    """The server's binary, compiled anew where its source is younger."""
    if not _BINARY.exists() or _BINARY.stat().st_mtime < _SOURCE.stat().st_mtime:
        _BINARY.parent.mkdir(exist_ok=True)
        flags = subprocess.check_output(["pkg-config", "--cflags", "--libs", "libmodbus"], text=True).split()
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", str(_SOURCE), "-o", str(_BINARY), *flags]
        subprocess.run(command, check=True)
    return _BINARY


class ModbusServer:
    """A running server; `port` is its TCP port. It ends when its standard input does."""

    def __init__(self, *args: str) -> None:
        self._args = args
        self._process: subprocess.Popen[str]
        self.port = 0

    def start(self) -> None:
        """Starts the server, on the same port as before, and waits until it serves."""
        command = [str(compiled()), *self._args]
        if self.port:
            command[-1] = str(self.port)
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        words = self._answer()
        assert words[0] == "ready", words
        self.port = int(words[1])

    def kill(self) -> None:
        """Ends the server at once; its connections are reset."""
        self._process.kill()
        self._process.communicate()

    def put(self, table: str, address: int, *values: int) -> None:
        """Sets coils (`c`), discrete inputs (`d`), holding (`h`) or input registers (`i`)."""
        for offset, value in enumerate(values):
            self._say(f"set {table} {address + offset} {value}")
        self.get(table, address)  # its answer says that the server has seen the rest

    def get(self, table: str, address: int, count: int = 1) -> list[int]:
        """What a table holds now."""
        found = []
        for offset in range(count):
            self._say(f"get {table} {address + offset}")
            found.append(int(self._answer()[0]))
        return found

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _answer(self) -> list[str]:
        assert self._process.stdout is not None
        return self._process.stdout.readline().split()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
