"""What `call` can do on a CAN bus beside points."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from protocols.base import DriverError, Refused
from protocols.can.arguments import (
    FRAME_ARGUMENTS,
    check_names,
    flag,
    frame,
    hexadecimal,
    identifier,
    seconds,
)
from protocols.can.bus import Periodic
from protocols.can.config import Connection
from protocols.can.diagnostics.exchange import Exchange
from protocols.can.frame import BRS, FDF, OWN, Frame, format_id
from protocols.can.transmit import Sending, until_taken
from protocols.timestamps import rfc3339

LEAST_PERIOD_S = 100e-6
"""Shortest period; a frame without data takes 47 us at 1 Mbit/s."""

MOST_PERIODIC = 256
"""Periodic transmissions at once, and payloads of each in turn."""


class Caller(Exchange, Sending, Protocol):
    """What the calls need of a driver."""

    def described(self) -> Mapping[str, Any]:
        """The figures of the bus."""

    async def record(self, start: bool, form: str | None) -> Mapping[str, Any]:
        """Starts or stops a recording; says its files."""


class Calls:
    """The methods of one bus."""

    def __init__(self, connection: Connection, timeout: float, caller: Caller) -> None:
        self._connection = connection
        self._timeout = timeout
        self._caller = caller
        self._periodic: dict[str, tuple[Periodic, Mapping[str, Any], float]] = {}
        self._methods: Mapping[str, Callable[[Mapping[str, Any]], Awaitable[Any]]] = {
            "send": self._send,
            "periodic": self._change_periodic,
            "request": self._request,
            "isotp": self._isotp,
            "uds": self._uds,
            "status": self._status,
            "record": self._record,
        }

    async def carry_out(self, method: str, args: Mapping[str, Any]) -> Any:
        """Carries out one of them.

        Raises:
            Refused: unknown method or wrong arguments; nothing was sent.
            DriverError: the bus did not take it, or nobody answered.
        """
        call = self._methods.get(method)
        if call is None:
            raise Refused("unknown-op", f"a CAN bus has no method {method!r:.40}")
        return await call(args)

    def stop(self) -> None:
        """Stops everything periodic."""
        for running, *_ in self._periodic.values():
            running.stop()
        self._periodic.clear()

    async def _send(self, args: Mapping[str, Any]) -> Any:
        check_names("send", args, *FRAME_ARGUMENTS, "timeout")
        timeout = seconds(args, "timeout", self._timeout)
        return _described(await self._caller.send(frame(args, self._connection), timeout))

    async def _request(self, args: Mapping[str, Any]) -> Any:
        check_names("request", args, *FRAME_ARGUMENTS, "answer_id", "answer_data", "timeout")
        question = frame(args, self._connection)
        # `extended` is said of the question only.
        answer_id = identifier({name: args[name] for name in args if name != "extended"}, "answer_id")
        begins = hexadecimal(args, "answer_data", "")
        timeout = seconds(args, "timeout", self._timeout)

        def answers(candidate: Frame) -> bool:
            return not candidate.flags & OWN and candidate.data.startswith(begins)

        # It watches before it asks: the answer may come right behind the question.
        answer = asyncio.create_task(self._caller.next_frame(answer_id, answers))
        end = asyncio.get_running_loop().time() + timeout
        try:
            await asyncio.sleep(0)
            # That nobody took the question is another thing than that nobody answered it.
            await self._caller.send(question, timeout)
            async with asyncio.timeout_at(end):
                return _described(await answer)
        except TimeoutError as error:
            text = f"no frame {format_id(answer_id)} answered within {timeout:g} s"
            raise DriverError("timeout", text) from error
        finally:
            answer.cancel()
            if answer.done() and not answer.cancelled():
                answer.exception()  # where both failed, the question's failure is said

    async def _change_periodic(self, args: Mapping[str, Any]) -> Any:
        actions = [name for name in ("start", "update", "stop", "list") if name in args]
        if len(actions) != 1:
            raise Refused(
                "malformed", "periodic takes one of start, update, stop (each a name) or list: true"
            )
        action = actions[0]
        if action == "list":
            check_names("periodic", args, "list")
        else:
            name = args[action]
            if not isinstance(name, str) or not 1 <= len(name) <= 63:
                raise Refused(
                    "malformed", f"{action} takes the name of the transmission, up to 63 characters"
                )
            if action == "start":
                await self._start(name, args)
            elif name not in self._periodic:
                running = ", ".join(self._periodic) or "none"
                raise Refused("out-of-range", f"nothing periodic is called {name!r}; running: {running}")
            elif action == "update":
                self._update(name, args)
            else:
                check_names("periodic", args, "stop")
                self._periodic.pop(name)[0].stop()
        return {"running": {name: about for name, (_, about, _) in self._periodic.items()}}

    async def _start(self, name: str, args: Mapping[str, Any]) -> None:
        check_names("periodic", args, "start", *FRAME_ARGUMENTS, "period")
        if len(self._periodic) >= MOST_PERIODIC:
            raise Refused("busy", f"{MOST_PERIODIC} transmissions run already")
        period = seconds(args, "period", most=3600.0)
        if period < LEAST_PERIOD_S:
            raise Refused(
                "out-of-range", f"period is at least {LEAST_PERIOD_S * 1e6:g}us: no frame is shorter"
            )
        frames = self._frames(args)

        def go() -> None:
            if name in self._periodic:
                raise Refused("busy", f"{name!r} runs already; update or stop it")
            self._periodic[name] = self._caller.periodic(frames, period), _said(frames, period), period

        try:
            await until_taken(self._caller, frames, go, self._timeout)
        except DriverError:
            if name in self._periodic:
                self._periodic.pop(name)[0].stop()
            raise

    def _update(self, name: str, args: Mapping[str, Any]) -> None:
        check_names("periodic", args, "update", "data")
        running, about, period = self._periodic[name]
        before = {key: about[key] for key in ("id", "extended", "fd", "brs") if key in about}
        frames = self._frames({**before, "data": args.get("data")})
        if len(frames) != len(about["data"]):
            text = f"{name!r} sends {len(about['data'])} payloads in turn; give as many"
            raise Refused("malformed", text)
        running.update(frames)
        self._periodic[name] = running, _said(frames, period), period

    def _frames(self, args: Mapping[str, Any]) -> list[Frame]:
        given = args.get("data", "")
        payloads = given if isinstance(given, list) else [given]
        if not 1 <= len(payloads) <= MOST_PERIODIC:
            raise Refused("malformed", f"data is one payload, or a list of up to {MOST_PERIODIC}")
        return [frame({**args, "data": payload}, self._connection) for payload in payloads]

    async def _isotp(self, args: Mapping[str, Any]) -> Any:
        from protocols.can.diagnostics.isotp import carry_out

        return await carry_out(args, self._caller, self._connection)

    async def _uds(self, args: Mapping[str, Any]) -> Any:
        from protocols.can.diagnostics.uds import carry_out

        return await carry_out(args, self._caller, self._connection)

    async def _status(self, args: Mapping[str, Any]) -> Any:
        check_names("status", args)
        return self._caller.described()

    async def _record(self, args: Mapping[str, Any]) -> Any:
        check_names("record", args, "start", "stop", "format")
        start, stop = flag(args, "start"), flag(args, "stop")
        if start is stop:
            raise Refused("malformed", "record takes start: true or stop: true")
        form = args.get("format")
        if form is not None and (stop or form not in ("blf", "asc", "log", "pcapng")):
            raise Refused("malformed", "format is blf, asc, log or pcapng, and goes with start")
        return await self._caller.record(start, form)


def _described(sent: Frame) -> dict[str, Any]:
    return {"id": format_id(sent.can_id), "data": sent.data.hex(), "time": rfc3339(sent.time_ns)}


def _said(frames: Sequence[Frame], period: float) -> dict[str, Any]:
    first = frames[0]
    return {
        "id": format_id(first.can_id),
        "fd": bool(first.flags & FDF),
        "brs": bool(first.flags & BRS),
        "data": [one.data.hex() for one in frames],
        "period_s": period,
    }
