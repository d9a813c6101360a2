"""The loop's end of the way to the keeper's thread."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from agent.store.records import Records
from agent.store.unit import Operation, Question, Report, Unit

T = TypeVar("T")


class Handover:
    """Gathers what one turn of the loop gives, and hands it to the thread as one unit.

    Without a running loop everything goes at once, and reports wait until there is one.
    """

    def __init__(self, give: Callable[[Unit], None], report: Callable[[Report], None]) -> None:
        self._give = give
        self._report = report
        self.unit = Unit()
        """What is gathered now; say `changed` after adding to it."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self._depth = 0
        self._reports: deque[Report] = deque()

    def changed(self) -> None:
        """Sees to it that the unit is handed over."""
        if self._scheduled or self._depth:
            return
        if self.attach():
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.hand_over)
        else:
            self.hand_over()

    def operate(self, operation: Operation) -> None:
        """Adds an operation."""
        self.unit.operations.append(operation)
        self.changed()

    async def ask(self, read: Callable[[Records], T]) -> T:
        """What an operation finds, once all that was given before is stored."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.operate(Question(read, answer))
        self.hand_over()
        return await answer

    def hand_over(self) -> None:
        """Gives the unit to the thread now."""
        self._scheduled = False
        if self._depth == 0:
            unit, self.unit = self.unit, Unit()
            self._give(unit)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Keeps everything inside in one unit."""
        if self._depth == 0 and self._scheduled:
            self.hand_over()
        self._depth += 1
        self.unit.together = True
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.attach()
                self.hand_over()

    # -- reports --------------------------------------------------------------------------------

    def attach(self) -> bool:
        """Takes reports on the running loop from now on; false if none runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if loop is not self._loop:
            self._loop = loop
            loop.call_soon(self.take_reports)
        return True

    def deliver(self, report: Report) -> None:
        """Called in the thread: passes a report to the loop."""
        self._reports.append(report)
        # A closed loop takes none; they wait for another one, or for close().
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self.take_reports)

    def take_reports(self) -> None:
        """Takes the reports that came."""
        while self._reports:
            report = self._reports.popleft()
            self._report(report)
            for answer in report.answers:
                answer()
