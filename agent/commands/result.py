"""What came of a command. Pure."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from agent import clock
from protocols.base import DriverError, Refused, Value
from protocols.timestamps import rfc3339

Status = Literal["ok", "rejected", "failed", "indeterminate"]


class Result(msgspec.Struct, frozen=True):
    """The body of a result (wire.md section 4)."""

    op: str
    status: Status
    code: str
    message: str
    data: Any
    received: str
    finished: str

    def encode(self) -> bytes:
        """The result as JSON."""
        return msgspec.json.encode(self)


class NotVerified(DriverError):
    """All values were written, and reading them back failed or gave others: `data` has what is known."""

    def __init__(self, cause: DriverError, written: Mapping[str, Value], back: Mapping[str, Value]) -> None:
        super().__init__(cause.code, str(cause), written)
        self.data = {"values": written, "read_back": back}


class NotSafe(DriverError):
    """Not every safe value was reached, or one reads back as something else: `data` is the safety event."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        bad = [one for one in said["points"] if not one["reached"] or one["verified"] is False]
        texts = [f"{one['device']}.{one['point']}: {one['reason']}" for one in bad]
        code: Literal["verify-mismatch", "device-error"] = (
            "verify-mismatch" if all(one["reached"] for one in bad) else "device-error"
        )
        super().__init__(code, f"not safe: {'; '.join(texts)}")
        self.data = said


def result(
    op: str, received_ns: int, status: Status, *, code: str = "", message: str = "", data: Any = None
) -> Result:
    """A result that is finished now."""
    return Result(op, status, code, message, data or {}, rfc3339(received_ns), rfc3339(clock.now_ns()))


def indeterminate(op: str, received_ns: int, message: str) -> Result:
    """The result of a command that may or may not have had effect."""
    return result(op, received_ns, "indeterminate", message=message)


def of_error(op: str, received_ns: int, error: Exception) -> Result:
    """The result of a command that ended with an error."""
    match error:
        case Refused():
            return result(op, received_ns, "rejected", code=error.code, message=str(error))
        case NotVerified() | NotSafe():
            return result(op, received_ns, "failed", code=error.code, message=str(error), data=error.data)
        case DriverError(written=written) if written:
            # What was written and then not seen to have effect was written whole.
            code = error.code if error.code == "verify-mismatch" else "partial"
            return result(op, received_ns, "failed", code=code, message=str(error), data={"values": written})
        case DriverError():
            return result(op, received_ns, "failed", code=error.code, message=str(error))
    message = f"internal error: {type(error).__name__}: {error}"
    return result(op, received_ns, "failed", code="device-error", message=message)
