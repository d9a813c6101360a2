"""The diagnostic services that `call uds` has: their arguments, and what their answers mean. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from udsoncan import DidCodec, Request, Response
from udsoncan.exceptions import ConfigError, InvalidResponseException
from udsoncan.services import (
    ClearDiagnosticInformation,
    DiagnosticSessionControl,
    ECUReset,
    ReadDataByIdentifier,
    ReadDTCInformation,
    RoutineControl,
    SecurityAccess,
    TesterPresent,
    WriteDataByIdentifier,
)

from protocols.base import Refused
from protocols.can.arguments import flag, hexadecimal
from protocols.can.diagnostics.isotp import MESSAGE_MOST, number


class Asked(NamedTuple):
    """A request, and what to make of the positive answer to it."""

    payload: bytes
    understand: Callable[[bytes], Mapping[str, Any]]
    """Raises ValueError where the answer does not fit the request."""
    silent: bool = False
    """No positive answer is wanted."""


class Service(NamedTuple):
    """A service, and the arguments that it has beside those of the link."""

    arguments: Sequence[str]
    ask: Callable[[Mapping[str, Any]], Asked]
    """Raises Refused."""


class _Raw(DidCodec):
    """A data identifier's content as it is: all that is left of the answer."""

    def encode(self, *values: Any, **named: Any) -> bytes:
        return bytes(values[0])

    def decode(self, did_payload: bytes) -> bytes:
        return did_payload

    def __len__(self) -> int:
        raise DidCodec.ReadAllRemainingData


_SESSIONS = {"default": 1, "programming": 2, "extended": 3, "safety": 4}
_RESETS = {"hard": 1, "key-off-on": 2, "soft": 3, "enable-rapid-shutdown": 4, "disable-rapid-shutdown": 5}
_ROUTINE = {"start": 1, "stop": 2, "results": 3}
_REPORTS = {"count": 1, "by-status": 2, "supported": 10}


def _word(args: Mapping[str, Any], name: str, words: Mapping[str, int], default: str | None = None) -> int:
    """A sub-function, by its word or its number."""
    value = args.get(name, default)
    if isinstance(value, str) and value in words:
        return words[value]
    try:
        return number({name: value}, name, 0, 0x7F)
    except Refused:
        known = ", ".join(words)
        raise Refused("malformed", f"{name} is one of {known}, or a number up to 0x7f") from None


def _understood(request: Request, interpret: Callable[[Response], Any]) -> Callable[[bytes], Any]:
    """Makes udsoncan's reading of an answer; what it cannot read is a ValueError."""

    def understand(payload: bytes) -> Any:
        response = Response.from_payload(payload)
        if not response.valid:
            raise ValueError(response.invalid_reason)
        try:
            return interpret(response).service_data
        except (InvalidResponseException, ConfigError) as error:
            raise ValueError(str(error)) from error

    return understand


def _same(what: str, answered: int, asked: int) -> None:
    if answered != asked:
        raise ValueError(f"it is about {what} 0x{answered:X}, asked was 0x{asked:X}")


def _read_data(args: Mapping[str, Any]) -> Asked:
    did = number(args, "did", 0, 0xFFFF)
    codecs: dict[int | str, str | DidCodec | type[DidCodec]] = {did: _Raw()}
    request = ReadDataByIdentifier.make_request([did], codecs)

    def interpret(response: Response) -> Any:
        return ReadDataByIdentifier.interpret_response(response, [did], codecs, tolerate_zero_padding=False)

    understood = _understood(request, interpret)

    def understand(payload: bytes) -> Mapping[str, Any]:
        values = understood(payload).values
        if list(values) != [did]:
            raise ValueError(f"it holds no data of 0x{did:04X}")
        data: bytes = values[did]
        text = {"text": data.decode("ascii")} if data.isascii() and data.decode("ascii").isprintable() else {}
        return {"did": f"0x{did:04X}", "data": data.hex(), **text}

    return Asked(request.get_payload(), understand)


def _write_data(args: Mapping[str, Any]) -> Asked:
    did, data = number(args, "did", 0, 0xFFFF), _data(args)
    request = WriteDataByIdentifier.make_request(did, data, {did: _Raw()})
    understood = _understood(request, WriteDataByIdentifier.interpret_response)

    def understand(payload: bytes) -> Mapping[str, Any]:
        _same("identifier", understood(payload).did_echo, did)
        return {"did": f"0x{did:04X}"}

    return Asked(request.get_payload(), understand)


def _session(args: Mapping[str, Any]) -> Asked:
    session = _word(args, "session", _SESSIONS)
    request = DiagnosticSessionControl.make_request(session)
    understood = _understood(request, DiagnosticSessionControl.interpret_response)

    def understand(payload: bytes) -> Mapping[str, Any]:
        said = understood(payload)
        _same("session", said.session_echo, session)
        return {"session": session, "p2_s": said.p2_server_max, "p2_star_s": said.p2_star_server_max}

    return Asked(request.get_payload(), understand)


