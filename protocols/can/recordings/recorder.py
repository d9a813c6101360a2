"""Records a bus into files that are rotated, in a thread of its own."""

import asyncio
import contextlib
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from protocols.base import DriverError
from protocols.can.config import Record
from protocols.can.frame import Frame
from protocols.can.recordings.writers import WRITERS, Writer

WAITING_MOST: Final = 65_536
"""Frames that may wait for the disk: about a second of eight full buses of 1 Mbit/s."""
_FLUSH_S: Final = 1.0
"""How much of a recording a crash takes at most."""
_SUFFIXES: Final = "blf|asc|log|pcapng"
_LOOK_AT: Final = 512
"""Frames after which the size of the file is looked at."""

Batch = Sequence[Frame]


class Recorder:
    """One recording: from `start` to `stop`, or until the disk refuses.

    Files are called `NAME-20261122T103000.123Z-001.blf`, by the time that each was begun and its number in
    the recording. The one that is being written ends in `.part`; once it is complete it is renamed.
    """

    def __init__(
        self,
        settings: Record,
        folder: Path,
        name: str,
        *,
        failed: Callable[[str], None] = lambda reason: None,
        lost: Callable[[int, str], None] = lambda count, reason: None,
    ) -> None:
        """A recording that has not begun.

        Args:
            settings: Format, sizes and where; of its `folder` the rest of the path is `folder`.
            folder: What the settings' folder is relative to.
            name: The bus: how files begin.
            failed: Told on the loop, once, why the recording ended by itself.
            lost: Told on the loop how many frames were not recorded, and `recording`.
        """
        self._settings = settings
        self._folder = folder / settings.folder
        self._name = name
        self._failed = failed
        self._lost = lost
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._given = 0
        """Frames that were put into the queue; and taken out of it, which only the thread counts."""
        self._taken = 0
        self._ended: asyncio.Future[None] | None = None
        self._over = False
        self._files: list[Path] = []
        self._file: _File | None = None
        self._number = 0
        self.dropped = 0
        """Frames that came and were not recorded, because the disk was slower than the bus."""

    async def start(self) -> Path:
        """Begins the first file and returns how it will be called once it is complete.

        Raises:
            DriverError: `device-error`: the folder or the file cannot be made; the text says why.
        """
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        begun: asyncio.Future[Path] = loop.create_future()
        # A daemon: a disk that hangs must not keep the agent from ending.
        thread = threading.Thread(
            target=self._run, args=(loop, begun), name=f"record {self._name}", daemon=True
        )
        thread.start()
        try:
            return await begun
        except OSError as error:
            raise DriverError("device-error", f"cannot record into {self._folder}: {_why(error)}") from error

    def frames(self, batch: Batch) -> None:
        """Takes frames; returns at once. What there is no room for is counted and said, and not recorded."""
        if self._over:
            return
        if self._given - self._taken + len(batch) > WAITING_MOST:
            self.dropped += len(batch)
            self._lost(len(batch), "recording")
            return
        self._given += len(batch)
        self._batches.put(batch)

    async def stop(self) -> list[Path]:
        """Ends the recording once all that was given is written; returns its files that are there, in order.

        May be called twice, and after the recording ended by itself.
        """
        self.end()
        if self._ended is not None:
            await asyncio.shield(self._ended)
        return [path for path in self._files if path.exists()]

    def end(self) -> None:
        """Ends the recording as `stop` does, and waits for nothing."""
        self._over = True
        self._batches.put(None)

    # -- in the thread --------------------------------------------------------------------------

    def _run(self, loop: asyncio.AbstractEventLoop, begun: "asyncio.Future[Path]") -> None:
        try:
            first = self._open()
        except OSError as error:
            self._abandon()
            _tell(loop, self._refuse, begun, error)
            return
        _tell(loop, _resolve, begun, first.path)
        try:
            self._write_all()
            self._complete()
        except Exception as error:  # noqa: BLE001  # said; a thread that dies in silence would not be
            left = self._abandon()
            _tell(loop, self._break_off, f"the recording ended: {_why(error)}; {left}")
        _tell(loop, self._end)

    def _write_all(self) -> None:
        flushed = time.monotonic()
        while True:
            file = self._file
            assert file is not None
            now = time.monotonic()
            if now - flushed >= _FLUSH_S:
                file.writer.flush()
                flushed = now
            if file.frames and (file.writer.size >= self._settings.max_size or now >= file.until):
                self._complete()
                self._open()
                continue
            try:
                batch = self._batches.get(timeout=_FLUSH_S)
            except queue.Empty:
                continue
            if batch is None:
                return
            self._write(batch)
            self._taken += len(batch)

    def _write(self, batch: Batch) -> None:
        """Writes a batch, in pieces so that no file grows much over its size."""
        for begin in range(0, len(batch), _LOOK_AT):
            assert self._file is not None
            piece = batch[begin : begin + _LOOK_AT]
            # A clock that was set back: formats with a start in the file know no time before it.
            back = self._file.frames and piece[0].time_ns < self._file.first_ns
            if back or (self._file.frames and self._file.writer.size >= self._settings.max_size):
                self._complete()
                self._open()
            self._file.add(piece)

    def _open(self) -> "_File":
        self._folder.mkdir(parents=True, exist_ok=True)
        self._number += 1
        path = self._folder / self._file_name()
        self._file = _File(path, self._name, self._settings)
        self._files = [*self._files, path][-self._settings.files :]
        self._remove_old(self._file.part.name)
        return self._file

    def _file_name(self) -> str:
        seconds, rest = divmod(time.time_ns() // 1_000_000, 1000)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
        return f"{self._name}-{stamp}.{rest:03d}Z-{self._number:03d}.{self._settings.format}"

    def _complete(self) -> None:
        if self._file is not None:
            self._file.complete()
            self._file = None

    def _abandon(self) -> str:
        """Lets the file go that cannot be completed; says what is left of it."""
        if self._file is None:
            return "its files are complete"
        file, self._file = self._file, None
        file.close()
        return f"what could be written is in {file.part.name}"

    def _remove_old(self, current: str) -> None:
        """Removes this bus's oldest recordings over `files`, also those that a crash left incomplete."""
        pattern = re.compile(
            rf"{re.escape(self._name)}-(\d{{8}}T\d{{6}}\.\d{{3}}Z)-(\d{{3,}})\.({_SUFFIXES})(\.part)?"
        )
        found = [match for entry in os.scandir(self._folder) if (match := pattern.fullmatch(entry.name))]
        # The current one apart: after the clock was set back it is not the newest by its name.
        others = [match for match in found if match[0] != current]
        others.sort(key=lambda match: (match[1], int(match[2])))
        for match in others[: max(0, len(others) + 1 - self._settings.files)]:
            with contextlib.suppress(FileNotFoundError):
                (self._folder / match[0]).unlink()

    # -- on the loop, for the thread ------------------------------------------------------------

    def _refuse(self, begun: "asyncio.Future[Path]", error: OSError) -> None:
        self._end()
        if not begun.done():
            begun.set_exception(error)

    def _break_off(self, reason: str) -> None:
        self._over = True
        self._failed(reason)

    def _end(self) -> None:
        self._over = True
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


class _File:
    """A file that is being written. In the thread only."""

    def __init__(self, path: Path, channel: str, settings: Record) -> None:
        self.path = path
        self.part = path.with_name(f"{path.name}.part")
        self.frames = 0
        self.first_ns = 0
        self.until = time.monotonic() + settings.max_time
        self._file: BinaryIO = self.part.open("xb")
        try:
            self.writer: Writer = WRITERS[settings.format](self._file, channel)
            self.writer.flush()
        except BaseException:
            self.close()
            raise

    def add(self, frames: Batch) -> None:
        if not self.frames and frames:
            self.first_ns = frames[0].time_ns
        self.writer.write(frames)
        self.frames += len(frames)

    def complete(self) -> None:
        """Completes it, on the disk, under its own name.

        Raises:
            OSError: the disk refuses; it is closed all the same, and stays a `.part`.
        """
        try:
            self.writer.finish()
            os.fsync(self._file.fileno())
        finally:
            self.close()
        self.part.rename(self.path)

    def close(self) -> None:
        # Closing writes what waits, and fails again on a full disk; then it is closed all the same.
        with contextlib.suppress(OSError):
            self._file.close()


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return ": ".join(filter(None, (str(error.filename or ""), error.strerror or str(error))))
    return f"{type(error).__name__}: {error}"


def _resolve(future: "asyncio.Future[Path]", path: Path) -> None:
    if not future.done():
        future.set_result(path)


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: object) -> None:
    # The loop may have ended without waiting for us: then there is nobody to tell.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, *args)
