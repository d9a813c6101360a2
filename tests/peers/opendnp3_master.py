"""A master by opendnp3, as a program: told what to ask for by JSON lines, and telling every value it hears.

Started with one argument, its options as JSON: `line` (see opendnp3_lines.channel), `timeout_ms`,
`time_sync` (none, lan, non-lan), `keep_alive_ms`, and the two link addresses. It does what a master of
opendnp3 does at the start: no unsolicited, integrity poll, then unsolicited of all classes.
"""

import json
import queue
import sys
import time
from collections.abc import Callable
from typing import Any

import opendnp3
from opendnp3_lines import Listener, channel, guarded, say, serve

_PATIENCE_S = 30.0
_SYNC = {
    "none": opendnp3.TimeSyncMode.__members__["None"],
    "lan": opendnp3.TimeSyncMode.LAN,
    "non-lan": opendnp3.TimeSyncMode.NonLAN,
}
_ANALOG = {
    "int16": opendnp3.AnalogOutputInt16,
    "int32": opendnp3.AnalogOutputInt32,
    "float32": opendnp3.AnalogOutputFloat32,
    "float64": opendnp3.AnalogOutputDouble64,
}


class Measurements(opendnp3.ISOEHandler):  # type: ignore[misc]  # it has no types
    """Tells what came: group, variation, and for each object index, value, flags, time and its quality."""

    def __init__(self) -> None:
        super().__init__()
        self._unsolicited = False

    @guarded()
    def BeginFragment(self, info: Any) -> None:
        self._unsolicited = info.unsolicited

    @guarded()
    def EndFragment(self, info: Any) -> None:
        pass

    @guarded()
    def Process(self, info: Any, values: Any) -> None:
        group, _, variation = info.gv.name.removeprefix("Group").partition("Var")
        say(
            "values",
            group=int(group),
            variation=int(variation),
            unsolicited=self._unsolicited,
            values=[_told(one.index, one.value) for one in values],
        )

    @guarded()
    def OnDeviceAttribute(self, info: Any, which: int, variation: int, value: Any) -> None:
        pass


def _told(index: int, one: Any) -> list[Any]:
    if isinstance(one, opendnp3.OctetString):
        return [index, one.ToBytes().hex(), None, 0, "INVALID"]
    if isinstance(one, opendnp3.BinaryCommandEvent | opendnp3.AnalogCommandEvent):
        return [index, one.value, one.status.value, one.time.value, one.time.quality.name]
    raw = one.value.value if isinstance(one, opendnp3.DoubleBitBinary) else one.value
    return [index, raw, one.flags.value, one.time.value, one.time.quality.name]


