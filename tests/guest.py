"""Runs tests marked `socketcan` where CAN is: if this kernel has none, in one guest of tests/tools/in-uml.

On the host a `GuestItem` stands for each of these tests. The first of them to run starts the guest, in which
a second pytest runs them all and writes each report to a file; each `GuestItem` waits for its own and hands
it on as if it had run here. So a failure there fails this run, with its text and its captured output.
"""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NoReturn, TextIO

import pytest

REPORTS = "HILGATE_GUEST_REPORTS"
"""Names, in the guest's environment, the file that reports go to."""
IN_UML = Path(__file__).parent / "tools" / "in-uml"
WHOLE_RUN_S = 900
TEST_S = 180
"""What one test in the guest may take; then faulthandler shows where it hangs and ends the guest's pytest."""
PATIENCE_S = TEST_S + 60
"""What is waited for one report, also for the guest to start; the faulthandler of this run waits longer."""


def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs ip(8), wherever it is."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    environment = os.environ | {"PATH": path}
    return subprocess.run(
        ["ip", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@contextlib.contextmanager
def new_vcan() -> Iterator[str]:
    """The name of a vcan interface that carries CAN FD and is up, until this is left.

    Raises:
        OSError: this kernel has no CAN, or we may not make interfaces.
    """
    name = f"vcan{secrets.token_hex(4)}"
    socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW).close()
    for command in (f"link add {name} type vcan", f"link set {name} mtu 72 txqueuelen 4096 up"):
        done = ip(*command.split())
        if done.returncode != 0:
            raise OSError(f"ip {command}: {done.stderr.strip()}")
    try:
        yield name
    finally:
        ip("link", "delete", name)  # a test may have done so already


def can_is_here() -> bool:
    """Whether this kernel has CAN, and we may make a vcan."""
    try:
        with new_vcan():
            return True
    except OSError:
        return False


class Reporter:
    """In the guest: writes every report where the host finds it."""

    def __init__(self, config: pytest.Config, path: str) -> None:
        self._config = config
        self._file: TextIO = open(path, "a", encoding="utf-8")  # noqa: SIM115  # closed in pytest_unconfigure

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._file.write(json.dumps(data, default=str) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())  # without it the guest's kernel keeps it for half a minute

    def pytest_unconfigure(self) -> None:
        self._file.close()


class Guest:
    """The one guest of this run, and what its pytest reported."""

    def __init__(self, session: pytest.Session) -> None:
        self._config = session.config
        self._waiting = [item.nodeid for item in session.items if isinstance(item, GuestItem)]
        self._folder = tempfile.TemporaryDirectory(
            prefix="guest-", dir="/tmp"
        )  # what the guest sees as we do
        folder = Path(self._folder.name)
        self._log, reports = folder / "log", folder / "reports"
        self._log.touch()
        reports.touch()
        (folder / "tests").write_text("\n".join(self._waiting))
        option = self._config.option
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--tb={option.tbstyle}"]
        command += ["-o", f"faulthandler_timeout={TEST_S}", f"@{folder / 'tests'}"]
        if option.maxfail:
            command.append(f"--maxfail={max(1, option.maxfail - session.testsfailed)}")
        if option.showlocals:
            command.append("--showlocals")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment |= {REPORTS: str(reports), "PYTHONDONTWRITEBYTECODE": "1"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", IN_UML, f"--timeout={WHOLE_RUN_S}", *command],
                cwd=self._config.rootpath,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._lines = reports.open(encoding="utf-8")
        self._rest = ""
        self._reports: dict[tuple[str, str], pytest.TestReport] = {}
        self._failed = False
        self._tail_shown = False

    def report(self, nodeid: str, when: str) -> pytest.TestReport:
        """The report on one phase of a test, waited for; the test fails here when there will be none."""
        until = time.monotonic() + PATIENCE_S
        while (found := self._reports.get((nodeid, when))) is None:
            ended = self._process.poll() is not None
            if not self._read() and ended:
                self._fail(f"the guest ended, with status {self._process.returncode}, without a report")
            if time.monotonic() > until:
                self._fail(f"no report of the guest in {PATIENCE_S} s")
            if not ended:
                time.sleep(0.02)
        if when == "teardown":
            self._waiting.remove(nodeid)
            if not self._waiting:
                self._end()
        return found

    def _read(self) -> bool:
        """Takes what has come of reports; False: nothing has."""
        *lines, self._rest = (self._rest + (text := self._lines.read())).split("\n")
        for line in lines:
            data = json.loads(line)
            for name in ("location", "longrepr"):  # tuples, before they were JSON
                if isinstance(data[name], list):
                    data[name] = tuple(data[name])
            report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
            self._reports[report.nodeid, report.when] = report
            self._failed |= report.failed
        return bool(text)

    def _end(self) -> None:
        """Waits until the guest is off; what fails only after the last test is a failure too."""
        try:
            status = self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._fail("all tests of the guest are done, and it does not end")
        if status != int(self._failed):
            self._fail(f"all tests of the guest are done, and it ended with status {status}")

    def _fail(self, text: str) -> NoReturn:
        """Fails the test at hand; the end of what the guest's pytest said is shown once."""
        if not self._tail_shown:
            self._tail_shown = True
            tail = self._log.read_text(errors="replace").splitlines()[-60:]
            text = "\n".join([f"{text}; the end of its output:", *tail])
        pytest.fail(text, pytrace=False)

    def close(self) -> None:
        """Ends the guest, whatever it does."""
        self._process.terminate()
        self._process.wait()
        self._lines.close()
        self._folder.cleanup()


class NotPassedError(Exception):
    """A phase of the test did not pass in the guest; the report from there says more."""


class GuestItem(pytest.Item):
    """Stands for a test that runs in the guest."""

    report: pytest.TestReport | None = None
    """That of the phase at hand, once it has come."""

    def __init__(self, *, stands_for: pytest.Item, plugin: "GuestPlugin", **others: Any) -> None:
        super().__init__(**others)
        self.own_markers.extend(stands_for.own_markers)
        self.keywords.update({mark.name: mark for mark in stands_for.own_markers})
        self._info = stands_for.reportinfo()
        self._plugin = plugin

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        return self._info

    def setup(self) -> None:
        self._replay("setup")

    def runtest(self) -> None:
        self._replay("call")

    def teardown(self) -> None:
        if self.report is not None:  # else the guest has gone, which was said before
            self._replay("teardown")

    def _replay(self, when: str) -> None:
        self.report = None
        self.report = self._plugin.guest(self.session).report(self.nodeid, when)
        if not self.report.passed:
            raise NotPassedError


class GuestPlugin:
    """On the host: puts `GuestItem`s in the place of tests that cannot run here."""

    def __init__(self) -> None:
        self._guest: Guest | None = None

    @pytest.hookimpl(trylast=True)  # after -k and -m
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        there = [item for item in items if item.get_closest_marker("socketcan")]
        if not there or config.option.collectonly or can_is_here():
            return
        for at, item in enumerate(items):
            if item in there:
                assert item.parent is not None
                items[at] = GuestItem.from_parent(item.parent, name=item.name, stands_for=item, plugin=self)

    def guest(self, session: pytest.Session) -> Guest:
        """The one guest of this run, started now if it is not yet."""
        if self._guest is None:
            check = subprocess.run([IN_UML, "--check"], capture_output=True, text=True, check=False)
            if check.returncode != 0:
                message = f"this kernel has no CAN, and no guest can be had: {check.stderr.strip()}"
                if os.environ.get("HILGATE_REQUIRE_PEERS") == "1":
                    pytest.fail(message, pytrace=False)
                pytest.skip(message)
            self._guest = Guest(session)
        return self._guest

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if isinstance(item, GuestItem) and item.report is not None and item.report.when == call.when:
            return item.report
        return report

    def pytest_unconfigure(self) -> None:
        if self._guest is not None:
            self._guest.close()


def register(config: pytest.Config) -> None:
    """Makes a pytest run what this module is about, on either side.

    Raises:
        pytest.UsageError: it runs in the guest, and there is no CAN.
    """
    if (path := os.environ.get(REPORTS)) is None:
        config.pluginmanager.register(GuestPlugin())
    elif can_is_here():
        config.pluginmanager.register(Reporter(config, path))
    else:
        raise pytest.UsageError("the guest has no CAN")
