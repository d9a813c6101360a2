"""Carrying out a write: select and operate, or direct operate, and whether the field followed.

What may operate something is sent once. A failure says what was operated, what was not, and of what that
is not known.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from protocols.base import DriverError, Sample, Value
from protocols.dnp3.config import Dnp3Device
from protocols.dnp3.controls import MOST_CONTROLS, Control, control_of, encode, statuses
from protocols.dnp3.fragment import NotSent, Outstation, Reply
from protocols.dnp3.objects import Iin
from protocols.dnp3.point import Dnp3Point, Feedback, Mode
from protocols.dnp3.refusals import SUCCESS, refusal, status_in_words

Read = Callable[[Sequence[str]], Awaitable[Sample]]
"""The driver's read: present values of points, by name."""

_SELECT: Final = 0x03
_OPERATE: Final[dict[Mode, int]] = {"select": 0x04, "direct": 0x05, "direct-no-ack": 0x06}
_INSTEAD: Final[dict[Mode, str]] = {
    "select": "write the point with mode: direct",
    "direct": "write the point with mode: select",
    "direct-no-ack": "",
}
_LOOKS = 10
"""Times that feedback is read, at least, within its time, ..."""
_LOOK_S = 0.25
"""... and the longest time between."""
_RESOLUTION = 1e-6
"""Relative difference of numbers that is none: a float32 on the way resolves no more."""


async def write(
    device: Dnp3Device, outstation: Outstation, values: Mapping[str, Value], read: Read
) -> Sample:
    """Operates outputs in the order given, waits for their feedback, and says what they were set to.

    Neighbours of one mode and kind go into one request. The first failure ends it. What is sent with
    `direct-no-ack` counts as written.

    Raises:
        DriverError: `device-error` (refused), `timeout` or `disconnected` (the text says whether that was
            operated or is not known), or `verify-mismatch`; `written` holds what was carried out.
    """
    written: dict[str, Value] = {}
    for mode, names in _requests(device, values):
        controls = [control_of(device.points[name], values[name]) for name in names]
        try:
            refused = await carry_out(outstation, mode, controls)
        except DriverError as error:
            raise DriverError(error.code, str(error), written) from error
        written |= {name: device.points[name].meaning(values[name]) for name in names if name not in refused}
        if refused:
            text = f"{outstation.name} did not operate {_listed(refused)}"
            raise DriverError("device-error", text, written)
    await _verify([device.points[name] for name in written], written, read)
    return Sample(time.time_ns(), written)


def _requests(device: Dnp3Device, values: Mapping[str, Value]) -> Iterator[tuple[Mode, list[str]]]:
    def key(name: str) -> tuple[Mode, str]:
        point = device.points[name]
        return point.mode, point.type

    for (mode, _), run in groupby(values, key):
        names = list(run)
        for start in range(0, len(names), MOST_CONTROLS):
            yield mode, names[start : start + MOST_CONTROLS]


async def carry_out(outstation: Outstation, mode: Mode, controls: Sequence[Control]) -> Mapping[str, str]:
    """Sends one request (selected first, if so asked) and says which controls were refused, and why.

    Raises:
        DriverError: nothing of it was operated, or that is not known; the text says which.
    """
    named = ", ".join(one.name for one in controls)
    were = f"{named} {'was' if len(controls) == 1 else 'were'}"
    nothing = f"{were} not operated"
    body = encode(controls)
    if mode == "select":
        reply = await _asked(outstation, _SELECT, body, nothing, f"it was asked to select, so {nothing}")
        if refused := _refusals(controls, reply, mode):
            text = f"{outstation.name} did not select {_listed(refused)}; {nothing}"
            raise DriverError("device-error", text)
    # Right behind the select: outstations take an operate as the very next request only.
    doubt = f"whether {were} operated is not known"
    responds = mode != "direct-no-ack"
    reply = await _asked(outstation, _OPERATE[mode], body, nothing, doubt, responds=responds)
    return _refusals(controls, reply, mode, "; whether it was operated is not known") if responds else {}


