"""The recording of one bus: begun and ended by command, or always."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from protocols.base import Refused
from protocols.can.config import CanDevice
from protocols.can.frame import Frame
from protocols.can.recordings.recorder import Recorder


class Recording:
    """At most one recorder at a time. `trouble` says why the last recording ended by itself, if it did."""

    def __init__(
        self, device: CanDevice, changed: Callable[[], None], lost: Callable[[int, str], None]
    ) -> None:
        """`changed` is called when a recording begins, ends or fails; `lost` as by the recorder."""
        self._device = device
        self._changed = changed
        self._lost = lost
        self._recorder: Recorder | None = None
        self._file = ""
        self.trouble = ""

    @property
    def active(self) -> bool:
        """Whether frames are recorded."""
        return self._recorder is not None

    def frames(self, batch: Sequence[Frame]) -> None:
        """Takes frames, if they are recorded."""
        if self._recorder is not None:
            self._recorder.frames(batch)

    async def start(self, form: str | None = None) -> Mapping[str, Any]:
        """Begins a recording; says its first file.

        Raises:
            Refused: `busy`, one runs.
            DriverError: the file cannot be made.
        """
        if self._recorder is not None:
            raise Refused("busy", f"a recording runs already: {self._file}")
        settings = self._device.record
        if form is not None:
            settings = settings.model_copy(update={"format": form})
        recorder = Recorder(
            settings, self._device.folder, self._device.name, failed=self._fail, lost=self._lost
        )
        # From here on it is the one that runs, so that nobody begins another and `stop` ends it.
        self._recorder, self._file = recorder, "it is being begun"
        try:
            self._file = str(await recorder.start())
        except BaseException:
            recorder.end()
            if self._recorder is recorder:
                self._recorder = None
            raise
        self.trouble = ""
        self._changed()
        return {"file": self._file}

    async def stop(self) -> Mapping[str, Any]:
        """Ends the recording; says its files.

        Raises:
            Refused: `wrong-mode`, none runs.
        """
        if self._recorder is None:
            raise Refused("wrong-mode", self.trouble or "no recording runs")
        recorder, self._recorder = self._recorder, None
        self._changed()
        files = [str(path) for path in await recorder.stop()]
        return {"file": files[0] if files else None, "files": files, "dropped": recorder.dropped}

    async def close(self) -> None:
        """Ends what runs, with the bus; whoever began it is told by `trouble` once the bus is back."""
        if self._recorder is not None:
            file = self._file
            await self.stop()
            self.trouble = f"the recording {file} ended with the bus; begin another one"

    def _fail(self, reason: str) -> None:
        self._recorder, self.trouble = None, reason
        self._changed()
