"""What a device's exceptions mean to the one who asked. Pure."""

from typing import Literal

from protocols.base import DriverError
from protocols.modbus.pdu import ExceptionCode, MalformedAnswer, ModbusException

_WORDS: dict[int, str] = {
    ExceptionCode.ILLEGAL_FUNCTION: "it does not have this function",
    ExceptionCode.ILLEGAL_DATA_ADDRESS: "it has no such address, or not so many from there",
    ExceptionCode.ILLEGAL_DATA_VALUE: "it does not take this value or count",
    ExceptionCode.SERVER_DEVICE_FAILURE: "it failed while carrying the request out",
    ExceptionCode.ACKNOWLEDGE: "it took the request but is not done with it: the outcome is not known",
    ExceptionCode.SERVER_DEVICE_BUSY: "it is busy with something else: try again later",
    ExceptionCode.NEGATIVE_ACKNOWLEDGE: "it cannot carry the request out",
    ExceptionCode.MEMORY_PARITY_ERROR: "its memory failed a consistency check",
    ExceptionCode.GATEWAY_PATH_UNAVAILABLE: "the gateway has no path to it",
    ExceptionCode.GATEWAY_TARGET_FAILED_TO_RESPOND: "it does not answer the gateway",
}
# A gateway speaks for a device that it does not reach: that is no answer of the device's.
_CODES: dict[int, Literal["disconnected", "timeout"]] = {
    ExceptionCode.GATEWAY_PATH_UNAVAILABLE: "disconnected",
    ExceptionCode.GATEWAY_TARGET_FAILED_TO_RESPOND: "timeout",
}


def driver_error(who: str, error: ModbusException | MalformedAnswer) -> DriverError:
    """The failure that an answer stands for; `who` is the unit as people call it.

    `device-error`, but for gateways: exception 10 is `disconnected`, exception 11 is `timeout`.
    """
    if isinstance(error, MalformedAnswer):
        return DriverError("device-error", f"{who} gave a wrong answer: {error}")
    words = _WORDS.get(error.code)
    text = f"{who} answered function {error.function} with exception {error.code}"
    return DriverError(_CODES.get(error.code, "device-error"), f"{text}: {words}" if words else text)
