"""An outstation by opendnp3, as a program: told what to do by JSON lines, and telling what was done to it.

Started with one argument, its options as JSON: `line` (see opendnp3_lines.channel), `points` of each kind,
`kinds` (those it has; default all), `events` its buffers hold of each kind, `unsolicited`, `select_ms`,
`confirm_ms`, the two link addresses, and the addresses of `others` on the line that are like it.
"""

import json
import sys
import time
from typing import Any

import opendnp3
from opendnp3_lines import Listener, channel, guarded, say, serve

_TABLES = {
    "binary_input": "binary_input",
    "double_bit_input": "double_binary",
    "binary_output": "binary_output_status",
    "counter": "counter",
    "frozen_counter": "frozen_counter",
    "analog_input": "analog_input",
    "analog_output": "analog_output_status",
    "octet_string": "octet_string",
}
_MEASUREMENTS = {
    "binary_input": opendnp3.Binary,
    "double_bit_input": opendnp3.DoubleBitBinary,
    "binary_output": opendnp3.BinaryOutputStatus,
    "counter": opendnp3.Counter,
    "analog_input": opendnp3.Analog,
    "analog_output": opendnp3.AnalogOutputStatus,
}
_BUFFERS = (
    *("maxBinaryEvents", "maxDoubleBinaryEvents", "maxAnalogEvents", "maxCounterEvents"),
    *("maxFrozenCounterEvents", "maxBinaryOutputStatusEvents", "maxAnalogOutputStatusEvents"),
    "maxOctetStringEvents",
)
_STATE = {"binary_input": 7, "binary_output": 7, "double_bit_input": 6}
"""From which bit on the flags hold the state."""
_ON = ("LATCH_ON", "PULSE_ON")


class State:
    """What the callbacks answer with; the main thread changes it."""

    def __init__(self) -> None:
        self.select = self.operate = "SUCCESS"
        self.indications: dict[str, bool] = {}
        self.restart_s = 7
        self.follow = True


class Commands(opendnp3.ICommandHandler):  # type: ignore[misc]  # it has no types
    """Tells each select and operate, and lets the status point follow an operate that succeeded."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self._state = state

    @guarded()
    def Begin(self) -> None:
        pass

    @guarded()
    def End(self) -> None:
        pass

    @guarded(lambda: opendnp3.CommandStatus.UNDEFINED)
    def Select(self, command: Any, index: int) -> Any:
        say("select", index=index, **_told(command))
        return getattr(opendnp3.CommandStatus, self._state.select)

    @guarded(lambda: opendnp3.CommandStatus.UNDEFINED)
    def Operate(self, command: Any, index: int, handler: Any, how: Any) -> Any:
        told = _told(command)
        say("operate", index=index, how=how.name, **told)
        if self._state.operate == "SUCCESS" and self._state.follow:
            if isinstance(command, opendnp3.ControlRelayOutputBlock):
                on = told["code"] in _ON and told["tcc"] != "TRIP"
                handler.Update(opendnp3.BinaryOutputStatus(on), index, opendnp3.EventMode.Detect)
            else:
                handler.Update(opendnp3.AnalogOutputStatus(command.value), index, opendnp3.EventMode.Detect)
        return getattr(opendnp3.CommandStatus, self._state.operate)


def _told(command: Any) -> dict[str, Any]:
    if not isinstance(command, opendnp3.ControlRelayOutputBlock):
        return {"type": type(command).__name__.removeprefix("AnalogOutput"), "value": command.value}
    return {
        "type": "CROB",
        "code": command.opType.name,
        "tcc": command.tcc.name,
        "clear": command.clear,
        "count": command.count,
        "on_ms": command.onTimeMS,
        "off_ms": command.offTimeMS,
    }


class Application(opendnp3.IOutstationApplication):  # type: ignore[misc]  # it has no types
    """Tells times it is set to, restarts, classes and confirmations; `State` says what it answers."""

    def __init__(self, state: State) -> None:
        super().__init__()
        self._state = state

    @guarded(lambda: False)
    def SupportsWriteAbsoluteTime(self) -> bool:
        return True

    @guarded(lambda: False)
    def WriteAbsoluteTime(self, timestamp: Any) -> bool:
        say("time", ms=timestamp.msSinceEpoch)
        self._state.indications.pop("needTime", None)
        return True

    @guarded(lambda: False)
    def SupportsAssignClass(self) -> bool:
        return True

    @guarded()
    def RecordClassAssignment(self, kind: Any, event_class: Any, start: int, stop: int) -> None:
        say("class", type=kind.name, event_class=int(event_class.name[-1]), start=start, stop=stop)

    @guarded(opendnp3.ApplicationIIN)
    def GetApplicationIIN(self) -> Any:
        indications = opendnp3.ApplicationIIN()
        for name, on in list(self._state.indications.items()):
            setattr(indications, name, on)
        return indications

    @guarded(lambda: opendnp3.RestartMode.UNSUPPORTED)
    def ColdRestartSupport(self) -> Any:
        return opendnp3.RestartMode.SUPPORTED_DELAY_COARSE

    @guarded(lambda: opendnp3.RestartMode.UNSUPPORTED)
    def WarmRestartSupport(self) -> Any:
        return opendnp3.RestartMode.SUPPORTED_DELAY_FINE

    @guarded(lambda: 0)
    def ColdRestart(self) -> int:
        say("restart", kind="cold")
        return self._state.restart_s

    @guarded(lambda: 0)
    def WarmRestart(self) -> int:
        say("restart", kind="warm")
        return self._state.restart_s

    @guarded()
    def OnConfirmProcessed(self, unsolicited: bool, one: int, two: int, three: int) -> None:
        say("confirmed", unsolicited=unsolicited, left=[one, two, three])

    @guarded(lambda: opendnp3.DNPTime(0))
    def Now(self) -> Any:
        return opendnp3.DNPTime(time.time_ns() // 1_000_000)


def configured(options: dict[str, Any], address: int) -> Any:
    """The configuration of a stack; classes and variations of points are opendnp3's own."""
    database = opendnp3.DatabaseConfig(options.get("points", 4))
    kinds = options.get("kinds", list(_TABLES))
    for kind, table in {**_TABLES, "": "time_and_interval"}.items():
        if kind not in kinds:
            setattr(database, table, {})
    config = opendnp3.OutstationStackConfig(database)
    for name in _BUFFERS:
        setattr(config.outstation.eventBufferConfig, name, options.get("events", 100))
    parameters = config.outstation.params
    parameters.allowUnsolicited = options.get("unsolicited", True)
    parameters.selectTimeout = opendnp3.TimeDuration.Milliseconds(options.get("select_ms", 10_000))
    confirm = opendnp3.TimeDuration.Milliseconds(options.get("confirm_ms", 5_000))
    parameters.solConfirmTimeout = parameters.unsolConfirmTimeout = confirm
    config.link.LocalAddr = address
    config.link.RemoteAddr = options.get("master", 1)
    return config