class Application(opendnp3.IMasterApplication):  # type: ignore[misc]  # it has no types
    """Tells indications and the tasks of the start; what was asked for ends in `finished`."""

    def __init__(self, finished: "queue.Queue[str]") -> None:
        super().__init__()
        self._finished = finished

    @guarded()
    def OnReceiveIIN(self, iin: Any) -> None:
        say("iin", bits=iin.LSB | iin.MSB << 8)

    @guarded()
    def OnTaskStart(self, kind: Any, number: Any) -> None:
        pass

    @guarded()
    def OnTaskComplete(self, info: Any) -> None:
        say("task", type=info.type.name, result=info.result.name)
        if info.type == opendnp3.MasterTaskType.USER_TASK:
            self._finished.put(info.result.name)

    @guarded()
    def OnOpen(self) -> None:
        say("open")

    @guarded()
    def OnClose(self) -> None:
        say("close")

    @guarded(lambda: False)
    def AssignClassDuringStartup(self) -> bool:
        return False

    @guarded(lambda: opendnp3.UTCTimestamp(0))
    def Now(self) -> Any:
        return opendnp3.UTCTimestamp(time.time_ns() // 1_000_000)


def configured(options: dict[str, Any]) -> Any:
    config = opendnp3.MasterStackConfig()
    config.master.disableUnsolOnStartup = True
    config.master.timeSyncMode = _SYNC[options.get("time_sync", "none")]
    config.master.responseTimeout = opendnp3.TimeDuration.Milliseconds(options.get("timeout_ms", 5000))
    config.link.LocalAddr = options.get("master", 1)
    config.link.RemoteAddr = options.get("outstation", 10)
    if "keep_alive_ms" in options:
        config.link.KeepAliveTimeout = opendnp3.TimeDuration.Milliseconds(options["keep_alive_ms"])
    return config


class Asking:
    """What can be asked for. One at a time: what opendnp3 tells of a finished task has no name in it."""

    def __init__(self, master: Any, measurements: Measurements, finished: "queue.Queue[str]") -> None:
        self._master = master
        self._measurements = measurements
        self._finished = finished
        self._scans: list[Any] = []

    def _done(self, start: Callable[[], None]) -> str:
        while not self._finished.empty():
            self._finished.get_nowait()
        start()
        return self._finished.get(timeout=_PATIENCE_S)

    def classes(self, classes: list[int]) -> str:
        """Reads classes, also 0."""
        field = opendnp3.ClassField(*(one in classes for one in range(4)))
        return self._done(lambda: self._master.ScanClasses(field, self._measurements))

    def scan(self, classes: list[int], period_ms: int) -> None:
        """Reads classes again and again."""
        field = opendnp3.ClassField(*(one in classes for one in range(4)))
        period = opendnp3.TimeDuration.Milliseconds(period_ms)
        self._scans.append(self._master.AddClassScan(field, period, self._measurements))

    def span(self, group: int, variation: int, start: int, stop: int) -> str:
        """Reads a range of indices."""
        wanted = opendnp3.GroupVariationID(group, variation)
        return self._done(lambda: self._master.ScanRange(wanted, start, stop, self._measurements))

    def every(self, group: int, variation: int) -> str:
        """Reads all objects of a group."""
        wanted = opendnp3.GroupVariationID(group, variation)
        return self._done(lambda: self._master.ScanAllObjects(wanted, self._measurements))

    def perform(self, function: str, headers: list[str]) -> str:
        """Any function with object headers and objects as they are, in hex; its response has no objects."""
        code = getattr(opendnp3.FunctionCode, function)
        raw = [opendnp3.Header.Raw(bytes.fromhex(one)) for one in headers]
        return self._done(lambda: self._master.PerformFunction(function, code, raw))

    def freeze(self, start: int, stop: int, clear: bool) -> str:
        """Freezes counters."""
        kind = opendnp3.FreezeType.FreezeAndClear if clear else opendnp3.FreezeType.ImmediateFreeze
        return self._done(lambda: self._master.Freeze(kind, [opendnp3.Header.Range8(20, 0, start, stop)]))

    def restart(self, kind: str) -> dict[str, Any]:
        """Restarts the outstation, `cold` or `warm`; the time that it says it takes."""
        answers: queue.Queue[dict[str, Any]] = queue.Queue()

        def told(result: Any) -> None:
            answers.put({"summary": result.summary.name, "ms": _milliseconds(result.restartTime)})

        self._master.Restart(getattr(opendnp3.RestartType, kind.upper()), guarded()(told))
        return answers.get(timeout=_PATIENCE_S)

    def crob(self, index: int, select: bool, **fields: Any) -> dict[str, Any]:
        """A control: `code`, `tcc`, `count`, `on_ms`, `off_ms`, `clear`."""
        block = opendnp3.ControlRelayOutputBlock(
            getattr(opendnp3.OperationType, fields.get("code", "LATCH_ON")),
            getattr(opendnp3.TripCloseCode, fields.get("tcc", "NUL")),
            fields.get("clear", False),
            fields.get("count", 1),
            fields.get("on_ms", 100),
            fields.get("off_ms", 100),
        )
        return self._command(block, index, select)

    def analog(self, index: int, select: bool, output: str, value: float) -> dict[str, Any]:
        """An analog output, as `output` carries it."""
        return self._command(_ANALOG[output](value), index, select)

    def _command(self, command: Any, index: int, select: bool) -> dict[str, Any]:
        answers: queue.Queue[dict[str, Any]] = queue.Queue()

        def told(result: Any) -> None:  # what it is given lives no longer than the call
            points = [[one.index, one.state.name, one.status.name] for one in result.to_list()]
            answers.put({"summary": result.summary.name, "points": points})

        operate = self._master.SelectAndOperate if select else self._master.DirectOperate
        operate(command, index, guarded()(told))
        return answers.get(timeout=_PATIENCE_S)

    def link_status(self) -> str:
        """Asks for the link's status."""
        answers: queue.Queue[str] = queue.Queue()
        self._master.CheckLinkStatus(guarded()(lambda answer: answers.put(str(answer))))
        return answers.get(timeout=_PATIENCE_S)


def _milliseconds(duration: Any) -> int:
    return int(str(duration).removesuffix("ms"))


def main() -> None:
    options = json.loads(sys.argv[1])
    manager, listener, finished = opendnp3.DNP3Manager(1), Listener(), queue.Queue[str]()
    measurements, application = Measurements(), Application(finished)
    line = channel(manager, options["line"], listener, outstation=False)
    master = line.AddMaster("master", measurements, application, configured(options))
    asking = Asking(master, measurements, finished)
    names = (
        "classes",
        "scan",
        "span",
        "every",
        "perform",
        "freeze",
        "restart",
        "crob",
        "analog",
        "link_status",
    )
    serve(
        {
            **{name: getattr(asking, name) for name in names},
            "enable": master.Enable,
            "disable": master.Disable,
        }
    )
    manager.Shutdown()


if __name__ == "__main__":
    main()