def _tester_present(args: Mapping[str, Any]) -> Asked:
    request, silent = TesterPresent.make_request(), flag(args, "silent")
    understood = _understood(request, TesterPresent.interpret_response)

    def understand(payload: bytes) -> Mapping[str, Any]:
        _same("sub-function", understood(payload).subfunction_echo, 0)
        return {}

    return Asked(request.get_payload(suppress_positive_response=silent), understand, silent)


def _reset(args: Mapping[str, Any]) -> Asked:
    kind = _word(args, "reset", _RESETS, "hard")
    request = ECUReset.make_request(kind)
    understood = _understood(request, ECUReset.interpret_response)

    def understand(payload: bytes) -> Mapping[str, Any]:
        said = understood(payload)
        _same("reset", said.reset_type_echo, kind)
        return {"reset": kind, "powerdown_s": said.powerdown_time}

    return Asked(request.get_payload(), understand)


def _security(args: Mapping[str, Any]) -> Asked:
    level = number(args, "level", 1, 0x7E)
    data = hexadecimal(args, "data", "")
    if level % 2 == 0 and not data:
        raise Refused("malformed", "an even level sends a key: give it as data; an odd one asks for a seed")
    mode = SecurityAccess.Mode.RequestSeed if level % 2 else SecurityAccess.Mode.SendKey
    request = SecurityAccess.make_request(level, mode, data)
    understood = _understood(request, lambda response: SecurityAccess.interpret_response(response, mode))

    def understand(payload: bytes) -> Mapping[str, Any]:
        said = understood(payload)
        _same("level", said.security_level_echo, level)
        return {"level": level} if said.seed is None else {"level": level, "seed": said.seed.hex()}

    return Asked(request.get_payload(), understand)


def _routine(args: Mapping[str, Any]) -> Asked:
    routine, action = number(args, "routine", 0, 0xFFFF), _word(args, "action", _ROUTINE, "start")
    data = hexadecimal(args, "data", "")
    request = RoutineControl.make_request(routine, action, data or None)
    understood = _understood(request, RoutineControl.interpret_response)

    def understand(payload: bytes) -> Mapping[str, Any]:
        said = understood(payload)
        _same("routine", said.routine_id_echo, routine)
        _same("action", said.control_type_echo, action)
        return {"routine": f"0x{routine:04X}", "data": said.routine_status_record.hex()}

    return Asked(request.get_payload(), understand)


def _clear_dtc(args: Mapping[str, Any]) -> Asked:
    request = ClearDiagnosticInformation.make_request(number(args, "group", 0, 0xFFFFFF, 0xFFFFFF))
    understood = _understood(request, ClearDiagnosticInformation.interpret_response)

    def understand(payload: bytes) -> Mapping[str, Any]:
        understood(payload)
        return {}

    return Asked(request.get_payload(), understand)


def _read_dtc(args: Mapping[str, Any]) -> Asked:
    value = args.get("report", "by-status")
    if not isinstance(value, str) or value not in _REPORTS:
        raise Refused("malformed", f"report is one of {', '.join(_REPORTS)}")
    report = _REPORTS[value]
    mask = number(args, "status_mask", 0, 0xFF, 0xFF)
    if value == "supported" and "status_mask" in args:
        raise Refused("malformed", "status_mask does not go with report: supported")
    asked_mask = None if value == "supported" else mask
    request = ReadDTCInformation.make_request(report, status_mask=asked_mask)

    def interpret(response: Response) -> Any:
        return ReadDTCInformation.interpret_response(response, report, tolerate_zero_padding=True)

    understood = _understood(request, interpret)

    def understand(payload: bytes) -> Mapping[str, Any]:
        said = understood(payload)
        _same("report", said.subfunction_echo, report)
        if value == "count":
            return {"count": said.dtc_count}
        codes = [{"dtc": f"0x{dtc.id:06X}", "status": dtc.status.get_byte_as_int()} for dtc in said.dtcs]
        return {"count": len(codes), "dtcs": codes}

    return Asked(request.get_payload(), understand)


def _raw(args: Mapping[str, Any]) -> Asked:
    data = _data(args)
    if data[0] & 0x40:
        raise Refused(
            "malformed", f"0x{data[0]:02X} is no service that can be asked for: bit 6 marks answers"
        )
    return Asked(data, lambda payload: {"data": payload.hex()})


def _data(args: Mapping[str, Any]) -> bytes:
    data = hexadecimal(args, "data")
    if not 1 <= len(data) <= MESSAGE_MOST - 3:
        raise Refused("out-of-range", f"data has 1 to {MESSAGE_MOST - 3} bytes, not {len(data)}")
    return data


SERVICES: Mapping[str, Service] = {
    "read_data_by_identifier": Service(("did",), _read_data),
    "write_data_by_identifier": Service(("did", "data"), _write_data),
    "session": Service(("session",), _session),
    "tester_present": Service(("silent",), _tester_present),
    "ecu_reset": Service(("reset",), _reset),
    "security": Service(("level", "data"), _security),
    "routine": Service(("routine", "action", "data"), _routine),
    "clear_dtc": Service(("group",), _clear_dtc),
    "read_dtc": Service(("report", "status_mask"), _read_dtc),
    "raw": Service(("data",), _raw),
}
"""What `service` may be."""
