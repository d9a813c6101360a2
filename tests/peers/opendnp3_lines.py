"""What the two opendnp3 programs share: JSON lines in and out, channels, and callbacks that never raise."""

import functools
import json
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import opendnp3

_OUT = threading.Lock()


def say(event: str, **fields: Any) -> None:
    """One line to whoever started the program; callbacks come from threads of opendnp3."""
    with _OUT:
        print(json.dumps({"event": event, **fields}), flush=True)


def guarded(fallback: Callable[[], Any] = lambda: None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A callback whose exception becomes a line `fault`: one that left it would abort the process."""

    def wrap(callback: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(callback)
        def never_raising(*args: Any) -> Any:
            try:
                return callback(*args)
            except Exception as error:  # noqa: BLE001  # told to the test
                say("fault", of=callback.__name__, error=repr(error))
                return fallback()

        return never_raising

    return wrap


class Listener(opendnp3.IChannelListener):  # type: ignore[misc]  # it has no types
    """Tells each state of a channel."""

    @guarded()
    def OnStateChange(self, state: Any) -> None:
        say("channel", state=state.name.lower())


def channel(manager: Any, options: Mapping[str, Any], listener: Any, *, outstation: bool) -> Any:
    """The channel that `options` describe: `transport`, `role`, `host` and `port`, or a serial `port`."""
    retry = opendnp3.ChannelRetry(
        opendnp3.TimeDuration.Milliseconds(200), opendnp3.TimeDuration.Milliseconds(500)
    )
    quiet = opendnp3.levels.NOTHING
    if options["transport"] == "serial":
        settings = opendnp3.SerialSettings()
        settings.deviceName = options["port"]
        settings.baud = options.get("baudrate", 115200)
        return manager.AddSerial("line", quiet, retry, settings, listener)
    end = opendnp3.IPEndpoint(options["host"], options["port"])
    only_one = opendnp3.ServerAcceptMode.CloseExisting
    if options["transport"] == "tls":
        tls = opendnp3.TLSConfig(options["ca"], options["cert"], options["key"])
        if options["role"] == "listen":
            return manager.AddTLSServer("line", quiet, only_one, end, tls, listener)
        return manager.AddTLSClient("line", quiet, retry, [end], "127.0.0.1", tls, listener)
    if options["role"] == "listen":
        return manager.AddTCPServer("line", quiet, only_one, end, listener)
    add = manager.AddOutstationTCPClient if outstation else manager.AddTCPClient
    return add("line", quiet, retry, [end], "127.0.0.1", listener)


def serve(actions: Mapping[str, Callable[..., Any]]) -> None:
    """Carries out what comes on standard input, one line after the other, until it ends."""
    for line in sys.stdin:
        request = json.loads(line)
        number, action = request.pop("id"), request.pop("do")
        try:
            say("done", id=number, result=actions[action](**request))
        except Exception as error:  # noqa: BLE001  # told to the test
            say("done", id=number, error=repr(error))