async def _asked(
    outstation: Outstation, function: int, body: bytes, nothing: str, doubt: str, *, responds: bool = True
) -> Reply:
    try:
        return await outstation.ask(function, body, responds=responds)
    except NotSent as error:
        raise DriverError(error.code, f"{error}; {nothing}") from error
    except DriverError as error:
        raise DriverError(error.code, f"{error}; {doubt}") from error


def _refusals(controls: Sequence[Control], reply: Reply, mode: Mode, doubt: str = "") -> dict[str, str]:
    """Why each control that was not carried out was not; `doubt` is said where its echo does not tell."""
    indicated = refusal(reply.iin)
    if reply.iin & Iin.FUNCTION_NOT_SUPPORTED and _INSTEAD[mode]:
        indicated += f"; {_INSTEAD[mode]}"
    refused = {}
    for one, status in zip(controls, statuses(controls, reply), strict=True):
        if status is not None and status != SUCCESS:
            refused[one.name] = status_in_words(status)
        elif status is None and indicated:
            refused[one.name] = indicated
        elif status is None:
            unread = f" ({reply.problem})" if reply.problem else ""
            refused[one.name] = f"its answer is no echo of this control{unread}{doubt}"
    if indicated and not refused:  # it accepted each control, and refused the request
        return dict.fromkeys((one.name for one in controls), f"{indicated}{doubt}")
    return refused


def _listed(refused: Mapping[str, str]) -> str:
    reasons: dict[str, list[str]] = {}
    for name, why in refused.items():
        reasons.setdefault(why, []).append(name)
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())


# Feedback.


async def _verify(points: Sequence[Dnp3Point], written: Mapping[str, Value], read: Read) -> None:
    """Waits until the feedback of all points shows what was written.

    Raises:
        DriverError: `verify-mismatch`: the time of one is over; the text says what it shows instead.
    """
    waiting = {one.name: one.feedback for one in points if one.feedback is not None}
    if not waiting:
        return
    now = asyncio.get_running_loop().time
    began = now()
    period = min(_LOOK_S, *(one.within / _LOOKS for one in waiting.values()))
    while True:
        shown = await _shown(waiting, written, read)
        waiting = {name: waiting[name] for name in shown}
        if not waiting:
            return
        passed = now() - began
        if late := [name for name, one in waiting.items() if one.within <= passed]:
            texts = (f"{name}: {shown[name]} after {waiting[name].within:g} s" for name in late)
            text = f"the field did not follow: {'; '.join(texts)}"
            raise DriverError("verify-mismatch", text, written, list(waiting))
        await asyncio.sleep(min(period, *(one.within - passed for one in waiting.values())))


async def _shown(
    waiting: Mapping[str, Feedback], written: Mapping[str, Value], read: Read
) -> Mapping[str, str]:
    """What the feedback shows of the points whose written value it does not show."""
    try:
        sample = await read(list(dict.fromkeys(one.point for one in waiting.values())))
    except DriverError as error:
        return {name: f"{one.point} could not be read ({error})" for name, one in waiting.items()}
    differs = {}
    for name, feedback in waiting.items():
        shown = sample.values.get(feedback.point)
        if shown is None:
            why = sample.bad.get(feedback.point, "it did not come")
            differs[name] = f"{feedback.point} has no good value ({why})"
        elif not _follows(feedback, written[name], shown):
            differs[name] = f"{feedback.point} shows {_text(shown)}, not {_text(written[name])}"
    return differs


def _follows(feedback: Feedback, wanted: Value, shown: Value) -> bool:
    if isinstance(wanted, bool):
        return shown == (("off", "on")[wanted] if isinstance(shown, str) else wanted)
    if not isinstance(wanted, int | float) or not isinstance(shown, int | float):
        return False
    return abs(shown - wanted) <= feedback.tolerance + _RESOLUTION * abs(wanted)


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"
