"""How a command that ended with an error is answered."""

import pytest

from agent.commands.result import of_error
from protocols.base import DriverError, Refused


@pytest.mark.parametrize(
    ("error", "status", "code", "data"),
    [
        (Refused("out-of-range", "too much"), "rejected", "out-of-range", {}),
        (DriverError("timeout", "no answer"), "failed", "timeout", {}),
        (DriverError("timeout", "no answer", {"a": 1}), "failed", "partial", {"values": {"a": 1}}),
        (
            DriverError("verify-mismatch", "it did not follow", {"a": 1}),
            "failed",
            "verify-mismatch",
            {"values": {"a": 1}},
        ),
        (ZeroDivisionError("a bug"), "failed", "device-error", {}),
    ],
)
def test_an_error_has_its_status_and_code(
    error: Exception, status: str, code: str, data: dict[str, object]
) -> None:
    result = of_error("write", 0, error)
    assert (result.status, result.code, result.data) == (status, code, data)