def main() -> None:
    options = json.loads(sys.argv[1])
    state = State()
    manager, listener = opendnp3.DNP3Manager(1), Listener()
    commands, application = Commands(state), Application(state)
    line = channel(manager, options["line"], listener, outstation=True)
    first = options.get("outstation", 10)
    outstations = {
        address: line.AddOutstation(str(address), commands, application, configured(options, address))
        for address in (first, *options.get("others", ()))
    }
    outstation = outstations[first]

    def update(points: list[list[Any]], address: int = first) -> None:
        """Each point: kind, index, value, flags (or null), time in ms (or null)."""
        builder = opendnp3.UpdateBuilder()
        for kind, index, raw, flags, stamp in points:
            value = opendnp3.DoubleBit(raw) if kind == "double_bit_input" else raw
            measurement = _MEASUREMENTS[kind](value)
            if flags is not None:
                measurement.flags = opendnp3.Flags(
                    flags | int(raw) << _STATE[kind] if kind in _STATE else flags
                )
            if stamp is not None:
                measurement.time = opendnp3.DNPTime(stamp)
            builder.Update(measurement, index, opendnp3.EventMode.Detect)
        outstations[address].Apply(builder.Build())

    def enable(address: int = first) -> bool:
        return bool(outstations[address].Enable())

    def disable(address: int = first) -> bool:
        return bool(outstations[address].Disable())

    def freeze(index: int, clear: bool) -> None:
        builder = opendnp3.UpdateBuilder()
        builder.FreezeCounter(index, clear, opendnp3.EventMode.Detect)
        outstation.Apply(builder.Build())

    def answer(select: str = "SUCCESS", operate: str = "SUCCESS", follow: bool = True) -> None:
        state.select, state.operate, state.follow = select, operate, follow

    def indicate(**indications: bool) -> None:
        state.indications.update(indications)

    serve(
        {
            "update": update,
            "freeze": freeze,
            "answer": answer,
            "indicate": indicate,
            "restarted": outstation.SetRestartIIN,
            "enable": enable,
            "disable": disable,
        }
    )
    manager.Shutdown()


if __name__ == "__main__":
    main()
